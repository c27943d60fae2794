"""Images to train on, as two tensors: all of them fit in memory."""

import socket
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from . import shapes
from .errors import DataError, one_line

SIZE = 32  # height and width every network here takes: LeNet-5's
MNIST_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
TIMEOUT = 20  # seconds that a server may be silent
_REMEDY = "Delete them and run again (what is absent is downloaded), or train on --data"


class AbsentError(DataError):
    """The data is not there and cannot be downloaded: `why`, and in the message also what to do."""

    def __init__(self, why, advice):
        super().__init__(f"{why}. {advice}")
        self.why = why


class ImageSet(NamedTuple):
    """images [N, C, 32, 32] float32; labels [N] int64, 0 to 9; the classes' names; where the images are from.

    Digits, C = 1, go from 0 (paper) to 1 (ink), colour images, C = 3, from -2 to 2: 0 is what comes in where an image
    is shifted.
    """

    images: torch.Tensor
    labels: torch.Tensor
    names: tuple[str, ...] = tuple("0123456789")
    source: str = ""

    def to(self, device):
        """The same set on `device`."""
        return self._replace(images=self.images.to(device), labels=self.labels.to(device))

    def part(self, which):
        """The set of the images that a slice or a mask selects."""
        return self._replace(images=self.images[which], labels=self.labels[which])


def _coloured(images, labels, names, source):
    """The ImageSet of colour images that go from 0 to 1."""
    return ImageSet(images.sub_(0.5).mul_(4), labels, names, source)


def digits():
    """scikit-learn's handwritten digits, which come inside the package: (1442 training images, 355 test images).

    8x8 pixels of 17 grey levels, resized to 32x32. Every fifth image of each class is a test image: a split that is
    stratified and the same for everyone, whatever the seed and the version of scikit-learn. Raises DataError without
    scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("--data digits needs scikit-learn: pip install scikit-learn") from error
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16
    images = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    labels = torch.tensor(raw.target, dtype=torch.int64)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        is_test[(labels == label).nonzero().flatten()[4::5]] = True
    every = ImageSet(images, labels, source="scikit-learn's handwritten digits")
    return every.part(~is_test), every.part(is_test)


def drawn(images=None, why=""):
    """The built-in colour images, see shapes.py: (20000 training images, 2000 test images), the same for everyone.

    images: draw the first so many of each only; why: added to their source.
    """
    return tuple(
        _coloured(*shapes.draw(min(images or count, count), seed), shapes.NAMES, f"built-in shapes and textures{why}")
        for count, seed in ((20000, 0), (2000, 1))
    )


def mnist(folder):
    """MNIST out of `folder`/MNIST/raw, downloaded if it is not there: (training set, test set).

    28x28 pixels, padded with paper to 32x32. Raises DataError, naming the folder, without torchvision, when the files
    are neither there nor to be downloaded, and when they are truncated or no MNIST.
    """
    try:
        from torchvision.datasets import MNIST
    except ImportError as error:
        raise DataError("--data mnist needs torchvision: pip install torchvision") from error
    raw = (Path(folder) / "MNIST" / "raw").absolute()
    if absent := [name for name in MNIST_FILES if not (raw / name).is_file()]:
        advice = "Put the four files there, name their folder with --data-dir (the one that holds MNIST/raw), or train on --data digits"
        _download(MNIST, folder, f"no MNIST in {raw} (missing: {', '.join(absent)})", advice)
    return tuple(_mnist_part(MNIST, folder, raw, train) for train in (True, False))


def _mnist_part(MNIST, folder, raw, train):
    """The training or the test half of what torchvision's reader finds, checked: the reader trusts the files."""
    names = " and ".join(MNIST_FILES[:2] if train else MNIST_FILES[2:])
    try:
        part = MNIST(folder, train=train)
        pixels, labels = part.data, part.targets
        if len(pixels) == 0 or pixels.shape[1:] != (28, 28):
            raise ValueError(f"images are {_by(pixels.shape)}, expected N x 28 x 28")
        if labels.shape != pixels.shape[:1]:
            raise ValueError(f"{len(pixels)} images but labels are {_by(labels.shape)}")
        if labels.max() > 9:
            raise ValueError(f"a label is {labels.max().item()}, expected 0 to 9")
    except Exception as error:  # what a damaged file raises depends on the byte the damage begins at
        raise DataError(
            f"damaged MNIST in {raw}: {names} cannot be read ({one_line(error)}). {_REMEDY} digits"
        ) from error
    margin = (SIZE - 28) // 2
    return ImageSet(F.pad(pixels.unsqueeze(1).float() / 255, [margin] * 4), labels, source=f"MNIST in {raw}")


def cifar10(folder):
    """CIFAR-10 out of `folder`/cifar-10-batches-py, downloaded if it is not there: (training set, test set).

    Raises AbsentError without torchvision and when it is neither there nor to be downloaded; DataError when a file is
    not what was published, by its MD5 sum: the files are pickles, which could run anything.
    """
    try:
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import check_integrity
    except ImportError as error:
        raise AbsentError("CIFAR-10 needs torchvision", "pip install torchvision") from error
    where = (Path(folder) / CIFAR10.base_folder).absolute()
    archive = where.parent / CIFAR10.filename
    files = {
        where / name: md5
        for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    }
    absent = [path.name for path in files if not path.is_file()]
    for path, md5 in ({archive: CIFAR10.tgz_md5} | files).items():
        if path.is_file() and (path != archive or absent) and not check_integrity(str(path), md5):
            raise DataError(f"damaged CIFAR-10: {path} is not the file that was published. {_REMEDY} builtin")
    if absent:
        advice = "Put its files there, name the folder above with --data-dir, or train on --data builtin"
        _download(CIFAR10, folder, f"no CIFAR-10 in {where}", advice)
    return tuple(_cifar10_part(CIFAR10(folder, train=train), where) for train in (True, False))


def _cifar10_part(part, where):
    images, labels = torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets)
    return _coloured(images.float().div_(255).contiguous(), labels, tuple(part.classes), f"CIFAR-10 in {where}")


def cifar10_or_drawn(folder, images=None):
    """CIFAR-10 if it is there or can be downloaded, else the built-in images, whose source says why."""
    try:
        return cifar10(folder)
    except AbsentError as error:
        return drawn(images, why=f": {error.why}")


def _download(dataset, folder, what, advice):
    """Has torchvision fetch a data set. What goes wrong, a server's silence too, becomes an AbsentError."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        dataset(folder, download=True)
    except Exception as error:  # a download has too many ways to fail (OSError, HTTPException, EOFError ...)
        raise AbsentError(f"{what} and it could not be downloaded ({one_line(error)})", advice) from error
    finally:
        socket.setdefaulttimeout(before)


def _by(shape):
    return " x ".join(map(str, shape))
