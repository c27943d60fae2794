"""Drop-in layers: torch.nn's classes with their arguments, repr, initialisation and state_dict, over convlab's
kernels."""

import copy
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor
from torch.fx import Proxy

from . import functional
from ._algorithms import Algo
from ._overrides import CONVERT_AFTER_QUANTIZATION, check_tracer
from .arguments import IntOrPair

_Size = int | tuple[int, int]


class _QConfig:
    """A layer's `qconfig`, by which torch.ao.quantization marks what it will replace. Any but None is refused."""

    def __get__(self, layer: Any, kind: type | None = None) -> Any:
        try:
            return layer.__dict__["qconfig"]
        except (AttributeError, KeyError):
            raise AttributeError("qconfig") from None

    def __set__(self, layer: Any, value: object) -> None:
        if value is not None:
            raise NotImplementedError(f"convlab.{type(layer).__name__}: {CONVERT_AFTER_QUANTIZATION}")
        layer.__dict__["qconfig"] = None

    def __delete__(self, layer: Any) -> None:
        layer.__dict__.pop("qconfig", None)


class _Layer(torch.nn.Module):
    """What PyTorch's tools find in a layer of convlab's where they look for torch.nn's."""

    qconfig = _QConfig()

    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            f"convlab.{type(self).__name__}: torch.jit.script does not know convlab's layers: use torch.jit.trace of the "
            "model in eval(), torch.export, or convlab.restore(model) before"
        )

    def _call_in_graph(self, input: Proxy) -> Any:
        """The call of this layer as a node, for a tracer of torch.fx that does not look into torch.nn's layers; None
        for one that does."""
        check_tracer(input.tracer)
        torchs: Any = copy.copy(self)
        torchs.__class__ = next(kind for kind in type(self).__mro__ if kind.__module__.startswith("torch.nn.modules."))
        tracer: Any = input.tracer
        name = tracer.path_of_module(self)
        return tracer.create_proxy("call_module", name, (input,), {}) if tracer.is_leaf_module(torchs, name) else None


class Conv2d(_Layer, torch.nn.Conv2d):
    """`torch.nn.Conv2d` over `convlab.functional.conv2d`; `algo` as there."""

    algo: Algo = "auto"  # also that of modules whose class was swapped

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        algo: Algo = "auto",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        if algo != "auto":
            self.algo = algo

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: IntOrPair | str = self.padding
        if self.padding_mode != "zeros":
            input = torch.nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return functional.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups, algo=self.algo)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.algo == "auto" else f", algo={self.algo!r}")


class MaxPool2d(_Layer, torch.nn.MaxPool2d):
    """`torch.nn.MaxPool2d` over `convlab.functional.max_pool2d`."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )


class AvgPool2d(_Layer, torch.nn.AvgPool2d):
    """`torch.nn.AvgPool2d` over `convlab.functional.avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class LeakyReLU(_Layer, torch.nn.LeakyReLU):
    """`torch.nn.LeakyReLU` over `convlab.functional.leaky_relu`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.leaky_relu(input, self.negative_slope, self.inplace)


class ReLU(_Layer, torch.nn.ReLU):
    """`torch.nn.ReLU` over `convlab.functional.relu`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.relu(input, self.inplace)
