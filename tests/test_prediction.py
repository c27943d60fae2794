"""Predicted times against an H200's record, on layers that the constants were not fitted on; and what the parts of the
model say of machine code, blocks and GPUs."""

import math
import statistics
import sys
from dataclasses import replace

import pytest
import torch

import convlab
from convlab._algorithms import WITH_TILE, algorithms, tile_name, with_each_tile
from convlab.bench import record
from convlab.explain import GPUS, prediction, sass
from convlab.explain.counting import call_of
from convlab.explain.prediction import Asked, Facts, Launched
from convlab.layers import Conv, find
from tools import prediction as tool

CASES = tool.cases()
JUDGING = [case for case in CASES if not case.for_fitting]


def test_layers_that_were_not_fitted_are_predicted():
    good = tool.quality(JUDGING)
    assert good.rows >= 210 and good.pairs >= 160
    assert good.median <= 1.2
    assert good.within >= 0.9
    assert good.ordered >= 0.95 * good.pairs


@pytest.mark.parametrize(("rung", "rows"), [("tensor_core", 44), ("warpgroup", 14)])
def test_so_are_they_on_tensor_cores(rung, rows):
    """In 3xTF32, TF32 and bfloat16, and with tiles that were not chosen."""
    good = tool.quality([case for case in JUDGING if case.row.rung.split()[0] == rung])
    assert good.rows >= rows
    assert good.median <= 1.2
    assert good.within >= 0.9


def test_the_constants_are_those_of_the_fit():
    """Half or twice of one of them is worse, on the layers that they were fitted on."""
    fitting = [case for case in CASES if case.for_fitting]

    def loss(c):
        return sum(math.log(case.predicted(c) / case.row.measured) ** 2 for case in fitting)

    kept = loss(prediction.fitted())
    for name in ("launch", "issue", "wavefront"):
        for factor in (0.5, 2):
            other = prediction.fitted()._replace(**{name: getattr(prediction.fitted(), name) * factor})
            assert loss(other) > kept, name


def times_of(path, step, kind):
    """Microseconds by layer, precision, pass and way, of convlab's in NCHW."""
    return {
        (row["layer"], row["precision"], row["pass"], name): way["cold"]["median"]
        for row in record.load(path, step)["rows"]
        if row["kind"] == kind and row["layout"] == "nchw"
        for name, way in row["ways"].items()
        if name.startswith("convlab")
    }


def test_the_times_are_the_records():
    """Every pass that a record has of a rung, and no other time; of the other one, what runs on tensor cores."""
    ladder, auto = (times_of(tool.TIMES, "bench", kind) for kind in ("ladder", "conv"))
    newest, tiles = (
        times_of(tool.TIMES_ON_CORES, step, kind) for step, kind in (("bench", "conv"), ("tiles", "tiles"))
    )
    of_cores = [row for row in prediction.rows() if tool.on_tensor_cores(row.rung)]
    others = [row for row in prediction.rows() if not tool.on_tensor_cores(row.rung)]
    rungs = {key: us for key, us in ladder.items() if key[3] != "convlab"}
    assert {(*row[:3], f"convlab {row.rung}"): row.ladder for row in others if row.ladder} == rungs
    assert {(*row[:3], "convlab"): row.auto for row in others if row.auto} == auto
    swept = {key: us for key, us in tiles.items() if key[3].startswith("convlab tensor_core ")}
    assert {(*row[:3], f"convlab {row.rung}"): row.auto for row in of_cores if " " in row.rung} == swept
    chosen = {(*row[:3], "convlab"): row.auto for row in of_cores if " " not in row.rung}
    assert len(chosen) >= 61 and chosen.items() <= newest.items()


LOOP = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0020*/                   FFMA R5, R4, R6, R5 ;
        /*0030*/                   IADD3 R2, R2, 0x4, RZ ;
        /*0040*/               @P0 BRA 0x10 ;
        /*0050*/                   STG.E desc[UR4][R8.64], R5 ;
        /*0060*/                   EXIT ;
