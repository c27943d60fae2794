"""The zoo: layers as data. What explain, the benchmark, the notes on the kernels and the tests call a convolution, a
pooling or an activation; what each takes, counted from its shapes; and those that have a name.
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from ._algorithms import Conv2dProblem
from ._near import did_you_mean

FLOAT = 4  # bytes


# ---- what a layer is ------------------------------------------------------------------------------------------------


class Conv(NamedTuple):
    """A convolution: x [N, C, H, W], w [K, C/groups, R, S], bias [K] -> y [N, K, P, Q]."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    name: str = ""

    def __str__(self) -> str:
        sizes = f"x{self.N}.{self.C}.{self.H}.{self.W}-w{self.K}.{self.R}.{self.S}"
        pairs = (("s", self.stride, 1), ("p", self.padding, 0), ("d", self.dilation, 1))
        rest = "".join(f"-{word}{a}.{b}" for word, (a, b), usual in pairs if (a, b) != (usual, usual))
        return self.name or sizes + rest + (f"-g{self.groups}" if self.groups > 1 else "")

    @property
    def arguments(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        """stride, padding, dilation and groups, as torch takes them."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def outputs(self) -> tuple[int, int]:
        """(P, Q), which may be below 1 for what is no convolution."""
        sizes = zip((self.H, self.W), (self.R, self.S), self.stride, self.padding, self.dilation)
        P, Q = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in sizes
        )
        return P, Q

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def w(self) -> tuple[int, int, int, int]:
        return self.K, self.C // self.groups, self.R, self.S

    @property
    def y(self) -> tuple[int, int, int, int]:
        return self.N, self.K, *self.outputs

    @property
    def flops(self) -> int:
        """Multiplications and additions of any one pass: 2 N K C/groups, times the taps that fall on the input."""
        axes = zip((self.H, self.W), self.outputs, (self.R, self.S), self.stride, self.padding, self.dilation)
        return 2 * self.N * self.K * (self.C // self.groups) * math.prod(real_taps(*axis) for axis in axes)

    @property
    def bytes(self) -> int:
        """x, w, bias and y once each, in float32; every pass reads all but one of them and writes that one."""
        return FLOAT * (math.prod(self.x) + math.prod(self.w) + self.K + math.prod(self.y))

    def tensors(self, dtype=torch.float32, device="cpu", bias=True):
        """Random x and w, and a bias or None."""
        x, w = (torch.randn(shape, dtype=dtype, device=device) for shape in (self.x, self.w))
        return x, w, torch.randn(self.K, dtype=dtype, device=device) if bias else None

    def problem(self, dtype=torch.float32, backend="cuda") -> Conv2dProblem:
        """It as an algorithm of a backend is asked for it, in NCHW. Raises RuntimeError for what is no convolution."""
        x, w = (torch.empty(shape, dtype=dtype, device="meta") for shape in (self.x, self.w))
        return replace(Conv2dProblem.of(x, w, *self.arguments), backend=backend, channels_last=False)


def real_taps(size: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many pairs (output, tap) read an element inside the input, along one dimension: taps on padding are no work.

    The outputs q that tap r keeps inside are those with 0 <= q * stride - padding + r * dilation < size; `padding` is
    that in front.
    """
    count = 0
    for r in range(kernel):
        first = max(0, -((r * dilation - padding) // stride))
        last = min(outputs - 1, (size - 1 + padding - r * dilation) // stride)
        count += max(0, last - first + 1)
    return count


class Pool(NamedTuple):
    """x [N, C, H, H], y [N, C, P, P], windows of kernel x kernel."""

    name: str
    operation: str  # "max" or "average"
    N: int
    C: int
    H: int
    kernel: int = 2
    stride: int = 2
    padding: int = 0
    ceil_mode: bool = False

    @property
    def P(self) -> int:
        room = self.H + 2 * self.padding - self.kernel
        outputs = (room + (self.stride - 1) * self.ceil_mode) // self.stride + 1
        return outputs - ((outputs - 1) * self.stride >= self.H + self.padding)  # a window must begin inside

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.H

    @property
    def y(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.P, self.P

    @property
    def bytes(self) -> int:
        """x and y once each in float32 and, of max pooling, one byte an output for the winner: what convlab's kernels
        move."""
        return FLOAT * math.prod(self.x) + (FLOAT + (self.operation == "max")) * math.prod(self.y)


class Activation(NamedTuple):
    """x and y [N, C, H, H]."""

    name: str
    operation: str  # "leaky_relu" or "relu"
    N: int
    C: int
    H: int

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.H

    @property
    def passes(self) -> tuple[str, ...]:
        """Leaky ReLU that will not be differentiated, inference, keeps nothing for backward."""
        return (*(("inference",) if self.operation == "leaky_relu" else ()), "forward", "backward")

    def bytes(self, pass_: str) -> int:
        """What convlab's kernels move: two floats an element, dy and dx or x and y; and beside them what forward keeps
        for backward, which is a bit of leaky ReLU, and y of ReLU, which is there already."""
        bits = (
            {"inference": 0, "forward": 1, "backward": 1} if self.operation == "leaky_relu" else {"backward": 8 * FLOAT}
        )
        return (16 * FLOAT + bits.get(pass_, 0)) * math.prod(self.x) // 8


class Call(NamedTuple):
    """A call of a function of torch.nn.functional that convlab has by the same name: of x, of parameters, and of what it
    takes beside them, all in torch's order."""

    name: str
    function: str
    x: tuple[int, ...]
    parameters: tuple[tuple[int, ...], ...] = ()
    arguments: tuple[Any, ...] = ()

    @property
    def is_transposed(self) -> bool:
        return self.function.startswith("conv_transpose")

    @property
    def passes(self) -> tuple[str, ...]:
        return ("forward", "dgrad", "wgrad") if self.function.startswith("conv") else ("forward", "backward")

    @property
    def y(self) -> tuple[int, ...]:
        if self.function == "max_unpool2d":
            return (*self.x[:2], *(n * self.arguments[0] for n in self.x[2:]))
        tensors = (torch.empty(shape, device="meta") for shape in (self.x, *self.parameters))
        return tuple(getattr(F, self.function)(*tensors, *self.arguments).shape)

    @property
    def convolution(self) -> Conv | None:
        """It as a convolution of two dimensions, one of them a height of 1 where it has but one; of a transposed one, the
        convolution whose dgrad it is. None for what is neither."""
        if not self.function.startswith("conv"):
            return None
        flat, w = len(self.x) == 3, self.parameters[0]
        (N, C, *image), (K, _, *kernel) = self.x, w
        if self.is_transposed:
            stride, padding, more, groups, dilation = self.arguments
            image = [(n - 1) * stride - 2 * padding + dilation * (k - 1) + more + 1 for n, k in zip(image, kernel)]
            C = w[1] * groups
        else:
            stride, padding, dilation, groups = self.arguments
        one, zero = (1,) * flat, (0,) * flat
        pairs = (((*before, n) if flat else (n, n)) for before, n in ((one, stride), (zero, padding), (one, dilation)))
        return Conv(N, C, *one, *image, K, *one, *kernel, *pairs, groups, self.name)

    @property
    def flops(self) -> int:
        return self.convolution.flops if self.convolution else 0

    @property
    def bytes(self) -> int:
        """x, parameters and y once each in float32."""
        return FLOAT * sum(map(math.prod, (self.x, *self.parameters, self.y)))


# ---- convolutions by name -------------------------------------------------------------------------------------------


def _square(name, N, C, K, R, H, stride=1, padding=0, groups=1) -> Conv:
    return Conv(N, C, H, H, K, R, R, (stride, stride), (padding, padding), (1, 1), groups, name)


# What the benchmark on a CPU measures.
CONVOLUTIONS = (
    _square("lenet-c1", 64, 1, 6, 5, 32),
    _square("lenet-c3", 64, 6, 16, 5, 14),
    _square("lenet-c5", 64, 16, 120, 5, 5),
    _square("fashion-c1", 64, 1, 4, 7, 86),
    _square("fashion-c2", 64, 4, 16, 7, 40),
    _square("cifar-3-32", 64, 3, 32, 3, 32, padding=1),
    _square("cifar-32-64", 64, 32, 64, 3, 16, padding=1),
    _square("cifar-64-128", 64, 64, 128, 3, 8, padding=1),
    _square("resnet-stem", 4, 3, 64, 7, 224, stride=2, padding=3),
    _square("resnet-64", 4, 64, 64, 3, 56, padding=1),
    _square("resnet-64-128-s2", 4, 64, 128, 3, 56, stride=2, padding=1),
    _square("resnet-128", 4, 128, 128, 3, 28, padding=1),
    _square("resnet-256", 4, 256, 256, 3, 14, padding=1),
    _square("resnet-512", 4, 512, 512, 3, 7, padding=1),
    _square("resnet-1x1", 4, 64, 256, 1, 56),
    _square("resnet-1x1-s2", 4, 256, 512, 1, 56, stride=2),
    _square("depthwise-96", 4, 96, 96, 3, 56, padding=1, groups=96),
    _square("grouped-128", 4, 128, 128, 3, 56, padding=1, groups=32),
)
GPU_DEPTHWISE = tuple(
    _square(f"depthwise-{C}-{H}", N, C, C, 3, H, padding=1, groups=C)
    for N, C, H in ((64, 32, 112), (64, 128, 56), (256, 512, 14))
)


def _call(function: str, name: str, x: tuple[int, ...], w: tuple[int, ...], *arguments: int) -> Call:
    """A convolution with a bias."""
    transposed = function.startswith("conv_transpose")
    channels = w[1] * arguments[3] if transposed else w[0]
    return Call(name, function, x, (w, (channels,)), arguments)


# Convolutions around those: a network for sounds, a vocoder, generators, a U-Net. What stands behind x and w is, of one
# dimension, stride, padding, dilation and groups; of a transposed one stride, padding, output_padding, groups, dilation.
AROUND = (
    _call("conv1d", "sound-k80-s4", (16, 1, 8000), (32, 1, 80), 4, 0, 1, 1),
    _call("conv1d", "sound-k3", (16, 32, 1000), (64, 32, 3), 1, 1, 1, 1),
    _call("conv1d", "wavenet-d8", (4, 64, 2048), (128, 64, 2), 1, 0, 8, 1),
    _call("conv1d", "keyword-separable", (16, 128, 500), (128, 1, 9), 1, 4, 1, 128),
    _call("conv1d", "keyword-pointwise", (16, 128, 500), (128, 128, 1), 1, 0, 1, 1),
    _call("conv_transpose1d", "vocoder-s8", (4, 128, 128), (128, 64, 16), 8, 4, 0, 1, 1),
    _call("conv_transpose2d", "dcgan-4", (32, 512, 4, 4), (512, 256, 4, 4), 2, 1, 0, 1, 1),
    _call("conv_transpose2d", "dcgan-16", (32, 128, 16, 16), (128, 64, 4, 4), 2, 1, 0, 1, 1),
    _call("conv_transpose2d", "dcgan-rgb", (32, 64, 32, 32), (64, 3, 4, 4), 2, 1, 0, 1, 1),
    _call("conv_transpose2d", "unet-up-28", (4, 256, 28, 28), (256, 128, 2, 2), 2, 0, 0, 1, 1),
    _call("conv_transpose2d", "unet-up-56", (4, 128, 56, 56), (128, 64, 2, 2), 2, 0, 0, 1, 1),
    _call("conv_transpose2d", "decoder-k3", (16, 64, 14, 14), (64, 32, 3, 3), 2, 1, 1, 1, 1),
)
TRANSPOSED = frozenset(call.name for call in AROUND if call.is_transposed)
NAMED = {layer.name: layer for layer in (*CONVOLUTIONS, *GPU_DEPTHWISE)}
NAMED |= {call.name: convolution for call in AROUND if (convolution := call.convolution)}


def batched(layer: Conv, N: int) -> Conv:
    """The layer with batch N, and that in its name."""
    return layer._replace(name=f"{layer.name}@{N}", N=N)


def find(name: str) -> Conv:
    """The convolution called `name`, in its usual batch, or NAME@BATCH. A dot will do for the first dash: lenet.c3.
    Raises ValueError, with the names there are."""
    wanted, _, batch = name.replace(".", "-", 1).lower().partition("@")
    if wanted not in NAMED:
        raise ValueError(
            f"layer {name!r} is unknown: {did_you_mean(wanted, NAMED)}choose one of {', '.join(NAMED)}; behind it, @N asks for a batch of N"
        )
    if not batch:
        return NAMED[wanted]
    if not (batch.isdecimal() and int(batch) >= 1):
        raise ValueError(f"layer {name!r}: behind @ stands {batch!r}, expected a batch of 1 or more")
    return batched(NAMED[wanted], int(batch))


# What the benchmark on a GPU measures: the same layers and others in batches that fill one, as NAME@BATCH.
GPU_BATCHES = {
    "lenet-c1": (1024, 10000),
    "lenet-c3": (1024, 10000),
    "lenet-c5": (1024, 10000),
    "fashion-c1": (1024, 10000),
    "fashion-c2": (1024, 10000),
    "cifar-3-32": (512,),
    "cifar-32-64": (512,),
    "cifar-64-128": (512,),
    "resnet-stem": (64, 256),
    "resnet-64": (64, 256),
    "resnet-128": (64, 256),
    "resnet-256": (64, 256),
    "resnet-512": (64, 256),
    "resnet-1x1": (64, 256),
    "resnet-1x1-s2": (64, 256),
}
GPU_CONVOLUTIONS = tuple(find(f"{name}@{N}") for name, batches in GPU_BATCHES.items() for N in batches) + tuple(
    batched(layer, layer.N) for layer in GPU_DEPTHWISE
)

# What a training step has of them.
LENET = (
    _square("C1", 256, 1, 6, 5, 32),
    _square("C3", 256, 6, 16, 5, 14),
    _square("C5", 256, 16, 120, 5, 5),
)
FASHION = (_square("C1", 256, 1, 4, 7, 86), _square("C2", 256, 4, 16, 7, 40))
CIFAR = tuple(_square(f"{C}-{K}", 128, C, K, 3, H, padding=1) for C, K, H in ((3, 32, 32), (32, 64, 16), (64, 128, 8)))
TINY = _square("tiny", 1, 1, 1, 3, 8)  # for what a call costs before any arithmetic

# Whose traffic is counted and noted. Their pixels are a multiple of 128: tiles at the edge, which load some elements
# once more, would blur the counts. A rung's notes are of those that it can do; the last is for rungs that can do none
# of the others.
NOTED = (
    _square("LeNet C3", 32, 6, 16, 5, 14),
    _square("ResNet-20", 1, 32, 32, 3, 16, padding=1),  # its second stage
    _square("MobileNet", 64, 8, 8, 3, 14, padding=1, groups=8),  # 8 of its 512 channels
)

# Small and awkward, every kernel has its work with some of them: LeNet's C3 for those that are compiled for its filter,
# edges everywhere, depthwise.
SMALL = (
    Conv(1, 6, 14, 14, 16, 5, 5),
    Conv(2, 6, 11, 13, 9, 3, 2, (2, 3), (1, 2), (1, 2), 3),
    Conv(1, 10, 9, 10, 35, 3, 3, padding=(1, 1)),
    Conv(2, 6, 11, 12, 6, 3, 3, padding=(1, 1), groups=6),
    Conv(2, 3, 13, 9, 6, 5, 5, (2, 2), (2, 2), groups=3),
    Conv(3, 2, 8, 9, 2, 2, 3, padding=(0, 1), dilation=(2, 2), groups=2),
)


def noted(able=bool) -> tuple[Conv, ...]:
    """Of NOTED, those to count a kernel on that is `able(layer)`: ordinary ones, else what is left."""
    *ordinary, special = NOTED
    return tuple(layer for layer in ordinary if able(layer)) or tuple(layer for layer in [special] if able(layer))


# ---- poolings and activations by name -------------------------------------------------------------------------------

POOLS = tuple(
    Pool(f"{operation}-{name}", operation, *sizes)
    for operation in ("max", "average")
    for name, sizes in {
        "lenet": (64, 6, 28),
        "cifar": (64, 32, 32),
        "resnet": (8, 64, 112, 3, 2, 1),
    }.items()
)
ACTIVATIONS = tuple(
    Activation(f"{operation}-{name}", operation, *sizes)
    for operation in ("leaky_relu", "relu")
    for name, sizes in {
        "1mb": (64, 6, 28),
        "8mb": (64, 32, 32),
        "26mb": (8, 64, 112),
        "128mb": (128, 64, 64),
    }.items()
)

# On a GPU, as NAME@BATCH: the poolings and activations of the networks above.
GPU_POOLS = (
    Pool("max-lenet@1024", "max", 1024, 6, 28),
    Pool("max-cifar@512", "max", 512, 32, 32),
    Pool("max-resnet@64", "max", 64, 64, 112, 3, 2, 1),
    Pool("average-cifar@512", "average", 512, 32, 32),
)
GPU_ACTIVATIONS = (
    Activation("leaky_relu-lenet@1024", "leaky_relu", 1024, 6, 28),
    Activation("leaky_relu-cifar@512", "leaky_relu", 512, 32, 32),
    Activation("leaky_relu-resnet@64", "leaky_relu", 64, 64, 112),
)

# What stands beside them: a network for sounds has the first of these.
FUNCTIONS = (
    Call("sound", "max_pool1d", (16, 32, 2000), arguments=(4,)),
    Call("overlapping", "max_pool1d", (16, 64, 500), arguments=(3, 2, 1)),
    Call("sound", "avg_pool1d", (16, 32, 2000), arguments=(4,)),
    Call("sound-1", "adaptive_avg_pool1d", (16, 128, 125), arguments=(1,)),
    Call("uneven-16", "adaptive_avg_pool1d", (16, 128, 250), arguments=(16,)),
    Call("sound-1", "adaptive_max_pool1d", (16, 128, 125), arguments=(1,)),
    Call("resnet-1", "adaptive_avg_pool2d", (16, 512, 7, 7), arguments=(1,)),
    Call("even-7", "adaptive_avg_pool2d", (16, 256, 14, 14), arguments=(7,)),
    Call("uneven-6", "adaptive_avg_pool2d", (16, 256, 13, 13), arguments=(6,)),
    Call("resnet-1", "adaptive_max_pool2d", (16, 512, 7, 7), arguments=(1,)),
    Call("uneven-6", "adaptive_max_pool2d", (16, 256, 13, 13), arguments=(6,)),
    Call("decoder", "max_unpool2d", (16, 64, 16, 16), arguments=(2,)),
    Call("channels", "prelu", (16, 64, 32, 32), ((64,),)),
    Call("one", "prelu", (16, 64, 32, 32), ((1,),)),
    Call("mobilenet", "relu6", (16, 64, 32, 32)),
)
