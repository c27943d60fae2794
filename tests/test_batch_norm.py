"""Batch normalization in eval, with the activation behind it, is one pass where nobody wants a gradient: torch's numbers."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import convlab
from convlab import ops

ACTIVATIONS = [
    (0, lambda y: y),
    (1, F.relu),
    (2, lambda y: F.leaky_relu(y, -0.3)),
    (3, F.relu6),
]
SHAPES = [(2, 5, 7, 3), (3, 16, 1, 1), (1, 1, 4, 9), (2, 33, 5, 4), (4, 3, 16, 16), (0, 3, 2, 2), (2, 40, 1, 3)]
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def layouts(x):
    yield x
    yield x.contiguous(memory_format=torch.channels_last)
    yield x.transpose(0, 1).contiguous().transpose(0, 1)
    yield torch.cat([x, x], 3)[..., : x.shape[3]]


def statistics(channels, dtype, affine=True):
    mean, var = torch.randn(channels), torch.rand(channels) + 0.5
    gamma, beta = (torch.randn(channels), torch.randn(channels)) if affine else (None, None)
    return [None if t is None else t.to(dtype) for t in (mean, var, gamma, beta)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_one_pass(dtype):
    tolerance = dict(rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
    for shape, (number, activation), affine in itertools.product(SHAPES, ACTIVATIONS, (True, False)):
        x, of = (4 * torch.randn(shape)).to(dtype), statistics(shape[1], dtype, affine)
        if x.numel():
            x.view(-1)[-1] = float("nan")
        wide = [None if t is None else t.double() for t in of]
        expected = activation(F.batch_norm(x.double(), *wide, eps=0.1).to(dtype).double()).to(dtype)
        for laid in layouts(x):
            y = ops.batch_norm_forward(laid, *of, 0.1, number, -0.3)
            torch.testing.assert_close(y, expected, equal_nan=True, **tolerance)
            assert y.stride() == ops.relu_forward(laid).stride()
            over = laid.clone(memory_format=torch.preserve_format)
            ops.batch_norm_(over, *of, 0.1, number, -0.3)
            torch.testing.assert_close(over, y, rtol=0, atol=0, equal_nan=True)
        apart = torch.cat([x, x], 3)
        ops.batch_norm_(apart[..., : shape[3]], *of, 0.1, number, -0.3)  # what lies between stays
        torch.testing.assert_close(apart, torch.cat([expected, x], 3), equal_nan=True, **tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_folded(dtype):
    tolerance = dict(rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
    for shape, affine, with_bias in itertools.product(
        [(5, 3, 3, 2), (16, 7, 1, 1), (1, 4, 3, 3)], *[(True, False)] * 2
    ):
        w, of = torch.randn(shape).to(dtype), statistics(shape[0], dtype, affine)
        bias = torch.randn(shape[0]).to(dtype) if with_bias else None
        mean, var, gamma, beta = (None if t is None else t.double() for t in of)
        scale = (1 if gamma is None else gamma) / (var + 0.1).sqrt()
        shift = (0 if beta is None else beta) + ((0 if bias is None else bias.double()) - mean) * scale
        for laid in layouts(w):
            folded, plus = ops.batch_norm_folded(laid, bias, *of, 0.1)
            torch.testing.assert_close(folded.double(), w.double() * scale.view(-1, 1, 1, 1), **tolerance)
            torch.testing.assert_close(plus.double(), shift, **tolerance)
            assert folded.stride() == torch.empty_like(laid).stride()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_joined(dtype):
    for shape, channels in itertools.product(
        [(3, 5, 5), (2, 14, 9), (4, 1, 1), (0, 2, 2)], [(7, 32, 1, 16), (3,), (0, 2), (2, 0)]
    ):
        parts = [torch.randn(shape[0], c, *shape[1:]).to(dtype) for c in channels]
        of = statistics(sum(channels), dtype)
        for laid in zip(*map(layouts, parts)):
            joined = torch.cat(laid, 1)
            expected = ops.batch_norm_forward(joined, *of, 0.1, 1, 1.0)
            for mixed in (laid, (*laid[:-1], laid[-1].contiguous())):
                y = ops.batch_norm_joined(mixed, *of, 0.1, 1, 1.0)
                torch.testing.assert_close(y, expected, rtol=0, atol=0)
            if joined.numel() and min(channels) > 0:
                assert ops.batch_norm_joined(laid, *of, 0.1, 1, 1.0).stride() == expected.stride()


def test_wrong_arguments():
    x, w, (mean, var, gamma, beta) = torch.randn(2, 3, 4, 4), torch.randn(3, 2, 1, 1), statistics(3, torch.float32)
    with pytest.raises(RuntimeError, match=r"running_mean is \[2\], expected \[3\]"):
        ops.batch_norm_forward(x, mean[:2], var, gamma, beta, 0.1, 0, 1.0)
    with pytest.raises(RuntimeError, match="running_var is float64 but input is float32"):
        ops.batch_norm_(x, mean, var.double(), gamma, beta, 0.1, 0, 1.0)
    with pytest.raises(RuntimeError, match=r"running_mean is \[3\], expected \[5\]"):
        ops.batch_norm_joined([x, x[:, :2]], mean, var, gamma, beta, 0.1, 0, 1.0)
    with pytest.raises(RuntimeError, match=r"a part of input is \[2, 3, 4, 3\], expected \[2, 3, 4, 4\]"):
        ops.batch_norm_joined([x, x[..., 1:]], mean, var, gamma, beta, 0.1, 0, 1.0)
    with pytest.raises(RuntimeError, match=r"a part of input is \[2, 3, 4\], expected"):
        ops.batch_norm_joined([x, x[..., 1]], mean, var, gamma, beta, 0.1, 0, 1.0)
    with pytest.raises(RuntimeError, match="no part of 2 dimensions"):
        ops.batch_norm_joined([], mean, var, gamma, beta, 0.1, 0, 1.0)
    with pytest.raises(RuntimeError, match=r"bias is \[1\], expected \[3\]"):
        ops.batch_norm_folded(w, mean[:1], mean, var, gamma, beta, 0.1)
    with pytest.raises(RuntimeError, match="activation number 4"):
        ops.batch_norm_forward(x, mean, var, None, None, 0.1, 4, 1.0)
    with pytest.raises(RuntimeError, match="expected 2 or more"):
        ops.batch_norm_forward(x[0, 0, 0], mean, var, None, None, 0.1, 0, 1.0)
    with pytest.raises(RuntimeError, match="weight has no dimension"):
        ops.batch_norm_folded(torch.tensor(1.0), None, mean, var, None, None, 0.1)


# ---- where fuse makes it of layers ----------------------------------------------------------------------------------


class Operators(TorchDispatchMode):
    """Which run, seen from outside: what is one pass otherwise is torch's own below a mode."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def before_convolution():
    """As DenseNet's layers have it"""
    model = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU6())
    nn.init.normal_(model[0].running_mean), nn.init.normal_(model[3].bias)
    return model.eval()