""".splitlines()


def test_a_loop_of_machine_code():
    """Four instructions; the multiply-add waits for its load, and so does the warp."""
    code = sass.profile(LOOP)
    assert (code.main.body.instructions, code.main.body.multiply_adds, code.main.body.global_loads) == (4, 1, 1)
    assert code.once.instructions == 3 and code.once.global_stores == 1 and code.main.copies == 1
    for latency, cycles in zip(sass.LATENCIES, code.main.body.cycles):
        assert latency <= cycles <= latency + 8


PRODUCTS = """
        /*0000*/                   LDSM.16.M88.4 R4, [R2] ;
        /*0010*/                   LDGSTS.E [R8], desc[UR4][R6.64] ;
        /*0020*/               @P1 BRA 0x10 ;
        /*0030*/                   HMMA.16816.F32 R12, R4, R8, R12 ;
        /*0040*/               @P0 BRA 0x0 ;
        /*0050*/                   LDS.128 R4, [R2] ;
        /*0060*/                   FADD R4, R4, R5 ;
        /*0070*/               @P0 BRA 0x50 ;
        /*0080*/                   EXIT ;
""".splitlines()


def test_the_loop_of_the_tensor_cores():
    """With copies of single elements by themselves; not the loop that stores sums."""
    code = sass.profile(PRODUCTS)
    assert (code.main.body.instructions, code.main.body.tensor, code.main.body.global_loads) == (3, 1, 0)
    assert (code.fill.body.instructions, code.fill.body.global_loads) == (2, 1)
    kernels = [kernel for kernel in prediction._profiles() if kernel.startswith("tensor_core_kernel")]
    assert len(kernels) > 20
    for kernel in kernels:
        least = 16 if "WarpTile<128, 16," in kernel else 32
        assert all(profile.main.body.tensor >= least for profile in prediction._profiles()[kernel].values()), kernel


def test_products_of_a_warpgroup():
    """One after the other, because they add to the same sums; an instruction of N columns takes N / 2 cycles."""
    product = "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], R24"
    texts = ["LDGSTS.E.BYPASS.128 [R8], desc[UR4][R6.64]", *[product] * 4, "@P0 BRA 0x0", "EXIT"]
    code = sass.profile([f"        /*{16 * n:04x}*/   {text} ;" for n, text in enumerate(texts)])
    assert code.main.body.tensor == 4 and set(code.main.body.cycles) == {4 * 64}
    kernels = [kernel for kernel in prediction._profiles() if kernel.startswith("warpgroup_kernel")]
    assert len(kernels) >= 15
    for kernel in kernels:
        tile = prediction.tile_of_products(kernel)
        products = 12 if tile.rows > 64 + tile.N else 4
        assert tile.wgmma and prediction._profiles()[kernel]["9.0"].main.body.tensor == products, kernel


def test_what_a_trip_reads_of_a_tile():
    """By warps, or by warpgroups; of a wgrad's tile; and where B lies there in two parts, of which three products read."""
    names = {
        "tensor_core_kernel<Tf32Products, WarpTile<128, 64, 32, 64, 32, 3, 3>, ImageMap<float, true> >": (1, 64 + 32),
        "warpgroup_kernel<float, WarpgroupTile<192, 128, 32, 5, 1, 1>, ImageMap<float, true> >": (4, 64 + 128),
        "warpgroup_kernel<float, SplitTile<128, 64, 32, 5, 1, 1>, ImageMap<float, true> >": (4, 64 + 224),
        "warpgroup_filter_tf32_kernel<WgradTile<128, 64, 32, 4, 1, 2, true>, FilterMap<float, true> >": (4, 64 + 224),
        "warpgroup_filter_kernel<float16, WgradTile<64, 192, 64, 3, 0, 2>, FilterMap<float16, true> >": (4, 64 + 192),
    }
    tiles = {name: prediction.tile_of_products(name) for name in names}
    assert {name: (tile.warps, tile.rows) for name, tile in tiles.items()} == names
    assert prediction.tile_of_products(KERNEL) is None


