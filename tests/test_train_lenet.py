"""train_lenet.py and convlab.training: what the training scripts promise."""

import importlib.util
import itertools
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

import torchvision

from convlab.training import checkpoint
from convlab.training.batches import Batches, shifted
from convlab.training.data import MNIST_FILES, DataError, ImageSet, digits, mnist
from convlab.training.loop import evaluate

SCRIPT = Path(__file__).resolve().parent.parent / "train_lenet.py"
spec = importlib.util.spec_from_file_location("train_lenet", SCRIPT)
train_lenet = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_lenet)


@pytest.fixture
def arguments(tmp_path):
    """The parsed command line, with a checkpoint that litters nobody's folder."""
    return lambda *argv: train_lenet.parse(["--checkpoint", str(tmp_path / "lenet.pt"), *argv])


# The network: convlab's layers and torch's


def first_losses(args, steps):
    training, _ = train_lenet.prepare(args)
    return [loss.item() for loss in itertools.islice(training.epoch(), steps)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_first_20_losses_are_those_of_torch(arguments, seed):
    ours = first_losses(arguments("--seed", str(seed)), 20)
    theirs = first_losses(arguments("--seed", str(seed), "--layers", "torch"), 20)
    assert len(ours) == 20
    assert ours == pytest.approx(theirs, rel=1e-5, abs=0)


ATEN_LAYER = re.compile(
    r"aten::(_?conv|.*convolution|.*pool|(leaky_)?relu|threshold|clamp|slow_conv|thnn_conv|im2col|unfold|prelu|rrelu)"
)


def aten_layers_in_a_step(args):
    training, _ = train_lenet.prepare(args)
    steps = training.epoch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        next(steps)
    return {event.key for event in profile.key_averages() if ATEN_LAYER.match(event.key)}


def test_a_step_runs_no_aten_layer(arguments):
    assert aten_layers_in_a_step(arguments()) == set()
    found = aten_layers_in_a_step(arguments("--layers", "torch"))  # the pattern does see them where they are
    for name in ("aten::conv2d", "aten::convolution_backward", "aten::max_pool2d", "aten::leaky_relu",
                 "aten::leaky_relu_backward"):
        assert name in found


def test_seed_decides_and_layers_do_not(arguments):
    first, _ = train_lenet.prepare(arguments("--seed", "1"))
    same, _ = train_lenet.prepare(arguments("--seed", "1", "--layers", "torch"))
    other, _ = train_lenet.prepare(arguments("--seed", "2"))
    torch.testing.assert_close(first.model.state_dict(), same.model.state_dict(), rtol=0, atol=0)
    assert not torch.equal(first.model[0].weight, other.model[0].weight)
    (x1, y1), (x2, y2), (x3, _) = (next(iter(training.batches)) for training in (first, same, other))
    assert torch.equal(x1, x2) and torch.equal(y1, y2) and not torch.equal(x1, x3)


def test_network_is_lenet5():
    model = train_lenet.lenet5(torch.nn)
    assert [tuple(p.shape) for p in model.parameters() if p.dim() > 1] == [
        (6, 1, 5, 5), (16, 6, 5, 5), (120, 16, 5, 5), (84, 120), (10, 84)]
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_algo_reaches_the_layers(arguments):
    training, _ = train_lenet.prepare(arguments("--algo", "reference"))
    assert [training.model[i].algo for i in (0, 3, 6)] == ["reference"] * 3


def test_evaluate_counts_every_image_once():
    outputs = torch.randn(23, 10)
    labels = torch.randint(10, (23,))

    class Table(torch.nn.Module):  # the "image" is the row of the table
        def forward(self, images):
            return outputs[images.flatten().long()]

    score = evaluate(Table(), ImageSet(torch.arange(23.0).reshape(23, 1, 1, 1), labels), batch_size=5)
    assert score.accuracy == (outputs.argmax(1) == labels).double().mean().item()
    assert score.loss == pytest.approx(torch.nn.functional.cross_entropy(outputs, labels).item(), rel=1e-5)


# The data


def test_digits_split():
    (train_set, test_set), (again, _) = digits(), digits()
    assert (len(train_set.labels), len(test_set.labels)) == (1442, 355)
    for part in (train_set, test_set):
        assert part.images.shape[1:] == (1, 32, 32) and part.images.dtype == torch.float32
        assert part.images.min() == 0 and part.images.max() <= 1 and part.labels.dtype == torch.int64
        share = part.labels.bincount(minlength=10) / len(part.labels)
        assert share.min() > 0.09 and share.max() < 0.11
    assert torch.equal(train_set.images, again.images) and torch.equal(train_set.labels, again.labels)
    # Disjoint and complete: the set has no image twice, so neither have its parts together.
    everything = torch.cat([train_set.images, test_set.images]).flatten(1)
    assert len(everything.unique(dim=0)) == 1797


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
    batches = Batches(ImageSet(images, torch.arange(n)), batch_size=64, max_shift=3, seed=0)
    seen, places = [], set()
    for batch, labels in batches:
        assert torch.equal(batch.amax((1, 2, 3)).long(), labels + 1)
        seen += labels.tolist()
        places |= set((batch.flatten(1).argmax(1)).tolist())
    assert len(batches) == 8 and sorted(seen) == list(range(n))
    assert places == {9 * y + x for y in range(1, 8) for x in range(1, 8)}
    assert torch.cat([labels for _, labels in batches]).tolist() != seen  # the next epoch has another order


def test_an_epoch_left_early_does_not_change_the_next():
    data = ImageSet(torch.rand(40, 1, 8, 8), torch.arange(40))
    whole, early = (Batches(data, batch_size=8, max_shift=2, seed=3) for _ in range(2))
    list(whole)
    next(iter(early))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(list(whole), list(early), strict=True))


