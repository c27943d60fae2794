"""How far a result may be from the exact one, and what it suggests where it is farther."""

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F


class CheckError(AssertionError):
    """What a check found. The message says where, how much, and what it suggests."""


# ---- bounds ---------------------------------------------------------------------------------------------------------


def sum_bound(dtype, exact, magnitude, terms):
    """How far a sum of products may be off, element by element.

    `exact` is the sum in float64, `magnitude` the sum of the absolute values of its terms, `terms` how many there are.
    Rounding after each addition moves a sum by about eps * sqrt(terms) * magnitude (eps of the accumulator: float64 for
    float64, else float32), and storing the result rounds once more in its own type. Four times that is allowed.
    """
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    bound = (
        4 * torch.finfo(accumulator).eps * math.sqrt(max(terms, 1)) * magnitude + torch.finfo(dtype).eps * exact.abs()
    )
    return bound + torch.finfo(dtype).tiny


def conv_in_float64(tensors, dy, arguments):
    """y, dx, dw and db (if there is a bias) of a convolution of `tensors` x, w, b in float64; and the same of their
    absolute values, which is by how much rounding can move them."""

    def all_of(fn):
        exact = [fn(t.detach().to("cpu", torch.float64)).requires_grad_() for t in tensors if t is not None]
        y = F.conv2d(*exact, *([None] if len(exact) < 3 else []), *arguments)
        return y.detach(), *torch.autograd.grad(y, exact, fn(dy.to("cpu", torch.float64)))

    return all_of(lambda t: t), all_of(torch.abs)


# ---- comparing ------------------------------------------------------------------------------------------------------

# What an algorithm might have computed instead: a sentence, and how to compute it (None: it has another shape).
Alternatives = dict[str, Callable[[], torch.Tensor | None]]


def assert_close(actual, exact, bound, what="", dims="", alternatives: Alternatives | None = None):
    """Raises CheckError unless every element of `actual` is within `bound` of `exact` (both float64, on the CPU; NaN
    equals NaN).

    dims: a letter for each dimension, for the report ("nkpq"). alternatives: what a wrong result is compared with, to
    say more.
    """
    if actual.shape != exact.shape:
        raise CheckError(f"{what}: shape {tuple(actual.shape)}, expected {tuple(exact.shape)}")
    values = actual.detach().to("cpu", torch.float64)
    wrong = ~_within(values, exact, bound)
    if not wrong.any():
        return
    lines = [f"{what}: {int(wrong.sum()):,} of {wrong.numel():,} elements are wrong"]
    first = tuple(int(i) for i in wrong.nonzero()[0])
    lines.append(
        f"  the first is at {_index(first, dims)}: {values[first].item():.6g}, exactly {exact[first].item():.6g}{_allowed(bound, first)}"
    )
    lines += [f"  they are {where}" for where in _places(wrong, dims)]
    lines += [f"  suggests: {reason}" for reason in _reasons(values, exact, bound, wrong, alternatives or {})]
    raise CheckError("\n".join(lines))


def assert_sums_close(actual, exact, magnitude, terms, what="", dims="", alternatives: Alternatives | None = None):
    """Checks sums of products against float64: `sum_bound` says what is allowed, and what the arguments are."""
    bound = sum_bound(actual.dtype, exact, magnitude, terms) if actual.shape == exact.shape else None
    assert_close(actual, exact, bound, what, dims, alternatives)


def _within(values, exact, bound):
    same = (values == exact) | (values.isnan() & exact.isnan())
    return same if bound is None else same | ((values - exact).abs() <= bound)


def _allowed(bound, at) -> str:
    return "" if bound is None else f" (an error of {bound[at].item():.2g} is allowed)"


def _index(at, dims) -> str:
    return "[" + ", ".join(f"{d}={i}" if d else str(i) for i, d in zip(at, dims or [""] * len(at))) + "]"


def _places(wrong, dims) -> list[str]:
    """Where all wrong elements lie, as far as a dimension tells: 'at n >= 1 only'."""
    found = []
    for d, size in enumerate(wrong.shape):
        name = dims[d] if dims else f"dimension {d}"
        here = wrong.movedim(d, 0).reshape(size, -1).any(1).nonzero().flatten().tolist()
        if len(here) == size:
            continue
        if len(here) == 1:
            found.append(f"{name} = {here[0]}{' (the last)' if here[0] == size - 1 else ''}")
        elif here == list(range(here[0], size)):
            found.append(f"{name} >= {here[0]}")
        elif here == list(range(here[-1] + 1)):
            found.append(f"{name} <= {here[-1]}")
        elif here == [0, size - 1]:
            found.append(f"{name} = 0 or {size - 1}, the edges")
        elif len({b - a for a, b in itertools.pairwise(here)}) == 1:
            found.append(f"{name} = {here[0]}, {here[1]} ... {here[-1]}")
    flat = wrong.flatten().nonzero().flatten()
    begin = int(flat[0])
    if begin and len(flat) == wrong.numel() - begin and len(flat) > 1:
        found.append(f"all elements from number {begin:,} on")
    return [f"at {', '.join(found)}, and nowhere else"] if found else []


def _reasons(values, exact, bound, wrong, alternatives) -> list[str]:
    for sentence, compute in alternatives.items():
        other = compute()
        if (
            other is not None
            and other.shape == values.shape
            and bool((other != exact)[wrong].all())
            and bool(_within(values, other, bound).all())
        ):
            return [f"{sentence}: what came out is exactly that"]
    at_wrong, should = values[wrong], exact[wrong]
    found = []
    if at_wrong.isnan().all() and not should.isnan().any():
        found.append(
            "nobody wrote these elements (outputs are full of NaN beforehand), or they were made from memory that nobody wrote or from outside a tensor"
        )
    elif at_wrong.isnan().any() and not should.isnan().any():
        found.append(
            "some are NaN: read from memory that nobody wrote, or from outside a tensor (which has NaN around it)"
        )
    elif (at_wrong == 0).all() and len(at_wrong) > 1:
        found.append("all of them are zero: nothing was added up there")
    elif (ratio := _one_ratio(at_wrong, should)) is not None:
        found.append(f"all of them are {ratio:.6g} times what they should be")
    elif (
        bound is not None
        and ((at_wrong - should).abs() <= 1e4 * bound[wrong]).all()
        and (at_wrong - should).abs().max() < 0.05 * exact.abs().max()
    ):
        found.append(
            "the differences are small: rounding. Sum in float32 (float64 for float64), not in the storage type or through TF32"
        )
    return found


def _one_ratio(values, exact) -> float | None:
    if len(values) < 3 or (exact == 0).any():
        return None
    ratios = values / exact
    middle = ratios.median()
    return (
        float(middle)
        if middle.isfinite() and abs(middle - 1) > 0.01 and ((ratios - middle).abs() <= 1e-3 * middle.abs()).all()
        else None
    )
