"""The warpgroup rung, in every precision, pass and layout."""

import dataclasses
import random

import pytest
import torch
from tensor_core import PRECISIONS, TF32, WARPGROUP, check_conv, laid, plan_of, random_conv, run, tiles_of
from test_tensor_core import GROUPS, HEADS, JOINED, TILES, check_infinities, errors, tf32_switch

import convlab
import convlab.functional as CF
from convlab._algorithms import names_of
from convlab.gpus import GPUS
from convlab.layers import find
from convlab.testing import AWKWARD, Conv

__all__ = ["tf32_switch"]
NAMES = (*PRECISIONS,)
PASSES = ("forward", "dgrad", "wgrad")
SAMPLE, MANY, CHUNKS = 2, 600, 6  # random problems a precision and pass

each_precision = pytest.mark.parametrize("precision", NAMES)


def check(conv, precision, channels_last, passes=PASSES, rung=WARPGROUP, **mode):
    check_conv(conv, precision, channels_last, [p for p in passes if has(precision, p)], rung=rung, **mode)


EACH_TILE = {(name, pass_): tiles_of(WARPGROUP, name, pass_) for name in NAMES for pass_ in PASSES}
EACH_SPLIT_TILE = EACH_TILE["3xtf32", "forward"]


def has(precision, pass_):
    return bool(EACH_TILE[precision, pass_])


@each_precision
def test_awkward_shapes(precision):
    rng = random.Random(precision)
    for conv in rng.sample([c for c in AWKWARD if c.groups == 1 and c.N] + HEADS + GROUPS + JOINED, 6):
        mode = dict(order=rng.choice(["forward", "reverse", "random"]), check=conv.N * conv.H * conv.W < 100)
        check(conv, precision, rng.random() < 0.5, **mode)


@each_precision
@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])
def test_several_tiles(precision, channels_last):
    for conv, order in zip(TILES, ("forward", "reverse")):  # products happen when they are waited for, or at once
        check(conv, precision, channels_last, order=order, check=False)


def test_every_tile():
    rng = random.Random(0)
    once = [("bfloat16", "forward"), ("3xtf32", "dgrad")]  # the others of these passes have the same tiles
    for name, pass_ in once + [(name, "wgrad") for name in NAMES[1:]]:
        for rung in EACH_TILE[name, pass_].values():
            conv = rng.choice(TILES if pass_ != "wgrad" else HEADS[:1] + GROUPS[:1])
            check(conv, name, True, [pass_], rung, order="forward", check=False)


def run_random(precision, pass_, seed, count, checked):
    rng = random.Random(seed)
    for i in range(count):
        several = ("bfloat16", pass_) if i % 3 == 0 else None
        conv = random_conv(rng, several=several, rung=WARPGROUP)
        mode = dict(order=("forward", "reverse", "random")[i % 3], seed=i, check=checked)
        check(conv, precision, rng.random() < 0.5, [pass_], rng.choice([*EACH_TILE[precision, pass_].values()]), **mode)


each_pass = pytest.mark.parametrize("precision, pass_", [(n, p) for n in NAMES for p in PASSES if has(n, p)])


@each_pass
def test_random_problems(precision, pass_):
    run_random(precision, pass_, f"{precision} {pass_}", SAMPLE, False)


@pytest.mark.parametrize("precision, pass_", [("bfloat16", "forward"), ("3xtf32", "dgrad"), ("tf32", "wgrad")])
def test_a_random_problem_checked(precision, pass_):
    run_random(precision, pass_, "checked", 1, True)


