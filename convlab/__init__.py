"""Hand-written convolution, max-pooling and leaky-ReLU kernels for PyTorch.

import convlab
model = convlab.convert(model)                  # swap torch.nn's layers in place
y = convlab.functional.conv2d(x, w, padding=1)  # torch.nn.functional's signatures, plus algo=
"""

import sys
from importlib.metadata import PackageNotFoundError, version


def _is_examined() -> bool:
    """Whether this is `python -m convlab.doctor`, which comes by here first and has to run where what follows cannot be
    imported."""
    return any(argument.endswith("convlab.doctor") for argument in sys.orig_argv) and sys.argv[:1] == ["-m"]


if not _is_examined():
    from . import _load

    _load.operators()  # before what follows, which needs them
    from . import functional
    from .algorithms import Algorithm, Conv2dProblem, algorithms
    from .build_info import build_info
    from .convert import convert, restore
    from .explain import explain
    from .modules import AvgPool2d, Conv2d, LeakyReLU, MaxPool2d, ReLU
    from .simulator import simulate
    from .summary import summary

try:
    __version__ = version("convlab")
except PackageNotFoundError:  # built in place and imported from the source folder
    __version__ = "0+source"

__all__ = [
    "Algorithm",
    "AvgPool2d",
    "Conv2d",
    "Conv2dProblem",
    "LeakyReLU",
    "MaxPool2d",
    "ReLU",
    "algorithms",
    "build_info",
    "convert",
    "explain",
    "functional",
    "restore",
    "simulate",
    "summary",
]
