"""Drop-in layers around those of modules.py: one dimension, transposed convolution, PReLU, ReLU6, and the lazy
convolutions."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

from . import functional
from ._algorithms import Algo, check_names
from .modules import Conv2d, _Layer


class Parametrized(_Layer):
    """A layer that is a function of its input and its parameters. `_of(functions)` is that function, of convlab's or torch's
    functions."""

    def _of(self, functions: ModuleType) -> Callable[..., Any]:
        raise NotImplementedError


class _Convolution(Parametrized):
    algo: Algo = "auto"  # also that of modules whose class was swapped

    def __init__(self, *args: Any, algo: Algo = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if algo != "auto":
            check_names(algo)
            self.algo = algo

    def _named(self, functions: ModuleType) -> dict[str, Any]:
        return {"algo": self.algo} if functions is functional else {}

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.algo == "auto" else f", algo={self.algo!r}")


class Conv1d(_Convolution, torch.nn.Conv1d):
    """`torch.nn.Conv1d` over `convlab.functional.conv1d`; `algo` as there."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._of(functional)(input, weight, bias)

    def _of(self, functions: ModuleType) -> Callable[..., Any]:
        def call(input: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
            padding: Any = self.padding
            if self.padding_mode != "zeros":
                input = torch.nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
                padding = 0
            others = (self.stride, padding, self.dilation, self.groups)
            return functions.conv1d(input, weight, bias, *others, **self._named(functions))

        return call


class _Transposed(_Convolution):
    _function = ""
    _dimensions = 0

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if isinstance(input, Proxy) and output_size is None and (call := self._call_in_graph(input)) is not None:
            return call
        layer: Any = self
        return self._of(functional, self._output_padding_for(input, output_size))(input, layer.weight, layer.bias)

    def _output_padding_for(self, input: Tensor, output_size: list[int] | None) -> Any:
        layer: Any = self
        if output_size is None:
            return layer.output_padding
        return layer._output_padding(
            input, output_size, layer.stride, layer.padding, layer.kernel_size, self._dimensions, layer.dilation
        )

    def _of(self, functions: ModuleType, output_padding: Any = None) -> Callable[..., Any]:
        layer: Any = self
        padded = layer.output_padding if output_padding is None else output_padding
        others = {"output_padding": padded, "groups": layer.groups, "dilation": layer.dilation}
        return partial(
            getattr(functions, self._function),
            stride=layer.stride,
            padding=layer.padding,
            **others,
            **self._named(functions),
        )


class ConvTranspose1d(_Transposed, torch.nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` over `convlab.functional.conv_transpose1d`; `algo` as there."""

    _function, _dimensions = "conv_transpose1d", 1


class ConvTranspose2d(_Transposed, torch.nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` over `convlab.functional.conv_transpose2d`; `algo` as there."""

    _function, _dimensions = "conv_transpose2d", 2


class MaxPool1d(_Layer, torch.nn.MaxPool1d):
    """`torch.nn.MaxPool1d` over `convlab.functional.max_pool1d`."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        others: Any = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return functional.max_pool1d(input, *others)


class AvgPool1d(_Layer, torch.nn.AvgPool1d):
    """`torch.nn.AvgPool1d` over `convlab.functional.avg_pool1d`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        others: Any = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return functional.avg_pool1d(input, *others)


class AdaptiveAvgPool1d(_Layer, torch.nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d` over `convlab.functional.adaptive_avg_pool1d`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_Layer, torch.nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` over `convlab.functional.adaptive_avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveMaxPool1d(_Layer, torch.nn.AdaptiveMaxPool1d):
    """`torch.nn.AdaptiveMaxPool1d` over `convlab.functional.adaptive_max_pool1d`."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_Layer, torch.nn.AdaptiveMaxPool2d):
    """`torch.nn.AdaptiveMaxPool2d` over `convlab.functional.adaptive_max_pool2d`."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class MaxUnpool2d(_Layer, torch.nn.MaxUnpool2d):
    """`torch.nn.MaxUnpool2d` over `convlab.functional.max_unpool2d`."""

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return functional.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class PReLU(Parametrized, torch.nn.PReLU):
    """`torch.nn.PReLU` over `convlab.functional.prelu`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.prelu(input, self.weight)

    def _of(self, functions: ModuleType) -> Callable[..., Any]:
        prelu: Callable[..., Any] = functions.prelu
        return prelu


class ReLU6(_Layer, torch.nn.ReLU6):
    """`torch.nn.ReLU6` over `convlab.functional.relu6`."""

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, Proxy) and (call := self._call_in_graph(input)) is not None:
            return call
        return functional.relu6(input, self.inplace)


# ---- lazy: the first forward gives them their channels, and makes them the class named here --------------------------


class LazyConv1d(torch.nn.LazyConv1d, Conv1d):  # type: ignore[misc]
    """`torch.nn.LazyConv1d`, which becomes convlab's Conv1d."""

    cls_to_become = Conv1d


class LazyConv2d(torch.nn.LazyConv2d, Conv2d):  # type: ignore[misc]
    """`torch.nn.LazyConv2d`, which becomes convlab's Conv2d."""

    cls_to_become = Conv2d


class LazyConvTranspose1d(torch.nn.LazyConvTranspose1d, ConvTranspose1d):  # type: ignore[misc]
    """`torch.nn.LazyConvTranspose1d`, which becomes convlab's ConvTranspose1d."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(torch.nn.LazyConvTranspose2d, ConvTranspose2d):  # type: ignore[misc]
    """`torch.nn.LazyConvTranspose2d`, which becomes convlab's ConvTranspose2d."""

    cls_to_become = ConvTranspose2d


AROUND: dict[type, Any] = {
    torch.nn.Conv1d: Conv1d,
    torch.nn.ConvTranspose1d: ConvTranspose1d,
    torch.nn.ConvTranspose2d: ConvTranspose2d,
    torch.nn.MaxPool1d: MaxPool1d,
    torch.nn.AvgPool1d: AvgPool1d,
    torch.nn.AdaptiveAvgPool1d: AdaptiveAvgPool1d,
    torch.nn.AdaptiveAvgPool2d: AdaptiveAvgPool2d,
    torch.nn.AdaptiveMaxPool1d: AdaptiveMaxPool1d,
    torch.nn.AdaptiveMaxPool2d: AdaptiveMaxPool2d,
    torch.nn.MaxUnpool2d: MaxUnpool2d,
    torch.nn.PReLU: PReLU,
    torch.nn.ReLU6: ReLU6,
    torch.nn.LazyConv1d: LazyConv1d,
    torch.nn.LazyConv2d: LazyConv2d,
    torch.nn.LazyConvTranspose1d: LazyConvTranspose1d,
    torch.nn.LazyConvTranspose2d: LazyConvTranspose2d,
}
