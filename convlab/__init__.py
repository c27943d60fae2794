"""Hand-written convolution, max-pooling and leaky-ReLU kernels for PyTorch.

import convlab
model = convlab.convert(model)                  # swap torch.nn's layers in place
y = convlab.functional.conv2d(x, w, padding=1)  # torch.nn.functional's signatures, plus algo=
"""

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import functional as functional
    from ._algorithms import Algorithm, Conv2dProblem, algorithms
    from ._build_info import build_info
    from ._convert import convert, restore
    from ._fuse import fuse
    from ._modules_around import (
        AdaptiveAvgPool1d,
        AdaptiveAvgPool2d,
        AdaptiveMaxPool1d,
        AdaptiveMaxPool2d,
        AvgPool1d,
        Conv1d,
        ConvTranspose1d,
        ConvTranspose2d,
        LazyConv1d,
        LazyConv2d,
        LazyConvTranspose1d,
        LazyConvTranspose2d,
        MaxPool1d,
        MaxUnpool2d,
        PReLU,
        ReLU6,
    )
    from ._summary import summary
    from .modules import AvgPool2d, Conv2d, ConvBlock2d, LeakyReLU, MaxPool2d, ReLU
    from .simulator import simulate

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "Algorithm",
    "AvgPool1d",
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "Conv2dProblem",
    "ConvBlock2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LeakyReLU",
    "MaxPool1d",
    "MaxPool2d",
    "MaxUnpool2d",
    "PReLU",
    "ReLU",
    "ReLU6",
    "algorithms",
    "build_info",
    "convert",
    "functional",
    "fuse",
    "restore",
    "simulate",
    "summary",
]
_HOMES = {
    "_algorithms": ("Algorithm", "Conv2dProblem", "algorithms"),
    "_build_info": ("build_info",),
    "_convert": ("convert", "restore"),
    "_fuse": ("fuse",),
    "_modules_around": (
        "AvgPool1d",
        "Conv1d",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "LazyConv1d",
        "LazyConv2d",
        "LazyConvTranspose1d",
        "LazyConvTranspose2d",
        "MaxPool1d",
        "AdaptiveAvgPool1d",
        "AdaptiveAvgPool2d",
        "AdaptiveMaxPool1d",
        "AdaptiveMaxPool2d",
        "MaxUnpool2d",
        "PReLU",
        "ReLU6",
    ),
    "_summary": ("summary",),
    "modules": ("AvgPool2d", "Conv2d", "ConvBlock2d", "LeakyReLU", "MaxPool2d", "ReLU"),
    "simulator": ("simulate",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
# Instruments: loaded when somebody asks for them.
_PACKAGES = ("bench", "doctor", "explain", "layers", "testing", "training")

try:
    __version__ = version("convlab")
except PackageNotFoundError:  # built in place and imported from the source folder
    __version__ = "0+source"


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    elif name == "functional" or name in _PACKAGES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})


# What cannot be loaded says so now. But not while Python looks for the module of `python -m convlab.doctor`, when
# argv[0] is "-m": the doctor runs where this would fail, and other programs load what they need themselves.
if sys.argv[:1] != ["-m"]:
    importlib.import_module("._load", __name__)
    for _name in __all__:
        __getattr__(_name)