@pytest.fixture
def passes(monkeypatch):
    """The names of convlab's operators of batch normalization, as they are called."""
    names = []

    def counted(name, operator):
        return lambda *args: (names.append(name), operator(*args))[1]

    for name in ("batch_norm_forward", "batch_norm_joined", "batch_norm_", "batch_norm_folded"):
        monkeypatch.setattr(ops, name, counted(name, getattr(ops, name)))
    return names


def test_before_a_convolution(passes):
    model, x = before_convolution(), torch.randn(2, 6, 5, 5)
    fused = convlab.fuse(convlab.convert(before_convolution()))
    fused.load_state_dict(model.state_dict())
    kept = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x))
    assert passes == ["batch_norm_forward", "batch_norm_folded"]
    torch.testing.assert_close(x, kept, rtol=0, atol=0)


class Dense(nn.Module):
    """As DenseNet's layers have it, of a list and of two tensors"""

    def __init__(self):
        super().__init__()
        self.norm, self.relu, self.conv = nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 1)
        self.last, self.conv2 = nn.BatchNorm2d(10), nn.Conv2d(10, 2, 3)

    def forward(self, features, other):
        features = [features] if isinstance(features, torch.Tensor) else features
        made = self.conv(self.relu(self.norm(torch.cat(features, 1))))
        return self.conv2(F.leaky_relu(self.last(torch.cat([made, other], dim=1)), 0.1))


