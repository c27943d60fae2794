"""avg_pool2d is torch's: values, gradients of both orders, layouts, errors."""

import pytest
import torch
import torch.nn.functional as F

import convlab.functional as CF
from convlab.testing import DTYPES, AvgPool, check_avg_pool2d


def test_awkward_shapes(device):
    """convlab.testing's checks of values and gradients, in every dtype and layout."""
    check_avg_pool2d(CF.avg_pool2d, random_cases=200, dtypes=DTYPES[:1], gradients=True, device=device)
    check_avg_pool2d(CF.avg_pool2d, dtypes=DTYPES[1:], gradients=True, device=device)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_many_small_planes(ceil_mode, device):
    """The CPU kernels read most of these in place."""
    windows = [(2, 2, 0), (2, 2, (1, 0)), ((3, 2), 2, 0), (2, (1, 2), 0), (3, 3, 1), (3, 2, 1)]
    pools = [
        AvgPool((2, 131, *size), *window, ceil_mode, False)
        for size in [(3, 3), (5, 4), (7, 5), (8, 8), (3, 9)]
        for window in windows
    ]
    check_avg_pool2d(CF.avg_pool2d, cases=pools, random_cases=0, layouts=["contiguous"], device=device)


@pytest.mark.parametrize("padding", [0, 1])
def test_windows_side_by_side_of_rows(padding, device):
    """Windows of two and four columns whose outputs fill a vector"""
    pools = [
        AvgPool((2, 3, 5, width), (rows, columns), (2, columns), (padding, 0), False, True)
        for rows in (2, 3)
        for columns in (2, 4)
        for width in (32 * columns, 33 * columns + 3, 70)
    ]
    check_avg_pool2d(CF.avg_pool2d, cases=pools, random_cases=0, dtypes=DTYPES, layouts=["contiguous"], device=device)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_windows_side_by_side(rows, device):
    """Gradients that are repeated: rows that are no multiple of a vector, some rows and columns of x uncovered, few planes
    of many rows, which threads share, and many planes"""
    pools = [
        AvgPool((planes, 1, height, width), (rows, columns), (rows, columns), 0, False, True)
        for columns in (2, 4, 5)
        for planes, height, width in (
            (1, 19 * rows, 5 * columns),
            (2, 20 * rows - 1, 17 * columns),
            (37, 2 * rows, 5 * columns + 1),
        )
    ]
    check_avg_pool2d(CF.avg_pool2d, cases=pools, random_cases=0, dtypes=DTYPES, layouts=["contiguous"], device=device)


@pytest.mark.parametrize(
    "size, outputs",
    [
        ((13, 13), (6, 6)),
        ((3, 7), (2, 4)),
        ((1, 250), (1, 16)),
        ((5, 250), (2, 16)),
        ((1, 19), (1, 2)),
        ((3, 4), (5, 7)),
    ],
)
def test_adaptive_windows_that_differ(size, outputs, device):
    """Of planes, 19 of them: two vectors and a part of one"""
    for dtype, tolerance in zip(DTYPES, (1e-5, 1e-12, 4e-3, 3e-2)):
        x = torch.randn(1, 19, *size, device=device, dtype=dtype, requires_grad=True)
        exact = x.detach().cpu().double().requires_grad_()
        y, expected = CF.adaptive_avg_pool2d(x, outputs), F.adaptive_avg_pool2d(exact, outputs)
        dy = torch.randn_like(y)
        (dx,), (expected_dx,) = (
            torch.autograd.grad(y, x, dy),
            torch.autograd.grad(expected, exact, dy.cpu().double()),
        )
        torch.testing.assert_close(y.cpu().double(), expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(dx.cpu().double(), expected_dx, rtol=tolerance, atol=tolerance)


def test_layouts(device):
    x = torch.randn(2, 5, 8, 6, device=device)
    for view in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3), x[:, ::2, 1:]):
        view = view.detach().requires_grad_()
        y, expected = CF.avg_pool2d(view, 3, 2, 1), F.avg_pool2d(view, 3, 2, 1)
        torch.testing.assert_close(y, expected)
        assert y.stride() == expected.stride()
        on_cpu = F.avg_pool2d(view.cpu(), 3, 2, 1)  # torch 2.11 on CUDA is wrong here: tests/calls.py
        (dx,), (expected_dx,) = torch.autograd.grad(y.sum(), view), torch.autograd.grad(on_cpu.sum(), view)
        torch.testing.assert_close(dx, expected_dx)
    assert torch.equal(CF.avg_pool2d(x[0], 2), CF.avg_pool2d(x, 2)[0])


def test_gradients_of_gradients(device):
    x = torch.randn(2, 2, 6, 5, device=device, dtype=torch.float64, requires_grad=True)
    for pool in [(2,), (3, 2, 1, True), ((2, 3), 1, (1, 1), False, False), (3, 2, 1, True, True, 5)]:
        assert torch.autograd.gradcheck(lambda t: CF.avg_pool2d(t, *pool), x)
        assert torch.autograd.gradgradcheck(lambda t: CF.avg_pool2d(t, *pool), x)


def test_compile(device):
    x = torch.randn(2, 3, 9, 8, device=device, requires_grad=True)
    compiled = torch.compile(lambda t: CF.avg_pool2d(t, 3, 2, 1, ceil_mode=True), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), F.avg_pool2d(x, 3, 2, 1, ceil_mode=True))
    (dx,), (expected,) = (
        torch.autograd.grad(compiled(x).sum(), x),
        torch.autograd.grad(F.avg_pool2d(x, 3, 2, 1, ceil_mode=True).sum(), x),
    )
    torch.testing.assert_close(dx, expected)


def test_errors():
    x = torch.randn(1, 1, 4, 4)
    for arguments, message in [
        ((2, None, 2), "padding"),
        ((7,), "window"),
        ((2, None, 0, False, True, 0), "divisor_override"),
        ((2, 0), "stride"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            CF.avg_pool2d(x, *arguments)
    with pytest.raises(NotImplementedError, match="int32"):
        CF.avg_pool2d(x.int(), 2)
    with pytest.raises(TypeError, match="kernel_size"):
        CF.avg_pool2d(x, "2")
    with pytest.raises(TypeError, match="divisor_override"):
        CF.avg_pool2d(x, 2, divisor_override=2.5)
