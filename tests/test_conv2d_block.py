"""conv2d_block is conv2d, an activation and max pooling: the same bits, and gradients equal to the order of sums."""

import contextlib
import random

import pytest
import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF


def three_layers(x, w, b=None, *geometry, activation=None, negative_slope=0.01, pool=None, algo="auto"):
    """What conv2d_block promises to be"""
    y = CF.conv2d(x, w, b, *geometry, algo=algo)
    if activation == "leaky_relu":
        y = CF.leaky_relu(y, negative_slope)
    elif activation:
        y = getattr(CF, activation)(y)
    return y if pool is None else CF.max_pool2d(y, pool)


ENDS = [
    {"activation": activation, "negative_slope": slope, "pool": pool}
    for activation, slope in ((None, 0.01), ("relu", 0.01), ("leaky_relu", 0.1), ("leaky_relu", -1.5), ("relu6", 0.01))
    for pool in (None, 2, (3, 2))
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(map(str, end.values())))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bits_are_those_of_the_layers(end, layout):
    x = torch.randn(2, 6, 13, 11).contiguous(memory_format=layout)
    w, b = torch.randn(10, 3, 3, 3), torch.randn(10)
    y, expected = (f(x, w, b, 1, 1, 1, 2, **end) for f in (CF.conv2d_block, three_layers))
    assert y.stride() == expected.stride()
    assert torch.equal(y, expected)


def test_errors_name_the_argument():
    x, w = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3)
    with pytest.raises(ValueError, match=r"activation='gelu' must be None, 'relu', 'leaky_relu' or 'relu6'"):
        CF.conv2d_block(x, w, activation="gelu")
    with pytest.raises(RuntimeError, match=r"pool=0 must be None, or a window of at least 1 x 1"):
        CF.conv2d_block(x, w, pool=0)
    with pytest.raises(TypeError, match=r"pool must be an int or a tuple of ints, got 'max'"):
        CF.conv2d_block(x, w, pool="max")
    with pytest.raises(TypeError, match=r"negative_slope must be a number, got 'a'"):
        CF.conv2d_block(x, w, activation="leaky_relu", negative_slope="a")
    with pytest.raises(RuntimeError, match=r"the window covers 7"):
        CF.conv2d_block(x, w, pool=7)


def gradients(function, tensors, end):
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    y = function(*leaves, 1, 1, 1, 2, **end)
    torch.manual_seed(3)
    return torch.autograd.grad(y, leaves, torch.randn(y.shape, dtype=y.dtype))


