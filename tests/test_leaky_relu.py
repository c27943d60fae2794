"""leaky_relu and relu are torch's: values, gradients, special values, layouts, in place."""

import pytest
import torch
import torch.nn.functional as F

import convlab.functional as CF
from convlab.testing import DTYPES, check_leaky_relu, check_relu

CASES = {"relu": (CF.relu, F.relu), "leaky_relu": (CF.leaky_relu, F.leaky_relu)}


def test_values_and_gradients(device):
    """To the last bit, special values too, in every dtype and layout: what convlab.testing looks at."""
    check_relu(CF.relu, dtypes=DTYPES, gradients=True, device=device)
    check_leaky_relu(CF.leaky_relu, dtypes=DTYPES, gradients=True, device=device)
    check_leaky_relu(lambda x, slope: CF.leaky_relu(x), slopes=[0.01], dtypes=DTYPES, device=device)  # the default


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_layouts(name, device):
    x = torch.randn(4, 6, 5, 8, device=device)
    views = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(0, 3),
        "sliced": x[1:, ::2, :, 1:-1],
        "expanded": x[:1, :, :1].expand(3, -1, 4, -1),
    }
    ours, torchs = CASES[name]
    for layout, view in views.items():
        view = view.detach().requires_grad_()
        y, expected = ours(view), torchs(view)
        assert torch.equal(y, expected), layout
        assert y.stride() == expected.stride(), layout
        for dy in (torch.randn_like(y), torch.randn_like(y.contiguous()), torch.ones(1, device=device).expand_as(y)):
            (dx,), (expected_dx,) = (
                torch.autograd.grad(y, view, dy, retain_graph=True),
                torch.autograd.grad(expected, view, dy, retain_graph=True),
            )
            assert torch.equal(dx, expected_dx), layout


@pytest.mark.parametrize("ours,torchs", [(CF.relu, F.relu), (CF.leaky_relu, F.leaky_relu)], ids=["relu", "leaky_relu"])
def test_in_place(ours, torchs, device):
    x = torch.randn(2, 3, 5, 7, device=device, requires_grad=True)
    gradients = []
    for f in (ours, torchs):
        h = x * 2
        view, version = h[:, 1:], h._version
        out = f(view, inplace=True)
        assert out is view and h._version > version
        gradients.append(torch.autograd.grad((h * h).sum(), x)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("f", [CF.relu, CF.leaky_relu, F.relu, F.leaky_relu])
def test_in_place_errors_are_torchs(f, device):
    leaf = torch.randn(3, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        f(leaf, inplace=True)
    h = torch.randn(3, device=device, requires_grad=True) * 2
    y = h * h  # needs h as it is
    f(h, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("f", [CF.leaky_relu, F.leaky_relu], ids=["ours", "torchs"])
def test_in_place_with_negative_slope_has_no_gradient(f, device):
    x = torch.randn(3, device=device, requires_grad=True)
    y = f(x * 1, -0.5, inplace=True)
    with pytest.raises(RuntimeError, match="slope"):
        y.sum().backward()
