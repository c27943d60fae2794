"""fuse() makes one call of a convolution and what follows it: the same numbers, the same model, and back."""

import copy
import pickle
import random
import re
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import convlab
import convlab.functional as CF
from convlab import _fuse

EXACT = dict(rtol=1e-9, atol=1e-9)


@contextmanager
def blocks():
    """Counts the calls of conv2d_block by (activation, pool)."""
    calls, real = Counter(), CF.conv2d_block

    def counted(*args, **kwargs):
        calls[kwargs["activation"], kwargs["pool"]] += 1
        return real(*args, **kwargs)

    CF.conv2d_block = counted
    try:
        yield calls
    finally:
        CF.conv2d_block = real


def drawn(model):
    """`model` in float64, with statistics and weights of its batch normalizations that are not those of the start."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            if m.affine:
                nn.init.uniform_(m.weight, 0.5, 2)
                nn.init.normal_(m.bias)
    return model.double()


def results(model, x):
    torch.manual_seed(0)  # dropout
    y = model(x)
    gradients = torch.autograd.grad(y.square().mean(), [p for p in model.parameters() if p.requires_grad])
    return [y.detach(), *gradients]


def assert_same(model, other, x):
    """To 1e-9 of the largest: some gradients are sums of large terms that should be 0, before a batch norm."""
    (y, *gradients), (expected, *others) = results(model, x), results(other, x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    largest = max(g.abs().max().item() for g in others)
    for a, b in zip(gradients, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * largest)


# ---- where there are chains -----------------------------------------------------------------------------------------

CHAINS = {
    "conv, relu": ((nn.Conv2d(3, 4, 3), nn.ReLU()), ("relu", None)),
    "in place": ((nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), ("relu", None)),
    "leaky": ((nn.Conv2d(3, 4, 3, bias=False), nn.LeakyReLU(-0.5)), ("leaky_relu", None)),
    "conv, pool": ((nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), (None, 2)),
    "all": ((nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.MaxPool2d((3, 2))), ("leaky_relu", (3, 2))),
    "pool before relu": ((nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, (2, 2)), nn.ReLU()), ("relu", 2)),
    "pool before leaky": ((nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 2), nn.LeakyReLU(0.3)), ("leaky_relu", 2)),
    "relu6": ((nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True)), ("relu6", None)),
    "pool before relu6": ((nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU6()), ("relu6", 2)),
    "batch norm": ((nn.Conv2d(3, 4, 3, groups=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), ("relu", 2)),
    "padding": ((nn.Conv2d(3, 4, 3, 2, 1, padding_mode="reflect"), nn.ReLU()), ("relu", None)),
    "nested": ((nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), nn.ReLU()), ("relu", None)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_sequential(name):
    layers, expected = CHAINS[name]
    model = drawn(copy.deepcopy(nn.Sequential(*layers))).eval()
    fused = convlab.fuse(copy.deepcopy(model))
    x = 8 * torch.randn(2, 3, 13, 12, dtype=torch.float64)  # some outputs are beyond 6
    with blocks() as calls:
        fused(x)
    assert calls == {expected: 1}
    assert _fuse.unfused(fused) == {}
    assert_same(fused, model, x)


def test_not_a_number_and_infinities():
    x = 8 * torch.randn(2, 3, 9, 9, dtype=torch.float64)
    x[0, 0, 2, 2], x[1, 1, 5, 5], x[1, 0, 8, 8] = float("nan"), -float("inf"), float("inf")
    for name, (layers, _) in CHAINS.items():
        if name not in ("batch norm", "nested"):
            model = convlab.convert(copy.deepcopy(nn.Sequential(*layers))).double()
            expected = results(model, x)
            for a, b in zip(results(convlab.fuse(model), x), expected):
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


class Basic(nn.Module):
    """A block of ResNet, whose activation is in two places; with a functional dropout and an attribute."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.relu, self.downsample, self.p = nn.ReLU(inplace=True), None, 0.1
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += shortcut
        return F.dropout(self.relu(y), self.p, self.training)


class Fire(nn.Module):
    """A block of SqueezeNet, by functions."""

    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze, self.expand1 = nn.Conv2d(inputs, squeezed, 1), nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([self.expand1(x).relu(), F.leaky_relu(self.expand3(x), 0.2)], 1)


