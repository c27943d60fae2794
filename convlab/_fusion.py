"""torch.ao.quantization.fuse_modules on convlab's layers: batch normalization goes into the convolution's weights, as with
torch.nn's, and what it fuses for quantization stays two layers."""

from itertools import product
from types import ModuleType
from typing import Any

from torch.nn import BatchNorm2d, Conv2d, Module, ReLU, Sequential
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import modules
from ._overrides import CONVERT_AFTER_QUANTIZATION
from ._when_imported import when_imported

_CONVOLUTIONS, _RELUS = (Conv2d, modules.Conv2d), (ReLU, modules.ReLU)


def _fused(is_qat: bool, *layers: Any) -> Module:
    if is_qat:
        raise NotImplementedError(f"convlab: {CONVERT_AFTER_QUANTIZATION}")
    first, *rest = layers
    if isinstance(first, Conv2d) and isinstance(rest[0], BatchNorm2d):
        first = fuse_conv_bn_eval(first, rest.pop(0))
    return Sequential(first, *rest) if rest else first


def _register(mappings: ModuleType) -> None:
    patterns = [
        *product(_CONVOLUTIONS, (BatchNorm2d,)),
        *product(_CONVOLUTIONS, (BatchNorm2d,), _RELUS),
        *product(_CONVOLUTIONS, _RELUS),
        *product((BatchNorm2d,), _RELUS),
    ]
    for pattern in patterns:
        mappings._DEFAULT_OP_LIST_TO_FUSER_METHOD.setdefault(pattern, _fused)  # torch has those of its own layers alone


when_imported("torch.ao.quantization.fuser_method_mappings", _register)
