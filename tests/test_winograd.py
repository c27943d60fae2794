"""winograd_2x2 and winograd_4x4: every pass, layout and edge against float64, and what they promise beyond."""

import itertools
import math
import random
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab import _lab, ops

NAMES = ["winograd_2x2", "winograd_4x4"]
NUMBERS = {a.name: a.number for a in convlab.algorithms()}
PASSES = ("forward", "dgrad", "wgrad")
EPS = 2.0**-24
# An output's error, at most, in units of EPS of what its sum of magnitudes would be if the largest of a tile were
# everywhere in it
UNITS = {"winograd_2x2": 2, "winograd_4x4": 12}


def channels_last(t):
    return t.contiguous(memory_format=torch.channels_last)


def make(N, C, K, H, W, padding=1, groups=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    ph, pw = (padding, padding) if isinstance(padding, int) else padding
    x = torch.randn(N, C, H, W, generator=g)
    w = torch.randn(K, C // groups, 3, 3, generator=g) * math.sqrt(2 * groups / (9 * C))
    dy = torch.randn(N, K, H + 2 * ph - 2, W + 2 * pw - 2, generator=g)
    return x, w, dy, (1, 1, ph, pw, ph, pw, 1, 1, groups)


def run(pass_, algo, x, w, dy, geometry, bias=None):
    """One pass by the raw operators; algo a name."""
    number = NUMBERS[algo]
    if pass_ == "forward":
        return ops.conv2d_forward(x, w, bias, geometry, number)
    if pass_ == "dgrad":
        last = x.stride(1) == 1
        return ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, last, number)
    return ops.conv2d_wgrad(dy, x, w.shape[2:], geometry, False, w.stride(1) == 1, number)[0]


def torchs(pass_, x, w, dy, geometry):
    padding, groups = list(geometry[2:4]), geometry[8]
    if pass_ == "forward":
        return F.conv2d(x, w, None, 1, padding, 1, groups)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, w, None, [1, 1], padding, [1, 1], False, [0, 0], groups, [pass_ == "dgrad", pass_ == "wgrad", False]
    )
    return dx if pass_ == "dgrad" else dw


def exact(pass_, x, w, dy, geometry):
    return torchs(pass_, x.double(), w.double(), dy.double(), geometry)


def bound(pass_, algo, x, w, dy, geometry):
    """What each element's error may be: it goes with its tile's magnitude, not with its own. Around the tensors, a ring of
    what lies near: a tile transforms taps and places of padding, too."""
    ring = 0 if pass_ == "wgrad" else 3
    x, dy = (F.max_pool2d(F.pad(t.abs(), [ring] * 4), 11, 1, 5) for t in (x, dy))
    w = w.abs().amax((2, 3), keepdim=True).expand_as(w)
    sums = F.pad(exact(pass_, x, w, dy, geometry), [-ring] * 4)
    return UNITS[algo] * EPS * sums + 1e-30


def check(pass_, algo, x, w, dy, geometry, bias=None, what=""):
    y = run(pass_, algo, x, w, dy, geometry, bias)
    truth = exact(pass_, x, w, dy, geometry)
    if bias is not None:
        truth = truth + bias.double()[:, None, None]
    worst = ((y - truth).abs() / bound(pass_, algo, x, w, dy, geometry)).max().item()
    assert worst <= 1, f"{pass_} by {algo} {what}: an error of {worst:.2f} times the bound"
    return y


SHAPES = [
    # every size of the last tiles, along both dimensions; vectors, blocks and panels of channels with remainders
    *((2, 5, 7, H, W, 1) for H, W in [(1, 1), (2, 7), (3, 6), (4, 5), (5, 8), (6, 3), (7, 4), (8, 9)]),
    (3, 17, 33, 13, 14, 1),
    (1, 40, 20, 7, 7, (0, 2)),
    (2, 64, 48, 10, 31, (2, 0)),
    (33, 8, 16, 5, 4, 1),
    (1, 3, 16, 40, 33, 3),
]


