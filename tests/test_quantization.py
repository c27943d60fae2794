"""torch.ao.quantization on converted models: fuse_modules works; what replaces layers is refused before anything runs, and
says when to convert."""

import copy
import itertools

import pytest
import torch
from torch import nn

import convlab

quantization = pytest.importorskip("torch.ao.quantization")
pytestmark = pytest.mark.filterwarnings("ignore")
WHEN = r"quantization replaces torch\.nn's layers, not convlab's: call convlab\.restore\(model\) before .*convlab\.convert\(\)"


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.out = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.norm, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.pool, self.second, self.last = nn.MaxPool2d(2), nn.Conv2d(8, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        y = self.out(self.second(self.pool(self.act(self.norm(self.conv(self.into(x)))))))
        return self.last(y.mean((2, 3)))


def network():
    model = Network()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model.eval()


def batch():
    return torch.randn(4, 3, 8, 8)


def qconfig():
    return quantization.get_default_qconfig("x86")


@pytest.mark.works_with("`fuse_modules` of `torch.ao.quantization`; quantization itself, before `convlab.convert`")
@pytest.mark.parametrize(
    "fused", [["conv", "norm"], ["conv", "norm", "act"], ["second", "act"], ["norm", "act"]], ids=" ".join
)
@pytest.mark.parametrize("converted", [("conv",), ("act",), ("conv", "act", "second")], ids=" ".join)
def test_fuse_modules(fused, converted):
    model, x = network(), batch()
    expected = quantization.fuse_modules(model, [fused])(x)
    for name in converted:
        convlab.convert(getattr(model, name))
    calls = []
    getattr(model, fused[0]).register_forward_pre_hook(lambda *_: calls.append("before"))
    getattr(model, fused[-1]).register_forward_hook(lambda *_: calls.append("after"))
    ours = quantization.fuse_modules(model, [fused])
    torch.testing.assert_close(ours(x), expected)
    assert calls[0] == "before" and calls[-1] == "after"
    assert all(type(getattr(ours, name)) is nn.Identity for name in fused[1:])
    kinds = {type(module) for module in ours.modules()}
    assert not {*converted} & {*fused} or kinds & {convlab.Conv2d, convlab.ReLU}


def test_fuse_modules_in_training_is_as_torchs():
    model = convlab.convert(network().train())
    with pytest.raises(NotImplementedError, match=WHEN):
        quantization.fuse_modules_qat(model, [["conv", "norm", "act"]])
    with pytest.raises(AssertionError):  # torch's own: only in eval()
        quantization.fuse_modules(model, [["conv", "norm"]])


@pytest.mark.parametrize("prepare", ["prepare", "prepare_qat"])
def test_eager_quantization_is_refused_before_anything_runs(prepare):
    model = convlab.convert(network().train(prepare == "prepare_qat"))
    before = copy.deepcopy(model)
    model.qconfig = qconfig() if prepare == "prepare" else quantization.get_default_qat_qconfig("x86")
    with pytest.raises(NotImplementedError, match=r"convlab\.Conv2d: " + WHEN):
        getattr(quantization, prepare)(model, inplace=True)
    for layer in (model.conv, model.act, model.pool):
        assert not hasattr(layer, "qconfig") and not layer._forward_hooks and not layer._forward_pre_hooks
        with pytest.raises(NotImplementedError, match=WHEN):
            layer.qconfig = qconfig()
    x = batch()
    torch.testing.assert_close(model(x), before(x))


def test_fx_quantization_is_refused_before_anything_runs():
    fx = pytest.importorskip("torch.ao.quantization.quantize_fx")

    class Functional(nn.Module):
        def forward(self, x):
            return convlab.functional.max_pool2d(x, 2)

    mapping = quantization.get_default_qconfig_mapping("x86")
    for model in (convlab.convert(network()), nn.Sequential(nn.Linear(8, 8), Functional()).eval()):
        with pytest.raises(NotImplementedError, match=WHEN):
            fx.prepare_fx(model, mapping, (batch(),))
    prepared = fx.prepare_fx(convlab.restore(convlab.convert(network())), mapping, (batch(),))
    prepared(batch())
    assert "quantize_per_tensor" in fx.convert_fx(prepared).code


@pytest.mark.works_with("`fuse_modules` of `torch.ao.quantization`; quantization itself, before `convlab.convert`")
@pytest.mark.parametrize("when", ["restored", "prepared", "quantized"])
def test_conversion_around_quantization(when):
    """What is to be quantized is torch's; conversion leaves it alone."""
    model, x = network(), batch()
    reference = copy.deepcopy(model)
    for m, ours in ((reference, False), (model, True)):
        if ours and when == "restored":
            convlab.restore(convlab.convert(m))
        m.qconfig = qconfig()
        m.last.qconfig = None
        quantization.prepare(m, inplace=True)
        if ours and when == "prepared":
            convlab.convert(m)
        m(x)
        quantization.convert(m, inplace=True)
        if ours and when == "quantized":
            convlab.convert(m)
    assert torch.equal(model(x), reference(x))
    assert type(model.conv).__module__.startswith("torch.ao.nn.quantized")


def test_layers_that_are_left_out_stay_convlabs():
    """By name, with qconfig None; and in dynamic quantization, which takes others."""
    model, x = convlab.convert(network()), batch()
    expected = model(x)
    dynamic = quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    assert type(dynamic.conv) is convlab.Conv2d and "dynamic" in type(dynamic.last).__module__
    torch.testing.assert_close(dynamic(x), expected, rtol=0.1, atol=0.1)
    for name in ("conv", "act", "pool", "second"):
        layer = getattr(model, name)
        layer.qconfig = None
        assert layer.qconfig is None and copy.deepcopy(layer).qconfig is None
        assert type(convlab.restore(layer)).__module__.startswith("torch.nn") and layer.qconfig is None
        convlab.convert(layer)
    model.into, model.out, model.norm = nn.Identity(), nn.Identity(), nn.Identity()
    model.qconfig = qconfig()
    model.last.qconfig = None
    prepared = quantization.convert(quantization.prepare(model))
    torch.testing.assert_close(prepared(x), model(x))


def test_every_mixture_of_layers_has_its_fuser():
    mappings = pytest.importorskip("torch.ao.quantization.fuser_method_mappings")
    kinds = [(nn.Conv2d, convlab.Conv2d), (nn.BatchNorm2d,), (nn.ReLU, convlab.ReLU)]
    for pattern in [*itertools.product(*kinds), *itertools.product(*kinds[::2]), *itertools.product(*kinds[:2])]:
        ours = any(kind.__module__.startswith("convlab") for kind in pattern)
        assert (mappings.get_fuser_method(pattern).__module__ == "convlab._fusion") == ours
