"""max_pool2d is torch's: values, indices, gradients, NaN, layouts."""

import random

import pytest
import torch
import torch.nn.functional as F
from convlab.testing import POOLS, Pool, random_pool

import convlab.functional as CF

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def check(pool: Pool, device, dtype=torch.float32, change=lambda t: t, ties=False):
    values = torch.randint(-2, 3, pool.shape).to(dtype) if ties else torch.randn(pool.shape).to(dtype)
    x = change(values.to(device)).requires_grad_()
    exact = values.double().requires_grad_()
    y, indices = CF.max_pool2d(x, *pool[1:], return_indices=True)
    expected, expected_indices = F.max_pool2d(exact, *pool[1:], return_indices=True)
    assert torch.equal(y.cpu().double(), expected), pool
    assert torch.equal(indices.cpu(), expected_indices), pool
    assert torch.equal(CF.max_pool2d(x, *pool[1:]), y)
    with torch.no_grad():
        assert torch.equal(CF.max_pool2d(x, *pool[1:]), y)
    dy = torch.randint(-8, 9, expected.shape)  # small integers: sums are exact in every dtype
    (dx,) = torch.autograd.grad(y, x, change(dy.to(device, dtype)))
    (expected_dx,) = torch.autograd.grad(expected, exact, dy.double())
    assert torch.equal(dx.cpu().double(), expected_dx), pool


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_awkward_shapes(pool, dtype, device):
    check(pool, device, dtype)


@pytest.mark.parametrize("chunk", range(4))
def test_random_problems(chunk, device):
    rng = random.Random(chunk)
    for _ in range(100):
        check(random_pool(rng), device, rng.choice(DTYPES), ties=rng.random() < 0.5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_many_small_planes(ceil_mode, dtype, device):
    """The CPU's kernels read most of these where they lie."""
    for size in [(3, 3), (5, 4), (7, 5), (8, 8), (2, 9)]:
        for kernel_size, stride, padding in [(2, 2, 0), (2, 2, (1, 0)), ((3, 2), 2, 0), (2, (1, 2), 0), (3, 3, 1), (3, 2, 1)]:
            check(Pool((2, 131, *size), kernel_size, stride, padding, 1, ceil_mode), device, dtype)


def test_the_first_of_equals_wins(device):
    for pool in POOLS:
        check(pool, device, ties=True)


@pytest.mark.works_with("inputs and gradients that are not contiguous: slices, transposes, expanded")
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced"])
def test_layouts(layout, device):
    change = {
        "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": lambda t: torch.nn.functional.pad(t, (1, 1, 1, 0))[..., 1:, 1:-1],
    }[layout]
    for pool in POOLS:
        check(pool, device, change=change)


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
