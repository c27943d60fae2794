"""Drop-in layers: torch.nn's classes with their arguments, repr, initialisation and state_dict, over convlab's
kernels."""

from typing import Any

import torch
from torch import Tensor

from . import functional
from ._algorithms import Algo
from .arguments import IntOrPair


class Conv2d(torch.nn.Conv2d):
    """`torch.nn.Conv2d` over `convlab.functional.conv2d`; `algo` as there."""

    algo: Algo = "auto"  # also that of modules whose class was swapped

    def __init__(self, *args: Any, algo: Algo = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if algo != "auto":
            self.algo = algo

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: IntOrPair | str = self.padding
        if self.padding_mode != "zeros":
            input = torch.nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return functional.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups, algo=self.algo)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.algo == "auto" else f", algo={self.algo!r}")


class MaxPool2d(torch.nn.MaxPool2d):
    """`torch.nn.MaxPool2d` over `convlab.functional.max_pool2d`."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )


class AvgPool2d(torch.nn.AvgPool2d):
    """`torch.nn.AvgPool2d` over `convlab.functional.avg_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class LeakyReLU(torch.nn.LeakyReLU):
    """`torch.nn.LeakyReLU` over `convlab.functional.leaky_relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.leaky_relu(input, self.negative_slope, self.inplace)


class ReLU(torch.nn.ReLU):
    """`torch.nn.ReLU` over `convlab.functional.relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(input, self.inplace)
