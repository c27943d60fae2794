"""Normalises the arguments that torch.nn.functional takes in several forms, with torch's classes of error."""

import torch


def check_tensors(op: str, **tensors) -> None:
    """Raises TypeError for an argument that is no tensor."""
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}")


def pair(op: str, name: str, value) -> tuple[int, int]:
    """An int, or a sequence of one or two ints, as (height, width). Raises TypeError for other types, RuntimeError for other lengths."""
    if isinstance(value, int):
        return value, value
    if not isinstance(value, (tuple, list)):
        try:
            return (int(value.__index__()),) * 2  # numpy integers, zero-dimensional integer tensors, symbolic ints
        except (AttributeError, TypeError):
            raise TypeError(f"{op}: {name} must be an int or a tuple of ints, got {value!r}") from None
    if len(value) not in (1, 2):
        raise RuntimeError(f"{op}: {name}={tuple(value)} has {len(value)} values, expected one or two")
    for v in value:
        if not hasattr(v, "__index__"):
            raise TypeError(f"{op}: {name} must be an int or a tuple of ints, got {value!r}")
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def padding4(padding, stride: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """conv2d's padding argument as (top, left, bottom, right).

    An int, one or two ints (the same on both sides), "valid" (none), or "same" (output as large as input; an odd zero goes
    below and to the right, as torch has it). Raises RuntimeError for another string and for "same" with a stride.
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
