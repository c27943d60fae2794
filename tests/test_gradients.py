"""Derivatives of first and second order, in float64, against finite differences; for all three passes of
convolution."""

from contextlib import nullcontext

import pytest
import torch
from ladder import WITH_FLOAT32, typical
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import convlab
import convlab.functional as CF
from convlab import _fast_apply, autograd
from convlab.testing import AWKWARD, POOLS

pytestmark = pytest.mark.filterwarnings("ignore:.*deterministic.*")
CONVS = [AWKWARD[i] for i in (0, 1, 4, 6, 7, 8)]


def small(shape, device):
    return torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_conv2d(conv, device):
    conv = conv._replace(N=1)
    x, w, b = (t.requires_grad_() for t in conv.tensors(torch.float64, device))

    def f(x, w, b):
        return CF.conv2d(x, w, b, *conv.arguments)

    assert gradcheck(f, (x, w, b), fast_mode=True)
    assert gradgradcheck(f, (x, w, b), fast_mode=True)


@pytest.mark.parametrize("conv", [AWKWARD[i] for i in (4, 7)], ids=str)
def test_dgrad_and_wgrad_of_their_own(conv, device):
    """Each of the three Functions, not only as forward's derivative."""
    x, w, b = conv.tensors(torch.float64, device)
    dy = torch.randn_like(CF.conv2d(x, w, b, *conv.arguments)).requires_grad_()
    x.requires_grad_(), w.requires_grad_()
    h, v = conv.padding
    a = autograd.ConvArguments((*conv.stride, h, v, h, v, *conv.dilation, conv.groups), (0, 0, 0))

    def dgrad(dy, w):
        return autograd.Conv2dDgrad.apply(dy, w, x.shape[2:], False, a)

    def wgrad(dy, x):
        return autograd.Conv2dWgrad.apply(dy, x, w.shape[2:], True, False, a)

    for f, inputs in [(dgrad, (dy, w)), (wgrad, (dy, x)), (autograd.Conv2dBiasGrad.apply, (dy,))]:
        assert gradcheck(f, inputs, fast_mode=True)
        assert gradgradcheck(f, inputs, fast_mode=True)


@pytest.mark.works_with("double backward, for every algorithm")
@pytest.mark.parametrize("algorithm", [a for a in convlab.algorithms() if "cpu" in a.backends], ids=lambda a: a.name)
def test_double_backward_for_every_algorithm(algorithm):
    for conv in (AWKWARD[7]._replace(N=1), AWKWARD[8]):  # the second one depthwise
        x, w, b = (t.requires_grad_() for t in conv.tensors(torch.float64))
        if algorithm.supports(convlab.Conv2dProblem.of(x, w, *conv.arguments), "forward")[0]:
            break
    else:
        pytest.skip("float32 alone: its own tests have its second derivatives")
    assert gradgradcheck(lambda *t: CF.conv2d(*t, *conv.arguments, algo=algorithm.name), (x, w, b), fast_mode=True)


@pytest.mark.works_with("double backward, for every algorithm")
@pytest.mark.parametrize("rung", WITH_FLOAT32, ids=lambda a: a.name)
def test_double_backward_for_every_rung(rung, device):
    """In float32, where they have it, against torch in float64: too coarse for finite differences. On the host in
    the simulator."""
    conv = typical(rung)._replace(N=1, H=12, W=11)
    tensors = conv.tensors(torch.float32, device)
    expected = second_derivatives(
        lambda *t: torch.nn.functional.conv2d(*t, *conv.arguments), [t.double() for t in tensors]
    )
    with convlab.simulate(check=False) if device == "cpu" else nullcontext() as simulated:
        found = second_derivatives(lambda *t: CF.conv2d(*t, *conv.arguments, algo=rung.name), tensors)
    assert device == "cuda" or len(simulated.launches) > 3
    for a, b in zip(found, expected):
        torch.testing.assert_close(a.double() / b.abs().max(), b / b.abs().max(), rtol=0, atol=1e-5)


def second_derivatives(f, tensors):
    leaves = [t.detach().requires_grad_() for t in tensors]
    first = torch.autograd.grad(f(*leaves).square().mean(), leaves, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)


def test_third_derivative(device):
    x, w = small((1, 1, 4, 4), device), small((1, 1, 2, 2), device)

    def third(conv):
        y = conv(x, w).pow(3).sum()
        for leaf in (x, w, x):
            (g,) = torch.autograd.grad(y, leaf, create_graph=True)
            y = g.sin().sum()
        return y

    torch.testing.assert_close(third(CF.conv2d), third(torch.nn.functional.conv2d))


