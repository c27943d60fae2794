"""convert() takes exactly torch.nn's layers and keeps all they had; what it leaves has a reason; restore() undoes
it."""

import copy
import re

import pytest
import torch
import torch.ao.nn.intrinsic.qat
import torch.ao.nn.qat
import torch.ao.nn.quantized
import torch.ao.nn.quantized.dynamic
from torch import nn
from torch.nn.utils import parametrizations

import convlab
from convlab._convert import left_alone

QCONFIG = torch.ao.quantization.get_default_qconfig("x86")


class OwnConv(nn.Conv2d):
    pass


def network():
    shared = nn.ReLU()
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        shared,
        nn.MaxPool2d(2),
        nn.Sequential(nn.AvgPool2d(2), shared),
        nn.LeakyReLU(),
        nn.BatchNorm2d(4),
    )


def kinds(model):
    return [type(module) for module in model.modules()]


def test_restore_undoes_convert():
    model, calls = network(), []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[2].register_forward_pre_hook(lambda *_: calls.append("pre"))
    model[0].register_full_backward_hook(lambda *_: calls.append("backward"))
    model[1].eval()
    before, attributes = kinds(model), {name: dict(vars(module)) for name, module in model.named_modules()}
    x = torch.randn(2, 3, 12, 12)
    expected = model(x)

    convlab.convert(model, algo="direct")
    assert {type(m) for m in model.modules()} >= {convlab.Conv2d, convlab.MaxPool2d, convlab.AvgPool2d, convlab.ReLU}
    assert model[1] is model[3][1] and not model[1].training and model[0].training
    torch.testing.assert_close(model(x), expected)
    model(x).sum().backward()
    assert calls == ["forward", "pre"] * 3 + ["backward"]

    assert convlab.restore(model) is model
    assert kinds(model) == before
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes
    assert torch.equal(model(x), expected)


def test_layers_made_as_convlabs_are_restored_too():
    layer = convlab.Conv2d(3, 4, 3, algo="direct")
    assert type(convlab.restore(layer)) is nn.Conv2d
    assert repr(layer) == repr(nn.Conv2d(3, 4, 3))


def test_a_dtype_a_device_and_modules_beside_the_model_stay():
    model = network().to(torch.float64)
    held, compiled = model[0], nn.ModuleDict({"again": model})
    convlab.convert(compiled)
    assert type(held) is convlab.Conv2d and held.weight.dtype is torch.float64
    meta = convlab.convert(nn.Conv2d(3, 4, 3, device="meta"))
    assert type(meta) is convlab.Conv2d and meta.weight.is_meta


def replaced(module):
    forward = module.forward
    module.forward = lambda x: forward(x)
    return module


def with_qconfig(module):
    module.qconfig = QCONFIG
    return module


LEFT = {
    "subclass": (lambda: OwnConv(3, 4, 3), "OwnConv, a subclass of torch's Conv2d"),
    "parametrized": (lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), r"parametrized \(weight\)"),
    "forward replaced": (lambda: replaced(nn.ReLU()), "its forward was replaced"),
    "prepared for quantization": (lambda: with_qconfig(nn.Conv2d(3, 4, 3)), "prepared for quantization"),
    "quantized": (lambda: torch.ao.nn.quantized.Conv2d(3, 4, 3), "quantized"),
    "quantized in training": (
        lambda: torch.ao.nn.qat.Conv2d(3, 4, 3, qconfig=torch.ao.quantization.get_default_qat_qconfig("x86")),
        "quantized",
    ),
    "beside quantized ones": (
        lambda: nn.Sequential(torch.ao.nn.quantized.Conv2d(3, 4, 3), nn.ReLU()),
        "its model is quantized",
    ),
    "scripted": (lambda: torch.jit.script(nn.ReLU()), "scripted"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", LEFT)
def test_what_is_left_has_a_reason(what):
    make, reason = LEFT[what]
    model = nn.Sequential(make(), nn.Linear(2, 2))
    before = kinds(model)
    convlab.convert(model)
    assert kinds(model) == before
    reasons = left_alone(model)
    assert "1" not in reasons and any(re.search(reason, said) for said in reasons.values()), reasons


def test_what_is_convlabs_or_none_of_its_kinds_has_no_reason():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv3d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        torch.ao.nn.quantized.dynamic.Linear(3, 4),
    )
    assert left_alone(model) == {"0": "call convlab.convert(model) to make it convlab's"}
    assert type(convlab.convert(model)[0]) is convlab.Conv2d and left_alone(model) == {}
    assert left_alone(convlab.restore(model)) == {"0": "call convlab.convert(model) to make it convlab's"}


def test_a_parametrization_that_goes_leaves_the_layer_as_it_was():
    layer = convlab.convert(nn.Conv2d(3, 4, 3))
    parametrizations.weight_norm(layer)
    assert type(layer) is not convlab.Conv2d and left_alone(layer) == {}
    assert [row.kind for row in convlab.summary(layer, torch.randn(1, 3, 6, 6)).passes] == ["Conv2d", "Conv2d"]
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is convlab.Conv2d
    assert type(convlab.restore(layer)) is nn.Conv2d


def test_lazy_layers_become_convlabs_in_their_first_forward():
    model = convlab.convert(nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.LazyConvTranspose2d(3, 2)))
    assert type(model[0]) is convlab.LazyConv2d
    x = torch.randn(2, 3, 8, 8)
    y = model(x)
    assert type(model[0]) is convlab.Conv2d and type(model[2]) is convlab.ConvTranspose2d
    torch.testing.assert_close(y, convlab.restore(model)(x))


def test_fused_layers_hold_converted_ones():
    fused = torch.ao.nn.intrinsic.ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = torch.randn(2, 3, 8, 8)
    expected = fused(x)
    assert type(convlab.convert(nn.Sequential(fused))[0][0]) is convlab.Conv2d
    torch.testing.assert_close(fused(x), expected)


def test_a_model_that_was_compiled_before():
    model = network().eval()
    compiled = torch.compile(model, backend="aot_eager")
    x = torch.randn(2, 3, 12, 12)
    expected = compiled(x)
    convlab.convert(compiled)
    with torch.profiler.profile() as profile:
        torch.testing.assert_close(compiled(x), expected)
    assert any("convlab::conv2d_forward" in event.key for event in profile.key_averages())
    torch._dynamo.reset()


def test_wrong_arguments():
    for function in (convlab.convert, convlab.restore):
        with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list"):
            function([nn.ReLU()])
    model = network()
    before = kinds(model)
    with pytest.raises(ValueError, match="nonsense"):
        convlab.convert(model, algo="nonsense")
    assert kinds(model) == before
    assert type(copy.deepcopy(convlab.convert(model))[0]) is convlab.Conv2d
