"""Every rung inside autograd: second derivatives, and a training step of LeNet-5 as the CPU backend makes it."""

import pytest
import torch
import torch.nn.functional as F
from ladder import SHARED_BY_ALL, WITH_FLOAT32, filters_of, passes_of, running_on, sources_of

import convlab
import convlab.functional as CF
from convlab.testing import AWKWARD, Conv, assert_sums_close

each_rung = pytest.mark.parametrize("rung", WITH_FLOAT32, ids=lambda a: a.name)


def second_derivatives(conv2d, x, w, b, dy, directions, arguments):
    """The gradients, to x, w and dy, of the dot product of the first gradients with `directions`."""
    leaves = [t.detach().requires_grad_() for t in (x, w, b, dy)]
    first = torch.autograd.grad(conv2d(*leaves[:3], *arguments), leaves[:3], leaves[3], create_graph=True)
    weighed = sum((g * d).sum() for g, d in zip(first, directions))
    return torch.autograd.grad(weighed, [leaves[i] for i in (0, 1, 3)])


@each_rung
def test_second_derivatives(rung, device):
    filters = filters_of(rung)
    convs = (
        [Conv(2, C, R + 7, R + 6, K, R, R) for C, K, R in filters] if filters else [AWKWARD[i] for i in (0, 5, 6, 7, 8)]
    )
    for conv in convs:
        algo = dict.fromkeys(passes_of(rung, conv), rung.name)
        x, w, b = conv.tensors()
        dy = torch.randn_like(F.conv2d(x, w, b, *conv.arguments))
        tensors = [x, w, b, dy, [torch.randn_like(t) for t in (x, w, b)], conv.arguments]

        def mapped(fn):
            return [fn(t) for t in tensors[:4]] + [[fn(t) for t in tensors[4]], tensors[5]]

        with running_on(device) as sim:
            got = second_derivatives(lambda *a: CF.conv2d(*a, algo=algo), *mapped(lambda t: t.to(device)))
        exact = second_derivatives(F.conv2d, *mapped(torch.Tensor.double))
        magnitude = second_derivatives(F.conv2d, *mapped(lambda t: t.double().abs()))
        terms = [conv.K * conv.R * conv.S, dy[:, 0].numel(), 2 * w[0].numel() + 1]
        for name, *values in zip(("x", "w", "dy"), got, exact, magnitude, terms):
            assert_sums_close(*values, f"{rung.name}, {conv}: second derivative to {name}")
        if sim and len(algo) == 3:
            files = {launch.source.split("/")[-1].split(":")[0] for launch in sim.launches}
            assert files <= sources_of(rung) | SHARED_BY_ALL, files


def lenet_step(model, images, labels):
    """loss and gradients"""
    loss = F.cross_entropy(model(images), labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@each_rung
def test_a_training_step_of_lenet(rung, device):
    """The step is the CPU backend's, within the float32 rounding of sums in another order."""
    pytest.importorskip("torchvision")
    from train_lenet import lenet5

    model = lenet5(convlab)
    images, labels = torch.rand(3, 1, 32, 32), torch.tensor([3, 1, 4])
    expected = lenet_step(model, images, labels)
    shapes = {}
    hooks = [
        m.register_forward_pre_hook(lambda m, x: shapes.update({m: x[0].shape}))
        for m in model
        if isinstance(m, convlab.Conv2d)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    taken = 0
    for layer, shape in shapes.items():
        N, C, H, W = shape
        passes = passes_of(rung, Conv(N, C, H, W, layer.out_channels, *layer.kernel_size))
        layer.algo = dict.fromkeys(passes, rung.name)
        taken += len(passes)
    assert taken, f"{rung.name} takes no convolution of LeNet-5"
    model.to(device)
    with running_on(device, check=False) as sim:
        got = lenet_step(model, images.to(device), labels.to(device))
    for a, b in zip(got, expected):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=2e-6 * float(b.abs().max()))
    if sim:
        assert {launch.source.split("/")[-1].split(":")[0] for launch in sim.launches} & sources_of(rung)
