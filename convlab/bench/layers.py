"""The layers that are measured and explained, as data, and what they take: operations and bytes, counted from their
shapes."""

from typing import NamedTuple

FLOAT = 4  # bytes


def real_taps(size, outputs, kernel, stride=1, padding=0, dilation=1):
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


class Conv(NamedTuple):
    """x [N, C, H, H], w [K, C/groups, R, R], bias [K], y [N, K, P, P]; dilation 1."""

    name: str
    N: int
    C: int
    K: int
    R: int
    H: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def P(self):
        return (self.H + 2 * self.padding - self.R) // self.stride + 1

    @property
    def x(self):
        return self.N, self.C, self.H, self.H

    @property
    def w(self):
        return self.K, self.C // self.groups, self.R, self.R

    @property
    def y(self):
        return self.N, self.K, self.P, self.P

    @property
    def flops(self):
        """Multiplications and additions of any one pass: 2 N K C/groups, times the taps that fall on the input."""
        return (
            2
            * self.N
            * self.K
            * (self.C // self.groups)
            * real_taps(self.H, self.P, self.R, self.stride, self.padding) ** 2
        )

    @property
    def bytes(self):
        """x, w, bias and y once each, in float32; every pass reads all but one of them and writes that one."""
        return FLOAT * (_elements(self.x) + _elements(self.w) + self.K + _elements(self.y))


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

    @property
    def P(self):
        return (self.H + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def x(self):
        return self.N, self.C, self.H, self.H

    @property
    def y(self):
        return self.N, self.C, self.P, self.P

    @property
    def bytes(self):
        """x and y once each in float32 and, of max pooling, one byte an output for the winner: what convlab's kernels
        move."""
        return FLOAT * _elements(self.x) + (FLOAT + (self.operation == "max")) * _elements(self.y)


class Activation(NamedTuple):
    """x and y [N, C, H, H]."""

    name: str
    operation: str  # "leaky_relu" or "relu"
    N: int
    C: int
    H: int

    @property
    def x(self):
        return self.N, self.C, self.H, self.H

    @property
    def size(self):
        """Bytes of x."""
        return FLOAT * _elements(self.x)

    def bytes(self, pass_):
        """forward reads x and writes y; backward reads dy and x (or y) and writes dx."""
        return self.size * (2 if pass_ == "forward" else 3)


def _elements(shape):
    product = 1
    for size in shape:
        product *= size
    return product


CONVOLUTIONS = (
    Conv("lenet-c1", 64, 1, 6, 5, 32),
    Conv("lenet-c3", 64, 6, 16, 5, 14),
    Conv("lenet-c5", 64, 16, 120, 5, 5),
    Conv("cifar-3-32", 64, 3, 32, 3, 32, padding=1),
    Conv("cifar-32-64", 64, 32, 64, 3, 16, padding=1),
    Conv("cifar-64-128", 64, 64, 128, 3, 8, padding=1),
    Conv("resnet-stem", 4, 3, 64, 7, 224, stride=2, padding=3),
    Conv("resnet-64", 4, 64, 64, 3, 56, padding=1),
    Conv("resnet-64-128-s2", 4, 64, 128, 3, 56, stride=2, padding=1),
    Conv("resnet-128", 4, 128, 128, 3, 28, padding=1),
    Conv("resnet-256", 4, 256, 256, 3, 14, padding=1),
    Conv("resnet-512", 4, 512, 512, 3, 7, padding=1),
    Conv("resnet-1x1", 4, 64, 256, 1, 56),
    Conv("resnet-1x1-s2", 4, 256, 512, 1, 56, stride=2),
    Conv("depthwise-96", 4, 96, 96, 3, 56, padding=1, groups=96),
    Conv("grouped-128", 4, 128, 128, 3, 56, padding=1, groups=32),
)

# What the benchmark on a GPU measures: the same layers and others in batches that fill one, as NAME@BATCH.
GPU_BATCHES = {
    "lenet-c1": (1024, 10000),
    "lenet-c3": (1024, 10000),
    "lenet-c5": (1024, 10000),
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
GPU_DEPTHWISE = tuple(
    Conv(f"depthwise-{C}-{H}", N, C, C, 3, H, padding=1, groups=C)
    for N, C, H in ((64, 32, 112), (64, 128, 56), (256, 512, 14))
)


def batched(layer, N):
    """The layer with batch N, and that in its name."""
    return layer._replace(name=f"{layer.name}@{N}", N=N)


def find(name):
    """The convolution called `name`, in its usual batch, or NAME@BATCH. A dot will do for the first dash: lenet.c3.
    Raises ValueError, with the names there are."""
    wanted, _, batch = name.replace(".", "-", 1).lower().partition("@")
    layers = {layer.name: layer for layer in (*CONVOLUTIONS, *GPU_DEPTHWISE)}
    if wanted not in layers:
        raise ValueError(
            f"layer {name!r} is none of: {', '.join(layers)}; behind one of these, @N asks for a batch of N"
        )
    if not batch:
        return layers[wanted]
    if not (batch.isdecimal() and int(batch) >= 1):
        raise ValueError(f"layer {name!r}: behind @ stands {batch!r}, expected a batch of 1 or more")
    return batched(layers[wanted], int(batch))


GPU_CONVOLUTIONS = tuple(find(f"{name}@{N}") for name, batches in GPU_BATCHES.items() for N in batches) + tuple(
    batched(layer, layer.N) for layer in GPU_DEPTHWISE
)

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
