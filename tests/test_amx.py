"""amx: every pass of random problems, in bfloat16 and in float32 that may be rounded to it, against float64, and what it
promises beyond."""

import os
import random
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab._algorithms import names_of

AMX = next(a for a in convlab.algorithms() if a.name == "amx")
PASSES = ("forward", "dgrad", "wgrad")
EPS = 2.0**-8  # bfloat16 keeps 8 bits
SUM_EPS = 2.0**-12  # of a sum's magnitude: far more than float32 loses


def problem(dtype=torch.bfloat16):
    x, w = torch.empty(2, 8, 9, 9, dtype=dtype), torch.empty(16, 8, 3, 3, dtype=dtype)
    return convlab.Conv2dProblem.of(x, w, padding=1)


def runs_here():
    return AMX.supports(problem(), "forward")[0]


needs_amx = pytest.mark.skipif(not runs_here(), reason="this machine has no AMX")


def drawn(r):
    """A problem's tensors and arguments; at every edge of a tile register, which are of 16 and 32."""
    groups, pick = r.choice([1, 1, 1, 2, 3]), r.choice
    C, K = (pick([1, 2, 3, 5, 8, 16, 17, 31, 33, 34, 64, 70, 100]) for _ in "CK")
    R, S = pick([(1, 1), (1, 1), (3, 3), (3, 3), (5, 5), (2, 2), (1, 3), (3, 1), (7, 7), (4, 2)])
    stride, dilation = (tuple(pick([1, 1, 1, 2, 3, 20]) for _ in "hw") for _ in range(2))
    padding = tuple(pick([0, 0, 1, 2, 6, 40]) for _ in "hw")
    H, W = (pick([1, 2, 7, 8, 14, 15, 16, 17, 28, 33, 60]) for _ in "HW")
    H, W = max(H, dilation[0] * (R - 1) + 1), max(W, dilation[1] * (S - 1) + 1)
    formats = [pick([torch.contiguous_format, torch.channels_last]) for _ in range(3)]
    x = torch.randn(pick([0, 1, 2, 5, 9]), C * groups, H, W).to(memory_format=formats[0])
    w = torch.randn(K * groups, C, R, S).to(memory_format=formats[1])
    bias = torch.randn(K * groups) if r.random() < 0.5 else None
    return x, w, bias, (stride, padding, dilation, groups), formats[2]


@pytest.fixture
def may_round():
    """float32 may be rounded to bfloat16."""
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    yield
    torch.backends.mkldnn.conv.fp32_precision = "none"


def assert_close(computed, expected, terms, what):
    error = (computed.double() - expected).abs()
    eps = EPS if computed.dtype == torch.bfloat16 else 0
    allowed = eps * expected.abs() + SUM_EPS * max(1, terms) ** 0.5
    assert bool((error <= allowed).all()), what


@needs_amx
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("seed", range(3))
def test_random_problems_are_right(seed, dtype, may_round):
    r = random.Random(seed)
    torch.manual_seed(seed)
    exact = lambda t: t.detach().bfloat16().double()  # noqa: E731
    for _ in range(30):
        x, w, bias, arguments, grad_format = drawn(r)
        x, w = (t.to(dtype).requires_grad_() for t in (x, w))
        bias = bias if bias is None else bias.to(dtype)
        y = CF.conv2d(x, w, bias, *arguments, algo=dict.fromkeys(PASSES, "amx"))
        dy = torch.randn(y.shape).to(memory_format=grad_format).to(dtype)
        dx, dw = torch.autograd.grad(y, (x, w), dy)
        x64, w64 = (exact(t).requires_grad_() for t in (x, w))
        y64 = F.conv2d(x64, w64, bias if bias is None else bias.double(), *arguments)
        dx64, dw64 = torch.autograd.grad(y64, (x64, w64), exact(dy))
        what = (tuple(x.shape), tuple(w.shape), arguments, dtype)
        assert_close(y.detach(), y64.detach(), w[0].numel(), what)
        assert_close(dx, dx64, w[:, 0].numel(), what)
        assert_close(dw, dw64, y[:, 0].numel(), what)


@needs_amx
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_image_has_the_same_bits_alone_and_for_any_number_of_threads(memory_format):
    x = torch.randn(9, 40, 7, 7).to(memory_format=memory_format).bfloat16()
    w = torch.randn(70, 40, 3, 3).bfloat16().requires_grad_()
    y = CF.conv2d(x, w, padding=1, algo="amx")
    assert torch.equal(CF.conv2d(x[4:5], w, padding=1, algo="amx"), y[4:5])
    threads = torch.get_num_threads()
    gradients = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            z = CF.conv2d(x, w, padding=1, algo="amx")
            gradients.append(torch.autograd.grad(z, w, torch.ones_like(z))[0])
            assert torch.equal(z, y)
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