@pytest.mark.parametrize("m, n", [(m, n) for m in (2, 4) for n in range(1, m + 1)])
def test_matrices_are_exact(m, n):
    """output [(input x) * (filter g)] is the correlation of x and g, in fractions, for numbers that are none of a
    float's."""
    matrices = _lab.winograd_matrices(m, n)
    of = {k: [[Fraction(*f) for f in row] for row in matrix] for k, matrix in matrices.items()}
    rng = random.Random(m * 10 + n)
    x, g = ([Fraction(rng.randint(-99, 99), rng.randint(1, 99)) for _ in range(count)] for count in (m + 2, 3))
    dot = lambda a, b: sum(p * q for p, q in zip(a, b))  # noqa: E731
    products = [dot(i, x) * dot(f, g) for i, f in zip(of["input"], of["filter"])]
    assert sum(any(f) for f in of["filter"]) == n + 2  # so many products, and no more
    assert [dot(row, products) for row in of["output"]] == [dot(x[k : k + 3], g) for k in range(n)]


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_pass_in_every_layout(algo, pass_, shape):
    x, w, dy, geometry = make(*shape)
    first = check(pass_, algo, x, w, dy, geometry)
    for change in itertools.islice(itertools.product([torch.clone, channels_last], repeat=3), 1, None):
        tensors = [f(t) for f, t in zip(change, (x, w, dy))]
        assert torch.equal(check(pass_, algo, *tensors, geometry), first), "layouts have the same bits"


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize("pass_", PASSES)
def test_filters_that_are_not_kept(algo, pass_):
    """Many channels: filters are transformed block by block, and wgrad's sums strip by strip."""
    for shape in [(2, 280, 272, 7, 7, 1), (9, 272, 264, 10, 9, 1)]:
        check(pass_, algo, *make(*shape))


@pytest.mark.parametrize("chunk", [0, *(pytest.param(i, marks=pytest.mark.long) for i in range(1, 9))])
def test_random_problems(chunk):
    rng = random.Random(f"winograd {chunk}")
    for i in range(12):
        groups = rng.choice([1, 1, 1, 2, 3])
        shape = (
            rng.choice([1, 2, 5, 20]),
            groups * rng.choice([1, 2, 3, 7, 8, 16, 19, 32, 40, 70]),
            groups * rng.choice([1, 2, 5, 8, 15, 16, 24, 33, 64]),
            rng.randint(1, 30),
            rng.randint(1, 30),
            (rng.randint(1, 3), rng.randint(1, 3)),
        )
        x, w, dy, geometry = make(*shape, groups=groups, seed=i)
        bias = torch.randn(len(w)) if rng.random() < 0.5 else None
        x, w, dy = (rng.choice([torch.clone, channels_last])(t) for t in (x, w, dy))
        for algo, pass_ in itertools.product(NAMES, PASSES):
            check(pass_, algo, x, w, dy, geometry, bias if pass_ == "forward" else None, f"{shape} groups={groups}")


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize("kind", ["rectified", "small", "spikes", "blank"])
def test_inputs_of_networks(algo, kind):
    x, w, dy, geometry = make(2, 32, 32, 21, 18)
    g = torch.Generator().manual_seed(1)
    if kind == "rectified":
        x = x.clamp_min(0)
    elif kind == "small":
        dy = dy * 1e-4 * (torch.rand(dy.shape, generator=g) < 0.5)
    elif kind == "spikes":
        x, dy = (torch.where(torch.rand(t.shape, generator=g) < 1e-3, 1000 * t, t) for t in (x, dy))
    else:
        x, dy = x.clone(), dy.clone()
        x[:, :, 4:15, 3:12] = 0
        dy[:, :, :9] = 0
    for pass_ in PASSES:
        check(pass_, algo, x, w, dy, geometry, what=kind)


