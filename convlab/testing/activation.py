"""Checking leaky ReLU and ReLU: they round nothing, so every bit counts."""

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F

from .compare import assert_close
from .probe import Checked, Refused, expect_same_bits, expect_tensor, expect_unchanged, poisoned_memory

SHAPES = [(), (1,), (0,), (3, 0, 2), (257,), (2, 3, 5, 7), (2, 1, 3, 2, 4), (70001,)]
SPECIAL = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45, 65504.0, -3.4e38]
SLOPES = (0.01, 0.0, 0.25, 1.0, -0.5, 3.0)


def check_leaky_relu(
    fn: Callable, *, slopes=SLOPES, dtypes=(torch.float32,), gradients: bool | None = None, device="cpu"
) -> Checked:
    """Checks fn(input, negative_slope) against torch.nn.functional.leaky_relu: values and gradients, to the last bit.

    Shapes from nothing to 70001 elements, special values (zeros of both signs, infinities, NaN, subnormal numbers), and
    inputs that are transposed, sliced and expanded. The rest is as in `check_conv2d`.
    """
    checked = Checked.of("check_leaky_relu", fn)
    for slope in slopes:
        ours, torchs = lambda x, s=slope: fn(x, s), lambda x, s=slope: F.leaky_relu(x, s)
        with_relu = {
            "the slope was left out": lambda x: F.relu(x),
            "the slope is on the wrong side of zero": lambda x, s=slope: torch.where(x > 0, x * s, x),
        }
        _check(ours, torchs, f"leaky_relu, slope {slope}", with_relu, dtypes, gradients, device, checked)
    return checked.finish()


def check_relu(fn: Callable, *, dtypes=(torch.float32,), gradients: bool | None = None, device="cpu") -> Checked:
    """Checks fn(input) against torch.nn.functional.relu, as `check_leaky_relu` does."""
    checked = Checked.of("check_relu", fn)
    _check(
        fn,
        F.relu,
        "relu",
        {"NaN became 0": lambda x: F.relu(x).nan_to_num(nan=0.0, posinf=torch.inf)},
        dtypes,
        gradients,
        device,
        checked,
    )
    return checked.finish()


def _check(ours, torchs, what, instead, dtypes, gradients, device, checked):
    with poisoned_memory():
        for dtype in dtypes:
            for name, x in _inputs(dtype, device):
                with contextlib.suppress(Refused):
                    _check_input(
                        ours,
                        torchs,
                        f"{what} of {name} in {str(dtype).removeprefix('torch.')}",
                        x,
                        instead,
                        gradients,
                        checked,
                    )


def _inputs(dtype, device):
    for shape in SHAPES:
        yield str(list(shape)), torch.randn(shape, device=device).to(dtype)
    yield "special values", torch.tensor(SPECIAL, device=device).to(dtype)
    x = torch.randn(4, 6, 5, 8, device=device).to(dtype)
    yield "a channels_last tensor", x.contiguous(memory_format=torch.channels_last)
    yield "a transposed tensor", x.transpose(0, 3)
    yield "a slice", x[1:, ::2, :, 1:-1]
    yield "an expanded tensor", x[:1, :, :1].expand(3, -1, 4, -1)


def _check_input(ours, torchs, what, x, instead, gradients, checked):
    before, a, b = x.clone(), x.detach().requires_grad_(gradients is not False), x.detach().cpu().requires_grad_()
    y, expected = checked.call(what, ours, a), torchs(b)
    expect_tensor(y, x, what)
    others = {sentence: lambda f=f: f(x.detach().cpu()).double() for sentence, f in instead.items()}
    assert_close(y, expected.detach().double(), None, what, alternatives=others)
    expect_unchanged([x], [before], what)
    expect_same_bits([y.detach()], [checked.call(what, ours, a).detach()], what)
    if y.requires_grad:
        layouts = [
            torch.randn_like(y),
            torch.randn_like(y.contiguous()),
            torch.ones((), dtype=y.dtype, device=y.device).expand_as(y),
        ]
        for dy in layouts:
            (dx,), (exact,) = (
                torch.autograd.grad(y, a, dy, retain_graph=True),
                torch.autograd.grad(expected, b, dy.cpu(), retain_graph=True),
            )
            assert_close(dx, exact.double(), None, f"{what}, gradient")