class Dense(nn.Module):
    """A layer of DenseNet, which takes a tensor or a list of them."""

    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = [x] if isinstance(x, torch.Tensor) else x
        y = self.norm2(self.conv1(self.relu(self.norm1(torch.cat(x, 1)))))
        return self.conv2(self.relu(y))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5)
        self.blocks = nn.ModuleList([Basic(8, 8), Basic(8, 12, 2)])
        self.fire, self.dense = Fire(12, 4, 6), nn.ModuleList([Dense(12), Dense(16)])
        self.last = nn.Sequential(nn.Conv2d(20, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6())

    def forward(self, x, scale=None):
        x = F.max_pool2d(F.relu(self.stem(x)), kernel_size=2)
        for block in self.blocks:
            x = block(x)
        features = [self.fire(x)]
        for layer in self.dense:
            features.append(layer(features))
        y = self.last(torch.cat(features, 1)).mean((2, 3))
        return y if scale is None else y * scale


def network():
    return drawn(Network())


def image():
    return torch.randn(2, 3, 24, 24, dtype=torch.float64)


def test_a_network():
    """Outputs, gradients and statistics, in training and eval; which calls it makes."""
    model, x = network(), image()
    fused = convlab.fuse(copy.deepcopy(model))
    for training in (True, False, True):
        model.train(training), fused.train(training)
        with blocks() as calls:
            assert_same(fused, model, x)
        functions = {("relu", 2): 1, ("relu", None): 2, ("leaky_relu", None): 1}
        folded = {("relu", 2): 1, ("relu", None): 6, ("leaky_relu", None): 1}
        assert calls == (functions if training else folded)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, **EXACT)
    torch.testing.assert_close(fused.eval()(x, scale=3), model.eval()(x, scale=3), **EXACT)


class Inverted(nn.Module):
    """An inverted residual of MobileNetV2, one of whose activations is a function."""

    def __init__(self, channels, wide):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(True))
        self.depthwise, self.norm = nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide)
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        return x + self.project(F.relu6(self.norm(self.depthwise(self.expand(x)))))


def test_an_inverted_residual():
    model, x = drawn(Inverted(3, 12)), 8 * image()
    fused = convlab.fuse(copy.deepcopy(model))
    for training in (True, False):
        model.train(training), fused.train(training)
        with blocks() as calls:
            assert_same(fused, model, x)
        assert calls == ({} if training else {("relu6", None): 2})


def test_restore_gives_the_model_back():
    model = network()
    before = {name: (type(m), dict(vars(m))) for name, m in model.named_modules()}
    text, keys = repr(model), list(model.state_dict())
    assert convlab.fuse(model) is model and list(model.state_dict()) == keys
    assert repr(model) != text == repr(model).replace("convlab.", "")
    assert isinstance(model, Network) and isinstance(model.blocks[0], Basic) and type(model.stem) is convlab.Conv2d
    convlab.fuse(model)  # again
    convlab.restore(model)
    assert {name: (type(m), dict(vars(m))) for name, m in model.named_modules()} == before


def test_copies_and_pickles():
    model, x = convlab.fuse(network()).eval(), image()
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with blocks() as calls:
            torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
        assert calls["relu", 2] == 1 and sum(calls.values()) == 8
        assert type(convlab.restore(other)) is Network
    assert type(model.last[:2](torch.cat([x] * 7, 1)[:, :20])) is torch.Tensor  # a slice of a Sequential


def test_batch_norm_is_folded_from_the_live_parameters():
    model = drawn(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).eval()
    fused, x = convlab.fuse(copy.deepcopy(model)), image()
    for change in (
        lambda m: m[1].running_var.data.mul_(3),
        lambda m: m[0].weight.data.copy_(m[0].weight.flip(0)),
        lambda m: setattr(m[1], "bias", nn.Parameter(torch.ones(4, dtype=torch.float64))),
        lambda m: m.load_state_dict({name: value / 2 for name, value in m.state_dict().items()}),
    ):
        change(model), change(fused)
        assert_same(fused, model, x)
    averaged = torch.optim.swa_utils.AveragedModel(fused)
    fused.train()(x)
    averaged.update_parameters(fused)
    torch.testing.assert_close(averaged.eval()(x), fused.eval()(x), **EXACT)
    frozen = fused.requires_grad_(False)
    assert not frozen(x).requires_grad
    half = frozen.to(torch.bfloat16)
    half[1].float()
    torch.testing.assert_close(half(x.bfloat16()), convlab.restore(half)(x.bfloat16()), rtol=0.05, atol=0.05)


