"""Hand-written convolution, max-pooling and leaky-ReLU kernels for PyTorch.

    import convlab
    model = convlab.convert(model)                  # swap torch.nn's layers in place
    y = convlab.functional.conv2d(x, w, padding=1)  # torch.nn.functional's signatures, plus algo=
"""

from importlib.metadata import PackageNotFoundError, version

from . import ops  # first: loads the operators, or says why it cannot
from . import functional
from .algorithms import Algorithm, Conv2dProblem, algorithms
from .build_info import build_info
from .convert import convert
from .explain import explain
from .modules import AvgPool2d, Conv2d, LeakyReLU, MaxPool2d, ReLU
from .simulator import simulate

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
    "simulate",
]