@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(map(str, end.values())))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients(end, layout):
    x = torch.randn(2, 6, 13, 11, dtype=torch.float64).contiguous(memory_format=layout)
    w, b = torch.randn(10, 3, 3, 3, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    for ours, theirs in zip(gradients(CF.conv2d_block, (x, w, b), end), gradients(three_layers, (x, w, b), end)):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize(
    "end",
    [pytest.param(end, marks=[] if i in (1, 4, 8, 13) else pytest.mark.long) for i, end in enumerate(ENDS)],
    ids=lambda end: "-".join(map(str, end.values())),
)
def test_gradcheck_of_two_orders(end):
    x, w, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((1, 2, 6, 5), (2, 1, 2, 2), (2,)))

    def block(x, w, b):
        return CF.conv2d_block(x, w, b, 1, 1, 1, 2, **end)

    assert torch.autograd.gradcheck(block, (x, w, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(block, (x, w, b))


def same_bits(a, b):
    return (
        a.shape == b.shape
        and torch.equal(torch.isnan(a), torch.isnan(b))
        and torch.equal(a.nan_to_num(), b.nan_to_num())
    )


def random_problem(rng):
    groups, batch = rng.choice([1, 1, 2, 3]), rng.choice([1, 2, 9])
    channels, filters = groups * rng.choice([1, 3, 6, 17]), groups * rng.choice([1, 3, 8, 17, 40])
    depthwise = rng.random() < 0.2
    if depthwise:
        groups = channels = filters = rng.choice([5, 17, 40])
    kernel, size = rng.choice([(1, 1), (3, 3), (5, 5), (3, 2)]), (rng.randint(9, 36), rng.randint(9, 36))
    x, w = torch.randn(batch, channels, *size), torch.randn(filters, channels // groups, *kernel)
    if rng.random() < 0.3:  # ties
        x, w = x.round(), w.round()
    if rng.random() < 0.2:
        x.view(-1)[torch.randint(x.numel(), (3,))] = rng.choice([float("nan"), float("inf"), -float("inf")])
    if rng.random() < 0.4:
        x = x.contiguous(memory_format=torch.channels_last)
    slopes = [(None, 0.01), ("relu", 0.01), ("relu6", 0.01), ("leaky_relu", 0.1), ("leaky_relu", -2.0)]
    activation, slope = rng.choice(slopes)
    end = {
        "activation": activation,
        "negative_slope": slope,
        "pool": rng.choice([None, None, None, 2, 2, 3, (3, 2), (1, 2), (2, 1)]),
    }
    bias, stride = rng.choice([None, torch.randn(filters)]), rng.choice([1, 1, 2])
    others = ["depthwise"] if depthwise else []
    others += ["winograd_2x2", "winograd_4x4"] if kernel == (3, 3) and stride == 1 else []
    end["algo"] = rng.choice(["auto", "direct", "register_tiled", *others])
    return (x, w, bias, stride, rng.choice([0, 1]), 1, groups), end


def check_random_problems(count, seed):
    torch.manual_seed(seed)
    rng = random.Random(seed)
    for _ in range(count):
        (x, w, *others), end = random_problem(rng)
        shown = f"{tuple(x.shape)} {x.stride()} {tuple(w.shape)} {others[1:]} {end}"
        x.requires_grad_(), w.requires_grad_()
        ours, expected = (f(x, w, *others, **end) for f in (CF.conv2d_block, three_layers))
        assert same_bits(ours, expected), shown
        assert same_bits(CF.conv2d_block(x.detach(), w.detach(), *others, **end), expected), shown
        dy = torch.randn_like(expected)
        for a, b in zip(torch.autograd.grad(ours, (x, w), dy), torch.autograd.grad(expected, (x, w), dy)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True, msg=lambda m: f"{shown}: {m}")


def test_random_problems():
    check_random_problems(60, seed=0)


@pytest.mark.long
def test_a_thousand_random_problems():
    check_random_problems(1000, seed=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_types(dtype):
    x, w, b = torch.randn(2, 8, 12, 9, dtype=dtype), torch.randn(20, 8, 3, 3, dtype=dtype), torch.randn(20, dtype=dtype)
    for end in ENDS:
        assert same_bits(CF.conv2d_block(x, w, b, 1, 1, **end), three_layers(x, w, b, 1, 1, **end)), end


def check_rounded_ties(dtype):
    """Elements that the slope makes equal in 16 bits: the first of them wins, as in three layers."""
    x = -1.75 - torch.finfo(dtype).eps * torch.randint(4, (1, 2, 6, 8)).to(dtype)
    x, w = x.requires_grad_(), torch.ones(2, 1, 1, 1, dtype=dtype)
    ours = CF.conv2d_block(x, w, groups=2, activation="leaky_relu", negative_slope=0.33, pool=2)
    expected = F.max_pool2d(F.leaky_relu(x, 0.33), 2)
    dy = torch.randn_like(ours)
    assert torch.equal(ours, expected)
    assert torch.equal(torch.autograd.grad(ours, x, dy)[0], torch.autograd.grad(expected, x, dy)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("simulated", [False, True])
def test_rounded_ties(dtype, simulated):
    with convlab.simulate() if simulated else contextlib.nullcontext():
        check_rounded_ties(dtype)


def test_no_activation_of_full_size_is_saved():
    x, w, b = (torch.randn(*s, requires_grad=True) for s in ((4, 8, 16, 16), (16, 8, 3, 3), (16,)))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = CF.conv2d_block(x, w, b, 1, 1, activation="leaky_relu", pool=2)
    assert {(t.dtype, tuple(t.shape)) for t in saved} == {
        (x.dtype, tuple(x.shape)),
        (w.dtype, tuple(w.shape)),
        (torch.uint8, tuple(y.shape)),
    }


def test_simulated():
    """The CUDA kernels have the bits of the three layers there, too, and their gradients."""
    x, w, b = (torch.randn(*s, requires_grad=True) for s in ((2, 3, 11, 9), (5, 3, 3, 3), (5,)))
    for end in ENDS[::2]:
        with convlab.simulate():
            ours, expected = (f(x, w, b, 1, 1, **end) for f in (CF.conv2d_block, three_layers))
            assert same_bits(ours, expected), end
            dy = torch.randn_like(expected)
            for a, c in zip(torch.autograd.grad(ours, (x, w, b), dy), torch.autograd.grad(expected, (x, w, b), dy)):
                torch.testing.assert_close(a, c)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_compiled(activation):
    x, w, b = (torch.randn(*s, requires_grad=True) for s in ((2, 3, 11, 9), (5, 3, 3, 3), (5,)))

    def block(x, w, b):
        return CF.conv2d_block(x, w, b, activation=activation, pool=2)

    eager, compiled = (f(x, w, b) for f in (block, torch.compile(block, fullgraph=True, backend="aot_eager")))
    assert torch.equal(eager, compiled)
    dy = torch.randn_like(eager)
    for a, c in zip(torch.autograd.grad(eager, (x, w, b), dy), torch.autograd.grad(compiled, (x, w, b), dy)):
        torch.testing.assert_close(a, c)


@pytest.mark.parametrize("algo", ["tensor_core", {"dgrad": "tensor_core", "wgrad": "tensor_core"}], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_rung_that_takes_tensors_as_they_lie(algo, layout):
    x = torch.randn(2, 8, 11, 9).to(memory_format=layout).requires_grad_()
    w, b = torch.randn(8, 8, 3, 3).to(memory_format=layout).requires_grad_(), torch.randn(8, requires_grad=True)
    with convlab.simulate():
        block = CF.conv2d_block(x, w, b, padding=1, activation="relu", pool=2, algo=algo)
        layers = CF.max_pool2d(CF.relu(CF.conv2d(x, w, b, padding=1, algo=algo)), 2)
        assert torch.equal(block, layers) and block.stride() == layers.stride()
        dy = torch.randn_like(layers)
        for mine, theirs in zip(torch.autograd.grad(block, (x, w, b), dy), torch.autograd.grad(layers, (x, w, b), dy)):
            torch.testing.assert_close(mine, theirs)
            assert mine.stride() == theirs.stride()
