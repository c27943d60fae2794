"""The problems that tests share, and how far a result may be from the exact one."""

import math
import random
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Conv(NamedTuple):
    """A convolution: x [N, C, H, W], w [K, C/groups, R, S]."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    groups: int = 1

    def __str__(self):
        sizes = f"x{self.N}.{self.C}.{self.H}.{self.W}-w{self.K}.{self.R}.{self.S}"
        rest = "".join(f"-{k[0]}{v[0]}.{v[1]}" for k, v in zip(("stride", "padding", "dilation"), self[7:10]) if v not in ((1, 1), (0, 0)))
        return sizes + rest + (f"-g{self.groups}" if self.groups > 1 else "")

    @property
    def arguments(self):
        return self.stride, self.padding, self.dilation, self.groups

    def tensors(self, dtype=torch.float32, device="cpu", bias=True):
        x = torch.randn(self.N, self.C, self.H, self.W, dtype=dtype, device=device)
        w = torch.randn(self.K, self.C // self.groups, self.R, self.S, dtype=dtype, device=device)
        return x, w, torch.randn(self.K, dtype=dtype, device=device) if bias else None


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
            rng.randint(1, 4), groups * rng.randint(1, 5), rng.randint(1, 17), rng.randint(1, 17), groups * rng.randint(1, 6),
            rng.randint(1, 5), rng.randint(1, 5), (rng.randint(1, 4), rng.randint(1, 4)), (rng.randint(0, 4), rng.randint(0, 4)),
            (rng.randint(1, 3), rng.randint(1, 3)), groups,
        )  # fmt: skip
        if c.dilation[0] * (c.R - 1) < c.H + 2 * c.padding[0] and c.dilation[1] * (c.S - 1) < c.W + 2 * c.padding[1]:
            return c


class Pool(NamedTuple):
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
    """Any legal max pooling of moderate size, but for windows whose taps all miss x (torch writes outside its tensors for them)."""
    while True:
        kernel, dilation = (rng.randint(1, 4), rng.randint(1, 4)), (rng.randint(1, 3), rng.randint(1, 3))
        extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
        padding = tuple(rng.randint(0, k // 2) for k in kernel)
        size = (rng.randint(1, 19), rng.randint(1, 19))
        if all(s + 2 * p >= e for s, p, e in zip(size, padding, extent)):
            stride = (rng.randint(1, 4), rng.randint(1, 4))
            if not all(map(_every_window_sees_x, size, kernel, stride, padding, dilation)):
                continue
            return Pool((rng.randint(1, 3), rng.randint(1, 4), *size), kernel, stride, padding, dilation, rng.random() < 0.5)


# ---- how far off -----------------------------------------------------------------------------------------------------


def assert_sums_close(actual, exact, magnitude, terms, what=""):
    """Checks sums of products against float64.

    `exact` is the sum in float64, `magnitude` the sum of the absolute values of its terms, `terms` how many there are. Rounding
    after each addition moves a sum by about eps * sqrt(terms) * magnitude (eps of the accumulator: float64 for float64, else
    float32), and storing the result rounds once more in its own type. Four times that is allowed.
    """
    assert actual.shape == exact.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    accumulator = torch.float64 if actual.dtype == torch.float64 else torch.float32
    bound = 4 * torch.finfo(accumulator).eps * math.sqrt(max(terms, 1)) * magnitude + torch.finfo(actual.dtype).eps * exact.abs()
    bound = bound + torch.finfo(actual.dtype).tiny
    error = (actual.detach().to("cpu", torch.float64) - exact).abs()
    worst = (error - bound).nan_to_num(nan=math.inf).flatten()
    if worst.numel() and worst.max() > 0:
        i = int(worst.argmax())
        index = [int(v) for v in torch.unravel_index(torch.tensor(i), exact.shape)]
        got, want = actual.flatten()[i].item() if actual.is_contiguous() else actual[tuple(index)].item(), exact.flatten()[i].item()
        raise AssertionError(f"{what} differs at {index}: {got}, exactly {want}; allowed error {bound.flatten()[i].item():.3g}")


def conv_in_float64(tensors, dy, arguments):
    """y, dx, dw and db (if there is a bias) of a convolution of `tensors` x, w, b in float64; and the same of their absolute values,
    which is by how much rounding can move them."""

    def all_of(fn):
        exact = [fn(t.detach().to("cpu", torch.float64)).requires_grad_() for t in tensors if t is not None]
        y = F.conv2d(*exact, *([None] if len(exact) < 3 else []), *arguments)
        return y.detach(), *torch.autograd.grad(y, exact, fn(dy.to("cpu", torch.float64)))

    return all_of(lambda t: t), all_of(torch.abs)


def check_conv(convolve, x, w, b, dy, arguments, what=""):
    """Checks a convolution and its three gradients against float64 on the same inputs.

    convolve(x, w, b) must be differentiable. x, w, b (or None) and dy may lie on any device, in any layout.
    """
    leaves = [t.detach().requires_grad_() for t in (x, w, b) if t is not None]
    y = convolve(*leaves, *([] if b is not None else [None]))
    gradients = torch.autograd.grad(y, leaves, dy)
    (y64, *gradients64), (y_abs, *gradients_abs) = conv_in_float64((x, w, b), dy, arguments)
    taps = w[0].numel()
    terms = [w.shape[0] // arguments[3] * w.shape[2] * w.shape[3], y[:, 0].numel(), y[:, 0].numel()]
    assert_sums_close(y, y64, y_abs, taps + 1, f"{what} forward")
    for name, *values in zip(("dgrad", "wgrad", "bias gradient"), gradients, gradients64, gradients_abs, terms):
        assert_sums_close(*values, f"{what} {name}")
