"""Thousands of random problems through the CUDA kernels on the host: forward, all gradients, every order."""

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from test_conv2d_block import check_rounded_ties

import convlab
import convlab.functional as CF
from convlab import ops
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


def same_as_torch(ours, torchs, *tensors, exact=True):
    a, b = [t.detach().requires_grad_() for t in tensors], [t.detach().double().requires_grad_() for t in tensors]
    y, expected = ours(*a), torchs(*b)
    dy = torch.randint(-8, 9, expected.shape)
    gradients, expected_gradients = (
        torch.autograd.grad(y, a, dy.to(y.dtype)),
        torch.autograd.grad(expected, b, dy.double()),
    )
    eps = 0 if exact else 64 * torch.finfo(y.dtype).eps
    for value, should_be in zip((y, *gradients), (expected, *expected_gradients)):
        torch.testing.assert_close(value.double(), should_be, rtol=eps, atol=eps)


def integers(rng, *shape, low=-4, high=4):
    """Exact in every dtype, and with many ties"""
    return torch.randint(low, high + 1, shape).to(rng.choice(DTYPES))


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


def max_pooling_of_many_taps(rng):
    """More than 256: a byte does not say which has won."""
    kernel = (rng.randint(16, 18), rng.randint(17, 19))
    x = torch.randn(1, rng.choice([1, 3, 4]), rng.randint(18, 21), rng.randint(19, 21))
    if rng.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    arguments = (kernel, rng.randint(2, 3), rng.randint(0, 2))
    same_as_torch(lambda t: CF.max_pool2d(t, *arguments), lambda t: F.max_pool2d(t, *arguments), x)


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


def shared_pooling(rng):
    """Windows of which a thread makes several, side by side in a row or of channels side by side."""
    kernel, stride, padding = rng.choice(
        [(2, 2, 0), (3, 2, 1), (3, 2, 1), (rng.randint(1, 4), rng.randint(1, 3), rng.choice([0, 0, 1]))]
    )
    padding = min(padding, kernel // 2)
    width = rng.choice([4, 8, 9, 12, 12, 16, 17, 24, 24, rng.randint(4, 19)])  # of 12 and 24, warps begin within a row
    size = (rng.randint(4, 19), width)
    x = integers(rng, rng.randint(1, 3), rng.choice([1, 3, 4, 8, 16]), *size, low=-9, high=9)
    if rng.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    arguments = (kernel, stride, padding)
    maximum, average = (*arguments, 1, rng.random() < 0.5), (*arguments, rng.random() < 0.5, rng.random() < 0.5)
    same_as_torch(lambda t: CF.max_pool2d(t, *maximum), lambda t: F.max_pool2d(t, *maximum), x, exact=False)
    same_as_torch(lambda t: CF.avg_pool2d(t, *average), lambda t: F.avg_pool2d(t, *average), x, exact=False)


def max_pooling_of_nan(rng):
    """NaN beats everything, and of several the last one wins. 16 bits have code of their own for it."""
    size = rng.randint(4, 19), rng.choice([8, 16, 24, 24, 2 * rng.randint(2, 9) + 1])
    x = integers(rng, rng.randint(1, 3), rng.choice([1, 8, 16]), *size).to(rng.choice(DTYPES[-2:]))
    x = torch.where(torch.rand(x.shape) < 0.2, torch.nan, x)
    if rng.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    arguments = rng.choice([(3, 2, 1), (3, 2, 1), (2, 2, 0)])
    y, indices = CF.max_pool2d(x, *arguments, return_indices=True)
    expected, winners = F.max_pool2d(x.double(), *arguments, return_indices=True)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(indices, winners)


def adaptive_pooling(rng):
    size = (rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 13), rng.randint(1, 13))
    x, outputs = integers(rng, *size, low=-9, high=9), (rng.randint(1, 15), rng.randint(1, 15))
    for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        ours, torchs = getattr(CF, name), getattr(F, name)
        same_as_torch(lambda t: ours(t, outputs), lambda t: torchs(t, outputs), x, exact=False)
    indices = CF.adaptive_max_pool2d(x, outputs, return_indices=True)[1]
    assert torch.equal(indices, F.adaptive_max_pool2d(x.double(), outputs, return_indices=True)[1])


def layout(rng):
    """Operators whose kernels take NCHW alone, of tensors that lie channels_last: there and back, by tiles and their edges"""
    x = integers(rng, rng.randint(1, 2), rng.randint(1, 70), rng.randint(2, 9), rng.randint(2, 12))
    x, outputs = x.contiguous(memory_format=torch.channels_last), (rng.randint(1, 9), rng.randint(2, 12))
    same_as_torch(lambda t: CF.adaptive_max_pool2d(t, outputs), lambda t: F.adaptive_max_pool2d(t, outputs), x)


