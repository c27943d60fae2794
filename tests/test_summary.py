"""summary() tells which algorithms run in a model, for how long, and how far they are from torch; and leaves the model
as it was."""

import sys
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import convlab
import convlab.functional as CF
from convlab import _summary, ops
from convlab._measure import Timing


class Asked(TorchDispatchMode):
    """{(pass, name)} of the algorithms that operators are called with: their last argument is an algorithm's number."""

    PASSES: ClassVar = {ops.conv2d_forward: "forward", ops.conv2d_dgrad: "dgrad", ops.conv2d_wgrad: "wgrad"}
    NAMES: ClassVar = {0: "auto", **{algorithm.number: algorithm.name for algorithm in convlab.algorithms()}}

    def __init__(self):
        super().__init__()
        self.algorithms = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in self.PASSES:
            self.algorithms.add((self.PASSES[func], self.NAMES[args[-1]]))
        return func(*args, **(kwargs or {}))


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.1, inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.Dropout(0.5),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


@pytest.fixture
def model():
    model = network()
    model(torch.randn(2, 3, 12, 12))
    return convlab.convert(model)


def by_layer(summary):
    return {
        layer: [row.pass_ for row in summary.passes if row.layer == layer]
        for layer in dict.fromkeys(row.layer for row in summary.passes)
    }


def test_passes_of_a_training_step(model):
    found = convlab.summary(model, torch.randn(2, 3, 12, 12))
    assert by_layer(found) == {
        "0": ["forward", "wgrad"],
        "2": ["forward", "backward"],
        "3": ["forward", "backward"],
        "4": ["forward", "dgrad", "wgrad"],
        "6": ["forward", "backward"],
    }
    rows = {(row.layer, row.pass_): row for row in found.passes}
    assert rows["0", "forward"].input == (2, 3, 12, 12) and rows["0", "forward"].output == (2, 16, 12, 12)
    assert (
        rows["4", "dgrad"].algorithm == rows["4", "forward"].algorithm == "depthwise"
        and rows["3", "forward"].algorithm is None
    )
    assert all(row.seconds > 0 and row.error < 1e-5 for row in found.passes)
    assert sum(row.share for row in found.passes) == pytest.approx(1) and found.seconds == pytest.approx(
        sum(row.seconds for row in found.passes)
    )
    assert found.left == {}


def test_forward_alone_where_nobody_differentiates(model):
    with torch.no_grad():
        assert {row.pass_ for row in convlab.summary(model, torch.randn(2, 3, 12, 12)).passes} == {"forward"}
    model.requires_grad_(False)
    assert by_layer(convlab.summary(model, torch.randn(2, 3, 12, 12).requires_grad_()))["0"] == ["forward", "dgrad"]


def test_algorithms_are_those_that_run(model):
    """What the table says, against what the operators are asked for."""
    convlab.convert(model, algo={"forward": "direct", "wgrad": "reference"})
    with Asked() as asked:
        found = convlab.summary(model, torch.randn(2, 3, 12, 12))
    said = {(row.pass_, row.algorithm) for row in found.passes if row.kind == "Conv2d"}
    assert said == {("forward", "direct"), ("wgrad", "reference"), ("dgrad", "depthwise")}
    assert asked.algorithms == {("forward", "direct"), ("wgrad", "reference"), ("dgrad", "auto")}


def test_auto_is_resolved_as_the_operators_do(model):
    """A named algorithm gives the bits of the one that "auto" takes."""
    x = torch.randn(2, 16, 10, 10)
    layer = model[4]
    (forward,) = {
        row.algorithm
        for row in convlab.summary(model, torch.randn(2, 3, 12, 12)).passes
        if row.layer == "4" and row.pass_ == "forward"
    }
    with torch.no_grad():
        named = CF.conv2d(x, layer.weight, layer.bias, groups=16, algo=forward)
        assert torch.equal(named, layer(x))


def test_a_gpus_algorithms_without_a_gpu():
    layer = convlab.Conv2d(1, 6, 5)
    with torch.no_grad(), convlab.simulate(check=False) as sim:
        (row,) = convlab.summary(layer, torch.randn(1, 1, 32, 32)).passes
    assert row.algorithm == "small_filter" and any("small_filter" in launch.source for launch in sim.launches)


def test_calls_of_shared_layers_add_up():
    shared = nn.ReLU()
    found = convlab.summary(
        convlab.convert(nn.Sequential(shared, shared, nn.MaxPool2d(2), shared)), torch.randn(1, 2, 8, 8)
    )
    rows = [row for row in found.passes if row.kind == "ReLU"]
    assert [(row.calls, row.input) for row in rows] == [(2, (1, 2, 8, 8)), (1, (1, 2, 4, 4))]


