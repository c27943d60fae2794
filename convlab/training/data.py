"""Images to train on, as two tensors: all of them fit in memory many times over, so there is no loader with workers."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

SIZE = 32  # height and width every network here takes: LeNet-5's
MNIST_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


class DataError(RuntimeError):
    """The data cannot be had; the message says what was looked for, where, and what to do."""


class ImageSet(NamedTuple):
    """images [N, 1, 32, 32] float32, 0 (paper) to 1 (ink); labels [N] int64, 0 to 9."""

    images: torch.Tensor
    labels: torch.Tensor

    def to(self, device):
        """The same set on `device`."""
        return ImageSet(self.images.to(device), self.labels.to(device))


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
    return ImageSet(images[~is_test], labels[~is_test]), ImageSet(images[is_test], labels[is_test])


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
    absent = [name for name in MNIST_FILES if not (raw / name).is_file()]
    if absent:
        try:
            MNIST(folder, download=True)
        except Exception as error:  # a download has too many ways to fail (OSError, HTTPException, EOFError ...)
            raise DataError(
                f"no MNIST in {raw} (missing: {', '.join(absent)}) and it could not be downloaded "
                f"({_one_line(error)}). Put the four files there, name their folder with --data-dir (the one that "
                "holds MNIST/raw), or train on --data digits"
            ) from error
    return _mnist_part(MNIST, folder, raw, train=True), _mnist_part(MNIST, folder, raw, train=False)


def _mnist_part(MNIST, folder, raw, train):
    """The training or the test half of what torchvision's reader finds, checked: the reader trusts the files."""
    names = " and ".join(MNIST_FILES[:2] if train else MNIST_FILES[2:])
    try:
        part = MNIST(folder, train=train)
        pixels, labels = part.data, part.targets
    except Exception as error:  # what a damaged file raises depends on the byte the damage begins at
        raise DataError(f"damaged MNIST in {raw}: {names} cannot be read ({_one_line(error)}). {_REMEDY}") from error
    problem = None
    if len(pixels) == 0 or pixels.shape[1:] != (28, 28):
        problem = f"images are {_by(pixels.shape)}, expected N x 28 x 28"
    elif labels.shape != pixels.shape[:1]:
        problem = f"{len(pixels)} images but labels are {_by(labels.shape)}"
    elif labels.max() > 9:
        problem = f"a label is {labels.max().item()}, expected 0 to 9"
    if problem:
        raise DataError(f"damaged MNIST in {raw}: in {names}, {problem}. {_REMEDY}")
    margin = (SIZE - 28) // 2
    return ImageSet(F.pad(pixels.unsqueeze(1).float() / 255, [margin] * 4), labels)


_REMEDY = "Delete them and run again (they are downloaded when absent), or train on --data digits"


def _by(shape):
    return " x ".join(map(str, shape))


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())