@needs_amx
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_not_finite_goes_where_torch_has_it(value, stride):
    """In wgrad zeros between the rows of dy meet elements that the definition does not multiply with them."""
    x = torch.randn(3, 5, 7, 7)
    x[1, 2, 3, 0] = value
    w = torch.randn(6, 5, 3, 3)
    computed, expected = [], []
    for conv2d, out in ((CF.conv2d, computed), (F.conv2d, expected)):
        a, b = ((t.bfloat16() if conv2d is CF.conv2d else t.bfloat16().float()).requires_grad_() for t in (x, w))
        y = conv2d(a, b, stride=stride, padding=1, **({"algo": "amx"} if conv2d is CF.conv2d else {}))
        out.extend([y.detach(), *torch.autograd.grad(y, (a, b), torch.ones_like(y))])
    for mine, torchs in zip(computed, expected, strict=True):
        assert torch.equal(mine.isnan(), torchs.isnan()) and torch.equal(mine.isinf(), torchs.isinf())


@needs_amx
@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("scale", [1, 2.0**-124], ids=["usual", "nearly subnormal"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "relu6"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_block_has_the_bits_of_its_layers(activation, scale, trains, dtype, may_round):
    x, w = torch.randn(2, 20, 15, 15).to(dtype), (scale * torch.randn(35, 20, 3, 3)).to(dtype)
    w.requires_grad_(trains)
    block = CF.conv2d_block(x, w, padding=1, activation=activation, negative_slope=0.3, algo="amx")
    y = CF.conv2d(x, w, padding=1, algo="amx")
    layers = {"relu": CF.relu, "relu6": CF.relu6, "leaky_relu": lambda t: CF.leaky_relu(t, 0.3)}
    expected = layers[activation](y)
    assert torch.equal(block, expected)
    if trains:
        assert torch.equal(*(torch.autograd.grad(t.float().sum(), w)[0] for t in (block, expected)))


@needs_amx
def test_auto_takes_it_and_leaves_depthwise_filters_to_depthwise():
    assert names_of("auto", problem()) == dict.fromkeys(PASSES, "amx")
    x, w = torch.empty(2, 32, 9, 9).bfloat16(), torch.empty(32, 1, 3, 3).bfloat16()
    assert "amx" not in names_of("auto", convlab.Conv2dProblem.of(x, w, padding=1, groups=32)).values()


@needs_amx
def test_float32_is_its_own_where_the_switch_says_so(may_round):
    """And then "auto" takes it; each product has the error of two roundings, and torch's are no better."""
    assert names_of("auto", problem(torch.float32)) == dict.fromkeys(PASSES, "amx")
    x, w = torch.randn(2, 32, 20, 20), torch.randn(48, 32, 3, 3)
    exact = F.conv2d(x.double(), w.double(), padding=1)
    error = lambda y: float((y.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())  # noqa: E731
    assert error(CF.conv2d(x, w, padding=1)) < 2 * EPS
    # groups of few channels, and matrix products, have kernels of their own
    groups = convlab.Conv2dProblem.of(torch.empty(2, 64, 9, 9), torch.empty(64, 4, 3, 3), padding=1, groups=16)
    assert "amx" not in names_of("auto", groups).values()


@needs_amx
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_taps_that_meet_padding_alone_cost_nothing(dtype, may_round):
    """A panel with all that lies between them would have 200 GB."""
    x, w = torch.randn(1, 64, 8, 8).to(dtype).requires_grad_(), torch.randn(64, 64, 3, 3).to(dtype).requires_grad_()
    algo = {"forward": "amx", "dgrad": "amx"}
    y = CF.conv2d(x, w, padding=20000, dilation=20000, algo=algo)
    expected = CF.conv2d(x, w[:, :, 1:2, 1:2], algo=algo)
    assert torch.equal(y, expected)
    dx, dw = torch.autograd.grad(y.float().square().sum(), (x, w))
    assert torch.equal(dx, torch.autograd.grad(expected.float().square().sum(), x)[0])
    assert dw[:, :, 1, 1].any() and not dw[:, :, 0].any()


def test_other_types_are_refused_with_the_reason():
    supported, reason = AMX.supports(problem(torch.float32), "forward")
    assert not supported and "bfloat16" in reason
    with pytest.raises(ValueError, match="bfloat16"):
        CF.conv2d(torch.randn(1, 8, 9, 9), torch.randn(16, 8, 3, 3), algo="amx")


def test_convlab_cpu_leaves_it_out():
    """A process that asks for AVX-512 gets that, also on a machine that has more."""
    code = "import test_amx; print(test_amx.AMX.supports(test_amx.problem(), 'forward')[1])"
    for name in ("avx512", "avx2", "baseline"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "CONVLAB_CPU": name},
            cwd=os.path.dirname(__file__),
            capture_output=True,
            text=True,
        )
        assert "AMX" in done.stdout or "this machine runs" in done.stderr, done.stderr