@pytest.mark.parametrize("pool", [POOLS[i] for i in (0, 2, 3, 4, 6, 7)], ids=str)
def test_max_pool2d(pool, device):
    shape = (1, 2, *pool.shape[2:])
    x = (
        torch.randperm(torch.Size(shape).numel()).double().view(shape).to(device).requires_grad_()
    )  # no two within a step of each other

    def f(x):
        return CF.max_pool2d(x, *pool[1:])

    assert gradcheck(f, (x,), fast_mode=True)
    assert gradgradcheck(f, (x,), fast_mode=True)


@pytest.mark.parametrize("f", [CF.relu, lambda x: CF.leaky_relu(x, 0.3), lambda x: CF.leaky_relu(x, -0.3)])
def test_activations(f, device):
    x = (small((3, 5, 7), device) + 0.1).detach()
    x[x.abs() < 1e-3] = 1.0  # finite differences do not see kinks
    x.requires_grad_()
    assert gradcheck(f, (x,), fast_mode=True)
    assert gradgradcheck(f, (x,), fast_mode=True)


@pytest.mark.parametrize("f", [CF.relu, lambda x, inplace: CF.leaky_relu(x, 0.3, inplace)])
def test_activations_in_place(f, device):
    x = (small((3, 5, 7), device) + 0.1).detach()
    x[x.abs() < 1e-3] = 1.0
    x.requires_grad_()
    assert gradcheck(lambda x: f(x * 1.5, inplace=True), (x,), fast_mode=True)
    assert gradgradcheck(lambda x: f(x * 1.5, inplace=True), (x,), fast_mode=True)


# ---- only what is asked for -----------------------------------------------------------------------------------------


class Ran(TorchDispatchMode):
    """The passes of convolutions that ran; `backward` is two in one call"""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "conv2d" in str(function):
            name = str(function).split(".")[1].removeprefix("conv2d_")
            for one in ("dgrad", "wgrad") if name == "backward" else (name,):
                self.names.append(one + ("+db" if one == "wgrad" and args[4] else ""))
        return function(*args, **(kwargs or {}))


def ran(call):
    with Ran() as log:
        call()
    return sorted(log.names)


def asked(loss, inputs, **keywords):
    return ran(lambda: torch.autograd.grad(loss, inputs, retain_graph=True, **keywords))


@pytest.fixture
def patient():
    """As in a process that has not yet asked for the gradients of thousands of leaves."""
    _fast_apply.patience.__init__()


def test_backward_computes_what_is_asked_for(patient, device):
    x, w, v = (small(shape, device) for shape in ((2, 2, 7, 7), (3, 2, 3, 3), (2, 3, 3, 3)))
    b = small((3,), device)
    y = CF.conv2d(CF.conv2d(x, w, b), v)  # v's input is no leaf, w's is
    loss = y.square().sum()
    assert asked(loss, x) == ["dgrad", "dgrad"]
    assert asked(loss, v) == ["wgrad"]
    assert asked(loss, w) == ["dgrad", "wgrad"]
    assert asked(loss, b) == ["bias_grad", "dgrad"]
    assert asked(loss, (w, b)) == ["dgrad", "wgrad+db"]
    assert asked(loss, (x, w, b, v)) == ["dgrad", "dgrad", "wgrad", "wgrad+db"]
    assert ran(lambda: loss.backward(retain_graph=True)) == ["dgrad", "dgrad", "wgrad", "wgrad+db"]
    assert ran(lambda: loss.backward(inputs=[x], retain_graph=True)) == ["dgrad", "dgrad"]
    checkpointed = checkpoint(lambda x: CF.conv2d(x, w, b), x, use_reentrant=False).sum()
    assert asked(checkpointed, x) == ["dgrad", "forward"]  # forward once more
    assert asked(torch.func.vmap(lambda x: CF.conv2d(x, w, b))(x[None]).sum(), x) == ["dgrad"]
    outer = small((), device)
    outer.register_hook(lambda _: (y.grad_fn.apply(torch.ones_like(y)), None)[1])  # by hand, while another graph runs
    assert ran(lambda: (outer * 2).backward()) == ["dgrad", "wgrad"]


def test_second_backward_computes_what_is_asked_for(patient, device):
    x, w = small((2, 2, 7, 7), device), small((3, 2, 3, 3), device)
    dy = small((2, 3, 5, 5), device)
    dx, dw = torch.autograd.grad(CF.conv2d(x, w), (x, w), dy, create_graph=True)
    assert asked(dx.sum(), dy) == ["forward"] and asked(dx.sum(), w) == ["wgrad"]
    assert asked(dw.sum(), dy) == ["forward"] and asked(dw.sum(), x) == ["dgrad"]
    assert asked(dx.sum() + dw.sum(), (x, w, dy)) == ["dgrad", "forward", "forward", "wgrad"]


