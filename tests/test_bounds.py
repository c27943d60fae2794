"""No bound that convlab.explain prints is above a time that was measured on the GPU it is for."""

import random
from pathlib import Path

import pytest
import torch

from convlab._algorithms import algorithms, with_each_tile
from convlab.bench import record
from convlab.bench.case import dtype_of
from convlab.explain import GPUS, prediction
from convlab.explain.explanation import SURE_OF_COPIES, SURE_OF_WAVEFRONTS, bound_of, explain_rung
from convlab.explain.work import work_of
from convlab.layers import find

ROOT = Path(__file__).parent.parent
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("nvidia-h200-*.json"))
COUNTED = [row for path in RECORDS for row in record.read(path)["steps"]["counters"]["data"]["rows"]]
TENSOR_CORES = ("tensor_core", "warpgroup")
QUICK = ("direct", "tiled", "register_tiled", "small_filter", "depthwise")  # to count


def rows() -> list[dict]:
    """Of convolutions, of every record: the benchmark's, and the sweep of tiles where there is one."""
    steps = ((path, step) for path in RECORDS for step in ("bench", "tiles") if step in record.read(path)["steps"])
    loaded = (row for path, step in steps for row in record.load(path, step)["rows"])
    return [row for row in loaded if row["kind"] in ("conv", "ladder", "tiles")]


ROWS = rows()


def least(way: dict) -> float:
    """Microseconds of the fastest call on data that lies in memory."""
    return way["cold"]["least"]


def rung_of(row: dict, way: str) -> str:
    """The rung that a way of convlab's is of, "" where "auto" chose it."""
    names = [name.split()[1] for name in row["ways"] if name.startswith("convlab ")]
    return way.split()[1] if " " in way else names[0] if row["kind"] == "tiles" else ""


def precision_of(row: dict, rung: str) -> str | None:
    """Of the products, where rungs by name make them; where "auto" chose one, of the fastest that could be meant."""
    if rung and rung not in TENSOR_CORES:
        return None
    problem = find(row["layer"]).problem(dtype_of(row["precision"]))
    if not any(a.supports(problem, row["pass"])[0] for a in algorithms() if a.name in TENSOR_CORES):
        return None
    return "3xtf32" if row["precision"] == "float32" else row["precision"]


def rungs() -> list:
    """(layer, pass, precision, rung or rung and tile, microseconds) of whatever was timed by itself."""
    return [
        (row["layer"], row["pass"], row["precision"], name.removeprefix("convlab "), least(way))
        for row in ROWS
        if row["kind"] != "conv"
        for name, way in row["ways"].items()
        if name.startswith("convlab ") and "failed" not in way
    ]


def taken() -> list:
    """The same of what "auto" took on tensor cores; microseconds are medians."""
    kept = (row for row in prediction.rows() if row.auto and row.rung in TENSOR_CORES)
    return [(row.layer, row.pass_, row.precision, row.rung, row.auto) for row in kept]


def check(layer: str, pass_: str, precision: str, name: str, measured: float) -> None:
    """Of a rung with the tile that it chooses, or with one of its own."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    problem = find(layer).problem(dtype_of(precision))
    rung = next(a for a in algorithms() if a.name == name.split()[0])
    if name != rung.name:
        rung = with_each_tile(rung, problem, pass_)[name.split()[1]]
    explained = explain_rung(rung, problem, pass_, GPUS["H200"])
    torch.backends.cudnn.allow_tf32 = False
    assert explained.bound.microseconds <= measured, (layer, pass_, rung.name, explained.bound, measured)


def some(names: tuple[str, ...], count: int) -> list:
    cases = [case for case in rungs() if case[3].split()[0] in names and not case[0].startswith("depthwise")]
    return random.Random(2).sample(cases, count)


SOME = some(QUICK, 2) + some(TENSOR_CORES, 1)


@pytest.mark.parametrize("layer,pass_,precision,rung,measured", SOME)
def test_a_rung_is_not_faster_than_its_bound(layer, pass_, precision, rung, measured):
    check(layer, pass_, precision, rung, measured)


@pytest.mark.long
@pytest.mark.parametrize("layer,pass_,precision,rung,measured", rungs() + taken())
def test_no_rung_is_faster_than_its_bound(layer, pass_, precision, rung, measured):
    check(layer, pass_, precision, rung, measured)


def test_the_hardware_counts_the_wavefronts_that_a_bound_takes_for_sure():
    for row in COUNTED:
        sure = SURE_OF_COPIES if row["algorithm"] in TENSOR_CORES else SURE_OF_WAVEFRONTS
        simulated = row["simulated"].get("shared_wavefronts", 0)
        assert row["measured"]["shared_wavefronts"] >= sure * simulated, row


def test_nobody_is_faster_than_the_bound_of_a_pass():
    """Than memory allows, nobody; than its products take, no rung of convlab's, which all make them tap by tap."""
    compared = 0
    for row in ROWS:
        work = work_of(find(row["layer"]).problem(dtype_of(row["precision"])), row["pass"])
        for name, way in row.get("ways", {}).items():
            if "failed" in way:
                continue
            ours = name.startswith("convlab")
            bound = bound_of(work, GPUS["H200"], precision_of(row, rung_of(row, name)) if ours else None)
            limit = bound.microseconds if ours else bound.by_resource["memory"]
            assert limit <= least(way), (row["layer"], row["pass"], row["precision"], name, bound)
            compared += 1
    assert compared >= 3555