def test_four_copies_of_a_loop():
    """nvcc's form of a loop whose length it does not know: a body for four trips, three more behind it."""
    body = ["LDG.E R4, desc[UR4][R2.64]", "FFMA R5, R4, R6, R5"]
    inner = [*body * 4, "@P0 BRA 0x10"]
    outer = ["MOV R1, R2", *inner, *body * 3, "@P1 BRA 0x0"]
    lines = []
    for n, text in enumerate([*outer, "EXIT"]):
        lines.append(f"        /*{16 * n:04x}*/   {text} ;")
    code = sass.profile(lines)
    assert code.main.copies == 4 and code.main.body.global_loads == 4
    assert code.main.around == len(outer) - len(inner) - 3 * len(inner) // 4


KERNEL = "gemm_kernel<Tile<128, 128, 8, 8, 8>, ForwardMap<float> >"


def of(gpu, blocks=1320, requests=10**7, missed=10**6):
    """A product of so many blocks that moves that much."""
    asked = [
        Asked(KERNEL, "input", "global", "read", requests, 128 * requests, 4 * requests, missed),
        Asked(KERNEL, "a", "shared", "write", requests, 128 * requests, requests, 0),
        Asked(KERNEL, "a", "shared", "read", 4 * requests, 2048 * requests, 8 * requests, 0),
    ]
    launch = Launched(KERNEL, "csrc/kernels/gemm.h:1", blocks, 256, 1, 128, 17000)
    return prediction.predict([launch], asked, Facts({"input": 10**9}, 3), gpu)


def test_more_work_takes_longer_and_more_multiprocessors_take_less():
    h200 = GPUS["H200"]
    assert of(h200, requests=2 * 10**7).microseconds > 1.5 * of(h200).microseconds
    assert of(GPUS["T4"]).microseconds > 2 * of(GPUS["A100"]).microseconds > of(h200).microseconds


def test_the_last_wave_counts():
    """One block more than multiprocessors takes the time of two, if each keeps its multiprocessor busy."""
    whole, more = (of(GPUS["H200"], blocks=n).by_resource["issue"] for n in (132, 133))
    assert more == pytest.approx(2 * 132 / 133 * whole, rel=1e-3)


def test_what_bounds_it_is_the_longest():
    found = of(GPUS["H200"], missed=4 * 10**7)
    assert found.by_resource[found.bound_by] == max(found.by_resource.values())
    assert found.without < found.microseconds


def test_every_gpu_runs_code_that_was_built_for_one_not_after_it():
    for gpu in GPUS.values():
        assert prediction.profile_of(KERNEL, "csrc/kernels/gemm.h:1", gpu.capability), gpu.name
    assert prediction.profile_of("no_such_kernel", "x.cu:1", "9.0") is None


def test_what_auto_takes_is_nearly_the_fastest_of_the_record():
    """Of the newest, where each rung stands beside it; and what predicted times would take, of the times that there are."""
    auto = []
    for row in record.load(max(tool.TIMES.parent.glob("nvidia-h200-*.json")), "bench")["rows"]:
        if row["kind"] == "ladder":
            times = {way: time["cold"]["median"] for way, time in row["ways"].items() if way.startswith("convlab")}
            auto.append(times.pop("convlab") / min(times.values()))
    assert len(auto) >= 18
    assert max(auto) < 1.2
    assert statistics.geometric_mean(auto) < 1.02
    choices = tool.choices(CASES)
    assert len(choices) >= 9  # of 18: the others take tensor cores, which those records have not timed
    assert max(choice.lost(choice.model) for choice in choices) < 1.05


# ---- tiles ------------------------------------------------------------------------------------------------------------

TILES = ("128x128", "128x32", "64x64", "16x32")


def a_sweep(times, gpu="NVIDIA H200", dry=False):
    """A record of LeNet's C5, wgrad of one image, through register_tiled with tiles that took so long."""
    ways = {"convlab": {"cold": {"median": 5.0}}, "torch nchw": {"cold": {"median": 1.0}}}
    ways |= {f"convlab register_tiled {name}": {"cold": {"median": us}} for name, us in times.items()}
    row = {"kind": "tiles", "layer": "lenet-c5@1", "pass": "wgrad", "precision": "float32", "ways": ways}
    return {"machine": {"gpu": gpu}, "dry": dry, "rows": [{"kind": "conv", "layer": "lenet-c5@1"}, row]}


