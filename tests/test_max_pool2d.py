"""max_pool2d is torch's: values, indices, gradients, NaN, layouts."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import convlab.functional as CF
from convlab.testing import DTYPES, POOLS, Pool, check_max_pool2d


@pytest.mark.works_with("inputs and gradients that are not contiguous: slices, transposes, expanded")
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_awkward_shapes(pool, device):
    """In every dtype and layout, with ties, with and without indices and gradients: what convlab.testing looks at."""
    check_max_pool2d(
        lambda *t: CF.max_pool2d(*t, return_indices=True),
        cases=[pool],
        random_cases=0,
        dtypes=DTYPES,
        indices=True,
        gradients=True,
        device=device,
    )
    check_max_pool2d(CF.max_pool2d, cases=[pool], random_cases=0, device=device)
    check_max_pool2d(CF.max_pool2d, cases=[pool], random_cases=0, gradients=False, device=device)


@pytest.mark.parametrize("chunk", range(4))
def test_random_problems(chunk, device):
    def with_indices(*t):
        return CF.max_pool2d(*t, return_indices=True)

    check_max_pool2d(
        with_indices, cases=[], random_cases=50, seed=chunk, dtypes=[DTYPES[chunk]], indices=True, device=device
    )


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_many_small_planes(ceil_mode, device):
    """The CPU's kernels read most of these where they lie."""
    windows = [(2, 2, 0), (2, 2, (1, 0)), ((3, 2), 2, 0), (2, (1, 2), 0), (3, 3, 1), (3, 2, 1)]
    pools = [
        Pool((2, 131, *size), *window, 1, ceil_mode)
        for size in [(3, 3), (5, 4), (7, 5), (8, 8), (3, 9)]
        for window in windows
    ]
    check_max_pool2d(CF.max_pool2d, cases=pools, random_cases=0, dtypes=DTYPES, layouts=["contiguous"], device=device)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_windows_of_one_row(stride, device):
    """Gradients of rows, where windows have gaps, touch and overlap, and some reach past either end of a row."""
    windows = [(1, 0), (2, 1), (3, 1), (4, 2), (4, 0), (7, 3), (4 * stride, 2 * stride)]
    pools = [
        Pool((2, 3, 2, width), (1, kernel), (1, stride), (0, padding), 1, ceil_mode)
        for width in (33, 70, 131)
        for kernel, padding in windows
        if 2 * padding <= kernel
        for ceil_mode in (False, True)
    ]
    check_max_pool2d(CF.max_pool2d, cases=pools, random_cases=0, dtypes=DTYPES, layouts=["contiguous"], device=device)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_windows_that_do_not_overlap(channels, device):
    """Rows shorter than a vector, and few channels side by side; windows with gaps and padding, rows of x in none"""
    pools = [
        Pool((5, channels, height, width), window, stride, padding, 1, ceil_mode)
        for height, width in ((4, 4), (8, 8), (7, 15), (14, 14))
        for window, stride, padding in ((2, 2, 0), ((1, 3), (2, 3), 0), ((2, 3), (3, 4), 1), ((3, 1), 3, (1, 0)))
        for ceil_mode in (False, True)
    ]
    gaps = Pool((8, channels, 40, 100), (1, 16), (17, 17))  # taps below the windows have larger numbers than a byte
    check_max_pool2d(CF.max_pool2d, cases=[*pools, gaps], random_cases=0, dtypes=DTYPES, device=device)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_windows_side_by_side_of_rows(rows, device):
    """Windows of two and four columns whose outputs fill a vector; some leave rows and columns of x uncovered, and a
    plane of long rows is shared among threads."""
    pools = [
        Pool((planes, 1, height, width), (rows, columns), (rows, columns))
        for columns in (2, 4)
        for planes, height, width in (
            (6, 2 * rows, 32 * columns),
            (6, 3 * rows + 1, 34 * columns - 1),
            (1, 3 * rows, 301 * columns - 1),
        )
    ]
    check_max_pool2d(CF.max_pool2d, cases=pools, random_cases=0, dtypes=DTYPES, layouts=["contiguous"], device=device)