LIMITS = {"winograd_2x2": 2, "winograd_4x4": 5}  # what docs/compatibility.md says of the rms error, in torch's


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize(
    "shape", [(2, 64, 64, 28, 28), (1, 300, 64, 14, 14), (8, 32, 64, 16, 16), (1, 16, 48, 28, 28)], ids=str
)
def test_rms_error(algo, shape):
    for rectified in (False, True):
        x, w, dy, geometry = make(*shape)
        if rectified:
            x, dy = x.clamp_min(0), 1e-4 * dy * (dy > 0)
        for pass_ in PASSES:
            truth = exact(pass_, x, w, dy, geometry)
            ours, theirs = (
                (y - truth).square().mean().sqrt().item()
                for y in (run(pass_, algo, x, w, dy, geometry), torchs(pass_, x, w, dy, geometry))
            )
            assert ours <= LIMITS[algo] * theirs, f"{pass_}: {ours / theirs:.2f} times torch's"


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels_last"])
def test_nan_and_infinity_are_where_the_definition_has_them(algo, last):
    x, w, dy, geometry = make(2, 20, 18, 11, 13)
    x[0, 1, 2, 3], x[1, 3, -1, -1], x[0, 7, 9, 5] = math.nan, math.inf, -math.inf
    dy[0, 2, 0, 0], dy[1, 0, -1, -1], dy[1, 16, 5, 5] = math.nan, -math.inf, math.inf
    poisoned = w.clone()
    poisoned[1, 2, 0, 2], poisoned[3, 0, 1, 1] = math.nan, math.inf
    clean = make(2, 20, 18, 11, 13)
    for tensors in [(x, w, dy), (clean[0], poisoned, clean[2])]:
        tensors = [channels_last(t) if last else t for t in tensors]
        for pass_ in PASSES:
            ours, definition = (run(pass_, a, *tensors, geometry) for a in (algo, "reference"))
            for which in (torch.isnan, torch.isposinf, torch.isneginf):
                assert torch.equal(which(ours), which(definition)), f"{pass_} {which.__name__}"
            wrong = ours.isfinite() & ~torch.isclose(ours, definition, rtol=1e-4, atol=1e-4)
            assert not wrong.any()


@pytest.mark.parametrize("algo", NAMES)
def test_large_values_do_not_overflow_on_the_way(algo):
    """What the points make of them may be infinite where the sum is not."""
    x, w, dy, geometry = make(1, 8, 8, 9, 9)
    x, dy = x * 6e37, dy * 6e37
    for pass_ in ("forward", "dgrad"):
        ours, truth = run(pass_, algo, x, w, dy, geometry), exact(pass_, x, w, dy, geometry)
        finite = truth.abs() < 1e38
        assert finite.any() and (ours[finite] - truth[finite]).abs().max() < 1e34


def test_small_integers_are_exact_with_2x2():
    g = torch.Generator().manual_seed(3)
    x, w, dy, geometry = make(3, 20, 24, 11, 10)
    x, w, dy = (torch.randint(-4, 5, t.shape, generator=g).float() for t in (x, w, dy))
    for pass_ in PASSES:
        assert torch.equal(run(pass_, "winograd_2x2", x, w, dy, geometry).double(), exact(pass_, x, w, dy, geometry))


def test_dirac_filter_is_the_identity_with_2x2():
    x = torch.randn(2, 16, 9, 9)
    w = torch.nn.init.dirac_(torch.empty(16, 16, 3, 3))
    y = CF.conv2d(x, w, padding=1, algo="winograd_4x4")
    assert (y - x).abs().max() < 1e-5
    integers = torch.randint(-99, 99, x.shape).float()
    assert torch.equal(CF.conv2d(integers, w, padding=1, algo="winograd_2x2"), integers)


