"""cifar_train.py: its networks, CIFAR-10 in its own format, and the images drawn where that is not."""

import pickle

import pytest
import torch

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

import tiny_data
from scripts import cifar, cifar_train, log
from torch import nn
from torchvision.datasets import CIFAR10

import convlab
from convlab.training import data, shapes
from convlab.training.data import AbsentError, DataError

# The networks


@pytest.mark.parametrize("name", cifar_train.MODELS)
def test_networks_agree_with_torchs_layers(name):
    torch.manual_seed(3)
    ours = cifar_train.MODELS[name](convlab)
    torch.manual_seed(3)
    theirs = cifar_train.MODELS[name](nn)
    x = torch.randn(4, 3, 32, 32)
    y = ours(x)
    assert y.shape == (4, 10)
    torch.testing.assert_close(y, theirs(x), rtol=1e-4, atol=1e-5)
    own = (convlab.Conv2d, convlab.MaxPool2d, convlab.AvgPool2d, convlab.LeakyReLU)
    kinds = {type(m) for m in ours.modules()}
    assert not any(
        issubclass(kind, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LeakyReLU)) and kind not in own for kind in kinds
    )


def test_what_the_networks_are_made_of():
    widths = [m.out_channels for m in cifar_train.convnet().modules() if isinstance(m, nn.Conv2d)]
    assert widths == [32, 64, 128]
    convolutions = [m for m in cifar_train.resnet().modules() if isinstance(m, nn.Conv2d)]
    assert {(m.kernel_size, m.stride) for m in convolutions} == {((3, 3), (1, 1)), ((3, 3), (2, 2)), ((1, 1), (2, 2))}


# The images that are drawn


def test_drawn_images_are_the_same_for_everyone():
    images, labels = shapes.draw(700, 0)
    assert (
        images.shape == (700, 3, 32, 32) and images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
    )
    assert labels.bincount().tolist() == [70] * 10 and len(shapes.NAMES) == 10
    torch.manual_seed(1)
    again, _ = shapes.draw(510, 0)
    assert torch.equal(images[:510], again)
    other, _ = shapes.draw(510, 1)
    assert (images[:510] - other).abs().mean() > 0.1  # the test set's are others
    assert len(images.flatten(1).unique(dim=0)) == 700


def test_drawn_images_are_beyond_a_linear_classifier():
    """Least squares on the pixels, over a range of how far it is held back, stays near guessing; the network's 90 % are
    `make cifar`'s."""
    (x, y), (x_test, y_test) = shapes.draw(6000, 0), shapes.draw(1000, 1)
    x, x_test = (torch.cat([t.flatten(1), torch.ones(len(t), 1)], 1) for t in (x, x_test))
    gram, target = x.T @ x, x.T @ nn.functional.one_hot(y, 10).float()
    for ridge in (10.0, 1000.0):
        weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram)), target)
        assert ((x_test @ weights).argmax(1) == y_test).float().mean() < 0.6


@pytest.mark.long
def test_the_network_learns_the_drawn_images(tmp_path):
    cifar("--data", "builtin", "--out", tmp_path)
    assert log(tmp_path)[1][-1]["test_accuracy"] >= 0.9


# CIFAR-10 in its own format


@pytest.fixture
def published(monkeypatch):
    """Six tiny files and their archive, {name: bytes}, which torchvision now takes for those that were published."""
    files, attributes = tiny_data.cifar10()
    for name, value in attributes.items():
        monkeypatch.setattr(CIFAR10, name, value)
    return files


@pytest.fixture
def cifar_folder(tmp_path, published):
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, content in published.items():
        if name != CIFAR10.filename:
            (folder / name).write_bytes(content)
    return tmp_path


def test_cifar10_is_read(cifar_folder, published):
    train_set, test_set = data.cifar10(cifar_folder)
    assert train_set.images.shape == (20, 3, 32, 32) and test_set.images.shape == (3, 3, 32, 32)
    assert train_set.names == tuple(tiny_data.NAMES) and "CIFAR-10" in train_set.source
    for i in range(1, 6):
        batch = pickle.loads(published[f"data_batch_{i}"])
        part = slice(4 * (i - 1), 4 * i)
        assert train_set.labels[part].tolist() == batch["labels"]
        # Red, green, blue, each 32 rows of 32.
        expected = torch.from_numpy(batch["data"].reshape(4, 3, 32, 32)).float() / 255 * 4 - 2
        torch.testing.assert_close(train_set.images[part], expected, rtol=0, atol=1e-6)


def test_cifar10_is_unpacked_from_its_archive(tmp_path, published):
    (tmp_path / CIFAR10.filename).write_bytes(published[CIFAR10.filename])
    assert len(data.cifar10(tmp_path)[0].labels) == 20


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
@pytest.mark.parametrize("how", ["empty", "truncated", "corrupt", "another"])
def test_damaged_cifar10_is_named(cifar_folder, published, name, how):
    content = published[name]
    middle = len(content) // 2
    (cifar_folder / CIFAR10.base_folder / name).write_bytes(
        {
            "empty": b"",
            "truncated": content[:-1],
            "another": tiny_data.batch_file(9, 4),
            "corrupt": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        }[how]
    )
    for load in (
        data.cifar10,
        data.cifar10_or_drawn,
    ):  # what is there and broken is no reason to train on something else
        with pytest.raises(DataError, match=rf"damaged CIFAR-10: .*{name} is not the file that was published. Delete"):
            load(cifar_folder)


def test_a_damaged_archive_is_named(tmp_path, published):
    (tmp_path / CIFAR10.filename).write_bytes(published[CIFAR10.filename][:-9])
    with pytest.raises(DataError, match=r"damaged CIFAR-10: .*tar.gz is not the file that was published"):
        data.cifar10(tmp_path)


def test_without_cifar10_the_images_are_drawn_and_a_line_says_so(tmp_path, published, capsys):
    with pytest.raises(AbsentError, match=r"no CIFAR-10 in .* could not be downloaded .*--data-dir.*--data builtin"):
        data.cifar10(tmp_path)
    cifar("--data-dir", tmp_path, "--out", tmp_path, "--steps", 1, "--images", 64)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"64 training and 64 test images, built-in shapes and textures: no CIFAR-10 in {tmp_path}")
    with pytest.raises(SystemExit, match="no CIFAR-10 in"):
        cifar("--data", "cifar10", "--data-dir", tmp_path, "--out", tmp_path / "new")


def test_auto_takes_cifar10_where_it_is(cifar_folder, capsys):
    cifar("--data-dir", cifar_folder, "--out", cifar_folder, "--epochs", 1)
    assert capsys.readouterr().out.startswith(f"20 training and 3 test images, CIFAR-10 in {cifar_folder}")
