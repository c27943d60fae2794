"""The CUDA rungs of the ladder under test: the problems each takes, one pass at a time against float64, and proof of
what ran.

Nothing here names a rung: what there is, and what each can do, comes from `convlab.algorithms()`.
"""

import dataclasses
import functools
import math
import random
import re
from contextlib import contextmanager
from pathlib import Path

import torch

import convlab
from convlab import ops
from convlab.arguments import is_channels_last
from convlab.testing import DTYPES, Conv, assert_sums_close, conv_in_float64, random_conv

KERNELS = Path(__file__).parent.parent / "csrc" / "kernels"
RUNGS = [a for a in convlab.algorithms() if "cuda" in a.backends]


# ---- which problems a rung takes ------------------------------------------------------------------------------------


def problem_of(conv: Conv, dtype=torch.float32) -> convlab.Conv2dProblem:
    return conv.problem(dtype)


def passes_of(rung, conv: Conv, dtype=torch.float32) -> list[str]:
    """The passes of a problem that the rung does not refuse."""
    problem = problem_of(conv, dtype)
    return [p for p in sorted(rung.passes_by_backend["cuda"]) if rung.supports(problem, p)[0]]


@functools.cache
def wants_depthwise(rung) -> bool:
    """Whether the rung takes only groups of one input channel."""
    return not passes_of(rung, Conv(2, 5, 13, 11, 7, 3, 2)) and bool(
        passes_of(rung, Conv(2, 5, 13, 11, 10, 3, 2, groups=5))
    )


@functools.cache
def filters_of(rung) -> list[tuple[int, int, int]] | None:
    """Every (C, K, R = S) of moderate size that the rung takes; None if it is not choosy."""
    ordinary = Conv(2, 5, 13, 11, 7, 3, 2)
    if any(passes_of(rung, ordinary, dtype) for dtype in DTYPES) or wants_depthwise(rung):
        return None
    sizes = [(C, K, R) for R in (1, 3, 5, 7) for C in range(1, 17) for K in range(1, 129)]
    return [(C, K, R) for C, K, R in sizes if passes_of(rung, Conv(2, C, 32, 32, K, R, R))]


def typical(rung) -> Conv:
    """Some problem of float32 that the rung takes."""
    if wants_depthwise(rung):
        return Conv(2, 5, 32, 32, 5, 3, 3, groups=5)
    C, K, R = (filters_of(rung) or [(5, 7, 3)])[0]
    return Conv(2, C, 32, 32, K, R, R)


@functools.cache
def has_tiles(rung) -> bool:
    """Whether the rung multiplies matrices in tiles, so that sizes beyond a tile's are worth their time: with gemm.h's
    main loop."""
    return "gemm.h" in sources_of(rung)


@functools.cache
def dtypes_of(rung) -> list[torch.dtype]:
    return [d for d in DTYPES if passes_of(rung, typical(rung), d)]


def spans_tiles(plan: dict) -> bool:
    """Whether a matrix rung's launch has several tiles in M and in N, and three or more in K, with a remainder in
    each."""
    return all(
        extent > least * size and extent % size for extent, size, least in zip(plan["product"], plan["tile"], (1, 1, 2))
    )


def _of_several_tiles(rng: random.Random) -> Conv:
    """A convolution with enough of everything for many tiles, but not so many multiply-adds that a test of it would
    take long."""
    most = 1_500_000
    while True:
        groups = rng.choice([1, 1, 1, 2])
        c = Conv(
            rng.randint(1, 5),
            groups * rng.randint(2, 90),
            rng.randint(3, 24),
            rng.randint(3, 24),
            groups * rng.randint(2, 90),
            rng.randint(1, 3),
            rng.randint(1, 3),
            rng.choice([(1, 1), (1, 1), (2, 1), (2, 2)]),
            (rng.randint(0, 2), rng.randint(0, 2)),
            (rng.choice([1, 1, 2]), rng.choice([1, 1, 2])),
            groups,
        )
        P, Q = c.outputs
        if P > 0 and Q > 0 and c.N * P * Q * c.K * c.C // groups * c.R * c.S < most:
            return c


