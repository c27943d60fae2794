"""Thousands of random problems through the CUDA kernels on the host: forward, all gradients, every order."""

import random

import pytest
import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab.testing import check_conv, random_conv, random_pool

ORDERS = ("forward", "reverse", "random")
CHUNKS = 8  # pieces for the test processes to share
PLAIN, CHECKED = 1600, 320  # problems in all
LONGER = 10  # times as many in `make test-long`
DTYPES = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)


def convolution(rng):
    case = random_conv(rng)
    x, w, b = case.tensors(bias=rng.random() < 0.7)
    if rng.random() < 0.3:
        x = x.contiguous(memory_format=torch.channels_last)
    P, Q = F.conv2d(x, w, None, *case.arguments).shape[2:]
    check_conv(
        lambda *t: CF.conv2d(*t, *case.arguments), x, w, b, torch.randn(case.N, case.K, P, Q), case.arguments, str(case)
    )


def same_as_torch(ours, torchs, x, exact=True):
    a, b = x.detach().requires_grad_(), x.detach().double().requires_grad_()
    y, expected = ours(a), torchs(b)
    dy = torch.randint(-8, 9, expected.shape)
    (dx,), (expected_dx,) = torch.autograd.grad(y, a, dy.to(y.dtype)), torch.autograd.grad(expected, b, dy.double())
    eps = 0 if exact else 64 * torch.finfo(x.dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=eps, atol=eps)
    torch.testing.assert_close(dx.double(), expected_dx, rtol=eps, atol=eps)


def max_pooling(rng):
    pool = random_pool(rng)
    x = torch.randint(-9, 9, pool.shape).to(rng.choice(DTYPES)) if rng.random() < 0.5 else torch.randn(pool.shape)
    same_as_torch(lambda t: CF.max_pool2d(t, *pool[1:]), lambda t: F.max_pool2d(t, *pool[1:]), x)
    y, indices = CF.max_pool2d(x.requires_grad_(), *pool[1:], return_indices=True)
    assert torch.equal(indices, F.max_pool2d(x.double(), *pool[1:], return_indices=True)[1])
    assert torch.equal(
        gathered(y, x, gradient := torch.randn_like(x)), gradient.flatten(2).gather(2, indices.flatten(2)).view_as(y)
    )


def gathered(y, x, gradient):
    """What the derivative of max pooling's backward takes from a gradient of x: the elements that won."""
    dy = torch.zeros_like(y).requires_grad_()
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    return torch.autograd.grad(dx, dy, gradient)[0]


def max_pooling_beside_x(rng):
    """Windows whose taps all miss x, above and below it or left and right: their maximum is that of nothing, and no
    gradient passes."""
    down = rng.random() < 0.5
    kernel, padding, dilation = ((2, 1), (1, 0), (3, 1)) if down else ((1, 2), (0, 1), (1, 3))
    x = torch.randn(1, 2, 2, 2, requires_grad=True)
    y = CF.max_pool2d(x, kernel, 1, padding, dilation)
    assert torch.equal(y, torch.full((1, 2, 1, 2) if down else (1, 2, 2, 1), -torch.inf))
    assert not gathered(y, x, torch.randn_like(x)).any() and not torch.autograd.grad(y.sum(), x)[0].any()


def average_pooling(rng):
    kernel = (rng.randint(1, 5), rng.randint(1, 5))
    padding = tuple(rng.randint(0, k // 2) for k in kernel)
    size = tuple(rng.randint(max(1, k - 2 * p), 17) for k, p in zip(kernel, padding))
    arguments = (
        kernel,
        (rng.randint(1, 4), rng.randint(1, 4)),
        padding,
        rng.random() < 0.5,
        rng.random() < 0.5,
        rng.choice([None, 3]),
    )
    x = torch.randn(rng.randint(1, 3), rng.randint(1, 4), *size)
    same_as_torch(lambda t: CF.avg_pool2d(t, *arguments), lambda t: F.avg_pool2d(t, *arguments), x, exact=False)


def activation(rng):
    slope, start = rng.choice([0.0, 0.25, -0.5]), rng.randint(0, 9)
    x = torch.randint(-2, 3, (start + rng.randint(0, 3000),)).to(rng.choice(DTYPES))[
        start:
    ]  # exact in every dtype, and often 0
    if rng.random() < 0.5:
        same_as_torch(CF.relu, F.relu, x)
    else:
        same_as_torch(lambda t: CF.leaky_relu(t, slope), lambda t: F.leaky_relu(t, slope), x)


POOLINGS_AND_ACTIVATIONS = [max_pooling, max_pooling_beside_x, average_pooling, activation]
ALL = [convolution, convolution, *POOLINGS_AND_ACTIVATIONS]


def run_problems(seed, count, check, kinds=ALL):
    rng = random.Random(seed)
    for i in range(count):
        mode = dict(order=ORDERS[i % 3], seed=rng.randrange(2**32), check=check)
        try:
            with convlab.simulate(**mode):
                rng.choice(kinds)(rng)
        except Exception as error:
            raise AssertionError(f"problem {i} of seed {seed} under simulate({mode})") from error


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_plain(chunk):
    run_problems(chunk, PLAIN // CHUNKS, check=False)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_checked(chunk):
    run_problems(1000 + chunk, CHECKED // CHUNKS, check=True)


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(LONGER * CHUNKS))
def test_many(chunk):
    run_problems(10_000 + chunk, PLAIN // CHUNKS, check=False)
    run_problems(20_000 + chunk, CHECKED // CHUNKS, check=True)