def test_the_model_is_left_as_it_was(model):
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.random.get_rng_state()
    convlab.summary(model, torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        convlab.summary(model, torch.randn(2, 5, 12, 12))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_forms_of_input_and_compiled_models():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = convlab.Conv2d(2, 3, 3)

        def forward(self, x, scale=1):
            return self.conv(input=x) * scale

    x = torch.randn(1, 2, 5, 5)
    for form in (x, (x, 2), {"x": x, "scale": 2}):
        assert len(convlab.summary(Two(), form).passes) == 2
    assert len(convlab.summary(torch.compile(Two(), backend="eager"), x).passes) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert all(row.error < 0.05 for row in convlab.summary(Two(), x).passes)
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module"):
        convlab.summary(x, x)
    for arguments in ((x, x), (tuple(x.shape),)):
        with pytest.raises(TypeError, match=r"torch.randn\(shape\)"):
            convlab.summary(Two(), *arguments)
    for wrong, kind in (([x], "list"), ("lenet", "str"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"summary: input is .*, got {kind}$"):
            convlab.summary(Two(), wrong)
        with pytest.raises(TypeError, match=f"summary: model must be a torch.nn.Module, got {kind}$"):
            convlab.summary(wrong, x)


@pytest.mark.parametrize("rich", [True, False])
def test_as_text(model, rich, monkeypatch):
    if rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich", None)
    text = repr(convlab.summary(model, torch.randn(2, 3, 12, 12)))  # as a Python shell shows it, and print
    lines = text.splitlines()
    for word in ("layer", "algorithm", "share", "error"):
        assert word in lines[0]
    assert any("depthwise" in line and "dgrad" in line and "2 x 16 x 6 x 6" in line for line in lines)
    assert max(map(len, lines)) < 150 and "passes" in lines[-1]
    assert "left as it is: 1: call convlab.convert(model) to make it convlab's" in str(
        convlab.summary(nn.Sequential(nn.Identity(), nn.ReLU()), torch.randn(1, 2))
    )
    unconverted = str(convlab.summary(nn.Sequential(*(nn.ReLU() for _ in range(8)), nn.Softplus()), torch.randn(1, 2)))
    assert "left as it is: 0, 1, 2, 3, 4, 5, 6, 7: call convlab.convert(model) to make it convlab's" in unconverted
    assert unconverted.count("call convlab.convert(model) to make it convlab's") == 1
    assert "no layer of convlab's ran" in str(convlab.summary(nn.Linear(2, 2), torch.randn(1, 2)))


class Calls(nn.Module):
    """One whose own forward calls functions, torch's and convlab's."""

    def __init__(self, kind=nn.Conv2d):
        super().__init__()
        self.conv, self.head = kind(3, 4, 3), nn.Sequential(nn.Flatten(), nn.LazyLinear(2))

    def forward(self, x):
        y = nn.functional.max_pool2d(nn.functional.relu(self.conv(x)), 2)
        y = CF.leaky_relu(torch.relu(y).relu_())
        return self.head(nn.functional.adaptive_max_pool2d(y, 2, return_indices=True)[0])


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Calls()

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else x


def test_functions_that_stayed_torchs_are_named():
    x = torch.rand(1, 3, 12, 12)
    model = nn.Sequential(Branches(), nn.Linear(2, 2))
    model(x)
    report = convlab.summary(convlab.convert(model), x)
    called = (
        "its forward calls torch's relu, max_pool2d and adaptive_max_pool2d: convlab.functional has the same, and convlab.fuse "
        "takes those that follow a convolution"
    )
    assert list(report.functions) == ["0", "0.inner"] and report.functions["0.inner"] == called
    line = Branches.forward.__code__.co_firstlineno + 1
    assert report.functions["0"] == (
        "which functions its forward calls is not known, because torch.fx cannot trace it past an `if`, or the like, on a "
        f"tensor or its shape in test_summary.py:{line}; look there for calls that convlab.functional has, too"
    )
    assert "left as torch's: not known;" in str(report)
    assert "left as torch's: at least 1;" in str(replace(report, left={"2": "its forward was replaced"}))
    assert f"left as it is: 0.inner: {called}" in str(report)
    # what fuse takes into a call is convlab's
    called = convlab.summary(convlab.fuse(model), x).functions["0.inner"]
    assert (
        "outside of blocks its forward calls torch's relu and adaptive_max_pool2d:" in called
        and type(model[0].inner).__name__ == "Calls"
    )
    assert convlab.summary(torch.fx.symbolic_trace(Calls(nn.Conv2d)), x).functions[""].startswith("its forward calls")


def test_kinds_that_convlab_lacks_are_counted():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.LPPool2d(2, 2), nn.GELU(), nn.Flatten(), nn.Dropout()
    )
    model.append(nn.Sequential(nn.Identity(), convlab.ReLU(), nn.Linear(100, 2)))
    report = convlab.summary(convlab.convert(model), torch.randn(2, 3, 12, 12))
    assert report.others == {"GroupNorm": 1, "GELU": 2, "LPPool2d": 1, "Dropout": 1, "Linear": 1} and not report.left
    said = "of kinds that convlab does not have: 1 GroupNorm, 2 GELU, 1 LPPool2d, 1 Dropout, 1 Linear\n"
    assert f"\n{said}layers that ran as convlab's: 2," in str(report)


def test_a_folded_layer_is_not_counted_as_left():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 3, 12, 12)
    assert convlab.summary(convlab.convert(model), x).others == {"BatchNorm2d": 2}
    report = convlab.summary(convlab.fuse(model), x)
    assert report.passes[0].layer == "0 + 1 + 2" and report.others == {"BatchNorm2d": 1}


