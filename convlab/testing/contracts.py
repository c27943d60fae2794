"""What a kernel of one's own can be checked as: the signature of its launcher, problems, and what the right results
are.

All tensors are contiguous NCHW of one element type T. Pointers are to device memory; outputs are never empty.
"""

import random
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..layers import noted
from .cases import AVG_POOLS, AWKWARD, POOLS, Conv, random_avg_pool, random_conv, random_pool
from .compare import assert_close, assert_sums_close, conv_in_float64
from .conv2d import instead_of_dgrad, instead_of_forward, instead_of_wgrad


class Question(NamedTuple):
    """A problem with its data. `compare(actual, what)` raises CheckError."""

    what: str
    problem: bytes  # as the C++ struct lies in memory
    inputs: dict[str, torch.Tensor | None]  # by the names that reports use
    output: tuple[str, tuple[int, ...]]
    compare: Callable[[torch.Tensor, str], None]
    multiply_adds: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the inputs."""
        return {name: t.numel() * t.element_size() for name, t in self.inputs.items() if t is not None}


class Contract(NamedTuple):
    """What a launcher promises. `questions(dtype, random_cases, seed)` yields what it is asked, simple problems
    first."""

    like: str
    signature: str
    header: str  # of csrc/, for the problem's struct
    problem: str  # the struct
    arguments: str  # of the launcher, made of `problem`
    inputs: tuple[str, ...]
    questions: Callable[[torch.dtype, int, int], Iterator[Question]]
    layers: Callable[[torch.dtype], dict[str, Question]]  # whose traffic is counted


# ---- convolution
# ------------------------------------------------------------------------------------------------------


def _conv_question(pass_: str, case: Conv, dtype, bias=True) -> Question:
    x, w, b = case.tensors(dtype, bias=bias)
    dy = torch.randn(case.N, case.K, *case.outputs, dtype=dtype)
    problem = struct.pack("16i", *case[:7], *case.outputs, *case.stride, *case.padding, *case.dilation, case.groups)
    (y64, *exact), (y_abs, *magnitudes) = (
        conv_in_float64((x, w), dy, case.arguments) if b is None else conv_in_float64((x, w, b), dy, case.arguments)
    )
    macs = y64.numel() * w[0].numel()
    if pass_ == "forward":
        inputs, output, dims, terms = (
            {"input": x, "weight": w, "bias": b},
            ("output", y64.shape),
            "nkpq",
            w[0].numel() + 1,
        )
        others, right = instead_of_forward(x, w, b, y64, case.arguments), (y64, y_abs)
    elif pass_ == "dgrad":
        inputs, output, dims, terms = (
            {"grad_output": dy, "weight": w},
            ("grad_input", x.shape),
            "nchw",
            case.K // case.groups * case.R * case.S,
        )
        others, right = instead_of_dgrad(x, w, dy, case.arguments), (exact[0], magnitudes[0])
    else:
        inputs, output, dims, terms = (
            {"grad_output": dy, "input": x},
            ("grad_weight", w.shape),
            "kcrs",
            y64[:, 0].numel(),
        )
        others, right = instead_of_wgrad(x, w, dy, exact[1], case.arguments), (exact[1], magnitudes[1])

    def compare(actual, what):
        assert_sums_close(actual, *right, terms, what, dims, others)

    return Question(f"{case}{'' if bias else ', no bias'}", problem, inputs, output, compare, macs)


def _conv(pass_: str, arguments: str, inputs) -> Contract:
    def questions(dtype, random_cases, seed):
        rng = random.Random(seed)
        cases = [*(case for case in AWKWARD if case.N), *(random_conv(rng) for _ in range(random_cases))]
        for i, case in enumerate(cases):
            yield _conv_question(pass_, case, dtype, bias=i % 3 != 2)

    def layers(dtype):
        return {layer.name: _conv_question(pass_, layer, dtype) for layer in noted()}

    like = f"conv2d_{pass_}"
    return Contract(
        like,
        f"void {like}(const Conv2d& g, {arguments}, cudaStream_t stream)",
        "geometry/conv2d.h",
        "Conv2d",
        "problem",
        inputs,
        questions,
        layers,
    )


# ---- pooling
# ----------------------------------------------------------------------------------------------------------


def pair(n):
    return tuple(n) if isinstance(n, (tuple, list)) else (n, n)


def _pool_struct(case, outputs) -> bytes:
    kernel, padding = pair(case.kernel_size), pair(case.padding)
    stride, dilation = (
        pair(case.kernel_size if case.stride is None else case.stride),
        pair(getattr(case, "dilation", 1)),
    )
    N, C, H, W = case.shape
    return struct.pack("q12i", N * C, H, W, *outputs, *kernel, *stride, *padding, *dilation)


def _max_pool_question(case, dtype) -> Question:
    x = torch.randn(case.shape).to(dtype)
    y = F.max_pool2d(x.double(), *case[1:])

    def compare(actual, what):
        assert_close(actual, y, None, what, "ncpq")

    return Question(f"max_pool2d {case}", _pool_struct(case, y.shape[2:]), {"input": x}, ("output", y.shape), compare)


def _avg_pool_question(backward: bool, case, dtype) -> Question:
    x = torch.randn(case.shape).to(dtype).double().requires_grad_()
    y = F.avg_pool2d(x, *case[1:])
    dy = torch.randn(y.shape).to(dtype)
    (dx,) = torch.autograd.grad(y, x, dy.double())
    right = dx if backward else y.detach()
    largest = max(float(dy.abs().sum()) if backward else float(x.detach().abs().max()) * case.taps, 1e-30)

    def compare(actual, what):
        assert_close(
            actual,
            right,
            torch.full_like(right, 8 * torch.finfo(dtype).eps * largest),
            what,
            "nchw" if backward else "ncpq",
        )

    problem = _pool_struct(case, y.shape[2:]) + struct.pack("?7xq", case.count_include_pad, case.divisor_override or 0)
    inputs = {"grad_output": dy} if backward else {"input": x.detach().to(dtype)}
    return Question(
        f"avg_pool2d {case}", problem, inputs, ("grad_input", x.shape) if backward else ("output", y.shape), compare
    )


def _pooling(like: str, signature: str, header: str, problem: str, inputs, cases, random_case, ask, layers) -> Contract:
    def questions(dtype, random_cases, seed):
        rng = random.Random(seed)
        for case in [*(case for case in cases if case.shape[0]), *(random_case(rng) for _ in range(random_cases))]:
            yield ask(case, dtype)

    return Contract(
        like,
        signature,
        header,
        problem,
        "problem",
        inputs,
        questions,
        lambda dtype: {name: ask(case, dtype) for name, case in layers.items()},
    )


MAX_LAYERS = {
    "LeNet S2": POOLS[0]._replace(shape=(32, 6, 28, 28)),
    "ResNet-50": POOLS[3]._replace(shape=(1, 8, 112, 112)),
}
AVG_LAYERS = {
    "LeNet S2": AVG_POOLS[0]._replace(shape=(32, 6, 28, 28)),
    "ResNet-20": AVG_POOLS[0]._replace(shape=(32, 64, 8, 8), kernel_size=8),
}


# ---- activation
# -------------------------------------------------------------------------------------------------------


def _leaky_relu_question(backward: bool, elements: int, dtype, slope=0.1) -> Question:
    x = torch.randn(elements).to(dtype)
    x[: min(elements, 3)] = torch.tensor([0.0, float("nan"), -float("inf")]).to(dtype)[: min(elements, 3)]
    dy = torch.randn(elements).to(dtype)
    leaf = x.clone().requires_grad_()
    y = F.leaky_relu(leaf, slope)
    right = (torch.autograd.grad(y, leaf, dy)[0] if backward else y.detach()).double()

    def compare(actual, what):
        assert_close(actual, right, None, what)

    inputs = {"grad_output": dy, "input": x} if backward else {"input": x}
    output = "grad_input" if backward else "output"
    return Question(
        f"leaky_relu of {elements} elements", struct.pack("qd", elements, slope), inputs, (output, (elements,)), compare
    )


def _leaky_relu(pass_: str, arguments: str, inputs) -> Contract:
    backward = pass_ == "backward"

    def questions(dtype, random_cases, seed):
        rng = random.Random(seed)
        for elements in [1, 31, 257, 1024, 4099, *(rng.randint(1, 5000) for _ in range(random_cases))]:
            yield _leaky_relu_question(backward, elements, dtype)

    def layers(dtype):
        return {"LeNet C3": _leaky_relu_question(backward, 32 * 16 * 10 * 10, dtype)}

    signature = f"void leaky_relu_{pass_}(long long elements, double negative_slope, {arguments}, cudaStream_t stream)"
    names = "problem.elements, problem.negative_slope"
    return Contract(
        f"leaky_relu_{pass_}", signature, "testing/elements.h", "Elements", names, inputs, questions, layers
    )


CONTRACTS = {
    c.like: c
    for c in (
        _conv("forward", "const T* x, const T* w, const T* bias_or_null, T* y", ("input", "weight", "bias")),
        _conv("dgrad", "const T* dy, const T* w, T* dx", ("grad_output", "weight")),
        _conv("wgrad", "const T* dy, const T* x, T* dw", ("grad_output", "input")),
        _pooling(
            "max_pool2d_forward",
            "void max_pool2d_forward(const Pool2d& g, const T* x, T* y, cudaStream_t stream)",
            "geometry/pool2d.h",
            "Pool2d",
            ("input",),
            POOLS,
            random_pool,
            _max_pool_question,
            MAX_LAYERS,
        ),
        _pooling(
            "avg_pool2d_forward",
            "void avg_pool2d_forward(const AvgPool2d& g, const T* x, T* y, cudaStream_t stream)",
            "geometry/avg_pool2d.h",
            "AvgPool2d",
            ("input",),
            AVG_POOLS,
            random_avg_pool,
            lambda *a: _avg_pool_question(False, *a),
            AVG_LAYERS,
        ),
        _pooling(
            "avg_pool2d_backward",
            "void avg_pool2d_backward(const AvgPool2d& g, const T* dy, T* dx, cudaStream_t stream)",
            "geometry/avg_pool2d.h",
            "AvgPool2d",
            ("grad_output",),
            AVG_POOLS,
            random_avg_pool,
            lambda *a: _avg_pool_question(True, *a),
            AVG_LAYERS,
        ),
        _leaky_relu("forward", "const T* x, T* y", ("input",)),
        _leaky_relu("backward", "const T* dy, const T* x, T* dx", ("grad_output", "input")),
    )
}
