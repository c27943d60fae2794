"""Drop-in layers: torch.nn's classes with their arguments, repr, initialisation and state_dict, over convlab's
kernels."""

import copy
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor
from torch.fx import Proxy

from . import functional
from ._algorithms import Algo, check_names
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

    def _get_name(self) -> str:  # in print(model), which layers are convlab's
        return "convlab." + type(self).__name__

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
            check_names(algo)
            self.algo = algo

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = _padded(self, input)
        return functional.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups, algo=self.algo)

    def _block_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, activation: Any, slope: float, pool: Any
    ) -> Tensor:
        input, padding = _padded(self, input)
        return functional.conv2d_block(
            input,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            activation=activation,
            negative_slope=slope,
            pool=pool,
            algo=self.algo,
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.algo == "auto" else f", algo={self.algo!r}")


def _padded(layer: torch.nn.Conv2d, input: Tensor) -> tuple[Tensor, IntOrPair | str]:
    """The input, padded where padding is not of zeros, and what padding is left to do."""
    if layer.padding_mode == "zeros":
        return input, layer.padding
    return torch.nn.functional.pad(input, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0


class ConvBlock2d(Conv2d):
    """A convolution, an activation (None, "relu", "leaky_relu" or "relu6") and a max pooling (its window, which is its stride, too)
    as one layer, over `convlab.functional.conv2d_block`. Parameters and the other arguments are Conv2d's."""

    activation: str | None
    negative_slope: float
    pool: _Size | None

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
        activation: Literal["relu", "leaky_relu", "relu6"] | None = None,
        negative_slope: float = 0.01,
        pool: _Size | None = None,
        algo: Algo = "auto",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
            algo=algo,
        )
        if activation not in (None, "relu", "leaky_relu", "relu6"):
            raise ValueError(f"ConvBlock2d: activation={activation!r} must be None, 'relu', 'leaky_relu' or 'relu6'")
        self.activation, self.negative_slope, self.pool = activation, negative_slope, pool

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._block_forward(input, weight, bias, self.activation, self.negative_slope, self.pool)

    def extra_repr(self) -> str:
        return super().extra_repr() + _block_repr(self)


class TorchConvBlock2d(torch.nn.Conv2d):
    """What `restore` makes of a ConvBlock2d: the same by torch's functions. `convert` makes it one again."""

    activation: str | None
    negative_slope: float
    pool: _Size | None

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = torch.nn.Conv2d._conv_forward(self, input, weight, bias)
        if self.activation == "relu":
            y = torch.nn.functional.relu(y)
        elif self.activation == "leaky_relu":
            y = torch.nn.functional.leaky_relu(y, self.negative_slope)
        elif self.activation == "relu6":
            y = torch.nn.functional.relu6(y)
        return y if self.pool is None else torch.nn.functional.max_pool2d(y, self.pool)

    def extra_repr(self) -> str:
        return super().extra_repr() + _block_repr(self)


def _block_repr(block: ConvBlock2d | TorchConvBlock2d) -> str:
    slope = f", negative_slope={block.negative_slope}" if block.activation == "leaky_relu" else ""
    activation = "" if block.activation is None else f", activation={block.activation!r}{slope}"
    return activation + ("" if block.pool is None else f", pool={block.pool}")


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