def test_how_many_times_faster_the_model_is(model):
    buffers = [t.clone() for t in model.buffers()]
    report = convlab.summary(model, torch.randn(2, 3, 12, 12), compare=True)
    *_, totals, fused, last = str(report).splitlines()
    ours, torchs = report.model_seconds
    assert report.times_faster == torchs / ours and last.startswith("a step of the whole model: ")
    advice = "set before Python starts", "torch.set_num_threads"  # one of them
    assert last.endswith(advice if report.disturbed else f" ms: {torchs / ours:.2f} times as fast")
    assert (
        totals.startswith("layers that ran as convlab's: 5, left as torch's: 0; 11 passes, ")
        and ", by torch " in totals
        and fused.startswith("a step after convlab.fuse(model): ")
    )
    assert all(map(torch.equal, buffers, model.buffers())) and isinstance(model[0], convlab.Conv2d)
    assert convlab.summary(model, torch.randn(2, 3, 12, 12)).times_faster is None
    with torch.no_grad():
        report = convlab.summary(model, torch.randn(2, 3, 12, 12), compare=True)
    assert str(report).splitlines()[-1].startswith("a forward of the whole model: ")


def test_what_fuse_would_gain_where_it_does_something(monkeypatch):
    monkeypatch.setattr(_summary, "best", lambda call, *_: call() or Timing(0.001, False))
    x = torch.randn(2, 3, 12, 12)

    def fused(model):
        kinds = [type(module) for module in model.modules()]
        report = convlab.summary(model, x, compare=True)
        assert [type(module) for module in model.modules()] == kinds
        said = "\na step after convlab.fuse(model): 1.000 ms, 1.00 times as fast\n" in str(report)
        assert said == (report.fused_seconds is not None)
        return said

    normed = convlab.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    assert fused(normed) and fused(normed.eval())  # in training, what follows the convolution
    normed = convlab.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert not fused(normed) and fused(normed.eval())
    said = "\nin eval(), convlab.fuse(model) makes one call of some layers"
    assert said not in str(convlab.summary(normed, x, compare=True))
    assert said in str(convlab.summary(normed.train(), x, compare=True))
    normed.eval()
    chain = nn.Sequential(convlab.Conv2d(3, 4, 3), convlab.ReLU())
    assert fused(chain) and not fused(convlab.fuse(chain)) and not fused(chain[:1])
    report = replace(convlab.summary(normed, x, compare=True), fused_disturbed=True)
    assert "\n* other programs took the processor in 1 of these times\n" in str(report)
    assert "\na step after convlab.fuse(model): *1.000 ms\n" in str(report) and not report.disturbed


@pytest.mark.parametrize("disturbed", [False, True])
def test_times_that_other_programs_disturbed(model, monkeypatch, disturbed):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(_summary, "best", lambda *_: Timing(0.001, disturbed))
    monkeypatch.setattr(_summary, "by_turns", lambda calls, *_: [Timing(0.001, disturbed)] * len(calls))
    x = torch.randn(2, 3, 12, 12)
    text = str(convlab.summary(model, x)) + "\n" + str(convlab.summary(model, x, compare=True))
    for n in (11, 13):  # passes; and the steps
        assert (f"other programs took the processor in {n} of these times" in text) == disturbed
    assert text.count(" *1.000 ") == (23 if disturbed else 0) and text.count("\n* other") == (2 if disturbed else 0)
    *_, last = text.splitlines()
    assert ("OMP_WAIT_POLICY=PASSIVE" in last, "times as fast" not in last) == (disturbed, disturbed)
    assert [line.split()[-1] for line in text.splitlines() if "1.000  " in line][-11:] == [
        "-" if disturbed else "1.00"
    ] * 11
    assert (text.count(" passes, *"), text.count(" by torch *")) == ((2, 1) if disturbed else (0, 0)), "sums, too"
    report = convlab.summary(model, x, compare=True)
    assert report.disturbed == disturbed and report.times_faster == 1
    assert {row.times_faster for row in report.passes} == {None if disturbed else 1}
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # what it is is not told again
    assert str(report).endswith("with a thread less: torch.set_num_threads") == disturbed