def test_large_filters_of_few_outputs_are_not_folded():
    fused = convlab.fuse(drawn(nn.Sequential(nn.Conv2d(64, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())).eval())
    for size, folded in ((13, 1), (5, 0)):
        with blocks() as calls:
            fused(torch.randn(1, 64, size, size, dtype=torch.float64))
        assert sum(calls.values()) == folded


# ---- what is no longer as it was ------------------------------------------------------------------------------------


def test_hooks_run():
    model, seen = convlab.fuse(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))), []
    x = torch.randn(1, 3, 8, 8)
    for layer, register in (
        (model[0], nn.Module.register_forward_hook),
        (model[1], nn.Module.register_forward_pre_hook),
        (model[2], nn.Module.register_full_backward_hook),
    ):
        with blocks() as calls:
            handle = register(layer, lambda *_: seen.append(register.__name__))
            model(x).sum().backward()
            assert seen.pop() == register.__name__ and not seen and not calls
            assert _fuse.unfused(model) == {"0": f"{type(layer).__name__} has a hook"}
            handle.remove()
            model(x)
        assert sum(calls.values()) == 1
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(type(m)))
    model(x)
    handle.remove()
    assert seen == [convlab.Conv2d, convlab.ReLU, convlab.MaxPool2d, type(model)]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: parametrizations.weight_norm(m[0]),
        lambda m: nn.utils.spectral_norm(m[0]),
        lambda m: m.__setitem__(1, nn.Tanh()),
        lambda m: setattr(m[2], "stride", 1),
        lambda m: m.append(nn.Sigmoid()),
        lambda m: m.__delitem__(2),
        lambda m: setattr(m[1], "forward", torch.sin),
        lambda m: m.__setitem__(0, m[0].requires_grad_(False)),
    ],
)
def test_a_model_that_changes_does_what_it_then_is(change):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).double().eval()
    fused, x = convlab.fuse(copy.deepcopy(model)), image()
    for m in (model, fused):
        torch.manual_seed(1)
        change(m)
    torch.testing.assert_close(fused(x), model(x), **EXACT)


class Conditional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.leaky = nn.Conv2d(3, 4, 3), False

    def forward(self, x):
        y = self.conv(x)
        return F.leaky_relu(y) if self.leaky else F.relu(y)


