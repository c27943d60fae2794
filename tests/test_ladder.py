"""Every CUDA algorithm, every pass it has, against float64: on the host through the simulator, and on a GPU where there
is one."""

import math
import random

import pytest
import torch
from ladder import (
    DTYPES,
    RUNGS,
    check_passes,
    dtypes_of,
    has_tiles,
    last,
    passes_of,
    plain,
    problem_of,
    random_problem,
    spans_tiles,
)

from convlab.testing import AWKWARD, Conv

MORE_AWKWARD = [
    Conv(1, 7, 11, 13, 17, 1, 1),  # pointwise, one image
    Conv(3, 5, 7, 5, 1, 7, 5),  # one filter, as large as the input
    Conv(2, 13, 9, 9, 3, 1, 1, stride=(2, 3)),  # pointwise with a stride: most of x is never read
    Conv(1, 1, 29, 31, 2, 2, 2, stride=(5, 4), padding=(1, 1)),
    Conv(
        2, 3, 19, 17, 5, 3, 3, stride=(3, 2), padding=(4, 3), dilation=(2, 3)
    ),  # dilation and stride without a common divisor
    Conv(
        2, 3, 19, 17, 5, 3, 3, stride=(2, 4), padding=(4, 1), dilation=(4, 2)
    ),  # with one: residue classes that meet no tap
    Conv(1, 4, 6, 500, 3, 1, 7, padding=(0, 3)),  # long rows
    Conv(41, 2, 3, 3, 3, 3, 3),  # one output an image
    Conv(2, 59, 5, 5, 3, 3, 3, padding=(1, 1)),  # 531 steps: several tables of them
    Conv(2, 3, 5, 5, 61, 3, 3, padding=(1, 1)),
    Conv(1, 34, 8, 7, 38, 3, 3, padding=(1, 1), groups=2),
    Conv(1, 16, 6, 7, 32, 3, 3, padding=(1, 1), groups=16),  # depthwise with a multiplier
    Conv(
        3, 5, 17, 14, 5, 3, 3, padding=(1, 1), groups=5
    ),  # depthwise from here on: rows of even width, and one row beyond two runs of 8
    Conv(2, 7, 9, 12, 14, 5, 5, padding=(2, 2), groups=7),
    Conv(2, 3, 8, 10, 3, 3, 3, padding=(3, 3), groups=3),  # outputs that see nothing but padding
    Conv(1, 2, 40, 38, 2, 3, 3, groups=2),  # several blocks a plane
    Conv(41, 2, 7, 7, 2, 3, 3, padding=(1, 1), groups=2),  # several planes a block
    Conv(2, 3, 13, 12, 6, 3, 3, stride=(2, 2), padding=(1, 1), groups=3),
    Conv(2, 3, 12, 13, 3, 5, 5, stride=(2, 2), padding=(2, 2), groups=3),
    Conv(2, 3, 11, 12, 3, 3, 3, stride=(3, 3), padding=(1, 1), groups=3),
    Conv(2, 3, 11, 12, 3, 3, 3, padding=(2, 2), dilation=(2, 2), groups=3),
    Conv(2, 3, 9, 10, 3, 7, 7, padding=(3, 3), groups=3),
    Conv(2, 3, 1, 10, 3, 3, 3, padding=(1, 1), groups=3),  # one row
    Conv(2, 3, 10, 1, 3, 3, 3, padding=(1, 1), groups=3),  # one column
    Conv(0, 3, 8, 8, 3, 3, 3, groups=3),
]
# Extents just under and over twice 128, so that a rung with large tiles takes its largest; in one pass each.
LARGE = [Conv(1, 3, 13, 25, 249, 3, 3), Conv(1, 249, 11, 23, 3, 3, 3, padding=(1, 1)), Conv(1, 253, 3, 9, 249, 1, 1)]
MODES = [dict(check=False, order="random"), dict(check=True, order="random"), dict(check=True, order="reverse")]

CHUNKS = 8  # pieces for the test processes to share
PLAIN, CHECKED = 320, 40  # random problems a rung, half of them of several tiles
LONGER = 30  # times as many in `make test-long`

each_rung = pytest.mark.parametrize("rung", RUNGS, ids=lambda a: a.name)


@each_rung
@pytest.mark.parametrize("conv", AWKWARD + MORE_AWKWARD + LARGE, ids=str)
def test_awkward_shapes(rung, conv, device):
    passes = passes_of(rung, conv)
    if not passes:
        pytest.skip(rung.supports(problem_of(conv), "forward")[1])
    if conv in LARGE and not has_tiles(rung):
        pytest.skip("has no tiles to fill")
    for mode in MODES if device == "cpu" and conv not in LARGE else MODES[:1]:
        check_passes(rung, conv, torch.float32, passes, device, **mode)


@each_rung
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_element_types(rung, dtype, device):
    if dtype not in dtypes_of(rung):
        pytest.skip(rung.supports(problem_of(AWKWARD[5], dtype), "forward")[1])
    for conv in [c for c in AWKWARD + LARGE * has_tiles(rung) if passes_of(rung, c, dtype)]:
        check_passes(rung, conv, dtype, passes_of(rung, conv, dtype), device, **MODES[conv not in LARGE])


def run_problems(rung, seed, count, check, device):
    """Random problems; every other one of a matrix rung spans several tiles in one of its passes, which take turns."""
    rng = random.Random(seed)
    several = 0
    passes = sorted(rung.passes_by_backend["cuda"])
    for i in range(count):
        span = passes[i // 2 % len(passes)] if i % 2 else None
        conv, dtype = random_problem(rng, rung, span)
        mode = dict(order=("random", "forward", "reverse")[i % 3], seed=rng.randrange(2**32), check=check)
        one_layout = 1 in (conv.C, conv.K, conv.H * conv.W, math.prod(conv.outputs))  # of a tensor: plans differ
        lay = plain if one_layout or rng.random() < 0.7 else last
        try:
            able = passes_of(rung, conv, dtype)
            check_passes(rung, conv, dtype, able, device, lay, lay, **mode)
        except Exception as error:
            raise AssertionError(f"problem {i} of seed {seed}: {rung.name}, {conv}, {dtype}, {mode}") from error
        several += has_tiles(rung) and any(spans_tiles(rung.plan(problem_of(conv, dtype), p)) for p in able)
    assert 3 * several >= count or not has_tiles(rung), f"only {several} of {count} problems span several tiles"


@each_rung
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_problems(rung, chunk, device):
    run_problems(rung, chunk, PLAIN // CHUNKS, False, device)


@each_rung
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_problems_checked(rung, chunk):
    run_problems(rung, 1000 + chunk, CHECKED // CHUNKS, True, "cpu")


@pytest.mark.long
@each_rung
@pytest.mark.parametrize("chunk", range(LONGER * CHUNKS))
def test_many_random_problems(rung, chunk, device):
    run_problems(rung, 10_000 + chunk, PLAIN // CHUNKS, False, device)


@pytest.mark.long
@each_rung
@pytest.mark.parametrize("chunk", range(LONGER * CHUNKS))
def test_many_random_problems_checked(rung, chunk):
    run_problems(rung, 20_000 + chunk, CHECKED // CHUNKS, True, "cpu")