def test_blank_areas_are_zero_with_2x2_and_nearly_with_4x4():
    x, w, dy, geometry = make(1, 16, 16, 24, 24)
    x[:, :, 6:18, 6:18] = 0
    inside = (..., slice(7, 17), slice(7, 17))
    assert (run("forward", "winograd_2x2", x, w, dy, geometry)[inside] == 0).all()
    assert run("forward", "winograd_4x4", x, w, dy, geometry)[inside].abs().max() < 1e-5


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize("shape", [(6, 20, 33, 14, 14), (5, 16, 16, 7, 13), (3, 272, 264, 7, 7)], ids=str)
def test_the_same_bits_for_threads_and_batches(algo, shape):
    x, w, dy, geometry = make(*shape)
    for pass_ in PASSES:
        first = run(pass_, algo, x, w, dy, geometry)
        try:
            for threads in (2, 4):
                torch.set_num_threads(threads)
                assert torch.equal(first, run(pass_, algo, x, w, dy, geometry)), f"{pass_}, {threads} threads"
        finally:
            torch.set_num_threads(1)
        for n in (0, len(x) - 1) if pass_ != "wgrad" else ():
            alone = run(pass_, algo, x[n : n + 1], w, dy[n : n + 1], geometry)
            assert torch.equal(alone, first[n : n + 1]), f"{pass_}, image {n} alone"


@pytest.mark.parametrize("algo", NAMES)
def test_gradients_of_any_order(algo):
    x, w, dy, _geometry = make(1, 3, 4, 6, 5)
    run_it = lambda x, w: CF.conv2d(x, w, padding=1, algo=algo)  # noqa: E731

    def gradients(function, x, w, dy):
        x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
        first = torch.autograd.grad(function(x, w).square().sum(), (x, w), create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), (x, w))

    ours = gradients(run_it, x, w, dy)
    truth = gradients(lambda x, w: F.conv2d(x, w, padding=1), x.double(), w.double(), dy.double())
    for a, b in zip(ours, truth):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize(
    "change, reason",
    [
        (dict(dtype=torch.float64), "float32"),
        (dict(kernel=5), "3 x 3"),
        (dict(stride=2), "stride 1"),
        (dict(dilation=2), "dilation 1"),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_sentence(algo, change, reason):
    kernel, dtype = change.get("kernel", 3), change.get("dtype", torch.float32)
    x, w = torch.randn(1, 4, 9, 9, dtype=dtype), torch.randn(4, 4, kernel, kernel, dtype=dtype)
    arguments = dict(stride=change.get("stride", 1), dilation=change.get("dilation", 1))
    with pytest.raises(ValueError, match=f"{algo}.*{reason}"):
        CF.conv2d(x, w, padding=1, algo=algo, **arguments)


@pytest.mark.parametrize("algo", NAMES)
def test_nothing_to_compute(algo):
    x, w = torch.randn(0, 4, 8, 8, requires_grad=True), torch.randn(4, 4, 3, 3, requires_grad=True)
    y = CF.conv2d(x, w, padding=1, algo=algo)
    assert y.shape == (0, 4, 8, 8)
    dx, dw = torch.autograd.grad(y.sum(), (x, w))
    assert dx.shape == x.shape and not dw.any()


def test_workspace_is_bounded():
    """Not by the batch, and not by the transformed filters, which 512 x 512 channels have 38 MB of."""
    code = """
import sys, torch, convlab, convlab.functional as CF
from resource import getrusage, RUSAGE_SELF
peak = lambda: getrusage(RUSAGE_SELF).ru_maxrss / 1024
x, w = torch.randn(24, 512, 7, 7), torch.randn(512, 512, 3, 3)
CF.conv2d(torch.randn(1, 16, 9, 9), torch.randn(16, 16, 3, 3), padding=1, algo="winograd_4x4")
before = peak()
y = CF.conv2d(x, w, padding=1, algo="winograd_4x4")
print(peak() - before - y.numel() * 4 / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 24, "MB beside the output, of two threads at most"