def test_before_it_channels_are_joined(passes):
    model, features, x = Dense().eval(), [*torch.randn(2, 2, 3, 5, 5)], torch.randn(2, 6, 5, 5)
    expected = model(features, x)
    fused = convlab.fuse(copy.deepcopy(model))
    torch.testing.assert_close(fused(features, x), expected)
    assert not passes  # gradients are recorded
    with torch.no_grad():
        torch.testing.assert_close(fused(features, x), expected)
        assert passes == ["batch_norm_joined", "batch_norm_joined"]
        pixels = [t.to(memory_format=torch.channels_last) for t in (*features, x)]
        torch.testing.assert_close(fused(pixels[:2], pixels[2]), expected)
        with pytest.raises(RuntimeError, match="Sizes of tensors must match"):  # as torch has it
            fused([features[0], features[1][..., 1:]], x)
        with pytest.raises(RuntimeError, match="running_mean should contain"):
            fused(features[:1], x)
        passes.clear()
        fused.norm.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(fused(features, x), expected)
    assert passes == ["batch_norm_joined"]


class Twice(nn.Module):
    """One norm for two inputs, the second of which is there first"""

    def __init__(self):
        super().__init__()
        self.norm, self.relu, self.conv = nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)

    def forward(self, x, z):
        first, second = torch.cat([x, z], 1), torch.cat([2 * z, x], 1)
        return self.conv(self.relu(self.norm(second))) + self.conv(self.relu(self.norm(first)))


def test_what_is_done_between_joining_and_norm_stays_there(passes):
    model, (x, z) = Twice(), torch.randn(2, 2, 3, 5, 5)
    fused = convlab.fuse(copy.deepcopy(model))
    torch.testing.assert_close(fused(x, z), model(x, z))
    torch.testing.assert_close(dict(fused.named_buffers()), dict(model.named_buffers()))
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(x, z), model.eval()(x, z))
    assert passes == ["batch_norm_joined", "batch_norm_forward"]


def test_after_a_convolution_of_few_outputs(passes):
    layers = nn.Sequential(nn.Conv2d(64, 3, 3), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.LeakyReLU(0.2))
    model, x = layers.eval(), torch.randn(2, 64, 4, 4)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(convlab.fuse(model)(x), expected)
    assert passes == ["batch_norm_"]


def test_torchs_where_somebody_sees(passes):
    model, x = convlab.fuse(before_convolution()), torch.randn(2, 6, 5, 5)
    seen = []
    expected = convlab.restore(before_convolution())
    expected.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x), expected(x))  # gradients are recorded
    with torch.no_grad():
        with Operators() as mode:
            model(x)
        assert "aten::native_batch_norm" in mode.names
        handle = model[0].register_forward_hook(lambda *_: seen.append(1))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ops, "batch_norm_folded", lambda *a: pytest.fail("called"))
            torch.func.vmap(model)(x[:, None])
        handle.remove()
        assert seen == [1]
        with convlab.simulate():
            torch.testing.assert_close(model(x), expected(x))
        model[0].double()
        with pytest.raises(RuntimeError):
            model(x)  # as torch refuses it
    assert not passes
    model[0].float()
    model.train()
    torch.testing.assert_close(model(x), expected.train()(x))
    assert not passes