def test_choices_of_tiles_are_judged():
    """By the times of a sweep: what was taken, what the model would take, and what either loses."""
    (choice,) = tool.tile_choices(a_sweep(dict.fromkeys(TILES, 2.0)))
    assert set(choice.times) == set(TILES) >= {choice.auto, choice.model}
    assert choice.lost(choice.auto) == choice.lost(choice.model) == 1
    plan = register_tiled().plan(find("lenet-c5@1").problem(), "wgrad")
    assert choice.auto == "{}x{}".format(*plan["tile"])
    slow = dict.fromkeys(TILES, 2.0) | {choice.model: 6.0, choice.auto: 6.0}
    (again,) = tool.tile_choices(a_sweep(slow))
    assert (again.auto, again.model) == (choice.auto, choice.model) and again.lost(again.model) == 3
    assert again.fastest not in (again.auto, again.model) and f"model {again.model} 3.00" in str(again)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"rows": [{"kind": "conv"}]}, "has no sweep of tiles"),
        ({}, "has no sweep of tiles"),
        (a_sweep(dict.fromkeys(TILES, 2.0), dry=True), "a rehearsal"),
        (a_sweep(dict.fromkeys(TILES, 2.0), gpu="NVIDIA V100"), "does not know, NVIDIA V100"),
        (a_sweep(dict.fromkeys(TILES[1:], 2.0)), "other tiles than register_tiled has now"),
    ],
)
def test_what_is_no_sweep_is_not_judged(record, why):
    with pytest.raises(tool.NothingToJudge, match=why):
        tool.tile_choices(record)


def test_the_command_says_that_the_record_has_no_sweep(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prediction", "--choice", "--record", str(tool.TIMES)])
    monkeypatch.setattr(tool, "cases", lambda: CASES)
    tool.main()
    assert "no choice of a tile is judged: " in capsys.readouterr().out


def register_tiled():
    return next(a for a in algorithms() if a.name == "register_tiled")


@pytest.mark.parametrize("pass_", ["forward", "dgrad", "wgrad"])
def test_a_tile_that_is_asked_for_runs(pass_):
    """Each in the simulator, by the operator's number: its grid, and the bits of the tile that is chosen."""
    problem = Conv(2, 5, 6, 7, 20, 3, 3, padding=(1, 1)).problem()
    rung = register_tiled()
    tiles = with_each_tile(rung, problem, pass_)
    assert len(tiles) == (4 if pass_ == "wgrad" else 6) and tile_name(rung.plan(problem, pass_)) in tiles
    outputs = {}
    for name, tile in ({"chosen": rung} | tiles).items():
        torch.manual_seed(0)
        call = call_of(tile, problem, pass_)
        with convlab.simulate(check=False) as sim:
            outputs[name] = call()
        plan = tile.plan(problem, pass_)
        assert sim.launches[0].grid == plan["grid"] and name in ("chosen", tile_name(plan))
        assert name == "chosen" or "Tile<{}, {}, {},".format(*plan["tile"]) in sim.launches[0].kernel
        assert plan["slices"] == rung.plan(problem, pass_)["slices"]
    first, *others = (got[0] if isinstance(got, tuple) else got for got in outputs.values())
    assert all(torch.equal(first, other) for other in others)


def test_what_has_no_such_tile_says_so():
    problem = find("lenet-c5@1").problem()
    direct = next(a for a in algorithms() if a.name == "direct")
    assert with_each_tile(direct, problem, "forward") == {}
    for rung, tile in ((direct, 1), (register_tiled(), 7), (register_tiled(), 4000)):
        with pytest.raises(ValueError, match=f"algo '{rung.name}' has no tile {tile} for this"):
            replace(rung, number=rung.number + tile * WITH_TILE).plan(problem, "forward")