@pytest.mark.long
@each_pass
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_random_problems(precision, pass_, chunk):
    run_random(precision, pass_, f"{precision} {pass_} many {chunk}", MANY // CHUNKS, False)
    run_random(precision, pass_, f"{precision} {pass_} many checked {chunk}", MANY // 10 // CHUNKS, True)


def test_operands_are_read_once_by_a_warpgroup_and_without_bank_conflicts():
    conv = Conv(1, 64, 8, 16, 64, 3, 3, padding=(1, 1))
    x, w, b = (laid(t.half(), True) if t.dim() == 4 else t.half() for t in conv.tensors())
    with convlab.simulate(count=True) as sim:
        run(conv, "float16", "forward", x, w, b, None, True, EACH_TILE["float16", "forward"]["64x64"])
    rows = [r for r in sim.traffic if r.space == "shared" and "warpgroup_kernel" in r.kernel]
    products = [r for r in rows if r.access == "read" and "dynamic" in r.memory and r.bytes > 9 * 2 * 64 * 128]
    assert sum(r.bytes for r in products) == 2 * 9 * (64 + 64) * 128  # blocks, tiles, rows of A and B
    assert all(r.wavefronts == r.ideal for r in rows if r.memory != "lines")


@pytest.mark.parametrize("tile", EACH_SPLIT_TILE)
def test_splitting_has_no_bank_conflicts(tile):
    conv = Conv(1, 64, 8, 16, 64, 3, 3, padding=(1, 1))
    x, w, b = (laid(t, True) if t.dim() == 4 else t for t in conv.tensors())
    with convlab.simulate(count=True) as sim:
        run(conv, "3xtf32", "forward", x, w, b, None, True, EACH_SPLIT_TILE[tile])
    rows = [r for r in sim.traffic if r.space == "shared" and "warpgroup_kernel" in r.kernel and r.memory != "lines"]
    assert sum(r.requests for r in rows) > 1000
    assert all(r.wavefronts == r.ideal for r in rows)


def test_three_products_are_as_exact_as_float32():
    conv = Conv(1, 64, 14, 14, 48, 3, 3, padding=(1, 1))
    register_tiled = next(a.number for a in convlab.algorithms() if a.name == "register_tiled")
    ours, float32 = errors(conv, WARPGROUP.number, PASSES), errors(conv, register_tiled, PASSES)
    for pass_ in PASSES:
        assert ours[pass_] <= 2 * float32[pass_], pass_


def test_three_products_of_infinities_and_of_what_rounds_to_one():
    check_infinities("warpgroup")


def test_infinities_that_no_tap_meets():
    check_infinities("warpgroup", torch.bfloat16)


def test_wgrad_reads_operands_once_by_a_warpgroup_and_without_bank_conflicts():
    conv = Conv(2, 64, 8, 16, 64, 3, 3, padding=(1, 1))
    x, dy = (laid(torch.randn(2, 64, 8, 16).half(), True) for _ in range(2))
    w = laid(torch.randn(64, 64, 3, 3).half(), True)
    with convlab.simulate(count=True) as sim:
        run(conv, "float16", "wgrad", x, w, None, dy, True, EACH_TILE["float16", "wgrad"]["64x192"])
    rows = [r for r in sim.traffic if r.space == "shared" and "warpgroup_filter_kernel" in r.kernel]
    products = [r for r in rows if r.access == "read" and "dynamic" in r.memory and r.bytes > 3 * 4 * 192 * 128]
    assert sum(r.bytes for r in products) == 3 * 4 * (64 + 192) * 128  # blocks, tiles, rows of A and B
    assert all(r.wavefronts == r.ideal for r in rows if r.memory not in ("lines", "part", "by"))


@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
def test_wgrad_of_float32_has_no_bank_conflicts(precision):
    x, dy, w = (laid(torch.randn(*s), True) for s in ((2, 64, 8, 8), (2, 64, 8, 8), (64, 64, 3, 3)))
    conv = Conv(2, 64, 8, 8, 64, 3, 3, padding=(1, 1))
    with convlab.simulate(count=True) as sim:
        run(conv, precision, "wgrad", x, w, None, dy, True, EACH_TILE[precision, "wgrad"]["64x64"])
    rows = [r for r in sim.traffic if r.space == "shared" and r.memory != "lines"]
    assert {r.kernel.split("<")[0] for r in rows} == {"positions_inner_kernel", "warpgroup_filter_tf32_kernel"}
    assert all(r.wavefronts == r.ideal for r in rows)


def test_positions_are_walked_across_rows_planes_and_images():
    """A step of a thread's walk is longer than a row, a plane or several images; the last slice is no whole tile."""
    for P, Q in ((1, 1), (1, 5), (3, 1), (2, 3), (7, 2)):
        for N, stride in ((1, 1), (37, 2)):
            conv = Conv(N, 8, P * stride, Q * stride, 8, 1, 1, (stride, stride))
            for name in ("bfloat16", "tf32"):
                check(conv, name, True, ["wgrad"], EACH_TILE[name, "wgrad"]["64x64"], order="forward", check=False)


def test_tiles_change_no_bit_of_a_sum_in_slices():
    conv = Conv(1, 16, 26, 26, 24, 1, 1)
    x, w, dy = (laid(torch.randn(*s).bfloat16(), True) for s in ((1, 16, 26, 26), (24, 16, 1, 1), (1, 24, 26, 26)))

    def gradients(rung):
        with convlab.simulate(check=False):
            return run(conv, "bfloat16", "wgrad", x, w, None, dy, True, rung)

    whole = gradients(WARPGROUP)
    assert plan_of(conv, "bfloat16", "wgrad", WARPGROUP)["slices"] > 1
    for rung in EACH_TILE["bfloat16", "wgrad"].values():
        assert all(map(torch.equal, gradients(rung), whole))


def test_what_it_refuses(tf32_switch):
    conv = Conv(2, 16, 7, 7, 24, 3, 3)
    half, single = conv.problem(torch.float16), conv.problem(torch.float32)

    def reason(problem, pass_="forward"):
        return WARPGROUP.supports(problem, pass_)[1]

    assert reason(half) == ""
    assert reason(half, "wgrad") == ""
    assert reason(conv.problem(torch.float64)) == "is not compiled for float64"
    for tf32_switch.allow_tf32, precision in ((False, "3xtf32"), (True, "tf32")):
        assert reason(single) == "" and WARPGROUP.plan(single, "forward")["precision"] == precision
    assert reason(single, "wgrad") == ""
    tf32_switch.allow_tf32 = False
    assert reason(single, "wgrad") == ""
    small = Conv(2, 6, 7, 7, 9, 3, 3, groups=3).problem(torch.float16)
    assert reason(small) == "multiplies 8 channels of a group at a time or more, and these groups have 2 in and 3 out"
    for name, has in (("A100", "8.0"), ("B200", "10.0")):
        other = dataclasses.replace(half, capability=GPUS[name].generation)
        assert reason(other) == f"has instructions of compute capability 9.0 alone, and this GPU is of {has}"
    x, w = torch.randn(2, 16, 7, 7).half(), torch.randn(24, 16, 3, 3).half()
    with convlab.simulate(gpu="A100"), pytest.raises(ValueError, match=r"this GPU is of 8\.0"):
        CF.conv2d(x, w, algo="warpgroup")


def test_by_name_with_the_switch_of_the_forward(tf32_switch):
    x, w = torch.randn(1, 8, 5, 5, requires_grad=True), torch.randn(8, 8, 3, 3, requires_grad=True)
    tf32_switch.allow_tf32 = True
    with convlab.simulate(check=False) as sim:
        y = CF.conv2d(x, w, algo="warpgroup")
        tf32_switch.allow_tf32 = False
        y.sum().backward()
    assert sum("warpgroup_" in launch.kernel for launch in sim.launches) == 3
    expected = torch.nn.functional.conv2d(x, w)
    assert torch.allclose(y, expected, atol=0.1) and not torch.equal(y, expected)


def test_auto_takes_it_where_it_is_faster(tf32_switch):
    def chosen(dtype, gpu="H200"):
        problem = find("resnet-128@64").problem(dtype)
        return names_of("auto", dataclasses.replace(problem, capability=GPUS[gpu].generation))

    faster = dict.fromkeys(PASSES, "warpgroup")
    assert chosen(torch.bfloat16) == chosen(torch.float16) == faster
    tf32_switch.allow_tf32 = True
    assert chosen(torch.float32) == faster
    tf32_switch.allow_tf32 = False
    passes = ("forward", "dgrad")
    strict = {p: WARPGROUP.plan(find("resnet-128@64").problem(torch.float32), p)["gated"] for p in passes}
    assert [chosen(torch.float32)[p] == "warpgroup" for p in passes] == [not gated for gated in strict.values()]
    assert "warpgroup" not in chosen(torch.bfloat16, "A100").values()


def test_tf32_is_truncated_activations_and_rounded_filters():
    x, w = torch.full((1, 8, 1, 1), 1 + 2.0**-10 - 2.0**-20), torch.full((8, 8, 1, 1), 1 + 2.0**-10 - 2.0**-20)
    with convlab.simulate():
        y = convlab.ops.conv2d_forward(x, w, None, (1, 1, 0, 0, 0, 0, 1, 1, 1), WARPGROUP.number + TF32)
    assert y.unique().tolist() == [8 * (1 + 2.0**-10)]
