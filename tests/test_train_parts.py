"""What the training scripts are made of: losses, initial weights, scores, batches, progress, the log."""

import io
import itertools
import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

from convlab.training import progress
from convlab.training.batches import Batches, shifted
from convlab.training.choices import LOSSES, initialise
from convlab.training.data import ImageSet
from convlab.training.kept import Signals
from convlab.training.progress import Progress
from convlab.training.score import evaluate


def test_label_distance_is_the_formula():
    outputs, labels = torch.randn(7, 10, dtype=torch.float64, requires_grad=True), torch.randint(10, (7,))
    k = outputs.softmax(1)
    expected = [sum(k[n, j] * (j - T) ** 2 for j in range(10)) for n, T in enumerate(labels.tolist())]
    torch.testing.assert_close(LOSSES["label-distance"](outputs, labels), torch.stack(expected))
    assert torch.autograd.gradcheck(lambda o: LOSSES["label-distance"](o, labels), outputs)


def test_cross_entropy_is_torchs():
    outputs, labels = torch.randn(7, 10), torch.randint(10, (7,))
    torch.testing.assert_close(LOSSES["cross-entropy"](outputs, labels).mean(), F.cross_entropy(outputs, labels))


@pytest.mark.parametrize("how", ["he", "xavier", "default"])
def test_initial_weights(how):
    model = nn.Sequential(
        nn.Conv2d(16, 64, 5), nn.BatchNorm2d(64), nn.Conv2d(64, 32, 3, bias=False), nn.Linear(300, 200)
    )
    before = [p.clone() for p in model.parameters()]
    initialise(model, how)
    if how == "default":
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
        return
    for layer, fan_in, fan_out in ((model[0], 16 * 25, 64 * 25), (model[2], 64 * 9, 32 * 9), (model[3], 300, 200)):
        variance = 2 / fan_in if how == "he" else 2 / (fan_in + fan_out)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(variance), rel=0.05)
        assert layer.bias is None or not layer.bias.any()
    assert model[1].weight.eq(1).all()


def test_he_keeps_the_size_of_activations():
    layers = [nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular") for _ in range(20)]
    model = nn.Sequential(*(m for layer in layers for m in (layer, nn.LeakyReLU())))
    initialise(model, "he")
    with torch.no_grad():
        size = model(torch.randn(2, 32, 12, 12)).square().mean().sqrt()
    assert 0.1 < size < 10  # a variance of half that would leave a thousandth


def test_evaluate_counts_every_image_once():
    outputs = torch.randn(23, 10)
    labels = torch.randint(10, (23,))

    class Table(nn.Module):  # the "image" is the row of the table
        def forward(self, images):
            return outputs[images.flatten().long()]

    score = evaluate(Table(), ImageSet(torch.arange(23.0).reshape(23, 1, 1, 1), labels), at_once=5)
    assert score.accuracy == pytest.approx((outputs.argmax(1) == labels).double().mean().item())
    assert score.loss == pytest.approx(F.cross_entropy(outputs, labels).item(), rel=1e-5)
    for label, answer in itertools.product(range(10), range(10)):
        assert score.confusion[label, answer] == ((labels == label) & (outputs.argmax(1) == answer)).sum()


def test_dead_units_are_those_no_image_makes_positive():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(4 * 36, 5), nn.ReLU())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([-1.0, 0.0, 1.0, -5.0]))
        model[0].weight[3, 0, 1, 1] = 6  # positive at one pixel of one image only
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([1.0, -1.0, -1.0, -1.0, 1.0]))
    images = torch.zeros(9, 1, 8, 8)
    images[7, 0, 3, 5] = 1
    score = evaluate(model, ImageSet(images, torch.zeros(9, dtype=torch.int64)), at_once=4)
    assert score.dead == {"1": 0.5, "4": pytest.approx(0.6)}
    assert not model[1]._forward_hooks and not model[4]._forward_hooks


# Batches


def test_shifted_agrees_with_the_definition():
    images = torch.rand(7, 2, 5, 6)
    shifts = torch.tensor([[0, 0], [3, -3], [-3, 3], [1, 2], [-1, 0], [0, -2], [3, 3]])
    expected = torch.zeros_like(images)
    for n, (down, right) in enumerate(shifts.tolist()):
        for y, x in itertools.product(range(5), range(6)):
            if 0 <= y - down < 5 and 0 <= x - right < 6:
                expected[n, :, y, x] = images[n, :, y - down, x - right]
    assert torch.equal(shifted(images, shifts, 3), expected)


def test_batches_visit_every_image_once_and_reach_every_shift():
    n = 500
    images = torch.zeros(n, 1, 9, 9)
    images[:, 0, 4, 4] = torch.arange(1, n + 1)  # one pixel, whose value tells the image and whose place the shift
    batches = Batches(ImageSet(images, torch.arange(n)), batch_size=64, seed=0, max_shift=3)
    seen, places = [], set()
    for batch, labels, size in batches.epoch(0):
        assert torch.equal(batch.amax((1, 2, 3)).long(), labels + 1) and size == len(labels)
        seen += labels.tolist()
        places |= set((batch.flatten(1).argmax(1)).tolist())
    assert len(batches) == 8 and sorted(seen) == list(range(n))
    assert places == {9 * y + x for y in range(1, 8) for x in range(1, 8)}
    assert torch.cat([labels for _, labels, _ in batches.epoch(1)]).tolist() != seen  # the next epoch has another order


def test_half_the_images_are_reflected():
    images = torch.arange(3.0).expand(400, 1, 2, 3)
    ((batch, _, _),) = Batches(ImageSet(images, torch.arange(400)), 400, seed=0, flip=True).epoch(0)
    reflected = (batch == images.flip(3)).all((1, 2, 3))
    assert (reflected | (batch == images).all((1, 2, 3))).all() and 150 < reflected.sum() < 250


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_epoch_is_the_same_however_it_is_made(workers):
    """From its middle, by workers, after other epochs; and it leaves torch's own random numbers alone."""
    data = ImageSet(torch.rand(41, 1, 8, 8), torch.arange(41))
    whole = list(Batches(data, 8, seed=3, max_shift=2, flip=True).epoch(1))
    batches = Batches(data, 8, seed=3, max_shift=2, flip=True, workers=workers)
    before = torch.get_rng_state()
    next(batches.epoch(0))
    rest = list(batches.epoch(1, first=2))
    assert torch.equal(before, torch.get_rng_state())
    assert len(rest) == 4
    for a, b in zip(whole[2:], rest):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2] == b[2]


# Telling how far it is


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(monkeypatch, capsys):
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(3) as shown:
            for _ in range(3):
                shown.step()
                shown.line("a line")
        assert capsys.readouterr().out.replace("\r", "").count("a line\n") == 3
        assert ("step" in stream.getvalue()) == stream.isatty()


def test_a_pipe_gets_a_line_within_a_long_epoch(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(100) as shown:
        for _ in range(100):
            now[0] += 7
            shown.step()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 9 of 100" and len(lines) == 11


def test_only_the_first_process_speaks(capsys):
    with Progress(1, shown=False) as shown:
        shown.line("a line")
        shown.step()
    assert capsys.readouterr() == ("", "")


def test_a_second_ctrl_c_breaks_off():
    import signal

    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        assert signals.number is None
        signal.raise_signal(signal.SIGINT)
        assert signals.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
