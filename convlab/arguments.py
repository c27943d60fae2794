"""Normalises the arguments that torch.nn.functional takes in several forms, with torch's classes of error."""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

IntOrPair = int | Sequence[int]  # one for both, or (height, width)
_Result = TypeVar("_Result")

FLOATS = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
SIGNED_OR_BYTE = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))


def remembered(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """`function`, of sizes and numbers alone, whose last 4,096 results are kept; not those of sizes that are symbols."""
    kept = lru_cache(maxsize=4096)(function)

    @wraps(function)
    def call(*args: Any) -> _Result:
        if torch.compiler.is_compiling():
            return function(*args)
        try:
            return kept(*args)
        except TypeError:  # symbols have no hash
            return function(*args)

    return call


def in_words(names: Sequence[str]) -> str:
    """The names as a sentence lists them: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def check_tensors(op: str, **tensors: object) -> None:
    """Raises TypeError for an argument that is no tensor."""
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}")


def check_device(op: str, input: torch.Tensor) -> None:
    """Raises NotImplementedError for a tensor on a device, or in a storage, that convlab has no kernels for."""
    if input.is_cpu and input.layout is torch.strided and not input.is_quantized and not input.is_nested:
        return
    if input.device.type not in ("cpu", "cuda", "meta"):
        raise NotImplementedError(
            f"{op}: input is on {input.device}; convlab has kernels for cpu and cuda: use input.cpu()"
        )
    check_storage(op, input=input)


def check_storage(op: str, **tensors: torch.Tensor | None) -> None:
    """Raises NotImplementedError for an argument that is not plain memory of numbers with strides."""
    for name, t in tensors.items():
        if t is None:
            continue
        if t.is_quantized:
            kind, instead = f"quantized ({str(t.dtype).removeprefix('torch.')})", f"use {name}.dequantize()"
        elif t.is_nested:
            kind, instead = "nested", f"use {name}.unbind() or torch.nested.to_padded_tensor({name}, 0)"
        elif t.layout is not torch.strided:
            kind, instead = str(t.layout).removeprefix("torch.").removeprefix("_"), f"use {name}.to_dense()"
        else:
            continue
        raise NotImplementedError(
            f"{op}: {name} is {kind}, expected a plain tensor (torch.strided, not quantized): {instead}"
        )


def check_dtype(
    op: str, input: torch.Tensor, integers: frozenset[torch.dtype] = frozenset(), backend: str = "cpu"
) -> None:
    """Raises NotImplementedError unless input has one of the four floating-point types, or one of `integers` and the
    backend, whose kernels will run, is not "cuda"."""
    if input.dtype in FLOATS or (input.dtype in integers and backend != "cuda"):
        return
    wanted = ", ".join(
        str(t).removeprefix("torch.") for t in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    )
    where = "on the CPU, not simulated, also" if input.is_cpu and backend == "cuda" else "on the CPU also"
    also = f"; {where} {', '.join(sorted(str(t).removeprefix('torch.') for t in integers))}" if integers else ""
    raise NotImplementedError(f"{op}: input is {str(input.dtype).removeprefix('torch.')}, expected {wanted}{also}")


def integer(op: str, name: str, value: Any) -> Any:
    """An int: itself, a numpy integer, an integer tensor of no dimensions, a symbolic int. Raises TypeError for others,
    bool among them."""
    if type(value) is int and -(2**63) <= value < 2**63:  # a fifth of the time, and a pooling asks four to eight times
        return value
    if isinstance(value, torch.SymInt):
        return value
    one = (
        not isinstance(value, bool)
        and hasattr(value, "__index__")
        and (isinstance(value, torch.Tensor) or not hasattr(value, "__len__"))
    )
    try:
        if not one:
            raise TypeError
        value = int(value.__index__())
    except TypeError:
        raise TypeError(f"{op}: {name} must be an int or a tuple of ints, got {value!r}") from None
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{op}: {name}={value} does not fit 64 bits")
    return value


def pair(op: str, name: str, value: Any) -> tuple[int, int]:
    """An int, or a sequence of one or two ints, as (height, width). Raises TypeError for other types, RuntimeError for
    other lengths."""
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, 2):
            raise RuntimeError(f"{op}: {name}={tuple(value)} has {len(value)} values, expected one or two")
        values = [integer(op, name, v) for v in value]
        return values[0], values[-1]
    value = integer(op, name, value)
    return value, value


def single(op: str, name: str, value: Any) -> int:
    """An int, or a sequence of one. Raises TypeError for other types, RuntimeError for other lengths."""
    if isinstance(value, (tuple, list)):
        if len(value) != 1:
            raise RuntimeError(f"{op}: {name}={tuple(value)} has {len(value)} values, expected one")
        value = value[0]
    one: int = integer(op, name, value)
    return one


def size_and_stride(op: str, kernel_size: Any, stride: Any, as_: Callable[..., _Result]) -> tuple[_Result, _Result]:
    """A pooling's kernel_size and stride, which defaults to it, each as `pair` or `single`."""
    size = as_(op, "kernel_size", kernel_size)
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    return size, size if no_stride else as_(op, "stride", stride)


def pooling_window(op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1) -> tuple[int, ...]:
    """A pooling's window, as csrc/ops.cpp has it: size, stride, padding and dilation, each (height, width), in one tuple."""
    size, step = size_and_stride(op, kernel_size, stride, pair)
    return *size, *step, *pair(op, "padding", padding), *pair(op, "dilation", dilation)


def flag(op: str, name: str, value: object) -> bool:
    """Raises TypeError for what is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be a bool, got {value!r}")
    return value


def slope(op: str, value: Any, dtype: torch.dtype) -> float:
    """leaky_relu's negative_slope. Raises TypeError for what is no number, RuntimeError for one beyond what `dtype`
    computes in."""
    tensor = isinstance(value, torch.Tensor) and (value.dim() > 0 or value.requires_grad)
    if (
        tensor
        or isinstance(value, (str, bytes, complex))
        or not hasattr(value, "__float__")
        or (hasattr(value, "__len__") and not isinstance(value, torch.Tensor))
    ):
        raise TypeError(f"{op}: negative_slope must be a number, got {value!r}")
    value = float(value)
    if dtype != torch.float64 and torch.finfo(torch.float32).max < abs(value) < float("inf"):
        raise RuntimeError(
            f"{op}: negative_slope={value} is beyond float32, which {str(dtype).removeprefix('torch.')} is computed in"
        )
    return value


def convolution(stride: Any, padding: Any, dilation: Any, groups: Any, kernel_size: tuple[int, ...]) -> tuple[int, ...]:
    """A convolution's arguments as its operators take them: stride (height, width), padding (top, left, bottom, right),
    dilation (height, width), groups. Raises what `pair` and `padding4` raise."""
    if type(stride) is type(padding) is type(dilation) is tuple and len(stride) == len(padding) == len(dilation) == 2:
        geometry = (*stride, *padding, *padding, *dilation, groups)
        if {*map(type, geometry)} == {int} and 0 <= min(geometry) <= max(geometry) < 2**31:
            return geometry  # of a layer, at a fifth of the cost
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    return (*stride, *padding4(padding, stride, kernel_size, dilation), *dilation, integer("conv2d", "groups", groups))


def padding4(
    padding: Any, stride: tuple[int, int], kernel_size: tuple[int, ...], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """conv2d's padding argument as (top, left, bottom, right).

    An int, one or two ints (the same on both sides), "valid" (none), or "same" (output as large as input; an odd zero
    goes below and to the right, as torch has it). Raises RuntimeError for another string and for "same" with a stride.
    """
    if not isinstance(padding, str):
        h, w = pair("conv2d", "padding", padding)
        return h, w, h, w
    if padding == "valid":
        return 0, 0, 0, 0
    if padding != "same":
        raise RuntimeError(f"conv2d: padding={padding!r} must be 'same', 'valid' or numbers")
    if stride != (1, 1):
        raise RuntimeError(f"conv2d: padding='same' is not supported with stride={stride}, only with stride 1")
    total_h, total_w = (d * (k - 1) for d, k in zip(dilation, kernel_size))
    return total_h // 2, total_w // 2, total_h - total_h // 2, total_w - total_w // 2


def plane(t: torch.Tensor) -> tuple[int, ...]:
    """The sizes behind the first two. A tuple: an operator takes 1.5 us to find that torch.Size overrides nothing."""
    return tuple(t.shape[2:])


def is_channels_last(t: torch.Tensor) -> bool:
    """Whether torch would take a tensor of four dimensions for channels_last (c10::is_channels_last_strides_2d)."""
    if t.is_contiguous() and t.stride(1) > 1:
        return False  # at a quarter of the cost
    (n, c, h, w), (by_n, by_c, by_h, by_w) = t.shape, t.stride()
    return (
        by_c > 0
        and by_w >= by_c * c > 0
        and by_h >= by_w * w > 0
        and by_n >= by_h * h > 0
        and n > 0
        and by_h * h != by_c
    )


def only_contiguous(w: torch.Tensor) -> bool:
    """Whether w, whose layouts are the same memory (1 x 1, or one channel a group), has the strides of a contiguous
    tensor: then so has dw, whatever x is, or the strides would differ from the parameter's where a size is 1."""
    return w.is_contiguous() and w.is_contiguous(memory_format=torch.channels_last) and not is_channels_last(w)
