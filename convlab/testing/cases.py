"""Adversarial problems: primes, edges, strides that leave gaps, padding beyond the kernel, empty batches; and random
ones."""

import math
import random
from typing import NamedTuple

from ..layers import Conv

AWKWARD = [
    Conv(2, 3, 7, 11, 5, 3, 3),  # primes
    Conv(1, 1, 13, 5, 1, 5, 3),  # one channel, one filter, one image
    Conv(3, 2, 5, 7, 4, 5, 7),  # kernel as large as the input
    Conv(2, 3, 6, 6, 2, 1, 1),  # pointwise
    Conv(2, 3, 11, 13, 4, 2, 3, stride=(3, 5)),  # stride larger than the kernel: rows of x nobody reads
    Conv(2, 4, 9, 8, 6, 3, 3, stride=(2, 2), padding=(1, 1)),
    Conv(1, 3, 17, 19, 7, 3, 2, stride=(2, 1), padding=(2, 3), dilation=(2, 3)),
    Conv(2, 6, 7, 7, 9, 3, 3, padding=(1, 1), groups=3),
    Conv(2, 5, 8, 7, 5, 3, 3, padding=(1, 1), groups=5),  # depthwise
    Conv(2, 3, 8, 9, 12, 3, 2, stride=(2, 3), padding=(1, 0), groups=3),  # depthwise with a multiplier
    Conv(2, 3, 1, 1, 4, 3, 3, padding=(1, 1)),  # input smaller than the kernel
    Conv(1, 2, 4, 5, 3, 2, 2, padding=(4, 5)),  # outputs that see nothing but padding
    Conv(0, 3, 8, 8, 4, 3, 3),  # empty batch
    Conv(5, 1, 32, 32, 6, 5, 5),  # LeNet C1
    Conv(3, 6, 14, 14, 16, 5, 5),  # LeNet C3
    Conv(7, 16, 5, 5, 12, 5, 5),  # LeNet C5
]


def random_conv(rng: random.Random) -> Conv:
    """Any legal convolution of moderate size."""
    while True:
        groups = rng.choice([1, 1, 1, 2, 3])
        c = Conv(
            rng.randint(1, 4),
            groups * rng.randint(1, 5),
            rng.randint(1, 17),
            rng.randint(1, 17),
            groups * rng.randint(1, 6),
            rng.randint(1, 5),
            rng.randint(1, 5),
            (rng.randint(1, 4), rng.randint(1, 4)),
            (rng.randint(0, 4), rng.randint(0, 4)),
            (rng.randint(1, 3), rng.randint(1, 3)),
            groups,
        )
        if min(c.outputs) > 0:
            return c


class Pool(NamedTuple):
    """A max pooling of x [N, C, H, W], with torch's arguments."""

    shape: tuple
    kernel_size: object
    stride: object = None
    padding: object = 0
    dilation: object = 1
    ceil_mode: bool = False


POOLS = [
    Pool((2, 3, 8, 10), 2),
    Pool((2, 3, 7, 11), 2),
    Pool((1, 2, 13, 5), (3, 2), (2, 3)),
    Pool((2, 3, 9, 9), 3, 2, 1),
    Pool((2, 3, 10, 10), 3, 2, 1, 1, True),
    Pool((2, 1, 5, 7), (5, 7)),
    Pool((1, 2, 11, 12), (2, 3), (3, 4)),  # gaps between windows
    Pool((2, 2, 12, 13), (3, 2), 1, (1, 1), (2, 3)),
    Pool((2, 2, 12, 13), (3, 2), (2, 3), (1, 1), (2, 3), True),
    Pool((1, 1, 4, 4), 3, 1, 1),
    Pool((0, 3, 8, 8), 2),
    Pool((1, 2, 40, 37), (17, 19), 5, (8, 9)),  # 323 taps: more than a byte can number
]


def _every_window_sees_x(size, kernel, stride, padding, dilation):
    starts = range(-padding, size + padding - dilation * (kernel - 1) + stride - 1, stride)
    return all(any(0 <= start + r * dilation < size for r in range(kernel)) for start in starts)


def random_pool(rng: random.Random) -> Pool:
    """Any legal max pooling of moderate size, but for windows whose taps all miss x (torch writes outside its tensors
    for them)."""
    while True:
        kernel, dilation = (rng.randint(1, 4), rng.randint(1, 4)), (rng.randint(1, 3), rng.randint(1, 3))
        extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
        padding = tuple(rng.randint(0, k // 2) for k in kernel)
        size = (rng.randint(1, 19), rng.randint(1, 19))
        if all(s + 2 * p >= e for s, p, e in zip(size, padding, extent)):
            stride = (rng.randint(1, 4), rng.randint(1, 4))
            if not all(map(_every_window_sees_x, size, kernel, stride, padding, dilation)):
                continue
            return Pool(
                (rng.randint(1, 3), rng.randint(1, 4), *size), kernel, stride, padding, dilation, rng.random() < 0.5
            )


class AvgPool(NamedTuple):
    """An average pooling of x [N, C, H, W], with torch's arguments."""

    shape: tuple
    kernel_size: object
    stride: object = None
    padding: object = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    @property
    def taps(self) -> int:
        return math.prod(self.kernel_size) if isinstance(self.kernel_size, tuple) else self.kernel_size**2


def _each_count(*pool):
    return [AvgPool(*pool, *count) for count in ((True, None), (False, None), (True, 3))]


AVG_POOLS = [
    *_each_count((2, 3, 8, 10), 2, None, 0, False),
    *_each_count((2, 3, 7, 11), 2, None, 0, True),
    *_each_count((1, 2, 13, 5), (3, 2), (2, 3), (1, 0), False),
    *_each_count((2, 3, 10, 10), 3, 2, 1, True),
    *_each_count((2, 1, 5, 7), (5, 7), None, 0, False),
    *_each_count((1, 2, 11, 12), (2, 3), (3, 4), (1, 1), True),  # gaps between windows
    *_each_count((1, 1, 4, 4), 3, 1, 1, False),
    *_each_count((0, 3, 8, 8), 2, None, 0, False),
]


def random_avg_pool(rng: random.Random) -> AvgPool:
    """Any legal average pooling of moderate size."""
    kernel = (rng.randint(1, 5), rng.randint(1, 5))
    padding = tuple(rng.randint(0, k // 2) for k in kernel)
    size = tuple(rng.randint(max(1, k - 2 * p), 17) for k, p in zip(kernel, padding))
    shape = (rng.randint(1, 3), rng.randint(1, 4), *size)
    return AvgPool(
        shape,
        kernel,
        (rng.randint(1, 4), rng.randint(1, 4)),
        padding,
        rng.random() < 0.5,
        rng.random() < 0.5,
        rng.choice([None, None, 7, -2]),
    )
