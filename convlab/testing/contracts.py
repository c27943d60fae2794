"""The contracts that a kernel of one's own can be checked against: the signature of its launcher, the problems, and the
right results.

All tensors are contiguous NCHW of one element type T. Pointers are to device memory; outputs are never empty.
"""

import math
import random
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from ..explain import Work
from ..layers import find, noted
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

    @property
    def work(self) -> Work:
        """Each input read once, the output written once."""
        size = next(iter(self.inputs.values())).element_size()
        return Work(2 * self.multiply_adds, sum(self.sizes.values()) + size * math.prod(self.output[1]))


class Form(NamedTuple):
    """Numbers that a launcher in plain CUDA may take after its tensors, instead of convlab's struct. It is asked only
    problems that these numbers can describe."""

    numbers: str  # the declarations of its parameters
    arguments: str  # for them, as expressions of `problem`
    fitted: Callable[[Any], Any]  # turns any problem into one that they can describe


class Contract(NamedTuple):
    """What a launcher promises. `questions(dtype, random_cases, seed, form, with_bias)` yields what it is asked, simple
    problems first."""

    like: str
    signature: str  # with convlab's struct
    tensors: str  # the parameters of a launcher in plain CUDA before the numbers of a form
    forms: dict[str, Form]  # the longest first
    header: str  # in csrc/, with the problem's struct
    problem: str  # the struct
    arguments: str  # for the launcher, as expressions of `problem`
    inputs: tuple[str, ...]
    questions: Callable[..., Iterator[Question]]
    layers: Callable[..., dict[str, Question]]  # (dtype, form, with_bias) -> the layers whose traffic is counted
    timed: Callable[..., Question] | None = None  # the same -> TIMED, whose result is not compared

    def fitted(self, form: str) -> Callable[[Any], Any]:
        return self.forms[form].fitted if form else lambda case: case

    def plain_signatures(self, element: str) -> list[str]:
        """The signatures of launchers in plain CUDA, the shortest first."""
        tensors = re.sub(r"\bT\b", element, self.tensors)
        return [f"void {self.like}({tensors}, {form.numbers})" for form in reversed(self.forms.values())]


def _nothing_to_compare(actual: torch.Tensor, what: str) -> None:
    """Whether its results are right is the program's own business."""


# A program with a main() of its own, which needs no launcher.
_MAIN = Question("main()", b"", {}, ("output", (0,)), _nothing_to_compare)
PROGRAM = Contract(
    "main", "int main()", "", {}, "", "", "", (), lambda *_: iter([_MAIN]), lambda *_: {"the program": _MAIN}
)


def _in_words(case: Any) -> str:
    """A convolution or a pooling: its tensors, and what is not as usual."""
    if getattr(case, "name", ""):
        return case.name
    tensors = {"x": case.x, "w": case.w} if isinstance(case, Conv) else {"x": case.shape}
    usual = case._field_defaults.items()
    given = {name: value for name, default in usual if (value := getattr(case, name)) != default}
    if not isinstance(case, Conv):
        given = {"kernel_size": case.kernel_size} | given
    return ", ".join(
        [f"{name} {list(shape)}" for name, shape in tensors.items()] + [f"{k}={v}" for k, v in given.items()]
    )


def _numbers(names: str, of: str = "problem") -> tuple[str, str]:
    """The declarations of parameters, and their arguments: fields of the problem; one may stand for both dimensions."""
    fields = {"stride": "stride_h", "pad": "pad_h", "size": "R"}
    words = names.split()
    return (
        ", ".join(f"int {word}" for word in words),
        ", ".join(f"{'problem' if word in ('N', 'C') else of}.{fields.get(word, word)}" for word in words),
    )


# ---- convolution -----------------------------------------------------------------------------------------------------


TIMED = "lenet-c3@1024"  # every form can tell it, and the record has it for every rung


def _conv_bytes(case: Conv) -> bytes:
    return struct.pack("16i", *case[:7], *case.outputs, *case.stride, *case.padding, *case.dilation, case.groups)