# MNIST in its own format


def idx(magic, *sizes, payload):
    return struct.pack(f">{1 + len(sizes)}i", magic, *sizes) + payload


@pytest.fixture
def mnist_folder(tmp_path):
    """Five training and three test images in MNIST's files; image i of a part has ink i + 1 in its corner, label i."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 5), ("t10k", 3)):
        pixels = b"".join(bytes([i + 1]) + bytes(28 * 28 - 1) for i in range(n))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(2051, n, 28, 28, payload=pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(2049, n, payload=bytes(range(n))))
    return tmp_path


def test_mnist_is_read_and_padded(mnist_folder):
    train_set, test_set = mnist(mnist_folder)
    assert train_set.images.shape == (5, 1, 32, 32) and test_set.images.shape == (3, 1, 32, 32)
    assert train_set.labels.tolist() == list(range(5)) and test_set.labels.tolist() == list(range(3))
    expected = torch.zeros(5, 1, 32, 32)
    expected[:, 0, 2, 2] = torch.arange(1, 6) / 255
    torch.testing.assert_close(train_set.images, expected)


@pytest.mark.parametrize("name", MNIST_FILES)
@pytest.mark.parametrize("keep", [0, 3, 7, 9, -1])
def test_truncated_mnist_is_named(mnist_folder, name, keep):
    file = mnist_folder / "MNIST" / "raw" / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"damaged MNIST in .*raw.*{name}.*Delete them"):
        mnist(mnist_folder)


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("train-images-idx3-ubyte", idx(2051, 5, 8, 8, payload=bytes(320)), "images are 5 x 8 x 8"),
        ("train-labels-idx1-ubyte", idx(2049, 4, payload=bytes(4)), "5 images but labels are 4"),
        ("t10k-labels-idx1-ubyte", idx(2049, 3, payload=bytes([0, 1, 10])), "a label is 10"),
        ("t10k-images-idx3-ubyte", b"<html>not found</html>", "cannot be read"),
    ],
)
def test_wrong_mnist_is_named(mnist_folder, name, content, problem):
    (mnist_folder / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"damaged MNIST in .*{name}.*{problem}"):
        mnist(mnist_folder)


def test_absent_mnist_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    with pytest.raises(SystemExit) as exit:
        train_lenet.main(["--data", "mnist", "--data-dir", str(tmp_path), "--checkpoint", str(tmp_path / "x.pt")])
    message = str(exit.value)
    assert str(tmp_path / "MNIST" / "raw") in message and "--data-dir" in message and "--data digits" in message
    assert "\n" not in message and "could not be downloaded" in message


# The command line


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--epochs", "0"], "argument --epochs: '0' is no whole number from 1 up"),
        (["--batch-size", "2.5"], "argument --batch-size: '2.5' is no whole number from 1 up"),
        (["--seed", "-1"], "argument --seed: '-1' is no whole number from 0 up"),
        (["--lr", "nan"], "argument --lr: 'nan' is no number above 0"),
        (["--lr", "fast"], "argument --lr: 'fast' is no number above 0"),
        (["--device", "tpu"], "argument --device: 'tpu' is no device"),
        (["--device", "cuda:1000"], "argument --device: 'cuda:1000': t"),
        (["--checkpoint", "."], "argument --checkpoint: '.' is a folder"),
        (["--checkpoint", f"{SCRIPT}/x.pt"], "its folder cannot be made"),
        (["--data", "letters"], "argument --data: invalid choice: 'letters'"),
        (["--algo", "magic"], "argument --algo: 'magic' is no algorithm for cpu, choose from: reference, direct"),
        (["--algo", "direct", "--layers", "torch"], "argument --algo: torch's layers have no choice"),
    ],
)
def test_bad_arguments(tmp_path, capsys, argv, message):
    with pytest.raises(SystemExit) as exit:
        train_lenet.parse(["--checkpoint", str(tmp_path / "lenet.pt"), *argv])
    assert exit.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(capsys):
    with pytest.raises(SystemExit):
        train_lenet.parse(["--device", "cuda"])
    assert "train with --device cpu" in capsys.readouterr().err


def test_a_short_run_ends_with_the_accuracy_and_a_checkpoint(tmp_path, arguments):
    path = tmp_path / "new folder" / "lenet.pt"
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as conftest.py has it for the tests in this process
    run = subprocess.run([sys.executable, SCRIPT, "--epochs", "1", "--checkpoint", path], env=one_thread,
                         capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert re.fullmatch(r"test accuracy (\d+\.\d\d) %", lines[-1])
    assert re.fullmatch(r"epoch   1/1  train loss \d\.\d{4}  test loss \d\.\d{4}  test accuracy +\d+\.\d\d %  "
                        r" *\d+ images/s", lines[1])
    assert "\r" not in run.stdout + run.stderr  # a pipe gets lines, no bar
    saved = torch.load(path, weights_only=True)
    model = train_lenet.lenet5(torch.nn)
    model.load_state_dict(saved["model"])
    accuracy = evaluate(model, digits()[1]).accuracy
    assert accuracy == pytest.approx(saved["accuracy"], abs=1 / 355)  # other kernels: a tie may fall the other way
    assert saved["accuracy"] == pytest.approx(float(lines[-1].split()[2]) / 100, abs=5e-5)
    assert saved["arguments"]["layers"] == "convlab" and saved["arguments"]["epochs"] == 1


# Checkpoints


def test_checkpoint_round_trip(tmp_path):
    contents = {"model": {"w": torch.randn(3, 4)}, "epoch": 3, "name": "lenet", "history": [0.5, 0.25]}
    checkpoint.save({}, tmp_path / "a.pt")
    checkpoint.save(contents, tmp_path / "a.pt")
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(loaded["model"].pop("w"), contents["model"].pop("w")) and loaded == contents
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.replace"])
def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch, step):
    checkpoint.save({"epoch": 1}, tmp_path / "a.pt")

    def fail(*args):
        if step == "torch.save":
            args[1].write(b"half a file")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.save({"epoch": 2}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]