class Asks(nn.Module):
    """Its forward asks what its children are set to, and whether some are there."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.drop = nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.5), nn.Dropout(0.5)
        self.down = nn.Conv2d(4, 4, 1)
        self.register_parameter("gate", nn.Parameter(torch.full((1,), 2.0)))

    def forward(self, x):
        y = F.leaky_relu(self.conv(x), self.act.negative_slope)
        if self.down is not None:
            y = self.down(y)
        return F.dropout(y if self.gate is None else y * self.gate, self.drop.p, self.drop.training)


@pytest.mark.parametrize("training", [False, True])
def test_what_children_are_set_to_may_change(training):
    torch.manual_seed(0)
    original = Asks().double().train(training)
    model = convlab.fuse(copy.deepcopy(original))
    for change in (
        lambda m: m.eval(),
        lambda m: setattr(m.act, "negative_slope", 0.125),
        lambda m: setattr(m, "down", None),
        lambda m: setattr(m, "gate", None),
        lambda m: setattr(m, "down", nn.Conv2d(4, 4, 1, bias=False).double().requires_grad_(False)),
    ):
        for m in (original, model):
            torch.manual_seed(1)
            change(m)
        x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
        torch.testing.assert_close(model(x), original(x), rtol=1e-9, atol=1e-9)


class WithoutGradients(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = F.relu(self.conv(x))
        return y if torch.is_grad_enabled() else y + 1


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.slopes, self.count = nn.Conv2d(3, 4, 3), [[0.1]], [0]

    def forward(self, x):
        self.count[0] += 1
        return F.leaky_relu(self.conv(x), self.slopes[0][0])


def test_a_forward_that_asks_for_the_mode_or_counts_is_left():
    x = torch.randn(1, 3, 7, 7, dtype=torch.float64)
    original, counts = WithoutGradients().double(), Stateful().double()
    model, counting = convlab.fuse(copy.deepcopy(original)), convlab.fuse(copy.deepcopy(counts))
    with torch.no_grad():
        torch.testing.assert_close(model(x), original(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(counting(x), counts(x), rtol=1e-9, atol=1e-9)
    counting.slopes[0][0] = counts.slopes[0][0] = 0.9
    torch.testing.assert_close(counting(x), counts(x), rtol=1e-9, atol=1e-9)
    assert counting.count == [2]


def test_a_batch_norm_of_other_channels_is_torchs_error():
    model = convlab.fuse(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(1), nn.ReLU()).eval())
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 3, 7, 7))


def test_attributes_that_the_forward_reads_may_change():
    model, x = convlab.fuse(Conditional()), torch.randn(1, 3, 8, 8)
    with blocks() as calls:
        model(x)
        assert calls == {("relu", None): 1}
        model.leaky = True
        torch.testing.assert_close(model(x), F.leaky_relu(model.conv(x)))
        assert sum(calls.values()) == 1
    assert "not as it was" in _fuse.unfused(model)[""]


# ---- what is left ---------------------------------------------------------------------------------------------------


class Own(nn.Module):
    """Runs `body` of self and x."""

    def __init__(self, body):
        super().__init__()
        self.conv, self.relu, self.body, self.list = nn.Conv2d(3, 4, 3), nn.ReLU(), body, []
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        return type(self).run(self, x)


def own(body):
    class Made(Own):
        run = staticmethod(body)

    return Made(None)


def without_gradients(self, x):
    with torch.no_grad():
        return self.relu(self.conv(x))


def remembers(self, x):
    self.last = x
    return self.relu(self.conv(x))


def checkpointed(self, x):
    return torch.utils.checkpoint.checkpoint(lambda x: self.relu(self.conv(x)), x, use_reentrant=False)


LEFT = {
    "used twice": (lambda self, x: self.relu(y := self.conv(x)) + y, r"its output is used 2 times"),
    "followed by something": (lambda self, x: self.conv(x) + 1, "add follows it"),
    "returned": (lambda self, x: self.conv(x), "Made returns what it makes"),
    "control flow": (lambda self, x: self.relu(self.conv(x)) if x.sum() > 0 else x, "torch.fx cannot trace it"),
    "gradients": (without_gradients, "switches gradients"),
    "checkpoints": (checkpointed, "switches gradients, autocast or checkpoints"),
    "state": (remembers, r"sets self\.last"),
    "a list": (lambda self, x: self.list.append(x) or self.relu(self.conv(x)), r"sets self\.list"),
    "random": (lambda self, x: self.relu(self.conv(x)) * random.random(), "draws random numbers"),
    "kind": (lambda self, x: self.relu(self.conv(x)) if isinstance(x + 1, torch.Tensor) else x, "what kind of thing"),
    "constant": (lambda self, x: self.relu(self.conv(x) * torch.ones(())), "neither a parameter nor"),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_is_left_has_a_reason(what):
    body, reason = LEFT[what]
    model = own(body)
    before, expected = dict(vars(model)), type(model)
    convlab.fuse(model)
    (said,) = _fuse.unfused(model).values()
    assert re.search(reason, said), said
    assert type(model) is expected and model.list == []
    convlab.restore(model)
    assert vars(model) == before
    model(torch.randn(1, 3, 8, 8))


def test_layers_that_are_left_have_a_reason():
    class Mine(nn.Conv2d):
        pass

    model = nn.Sequential(
        Mine(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 4, 3),
        nn.MaxPool2d(2),
        nn.LeakyReLU(-1.0),
        nn.Conv2d(4, 4, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(4, 4, 1),
        nn.Hardtanh(0, 6),
    )
    convlab.fuse(model)
    assert _fuse.unfused(model) == {
        "0": "Mine is not exactly convlab.Conv2d",
        "4": "the pooling's stride=2 is not its window 3",
        "7": "negative_slope=-1.0 after a pooling is not the same as before it",
        "9": "the pooling has ceil_mode or return_indices",
        "10": "Hardtanh follows it",
    }
    x = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(model(x), convlab.restore(copy.deepcopy(model))(x))
    text = str(convlab.summary(model, x))
    assert "not fused: 10: Hardtanh follows it" in text and "2 + 3 " in text and "5 + 6 " in text


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"fuse: model must be a torch.nn.Module, got list"):
        convlab.fuse([nn.ReLU()])
    model = network()
    with pytest.raises(ValueError, match="nonsense"):
        convlab.fuse(model, algo="nonsense")
    assert type(model.stem) is nn.Conv2d
    convlab.convert(model, algo="direct")
    assert repr(convlab.fuse(model).stem.algo) == "'direct'" and convlab.fuse(model, algo="auto").stem.algo == "auto"


# ---- with the rest of PyTorch ---------------------------------------------------------------------------------------


def test_summary_of_a_fused_model():
    model = convlab.fuse(Network())
    rows = convlab.summary(model, torch.randn(2, 3, 24, 24)).passes
    assert ("stem + relu + max_pool2d", "wgrad") in {(row.layer, row.pass_) for row in rows}
    assert {row.kind for row in rows} == {"ConvBlock2d", "Conv2d", "ReLU", "ReLU6"} and all(
        row.error < 1e-5 for row in rows
    )
    with torch.no_grad():
        rows = convlab.summary(model.eval(), torch.randn(2, 3, 24, 24)).passes
    names = [row.layer for row in rows]
    assert "blocks.0.conv1 + blocks.0.bn1 + blocks.0.relu" in names and "blocks.0.relu" in names
    assert not _fuse._chains.observers


@pytest.mark.parametrize("training", [True, False])
def test_compiled_and_exported(training):
    model = drawn(nn.Sequential(Conditional(), Basic(4, 8, 2))).train(training)
    model[1].p = 0.0
    fused, x = convlab.fuse(copy.deepcopy(model)), image()
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert_same(compiled, model, x)
    torch._dynamo.reset()
    if not training:
        torch.testing.assert_close(torch.export.export(fused, (x,)).module()(x), model(x), **EXACT)
        torch.testing.assert_close(torch.jit.trace(fused, x)(x), model(x), **EXACT)
        assert [n.target for n in torch.fx.symbolic_trace(fused).graph.nodes] == [
            n.target for n in torch.fx.symbolic_trace(model).graph.nodes
        ]


# ---- ConvBlock2d ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "relu6"])
def test_conv_block(activation):
    block = convlab.ConvBlock2d(3, 4, 3, padding=1, padding_mode="circular", activation=activation, pool=2).double()
    layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular").double()
    layer.load_state_dict(block.state_dict())
    act = {None: nn.Identity(), "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(), "relu6": nn.ReLU6()}[activation]
    x = 8 * torch.randn(2, 3, 9, 8, dtype=torch.float64)
    assert_same(block, nn.Sequential(layer, act, nn.MaxPool2d(2)), x)
    text, model = repr(block), nn.Sequential(block)
    assert "pool=2" in text and (activation is None or repr(activation) in text)
    expected = results(model, x)
    convlab.restore(model)
    assert not isinstance(block, convlab.Conv2d) and repr(block).partition("(")[2] == text.partition("(")[2]
    for a, b in zip(results(model, x), expected):
        torch.testing.assert_close(a, b, **EXACT)
    assert type(convlab.fuse(model)[0]) is convlab.ConvBlock2d
    (row, _) = convlab.summary(block, x.float().double()).passes
    assert row.kind == "ConvBlock2d" and row.error < 1e-9


def test_conv_block_refuses_other_activations():
    with pytest.raises(ValueError, match=r"activation='gelu' must be None, 'relu', 'leaky_relu' or 'relu6'"):
        convlab.ConvBlock2d(3, 4, 3, activation="gelu")


# ---- torchvision's --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "squeezenet1_1", "mobilenet_v2", "densenet121"])
@pytest.mark.long
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    model = drawn(getattr(models, name)(weights=None, num_classes=10))
    fused, x = convlab.fuse(copy.deepcopy(model)), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for training in (True, False):
        model.train(training), fused.train(training)
        with blocks() as calls:
            assert_same(fused, model, x)
        assert training or sum(calls.values()) > 5
    assert [type(m) for m in convlab.restore(fused).modules()] == [type(m) for m in model.modules()]
