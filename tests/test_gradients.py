"""Derivatives of first and second order, in float64, against finite differences; for all three passes of
convolution."""

from contextlib import nullcontext

import pytest
import torch
from convlab.testing import AWKWARD, POOLS
from ladder import RUNGS, typical
from torch.autograd import gradcheck, gradgradcheck

import convlab
import convlab.functional as CF
from convlab import autograd

pytestmark = pytest.mark.filterwarnings("ignore:.*deterministic.*")
CONVS = [AWKWARD[i] for i in (0, 1, 4, 6, 7, 8)]


def small(shape, device):
    return torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_conv2d(conv, device):
    conv = conv._replace(N=1)
    x, w, b = (t.requires_grad_() for t in conv.tensors(torch.float64, device))
    f = lambda x, w, b: CF.conv2d(x, w, b, *conv.arguments)  # noqa: E731
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
    dgrad = lambda dy, w: autograd.Conv2dDgrad.apply(dy, w, x.shape[2:], False, a)  # noqa: E731
    wgrad = lambda dy, x: autograd.Conv2dWgrad.apply(dy, x, w.shape[2:], True, False, a)  # noqa: E731
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
    assert gradgradcheck(lambda *t: CF.conv2d(*t, *conv.arguments, algo=algorithm.name), (x, w, b), fast_mode=True)


@pytest.mark.works_with("double backward, for every algorithm")
@pytest.mark.parametrize("rung", RUNGS, ids=lambda a: a.name)
def test_double_backward_for_every_rung(rung, device):
    """In float32, which all of them have, against torch in float64: too coarse for finite differences. On the host in
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
    f = lambda x: CF.max_pool2d(x, *pool[1:])  # noqa: E731
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