def test_gradients_of_whole_planes(device):
    """So many that they are cleared in several parts"""
    pools = [Pool((2, 450, 9, 9), 9), Pool((1, 3, 2, 9), (2, 9))]
    check_max_pool2d(CF.max_pool2d, cases=pools, random_cases=0, layouts=["contiguous"], device=device)


@pytest.mark.parametrize(
    "size, window", [((14, 14), 2), ((5, 13), 2), ((7, 7), 7), ((1, 125), (1, 125)), ((17, 16), (17, 16))]
)
def test_ties_nan_and_infinity_in_small_planes(size, window, device):
    """One window of a whole plane, and rows of fewer windows than a vector has lanes"""
    x = torch.randint(-1, 2, (3, 7, *size), device=device).float()
    x[1] = torch.where(torch.rand(7, *size, device=device) < 0.2, torch.nan, x[1])
    x[2] = torch.where(torch.rand(7, *size, device=device) < 0.9, -torch.inf, x[2])
    x[2, 0] = -torch.inf
    for dtype in DTYPES:
        y, indices = CF.max_pool2d(x.to(dtype), window, return_indices=True)
        expected, expected_indices = F.max_pool2d(x.to(dtype), window, return_indices=True)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(indices, expected_indices)
        torch.testing.assert_close(CF.max_pool2d(x.to(dtype), window), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("ignore:max_unpooling2d")
@pytest.mark.parametrize("channels", [1, 5, 70])
def test_unpooling_reads_either_layout(channels, device):
    layouts = (torch.contiguous_format, torch.channels_last)
    drawn = torch.randn(2, channels, 6, 10, device=device)
    for x_layout, indices_layout, dy_layout in itertools.product(layouts, repeat=3):
        x, indices = F.max_pool2d(drawn, 2, return_indices=True)
        x = x.contiguous(memory_format=x_layout).requires_grad_()
        indices = indices.contiguous(memory_format=indices_layout)
        y, expected = (f.max_unpool2d(x, indices, 2) for f in (CF, F))
        dy = torch.randn_like(drawn).contiguous(memory_format=dy_layout)
        (dx,), (expected_dx,) = (torch.autograd.grad(out, x, dy) for out in (y, expected))
        assert torch.equal(y, expected) and torch.equal(dx, expected_dx)


def test_channels_last_in_channels_last_out(device):
    x = torch.randn(2, 5, 8, 8, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    y, indices = CF.max_pool2d(x, 2, return_indices=True)
    expected, expected_indices = F.max_pool2d(x, 2, return_indices=True)
    assert y.stride() == expected.stride() and indices.stride() == expected_indices.stride()
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert dx.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.works_with("inputs and gradients that are not contiguous: slices, transposes, expanded")
def test_expanded_gradient(device):
    x = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    (dx,) = torch.autograd.grad(CF.max_pool2d(x, 2).sum(), x)
    (expected,) = torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)
    assert torch.equal(dx, expected)


def test_nan_and_infinity(device):
    x = torch.randn(2, 3, 9, 9, device=device)
    x[0, 0, 2, 3] = x[1, 2, 8, 8] = float("nan")
    x[0, 1] = float("-inf")
    x[1, 0, 4, 4] = float("inf")
    for pool in [(3, 2, 1), (2,), (3, 1, 1, 2)]:
        y, indices = CF.max_pool2d(x, *pool, return_indices=True)
        expected, expected_indices = F.max_pool2d(x, *pool, return_indices=True)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(indices, expected_indices)


def test_unbatched_and_forms_of_arguments(device):
    x = torch.randn(3, 9, 8, device=device)
    assert torch.equal(CF.max_pool2d(x, [3], (), 1), F.max_pool2d(x, [3], (), 1))
    y, indices = CF.max_pool2d(x, (2, 3), stride=2, return_indices=True)
    expected, expected_indices = F.max_pool2d(x, (2, 3), stride=2, return_indices=True)
    assert torch.equal(y, expected) and torch.equal(indices, expected_indices)


def test_winners_take_one_byte(device):
    """What is kept for backward is a byte an output, not torch's eight."""
    x = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        CF.max_pool2d(x, 2)
    assert [(t.dtype, t.shape) for t in saved] == [(torch.uint8, (2, 3, 4, 4))]
