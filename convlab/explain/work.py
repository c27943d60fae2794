"""What a pass of a convolution takes that is done tap by tap, whoever does it: counted from its shapes."""

import math
from dataclasses import dataclass

import torch

from .._algorithms import Conv2dProblem
from ..layers import real_taps


@dataclass(frozen=True)
class Work:
    """flops: multiplications and additions, of taps that fall on the input. bytes: of what has to be read once and
    written once, the elements of x that no window sees left out. unrolled: of the matrix that im2col makes of x.
    replication: how often an element of x stands in it, on average, zeros of the padding left out."""

    flops: int
    bytes: int
    unrolled: int = 0
    replication: float = 0.0

    @property
    def intensity(self) -> float:
        """Operations a byte, at best."""
        return self.flops / self.bytes if self.bytes else 0.0


def work_of(problem: Conv2dProblem, pass_: str) -> Work:
    """Of one pass. x [N, C, H, W], w [K, C/groups, R, S]; no bias."""
    (N, C, H, W), (K, Cg, R, S), (_, _, P, Q) = problem.x, problem.w, problem.y
    axes = list(zip((H, W), (P, Q), (R, S), problem.stride, problem.padding[:2], problem.dilation))
    taps = math.prod(real_taps(*axis) for axis in axes)
    seen = math.prod(_seen(*axis) for axis in axes) if pass_ != "dgrad" else H * W  # dgrad writes zeros, too
    size = torch.empty((), dtype=problem.dtype).element_size()
    elements = N * C * seen + K * Cg * R * S + N * K * P * Q
    replication = taps / (H * W) if H * W else 0.0
    return Work(2 * N * K * Cg * taps, size * elements, size * N * C * R * S * P * Q, replication)


def _seen(size, outputs, kernel, stride, padding, dilation):
    """How many places of one dimension of x some window reads."""
    places = {q * stride - padding + r * dilation for r in range(kernel) for q in range(outputs)}
    return sum(0 <= place < size for place in places)