def _of_filters(rng: random.Random, filters) -> Conv:
    C, K, R = rng.choice(filters)
    padding = rng.choice([(0, 0), (0, 0), (R // 2, R // 2), (rng.randint(0, 2), rng.randint(0, 2))])
    stride = rng.choice([(1, 1), (1, 1), (1, 1), (2, 2), (rng.randint(1, 3), rng.randint(1, 3))])
    return Conv(rng.randint(1, 4), C, rng.randint(R, 34), rng.randint(R, 34), K, R, R, stride, padding)


def _depthwise(rng: random.Random) -> Conv:
    """A depthwise convolution, most often as networks have them."""
    while True:
        groups, R = rng.choice([1, 2, 3, 4, 5, 8, 36]), rng.choice([3, 3, 5, rng.randint(1, 7)])
        S, stride, dilation = (
            rng.choice([R, R, R, rng.randint(1, 7)]),
            rng.choice([1, 1, 1, 2, 2, 3]),
            rng.choice([1, 1, 1, 1, 2, 3]),
        )
        c = Conv(
            rng.choice([1, 2, 3, 11]),
            groups,
            rng.randint(1, 29),
            rng.randint(1, 29),
            groups * rng.choice([1, 1, 1, 2, 3]),
            R,
            S,
            rng.choice([(stride, stride)] * 3 + [(rng.randint(1, 3), rng.randint(1, 3))]),
            rng.choice([(R // 2, S // 2)] * 3 + [(rng.randint(0, 4), rng.randint(0, 4))]),
            rng.choice([(dilation, dilation)] * 3 + [(1, 2)]),
            groups,
        )
        if min(c.outputs) > 0:
            return c


def random_problem(rng: random.Random, rung, span: str | None = None) -> tuple[Conv, torch.dtype]:
    """A convolution that the rung can do, and an element type. span: a pass in which it must span several tiles."""
    filters = filters_of(rung)
    for _ in range(100_000):
        if wants_depthwise(rung):
            conv = _depthwise(rng)
        else:
            conv = (
                _of_filters(rng, filters)
                if filters
                else _of_several_tiles(rng)
                if span and has_tiles(rung)
                else random_conv(rng)
            )
        dtype = rng.choice([torch.float32, torch.float32, *dtypes_of(rung)])
        passes = passes_of(rung, conv, dtype)
        if passes and (
            filters
            or not has_tiles(rung)
            or span not in passes
            or spans_tiles(rung.plan(problem_of(conv, dtype), span))
        ):
            return conv, dtype
    raise AssertionError(f"no random problem suits {rung.name!r}: teach tests/ladder.py to draw one")


WITH_FLOAT32 = [rung for rung in RUNGS if torch.float32 in dtypes_of(rung)]  # with its 24 bits


# ---- running a pass -------------------------------------------------------------------------------------------------


@contextmanager
def running_on(device: str, **mode):
    """The simulator for CPU tensors, and None for the GPU, where nothing tells what was launched."""
    if device == "cuda":
        yield None
    else:
        with convlab.simulate(**mode) as sim:
            yield sim


def plain(t: torch.Tensor) -> torch.Tensor:
    return t


def last(t: torch.Tensor, first: int = 0) -> torch.Tensor:
    """t in channels_last, with its strides even where both layouts are one, from the element `first` of a memory on."""
    _, c, h, w = t.shape
    memory = t.new_empty(t.numel() + first)[first:]
    return memory.as_strided(t.shape, (h * w * c, 1, w * c, c)).copy_(t)


def anywhere(t: torch.Tensor) -> torch.Tensor:
    return last(t, 1)


def check_passes(rung, conv: Conv, dtype, passes, device="cpu", lay_x=plain, lay_dy=plain, **mode) -> None:
    """Runs the passes through the rung, each against float64, and checks that its kernels made them. lay_x, lay_dy:
    plain, last or anywhere; with one of the latter, all that is written is channels_last."""
    problem, (P, Q) = problem_of(conv, dtype), conv.outputs
    x, w, b = conv.tensors(dtype)
    dy = torch.randn(conv.N, conv.K, P, Q, dtype=dtype)
    (y64, *d64), (y_abs, *d_abs) = conv_in_float64((x, w, b), dy, conv.arguments)
    if rung.name == "warpgroup" and dtype is torch.float32:  # which cuts one factor: a product is off by 2^-20 at most
        y_abs, d_abs = 2 * y_abs, [2 * d for d in d_abs]
    channels_last = (lay_x, lay_dy) != (plain, plain)
    if channels_last:
        w = last(w)
    x, w, b, dy = (t.to(device) for t in (lay_x(x), w, b, lay_dy(dy)))
    geometry = (*conv.stride, *conv.padding * 2, *conv.dilation, conv.groups)
    dgrad_terms, images = conv.K // conv.groups * conv.R * conv.S, conv.N * P * Q
    for pass_ in passes:
        # of a forward torch asks the tensors; whose strides may say neither
        asked = channels_last and (pass_ != "forward" or is_channels_last(x) or is_channels_last(w))
        problem = dataclasses.replace(problem, channels_last=asked)
        what = f"{rung.name} {pass_} of {conv} in {dtype}, {lay_x.__name__}, {lay_dy.__name__}, under {mode}"
        with running_on(device, **mode) as sim:
            if pass_ == "forward":
                out = ops.conv2d_forward(x, w, b, geometry, rung.number)
                assert_sums_close(out, y64, y_abs, w[0].numel() + 1, what)
            elif pass_ == "dgrad":
                out = ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, channels_last, rung.number)
                assert_sums_close(out, d64[0], d_abs[0], dgrad_terms, what)
            else:
                out, db = ops.conv2d_wgrad(dy, x, w.shape[2:], geometry, True, channels_last, rung.number)
                assert_sums_close(out, d64[1], d_abs[1], images, what)
                assert_sums_close(db, d64[2], d_abs[2], images, what + ", bias")
        assert not asked or out.is_contiguous(memory_format=torch.channels_last), what
        if sim and x.numel() and y64.numel():
            if anywhere not in (lay_x, lay_dy):  # where the plan may not have its vectors
                assert_launched(rung, rung.plan(problem, pass_), sim.launches, what)
            taken_as_it_lies = wants_depthwise(rung) and plain not in {"forward": [lay_x], "dgrad": [lay_dy]}.get(
                pass_, [lay_x, lay_dy]
            )
            assert not (taken_as_it_lies and "layout.cu" in files_of(sim.launches)), (
                f"{what}: does not take x and dy as they lie"
            )


# ---- what ran -------------------------------------------------------------------------------------------------------
#
# A rung is csrc/kernels/conv2d_<its name>.cu, <its name>_*.cu and the headers that they include. Its kernels are those
# defined in these files, and a launch says where its kernel is defined. Rungs may share a header; then the tile tells them apart,
# which is written in the kernel's name and in the rung's plan.

# where a rung's wgrad does not make the bias gradient on the way, and where it takes NCHW alone
SHARED_BY_ALL = {"conv2d_bias_grad.cu", "layout.cu"}


@functools.cache
def sources_of(rung) -> frozenset[str]:
    """The names of the files that a rung's kernels may be defined in."""
    found, unread = set(), [KERNELS / f"conv2d_{rung.name}.cu", *KERNELS.glob(f"{rung.name}_*.cu")]
    while unread:
        path = unread.pop()
        if path.name not in found:
            found.add(path.name)
            unread += [KERNELS / name for name in re.findall(r'#include "kernels/([^/"]+)"', path.read_text())]
    return frozenset(found)


@functools.cache
def has_kernels_of_its_own(rung) -> bool:
    return "__global__" in (KERNELS / f"conv2d_{rung.name}.cu").read_text()


def files_of(launches) -> set[str]:
    return {Path(launch.source.split(":")[0]).name for launch in launches}


def assert_launched(rung, plan: dict, launches, what: str) -> None:
    """Checks that `launches`, of one pass, are the rung's, with the grid and the tile that its plan says."""
    files = files_of(launches)
    ours = f"conv2d_{rung.name}.cu"
    assert files and files <= sources_of(rung) | SHARED_BY_ALL, (
        f"{what}: kernels of {sorted(files)} ran, not only those of {ours}"
    )
    assert any(f.startswith(f"conv2d_{rung.name}") for f in files) or not has_kernels_of_its_own(rung), (
        f"{what}: no kernel of {ours} ran, but of {sorted(files)}"
    )
    planned = [
        launch for launch in launches if launch.grid == plan["grid"] and math.prod(launch.block) == plan["threads"]
    ]
    assert planned, f"{what}: no launch with the plan's grid {plan['grid']} and {plan['threads']} threads: {launches}"
    if has_tiles(rung):
        tile = f"Tile<{', '.join(map(str, plan['tile']))}, "
        assert any(tile in launch.kernel for launch in planned), (
            f"{what}: no kernel of the plan's tile {plan['tile']} ran: {launches}"
        )