def test_asking_often_and_in_small_stays_right(patient):
    """Where asking would cost more than computing, some gradients are computed that nobody wants; never wrong ones."""
    x, w = small((1, 1, 4, 4), "cpu"), small((1, 1, 2, 2), "cpu")
    y = CF.conv2d(x, w)
    for _ in range(_fast_apply.patience.ENOUGH):
        dx, dw = torch.autograd.grad(y.sum(), (x, w), retain_graph=True)
    computed = [asked(y.sum(), x) for _ in range(_fast_apply.patience.ENOUGH + 1)]
    assert computed[0] == ["dgrad", "wgrad"] and computed[-1] == ["dgrad"]
    torch.testing.assert_close(torch.autograd.grad(y.sum(), (x, w), retain_graph=True), (dx, dw))


@pytest.mark.parametrize("wanted", [0, 1])
def test_one_of_two_leaves_is_asked_for_without_an_exception(patient, monkeypatch, wanted):
    leaves = small((1, 1, 4, 4), "cpu"), small((1, 1, 2, 2), "cpu")
    y, computed = CF.conv2d(*leaves).sum(), [["dgrad"], ["wgrad"]]
    assert asked(y, leaves[wanted]) == computed[wanted]
    with monkeypatch.context() as strict:
        strict.setattr(_fast_apply, "RuntimeError", (), raising=False)  # catches nothing
        assert asked(y, leaves[wanted]) == computed[wanted]
    assert asked(y, leaves[1 - wanted]) == computed[1 - wanted]


# ---- strides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("filter_last", [False, True], ids=["NCHW filter", "channels_last filter"])
@pytest.mark.parametrize(
    "filter_, groups",
    [((4, 3, 1, 1), 1), ((1, 3, 1, 1), 1), ((4, 1, 3, 3), 4), ((4, 1, 3, 3), 1), ((1, 1, 3, 1), 1), ((4, 3, 1, 3), 1)],
    ids=str,
)
def test_strides_of_gradients(filter_, groups, filter_last, channels_last, device):
    """All of them, those of dimensions of one element too: gradients of parameters lie as the parameters do, or
    DistributedDataParallel complains and copies; and as torch's do."""
    layouts = (torch.contiguous_format, torch.channels_last)
    x, w = torch.randn(2, filter_[1] * groups, 6, 5, device=device), torch.randn(filter_, device=device)
    x = torch.empty_like(x, memory_format=layouts[channels_last]).copy_(x).requires_grad_()
    w = torch.empty_like(w, memory_format=layouts[filter_last]).copy_(w).requires_grad_()
    ours, torchs = (f.conv2d(x, w, groups=groups) for f in (CF, torch.nn.functional))
    assert ours.stride() == torchs.stride()
    for dy in (torch.empty(ours.shape, device=device, memory_format=layout).normal_() for layout in layouts):
        (dx, dw), (torchs_dx, torchs_dw) = (
            torch.autograd.grad(y, (x, w), dy, retain_graph=True) for y in (ours, torchs)
        )
        assert dx.stride() == torchs_dx.stride()
        either = w.is_contiguous() and w.is_contiguous(memory_format=torch.channels_last)
        assert dw.stride() == (w if either else torchs_dw).stride()
        assert torchs_dw.stride() != w.stride() or dw.stride() == w.stride()
    dx, dw = torch.autograd.grad(ours.square().sum(), (x, w), create_graph=True)
    ddx, ddw = torch.autograd.grad(dx.square().sum() + dw.square().sum(), (x, w))
    assert ddw.stride() == dw.stride() and ddx.stride() == dx.stride()


class NoGradient(torch.autograd.Function):
    """The identity, whose input has no gradient"""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return None


MASKED = {
    "leaky_relu": CF.leaky_relu,
    "max_pool2d": lambda x: CF.max_pool2d(x, 2),
    "conv2d_block": lambda x: CF.conv2d_block(x, x[:3, :, :3, :3].detach(), activation="relu", pool=2),
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_have_no_gradient(name):
    """Not one of zeros, either, which would be as large, and made at every step."""
    x = torch.randn(3, 3, 8, 8, requires_grad=True)
    y = MASKED[name](x)
    dy = torch.randn_like(y)
    with torch.profiler.profile() as profiler:
        y.backward(dy)
    assert not [event.name for event in profiler.events() if "zeros" in event.name]
    assert torch.equal(x.grad, torch.autograd.functional.vjp(MASKED[name], x.detach(), dy)[1])  # by a transform
    x.grad = None
    NoGradient.apply(MASKED[name](x)).sum().backward()
    assert x.grad is None or not x.grad.any()