def _timed_question(pass_: str, dtype, bias: bool) -> Question:
    case = find(TIMED)
    x, w, b = case.tensors(dtype, bias=bias)
    dy = torch.randn(case.y, dtype=dtype)
    inputs, output = {
        "forward": ({"input": x, "weight": w, "bias": b}, ("output", case.y)),
        "dgrad": ({"grad_output": dy, "weight": w}, ("grad_input", case.x)),
        "wgrad": ({"grad_output": dy, "input": x}, ("grad_weight", case.w)),
    }[pass_]
    return Question(TIMED, _conv_bytes(case), inputs, output, lambda actual, what: None, case.flops // 2)


def _conv_question(pass_: str, case: Conv, dtype, bias=True) -> Question:
    x, w, b = case.tensors(dtype, bias=bias)
    dy = torch.randn(case.N, case.K, *case.outputs, dtype=dtype)
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

    return Question(f"{_in_words(case)}{'' if bias else ', no bias'}", _conv_bytes(case), inputs, output, compare, macs)


_ONE = (1, 1)
_CONV_FORMS = {
    "any convolution": Form(
        *_numbers("N C H W K R S stride_h stride_w pad_h pad_w dilation_h dilation_w groups"), lambda case: case
    ),
    "strides and paddings": Form(
        *_numbers("N C H W K R S stride_h stride_w pad_h pad_w"), lambda case: case._replace(dilation=_ONE, groups=1)
    ),
    "one stride and padding": Form(
        *_numbers("N C H W K R S stride pad"),
        lambda case: case._replace(
            stride=(case.stride[0],) * 2, padding=(case.padding[0],) * 2, dilation=_ONE, groups=1
        ),
    ),
    "no stride, no padding": Form(
        *_numbers("N C H W K R S"), lambda case: case._replace(stride=_ONE, padding=(0, 0), dilation=_ONE, groups=1)
    ),
}


def _fitted(cases, draw, random_cases: int, fit, is_one) -> list:
    """Each case as the form can describe it, once, and then `random_cases` random ones."""
    fixed = [case for case in dict.fromkeys(map(fit, cases)) if is_one(case)]
    drawn = []
    while len(drawn) < random_cases:
        drawn += filter(is_one, [fit(draw())])
    return fixed + drawn


def _conv(pass_: str, arguments: str, inputs) -> Contract:
    def questions(dtype, random_cases, seed, form="", with_bias=True):
        rng = random.Random(seed)
        cases = _fitted(
            (case for case in AWKWARD if case.N),
            lambda: random_conv(rng),
            random_cases,
            contract.fitted(form),
            lambda case: min(case.outputs) > 0,
        )
        for i, case in enumerate(cases):
            yield _conv_question(pass_, case, dtype, bias=with_bias and i % 3 != 2)

    def layers(dtype, form="", with_bias=True):
        fit = contract.fitted(form)
        return {layer.name: _conv_question(pass_, layer, dtype, with_bias) for layer in noted() if fit(layer) == layer}

    like = f"conv2d_{pass_}"
    contract = Contract(
        like,
        f"void {like}(const Conv2d& g, {arguments}, cudaStream_t stream)",
        arguments,
        _CONV_FORMS,
        "geometry/conv2d.h",
        "Conv2d",
        "problem",
        inputs,
        questions,
        layers,
        lambda dtype, form="", with_bias=True: _timed_question(pass_, dtype, with_bias),
    )
    return contract


# ---- pooling ---------------------------------------------------------------------------------------------------------


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

    problem = _pool_struct(case, y.shape[2:]) + struct.pack("2i", *case.shape[:2])
    return Question(f"max_pool2d of {_in_words(case)}", problem, {"input": x}, ("output", y.shape), compare)


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
    problem += struct.pack("2i", *case.shape[:2])
    inputs = {"grad_output": dy} if backward else {"input": x.detach().to(dtype)}
    return Question(
        f"avg_pool2d of {_in_words(case)}",
        problem,
        inputs,
        ("grad_input", x.shape) if backward else ("output", y.shape),
        compare,
    )


def _pool_forms(of: str, *dilation: str) -> dict[str, Form]:
    """The forms of max pooling, or of average pooling, which then counts its padding; neither with ceil_mode."""

    def plain(case, **changed):
        averaged = {} if dilation else {"count_include_pad": True, "divisor_override": None}
        return case._replace(ceil_mode=False, **averaged, **changed)

    def square(case, stride: bool, padding: bool):
        size = pair(case.kernel_size)[0]
        changed = {"dilation": 1} if dilation else {}
        return plain(
            case,
            kernel_size=size,
            stride=pair(case.stride)[0] if stride and case.stride is not None else size,
            padding=min(pair(case.padding)[0], size // 2) if padding else 0,
            **changed,
        )

    numbers = {
        "any window": ("N C H W R S stride_h stride_w pad_h pad_w" + "".join(dilation), plain),
        "a size, a stride and a padding": ("N C H W size stride pad", lambda case: square(case, True, True)),
        "a size and a stride": ("N C H W size stride", lambda case: square(case, True, False)),
        "a size": ("N C H W size", lambda case: square(case, False, False)),
    }
    return {name: Form(*_numbers(words, of), fit) for name, (words, fit) in numbers.items()}


def _is_pooling(case) -> bool:
    """Whether it has an output, and no window that misses x."""
    sizes = zip(case.shape[2:], *map(pair, (case.kernel_size, case.padding, getattr(case, "dilation", 1))))
    return all(size + 2 * pad >= dilation * (taps - 1) + 1 for size, taps, pad, dilation in sizes)


def _same_pooling(a, b) -> bool:
    return all(
        pair(x or a.kernel_size) == pair(y or b.kernel_size) if name == "stride" else pair(x) == pair(y)
        for name, x, y in zip(a._fields, a, b)
    )


def _pooling(
    like: str, tensors: str, header: str, struct_: str, forms, inputs, cases, random_case, ask, layers
) -> Contract:
    def questions(dtype, random_cases, seed, form="", with_bias=True):
        rng = random.Random(seed)
        fixed = (case for case in cases if case.shape[0])
        for case in _fitted(fixed, lambda: random_case(rng), random_cases, contract.fitted(form), _is_pooling):
            yield ask(case, dtype)

    def counted(dtype, form="", with_bias=True):
        cases = {name: contract.fitted(form)(case) for name, case in layers.items()}
        return {name: ask(case, dtype) for name, case in cases.items() if _same_pooling(case, layers[name])}

    contract = Contract(
        like,
        f"void {like}(const {struct_}& {'a' if struct_ == 'AvgPool2d' else 'g'}, {tensors}, cudaStream_t stream)",
        tensors,
        forms,
        header,
        f"OfImages<{struct_}>",
        "problem",
        inputs,
        questions,
        counted,
    )
    return contract


MAX_LAYERS = {
    "LeNet S2": POOLS[0]._replace(shape=(32, 6, 28, 28)),
    "ResNet-50": POOLS[3]._replace(shape=(1, 8, 112, 112)),
}
AVG_LAYERS = {
    "LeNet S2": AVG_POOLS[0]._replace(shape=(32, 6, 28, 28)),
    "ResNet-20": AVG_POOLS[0]._replace(shape=(32, 64, 8, 8), kernel_size=8),
}


# ---- activation ------------------------------------------------------------------------------------------------------


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

    def questions(dtype, random_cases, seed, form="", with_bias=True):
        rng = random.Random(seed)
        for elements in [1, 31, 257, 1024, 4099, *(rng.randint(1, 5000) for _ in range(random_cases))]:
            yield _leaky_relu_question(backward, elements, dtype)

    def layers(dtype, form="", with_bias=True):
        return {"LeNet C3": _leaky_relu_question(backward, 32 * 16 * 10 * 10, dtype)}

    signature = f"void leaky_relu_{pass_}(long long elements, double negative_slope, {arguments}, cudaStream_t stream)"
    names = "problem.elements, problem.negative_slope"
    forms = {"elements": Form("int n, float slope", names, lambda case: case)}
    return Contract(
        f"leaky_relu_{pass_}",
        signature,
        arguments,
        forms,
        "testing/elements.h",
        "Elements",
        names,
        inputs,
        questions,
        layers,
    )


# ---- of channels, and adaptive -----------------------------------------------------------------------------------------


def _prelu_question(case: tuple[int, int, int], dtype) -> Question:
    """case: outer, channels, inner"""
    outer, channels, inner = case
    x, w = torch.randn(case).to(dtype), torch.randn(channels).to(dtype)
    x.view(-1)[: min(x.numel(), 3)] = torch.tensor([0.0, float("nan"), -float("inf")]).to(dtype)[: min(x.numel(), 3)]
    right = F.prelu(x, w).double()

    def compare(actual, what):
        assert_close(actual, right, None, what)

    what = f"prelu of {outer} x {channels} x {inner}, the channels in the middle"
    return Question(what, struct.pack("3q", *case), {"input": x, "weight": w}, ("output", case), compare)


def _adaptive_question(case: tuple[int, ...], dtype) -> Question:
    """case: planes, H, W, P, Q"""
    planes, *sizes = case
    x = torch.randn(planes, *sizes[:2]).to(dtype)
    right = F.adaptive_avg_pool2d(x.double(), sizes[2:])
    bound = torch.full_like(right, 8 * torch.finfo(dtype).eps * float(x.abs().max()) * math.prod(sizes[:2]))

    def compare(actual, what):
        assert_close(actual, right, bound, what)

    what = f"adaptive_avg_pool2d of {planes} planes of {sizes[0]} x {sizes[1]} to {sizes[2]} x {sizes[3]}"
    return Question(what, struct.pack("q4i", *case), {"input": x}, ("output", right.shape), compare)


def _of_sizes(
    like: str, tensors: str, header: str, struct_: str, fields: str, inputs, ask, awkward, most, layers
) -> Contract:
    """A contract whose problem is a few sizes: awkward ones, random ones up to `most`, and those of `layers`."""

    def questions(dtype, random_cases, seed, form="", with_bias=True):
        rng = random.Random(seed)
        for case in [*awkward, *(tuple(rng.randint(1, n) for n in most) for _ in range(random_cases))]:
            yield ask(case, dtype)

    def counted(dtype, form="", with_bias=True):
        return {name: ask(case, dtype) for name, case in layers.items()}

    names = ", ".join(f"problem.{field}" for field in fields.split())
    forms = {"sizes": Form(", ".join(f"int {field}" for field in fields.split()), names, lambda case: case)}
    signature = f"void {like}(const {struct_}& g, {tensors}, cudaStream_t stream)"
    return Contract(like, signature, tensors, forms, header, struct_, "problem", inputs, questions, counted)


CONTRACTS = {
    c.like: c
    for c in (
        _conv("forward", "const T* x, const T* w, const T* bias_or_null, T* y", ("input", "weight", "bias")),
        _conv("dgrad", "const T* dy, const T* w, T* dx", ("grad_output", "weight")),
        _conv("wgrad", "const T* dy, const T* x, T* dw", ("grad_output", "input")),
        _pooling(
            "max_pool2d_forward",
            "const T* x, T* y",
            "testing/pools.h",
            "Pool2d",
            _pool_forms("problem", " dilation_h dilation_w"),
            ("input",),
            POOLS,
            random_pool,
            _max_pool_question,
            MAX_LAYERS,
        ),
        _pooling(
            "avg_pool2d_forward",
            "const T* x, T* y",
            "testing/pools.h",
            "AvgPool2d",
            _pool_forms("problem.window"),
            ("input",),
            AVG_POOLS,
            random_avg_pool,
            lambda *a: _avg_pool_question(False, *a),
            AVG_LAYERS,
        ),
        _pooling(
            "avg_pool2d_backward",
            "const T* dy, T* dx",
            "testing/pools.h",
            "AvgPool2d",
            _pool_forms("problem.window"),
            ("grad_output",),
            AVG_POOLS,
            random_avg_pool,
            lambda *a: _avg_pool_question(True, *a),
            AVG_LAYERS,
        ),
        _leaky_relu("forward", "const T* x, T* y", ("input",)),
        _leaky_relu("backward", "const T* dy, const T* x, T* dx", ("grad_output", "input")),
        _of_sizes(
            "prelu_forward",
            "const T* x, const T* w, T* y",
            "geometry/by_channel.h",
            "ByChannel",
            "outer channels inner",
            ("input", "weight"),
            _prelu_question,
            [(1, 1, 1), (1, 1, 257), (2, 3, 77), (3, 5, 1), (31, 7, 4), (1, 300, 3)],
            (5, 9, 100),
            {"LeNet C3": (32, 16, 100)},
        ),
        _of_sizes(
            "adaptive_avg_pool2d_forward",
            "const T* x, T* y",
            "geometry/adaptive.h",
            "Adaptive",
            "planes H W P Q",
            ("input",),
            _adaptive_question,
            [(1, 1, 1, 1, 1), (2, 7, 7, 1, 1), (3, 13, 13, 6, 6), (2, 8, 6, 4, 3), (5, 5, 11, 7, 2), (1, 2, 3, 5, 7)],
            (4, 17, 17, 9, 9),
            {"AlexNet": (32, 13, 13, 6, 6)},
        ),
    )
}

# What `check` takes: a program, too, whatever it computes.
CHECKABLE = CONTRACTS | {PROGRAM.like: PROGRAM}
