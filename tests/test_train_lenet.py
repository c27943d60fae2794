"""train_lenet.py: its network, with convlab's layers and torch's, and its data."""

import copy
import itertools
import re

import pytest
import torch

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

import torchvision
from scripts import lenet, train_lenet
from tiny_data import idx, write_mnist

from convlab.training.data import MNIST_FILES, DataError, digits, mnist
from convlab.training.run import Run


@pytest.fixture
def arguments(tmp_path):
    """The parsed command line, with a folder that litters nobody's."""
    return lambda *argv: train_lenet.parse(["--out", str(tmp_path), *argv])


class Watched(Run):
    """`initial`: the weights before the first step."""

    def keep(self, **parts):
        super().keep(**parts)
        self.initial = copy.deepcopy(self.model.state_dict())


def begin(args):
    """A run, and the generator that trains it."""
    run = Watched(args, train_lenet.load(args))
    return run, train_lenet.train(run)


def after_a_step(args):
    run, steps = begin(args)
    next(steps)
    return run


# The network: convlab's layers and torch's


def first_losses(args, steps):
    return [loss.item() for loss, _ in itertools.islice(begin(args)[1], steps)]


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
    _, steps = begin(args)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        next(steps)
    return {event.key for event in profile.key_averages() if ATEN_LAYER.match(event.key)}


def test_a_step_runs_no_aten_layer(arguments):
    assert aten_layers_in_a_step(arguments()) == set()
    found = aten_layers_in_a_step(arguments("--layers", "torch"))  # the pattern does see them where they are
    for name in (
        "aten::conv2d",
        "aten::convolution_backward",
        "aten::max_pool2d",
        "aten::leaky_relu",
        "aten::leaky_relu_backward",
    ):
        assert name in found


def test_seed_decides_and_layers_do_not(arguments):
    first, same, other = (
        after_a_step(arguments(*argv))
        for argv in (["--seed", "1"], ["--seed", "1", "--layers", "torch"], ["--seed", "2"])
    )
    torch.testing.assert_close(first.initial, same.initial, rtol=0, atol=0)
    assert not torch.equal(first.initial["C1.weight"], other.initial["C1.weight"])
    (x1, y1, _), (x2, y2, _), (x3, _, _) = (next(run.data.epoch(0)) for run in (first, same, other))
    assert torch.equal(x1, x2) and torch.equal(y1, y2) and not torch.equal(x1, x3)


def test_network_is_lenet5():
    model = train_lenet.lenet5(torch.nn)
    assert [tuple(p.shape) for p in model.parameters() if p.dim() > 1] == [
        (6, 1, 5, 5),
        (16, 6, 5, 5),
        (120, 16, 5, 5),
        (84, 120),
        (10, 84),
    ]
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_algo_reaches_the_layers(arguments):
    model = after_a_step(arguments("--algo", "reference")).model
    assert [str(model.get_submodule(name).algo) for name in ("C1", "C3", "C5")] == ["'reference'"] * 3


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


# MNIST in its own format


@pytest.fixture
def mnist_folder(tmp_path):
    write_mnist(tmp_path)
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
        lenet("--data", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "out")
    message = str(exit.value)
    assert str(tmp_path / "MNIST" / "raw") in message and "--data-dir" in message and "--data digits" in message
    assert "\n" not in message and "could not be downloaded" in message
