"""torch.utils.flop_counter counts convlab's convolutions as torch's, whichever is imported first."""

import copy
import sys
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import convlab
from convlab._when_imported import when_imported

FLOPS = "FLOP counters: `torch.utils.flop_counter.FlopCounterMode`"


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, (3, 2), stride=(1, 2), padding=1, dilation=(2, 1)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, groups=4, bias=False),
        nn.Conv2d(12, 12, 3, padding="same", groups=12),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def counts(run, counter=None):
    """FLOPs of the convolutions, forward and backward, and of everything."""
    counter = counter or FlopCounterMode(display=False)
    with counter:
        run()
    each = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    forward = sum(n for op, n in each.items() if op.endswith(("convolution", "conv2d_forward")))
    backward = sum(
        n for op, n in each.items() if op.endswith(("convolution_backward", "conv2d_backward", "dgrad", "wgrad"))
    )
    return forward, backward, counter.get_total_flops()


def runs(model, x):
    def train():
        model(x).square().sum().backward()

    def inference():
        with torch.inference_mode():
            model(x)

    def to_the_input():
        model.requires_grad_(False)
        model(x.clone().requires_grad_()).sum().backward()
        model.requires_grad_(True)

    return train, inference, to_the_input


@pytest.mark.works_with(FLOPS)
@pytest.mark.parametrize("n", [1, 4])
def test_counts_are_torchs(n):
    theirs, x = network(), torch.randn(n, 3, 16, 19)
    theirs(x)
    ours = convlab.convert(copy.deepcopy(theirs))
    for a, b in zip(runs(theirs, x), runs(ours, x)):
        expected = counts(a)
        assert counts(b) == expected and expected[0] > 0
    assert counts(runs(ours, x)[0])[1] > 0


@pytest.mark.works_with(FLOPS)
@pytest.mark.parametrize("check", [False, True])
def test_counts_of_a_simulation(check):
    model, x = nn.Sequential(nn.Conv2d(2, 3, 3, groups=1), nn.ReLU()), torch.randn(1, 2, 6, 7)
    expected = counts(lambda: model(x).sum().backward())
    convlab.convert(model)
    old = FlopCounterMode(display=False)

    def simulated():
        with convlab.simulate(check=check) as sim:
            model(x).sum().backward()
        assert sim.launches

    assert counts(simulated) == counts(simulated, old) == expected
    with convlab.simulate(check=check):
        assert counts(lambda: model(x).sum().backward()) == expected


def test_when_imported(tmp_path, monkeypatch):
    """Called once, with the whole module: later, when it is imported; at once if it already is; never if that fails."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "imported_later.py").write_text("value = 1")
    (tmp_path / "imported_in_vain.py").write_text("value = 1 / 0")
    seen, finders = [], list(sys.meta_path)
    for name in ("imported_later", "imported_in_vain", "imported_never"):
        when_imported(name, lambda module: seen.append((module.__name__, module.value)))
    assert seen == [] and import_module("imported_later").value == 1
    assert seen == [("imported_later", 1)]
    when_imported("imported_later", lambda module: seen.append("again"))
    assert seen[1:] == ["again"]
    for name, error in (("imported_in_vain", ZeroDivisionError), ("imported_never", ImportError)):
        with pytest.raises(error):
            import_module(name)
    assert len(seen) == 2 and sys.meta_path == finders
    del sys.modules["imported_later"]