def unpooling(rng):
    """Indices that name a position twice, or none: the last counts."""
    x = integers(rng, rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 5), rng.randint(1, 5)).requires_grad_()
    height, width = x.shape[2] * 2, x.shape[3] * 3
    indices = torch.randint(-1, height * width + 1, x.shape)
    y = CF.max_unpool2d(x, indices, (2, 3))
    gradient = torch.randint(-8, 9, y.shape).to(y.dtype)
    (dx,) = torch.autograd.grad(y, x, gradient)
    expected, expected_dx = torch.zeros_like(y), torch.zeros_like(x)
    for n, c, p, q in itertools.product(*map(range, x.shape)):
        if 0 <= (at := int(indices[n, c, p, q])) < height * width:
            expected[n, c, at // width, at % width] = x.detach()[n, c, p, q]
            expected_dx[n, c, p, q] = gradient[n, c, at // width, at % width]
    assert torch.equal(y, expected) and torch.equal(dx, expected_dx)


def block(rng):
    groups, kernel = rng.choice([1, 2]), (rng.randint(1, 3), rng.randint(1, 3))
    x = integers(rng, rng.randint(1, 2), groups * rng.randint(1, 2), rng.randint(5, 11), rng.randint(5, 11))
    if rng.random() < 0.3:
        x = x.contiguous(memory_format=torch.channels_last)
    w = integers(rng, groups * rng.randint(1, 2), x.shape[1] // groups, *kernel, low=-2, high=2).to(x.dtype)
    kind, pool = rng.choice([None, "relu", "leaky_relu", "relu6"]), rng.choice([None, 2, (3, 2), (1, 3), (2, 1)])

    def layers(x, w):
        y = F.conv2d(x, w, None, 1, 0, 1, groups)
        y = F.leaky_relu(y, 0.25) if kind == "leaky_relu" else getattr(F, kind)(y) if kind else y
        return F.max_pool2d(y, pool) if pool else y

    same_as_torch(
        lambda x, w: CF.conv2d_block(x, w, groups=groups, activation=kind, negative_slope=0.25, pool=pool),
        layers,
        x,
        w,
        exact=False,
    )


def block_of_ties(rng):
    check_rounded_ties(rng.choice(DTYPES[-2:]))


def activation(rng):
    slope, start = rng.choice([0.0, 0.25, -0.5]), rng.randint(0, 9)
    x = integers(rng, start + rng.randint(0, 3000), low=-2, high=7)[start:]  # often 0
    kind = rng.choice(["relu", "relu6", "leaky_relu"])
    arguments = (slope,) if kind == "leaky_relu" else ()
    same_as_torch(lambda t: getattr(CF, kind)(t, *arguments), lambda t: getattr(F, kind)(t, *arguments), x)


def prelu(rng):
    shape = (rng.randint(1, 4), rng.choice([1, 2, 5, 40]), *rng.choice([(), (3,), (7, 9), (70, 70)]))
    x = integers(rng, *(shape if math.prod(shape) < 20000 else (2, 2, 70, 70)), low=-2, high=2)
    if x.dim() == 4 and rng.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    w = (integers(rng, rng.choice([1, x.shape[1]])) / 4).to(x.dtype)
    same_as_torch(CF.prelu, F.prelu, x, w, exact=False)
    dy, t = torch.randint_like(x, -4, 5), torch.randint_like(x, -4, 5)  # as second derivatives have them: t is not x
    of_channels = (dy * t * (x <= 0)).double().transpose(0, 1).reshape(len(w), -1)
    eps = 64 * torch.finfo(x.dtype).eps
    torch.testing.assert_close(ops.prelu_wgrad(dy, t, x, len(w)).double(), of_channels.sum(1), rtol=eps, atol=eps)


# Those that launch the kernels of each file, and of no other
KINDS = {
    "max_pool2d": [max_pooling, max_pooling_beside_x, max_pooling_of_many_taps, max_pooling_of_nan, shared_pooling],
    "avg_pool2d": [average_pooling, shared_pooling],
    "adaptive_pool2d": [adaptive_pooling],
    "max_unpool2d": [unpooling],
    "conv2d_block": [block, block_of_ties],
    "layout": [layout],
    "leaky_relu": [activation],
    "prelu": [prelu],
}
ALL = [convolution, *dict.fromkeys(kind for kinds in KINDS.values() for kind in kinds)]


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
