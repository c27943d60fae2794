"""convlab's layers are torch.nn's: arguments, repr, parameters, results; and convert() swaps one for the other."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn

import convlab

PAIRS = [
    ("Conv2d", (3, 6, 3), {}),
    ("Conv2d", (3, 6, (3, 2)), dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=3, bias=False)),
    ("Conv2d", (3, 6, 4), dict(padding="same", dilation=2)),
    ("Conv2d", (3, 6, 3), dict(padding="valid")),
    *(
        ("Conv2d", (3, 6, 3), dict(padding=(2, 1), stride=2, padding_mode=mode))
        for mode in ("reflect", "replicate", "circular")
    ),
    *(
        ("Conv2d", (3, 6, (2, 4)), dict(padding="same", padding_mode=mode))
        for mode in ("reflect", "replicate", "circular")
    ),
    ("Conv2d", (3, 6, 3), dict(dtype=torch.float64)),
    ("MaxPool2d", (2,), {}),
    ("MaxPool2d", (3,), dict(stride=2, padding=1, ceil_mode=True)),
    ("MaxPool2d", ((3, 2),), dict(stride=(1, 2), dilation=(2, 1), return_indices=True)),
    ("LeakyReLU", (), {}),
    ("LeakyReLU", (0.2,), dict(inplace=True)),
    ("ReLU", (), dict(inplace=True)),
    ("ReLU", (), {}),
]


def both(name, args, kwargs):
    torch.manual_seed(0)
    ours = getattr(convlab, name)(*args, **kwargs)
    torch.manual_seed(0)
    return ours, getattr(nn, name)(*args, **kwargs)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name,args,kwargs", PAIRS)
def test_layers_are_torchs(name, args, kwargs, device):
    ours, torchs = (m.to(device) for m in both(name, args, kwargs))
    assert isinstance(ours, type(torchs))
    assert repr(ours) == "convlab." + repr(torchs)
    assert {k: v.tolist() for k, v in ours.state_dict().items()} == {
        k: v.tolist() for k, v in torchs.state_dict().items()
    }
    for shape in [(2, 3, 11, 9), (3, 11, 9), (0, 3, 11, 9)]:
        x = torch.randn(shape, device=device, dtype=kwargs.get("dtype"))
        close(ours(x.clone()), torchs(x.clone()))


@pytest.mark.parametrize("name,args,kwargs", PAIRS)
def test_convert_and_serialise(name, args, kwargs):
    ours, torchs = both(name, args, kwargs)
    ours.load_state_dict(torchs.state_dict())
    converted = convlab.convert(copy.deepcopy(torchs))
    assert type(converted) is type(ours)
    x = torch.randn(2, 3, 11, 9, dtype=kwargs.get("dtype"))
    saved = io.BytesIO()
    torch.save(converted, saved)
    saved.seek(0)
    for copied in (
        converted,
        copy.deepcopy(converted),
        pickle.loads(pickle.dumps(converted)),
        torch.load(saved, weights_only=False),
    ):
        close(copied(x.clone()), torchs(x.clone()))


def test_algo_of_a_layer():
    layer = convlab.Conv2d(3, 6, 3, algo="reference")
    assert "algo='reference'" in repr(layer)
    x = torch.randn(2, 3, 8, 8)
    close(layer(x), convlab.functional.conv2d(x, layer.weight, layer.bias))
    with pytest.raises(ValueError, match="nonsense"):
        convlab.Conv2d(3, 6, 3, algo="nonsense")(x)


class OwnConv(nn.Conv2d):
    pass


def test_convert_swaps_exactly_torchs_types_in_place():
    shared = nn.ReLU()
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        shared,
        nn.Sequential(nn.MaxPool2d(2), shared),
        OwnConv(4, 4, 1),
        nn.LeakyReLU(),
        nn.BatchNorm2d(4),
    )
    parametrised = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
    model.append(parametrised)
    model.eval()
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    parameters = list(map(id, model.parameters()))
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)

    assert convlab.convert(model) is model
    kinds = [type(m) for m in model]
    assert kinds[:2] == [convlab.Conv2d, convlab.ReLU] and kinds[3:6] == [OwnConv, convlab.LeakyReLU, nn.BatchNorm2d]
    assert type(model[2][0]) is convlab.MaxPool2d and model[2][1] is model[1] is shared
    assert isinstance(parametrised, nn.Conv2d) and not isinstance(parametrised, convlab.Conv2d)
    assert list(map(id, model.parameters())) == parameters
    close(model(x), expected)
    assert len(seen) == 2 and not model[0].training
    assert type(convlab.convert(nn.Conv2d(1, 1, 1))) is convlab.Conv2d


def test_parity_of_the_whole_argument_list():
    """No argument of torch.nn's classes is missing, and algo is the only one added."""
    from inspect import signature

    for name in ("conv2d", "max_pool2d", "leaky_relu", "relu"):
        ours = list(signature(getattr(convlab.functional, name)).parameters)
        if name == "conv2d":
            assert ours == ["input", "weight", "bias", "stride", "padding", "dilation", "groups", "algo"]
        elif name == "max_pool2d":
            assert ours == ["input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"]
        else:
            assert ours == list(signature(getattr(nn.functional, name)).parameters)


@pytest.mark.parametrize("name", ["Conv2d", "MaxPool2d", "AvgPool2d", "LeakyReLU", "ReLU"])
def test_signatures_are_torchs(name):
    """By which torch and others decide what to hand on: nn.utils.skip_init, a layer's name in a configuration file."""
    ours, torchs = (dict(inspect.signature(getattr(home, name)).parameters) for home in (convlab, nn))
    if name == "Conv2d":
        assert ours.pop("algo").kind is inspect.Parameter.KEYWORD_ONLY
    assert list(ours) == list(torchs)
    assert [(p.kind, p.default) for p in ours.values()] == [(p.kind, p.default) for p in torchs.values()]


def test_skip_init():
    layer = nn.utils.skip_init(convlab.Conv2d, 3, 4, (3, 2), padding="same", dtype=torch.float64, algo="direct")
    assert type(layer) is convlab.Conv2d and layer.weight.dtype is torch.float64 and layer.algo == "direct"
    reference = nn.Conv2d(3, 4, (3, 2), padding="same", dtype=torch.float64)
    layer.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), reference(x))
    for name, arguments in {"MaxPool2d": (2,), "ReLU": ()}.items():  # torch's refuse as well: nothing to leave out
        with pytest.raises(RuntimeError, match="must support a 'device' arg"):
            nn.utils.skip_init(getattr(convlab, name), *arguments)
