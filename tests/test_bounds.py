"""No bound that convlab.explain prints is above a time that was measured on the GPU it is for."""

import random
from pathlib import Path

import pytest

from convlab.bench import record
from convlab.bench.case import dtype_of
from convlab.explain import GPUS
from convlab.explain.explanation import SURE_OF_WAVEFRONTS, bound_of, explain
from convlab.explain.work import work_of
from convlab.layers import find

ROOT = Path(__file__).parent.parent
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("nvidia-h200-*.json"))
COUNTED = RECORDS[0]  # a report's, with what the hardware counted
ROWS = record.load(RECORDS[-1])["rows"]
# Of the newest record that has some: they come late, and a run's time may be up
LADDER = next(
    found for path in reversed(RECORDS) if (found := [r for r in record.load(path)["rows"] if r["kind"] == "ladder"])
)
QUICK = ("direct", "tiled", "register_tiled", "small_filter", "depthwise")  # to count


def least(way: dict) -> float:
    """Microseconds of the fastest call on data that lies in memory."""
    return way["cold"]["least"]


def by_taps(name: str) -> bool:
    """Whether a way is a rung, called by its name, that makes float32's multiply-adds, tap by tap."""
    return name.startswith("convlab ") and not name.endswith(" tensor_core")


def rungs() -> list:
    """(layer, pass, rung, microseconds) of whatever was timed by itself, but on tensor cores: the bounds are of float32's
    multiply-adds."""
    return [
        (row["layer"], row["pass"], name.removeprefix("convlab "), least(way))
        for row in LADDER
        for name, way in row.get("ways", {}).items()
        if by_taps(name) and "failed" not in way
    ]


def check(layer: str, pass_: str, rung: str, measured: float) -> None:
    (explained,) = explain(layer, rung, passes=[pass_], gpu="H200", count=True).passes[0].rungs
    assert explained.bound.microseconds <= measured, (layer, pass_, rung, explained.bound, measured)


SOME = random.Random(2).sample(
    [case for case in rungs() if case[2] in QUICK and not case[0].startswith("depthwise")], 3
)


@pytest.mark.parametrize("layer,pass_,rung,measured", SOME)
def test_a_rung_is_not_faster_than_its_bound(layer, pass_, rung, measured):
    check(layer, pass_, rung, measured)


@pytest.mark.long
@pytest.mark.parametrize("layer,pass_,rung,measured", rungs())
def test_no_rung_is_faster_than_its_bound(layer, pass_, rung, measured):
    check(layer, pass_, rung, measured)


def test_the_hardware_counts_the_wavefronts_that_a_bound_takes_for_sure():
    for row in record.read(COUNTED)["steps"]["counters"]["data"]["rows"]:
        simulated = row["simulated"].get("shared_wavefronts", 0)
        assert row["measured"]["shared_wavefronts"] >= SURE_OF_WAVEFRONTS * simulated, row


def test_nobody_is_faster_than_the_bound_of_a_pass():
    """Than memory allows, nobody; than float32's multiply-adds, no rung that does them tap by tap, as all do but that on
    tensor cores."""
    compared = 0
    for row in ROWS:
        if row["kind"] not in ("conv", "ladder"):
            continue
        problem = find(row["layer"]).problem(dtype_of(row["precision"]))
        bound = bound_of(work_of(problem, row["pass"]), GPUS["H200"])
        for name, way in row.get("ways", {}).items():
            if "failed" in way:
                continue
            limit = bound.microseconds if by_taps(name) else bound.by_resource["memory"]
            assert limit <= least(way), (row["layer"], row["pass"], row["precision"], name, bound)
            compared += 1
    assert compared > 500
