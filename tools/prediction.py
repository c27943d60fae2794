"""How good the predicted times are, on an H200's record.

    python -m tools.prediction              predicted against measured, on layers that were not used for fitting
    python -m tools.prediction --rows       and every row
    python -m tools.prediction --choice     what "auto" chose, what these times would choose, and the fastest: of the rungs, and
                                            of a rung's tiles, where the record of these rungs has a sweep of them, or --record FILE's
    python -m tools.prediction --plot FILE  a scatter plot (needs matplotlib)
    python -m tools.prediction --fit        fits the constants again, on the layers that convlab/explain/prediction.json lists
    python -m tools.prediction --count      joins the record with the simulator's counts again: half an hour

What it reads is in convlab/explain: prediction.json, the layers for fitting and the constants; measured-h200.json, the
rows of the record with what was counted of a sample of the blocks.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from convlab._algorithms import Conv2dProblem, algorithms, names_of, tile_name, with_each_tile
from convlab.bench import record
from convlab.bench.case import OURS, dtype_of
from convlab.explain import prediction
from convlab.explain.counting import count, planned_launches
from convlab.explain.explanation import chosen_of
from convlab.explain.prediction import MEASURED_ON, Constants, Facts, Launched, Row, asked_of, predict
from convlab.explain.work import work_of
from convlab.gpus import GPUS, Gpu
from convlab.layers import find
from tools import run

ROOT = Path(__file__).resolve().parent.parent
MEASURED, FITTED = (prediction.HERE / name for name in ("measured-h200.json", "prediction.json"))
TIMES = (
    ROOT / record.FOLDER / "nvidia-h200-2026-11-20.json"
)  # the record: of kernels without tensor cores, which the model knows
TIMES_ON_CORES = TIMES.with_name("nvidia-h200-2026-11-27.json")  # another, of those on them and of tiles
ON_TENSOR_CORES = ("tensor_core", "warpgroup")
COUNTED_FLOPS = 8e6  # of a row
ALIKE = 1.02  # times that differ by less have no order: repeated measurements differ as much
START = Constants(5.7, 2, 1800, 0.91, 1.1, 0.94, 56, 0.76, 0.42, 1.9, 3.7, 1, 2)  # of a fit
ROUNDS, STEP, FAR = 6, 1.3, 1.5
MOST = {"issue": 1, "memory": 0.89, "tensor": 1}  # shares: no more than a copy reaches of memory, no more than all


class Case(NamedTuple):
    """A row, ready to be predicted."""

    row: Row
    launches: list[Launched]
    facts: Facts

    def predicted(self, constants: Constants | None = None, gpu: Gpu = GPUS[MEASURED_ON]) -> float:
        found = predict(self.launches, self.row.asked, self.facts, gpu, constants)
        if found is None:
            raise RuntimeError(f"{self.row[:4]}: a kernel is not in the table of machine code")
        return found.microseconds

    @property
    def for_fitting(self) -> bool:
        return _name(self.row.layer) in prediction.fitted_on()


def _name(layer: str) -> str:
    return layer.split("@")[0]


def cases() -> list[Case]:
    return [Case(row, *prediction.ready(row)) for row in prediction.rows()]


class Quality(NamedTuple):
    """median: of the factor between predicted and measured; within: share of rows that are no more than 1.6 apart;
    ordered, pairs: of two rungs for one pass of a layer in one record, those that are predicted in the right order, and
    all."""

    rows: int
    median: float
    within: float
    ordered: int
    pairs: int

    def __str__(self):
        return (
            f"{self.rows} rows: median factor {self.median:.3f}, {self.within:.1%} within 1.6; "
            f"{self.ordered} of {self.pairs} pairs of rungs in the right order ({self.ordered / max(self.pairs, 1):.1%})"
        )


def quality(some: list[Case], constants: Constants | None = None) -> Quality:
    errors = [abs(math.log(case.predicted(constants) / case.row.measured)) for case in some]
    ordered, pairs = 0, 0
    for a, b in itertools.combinations(some, 2):
        if side_by_side(a.row, b.row) and abs(measured := math.log(a.row.measured / b.row.measured)) >= math.log(ALIKE):
            pairs += 1
            ordered += measured * (a.predicted(constants) - b.predicted(constants)) > 0
    within = sum(error <= math.log(1.6) for error in errors) / len(errors)
    return Quality(len(some), math.exp(statistics.median(errors)), within, ordered, pairs)


def side_by_side(a: Row, b: Row) -> bool:
    """Whether two rungs did the same in one record: on its ladder, or, on tensor cores, chosen and in each tile."""
    names = [row.rung.split()[0] for row in (a, b)]
    ladder = a.ladder and b.ladder
    return a[:3] == b[:3] and names[0] != names[1] and bool(ladder or all(map(on_tensor_cores, names)))


class Choice(NamedTuple):
    """Of a pass whose rungs were measured one after another, or a rung's tiles: times by name, and what two rules take:
    `auto`, of the shape, which convlab follows, and `model`, the least predicted time."""

    what: str
    times: dict[str, float]
    auto: str
    model: str

    @property
    def fastest(self) -> str:
        return min(self.times, key=self.times.get)

    def lost(self, name: str) -> float:
        """The time with it over the least."""
        return self.times[name] / self.times[self.fastest]

    def __str__(self):
        words = (f"{who} {name} {self.lost(name):.2f}" for who, name in (("auto", self.auto), ("model", self.model)))
        return f"{self.what:48}{self.fastest:15}{self.times[self.fastest]:9,.1f} us  " + "  ".join(words)


def choices(some: list[Case]) -> list[Choice]:
    """Rungs that are newer than the ladder's record are there with the time that the newest has of "auto"."""
    by_pass: dict[tuple, dict[str, Case]] = {}
    for case in some:
        by_pass.setdefault(case.row[:3], {})[case.row.rung] = case
    found = []
    for (layer, precision, pass_), rungs in by_pass.items():
        if not any(case.row.ladder for case in rungs.values()):
            continue
        times = {name: case.row.measured for name, case in rungs.items()}
        model = min(rungs, key=lambda name: rungs[name].predicted())
        auto = names_of("auto", _problem((layer, precision)))[pass_]
        if auto in times:
            found.append(Choice(f"{layer} {precision} {pass_}", times, auto, model))
    return found


class NothingToJudge(RuntimeError):
    """A record has no times of tiles, or none that can be predicted."""


def tile_choices(measured: dict) -> list[Choice]:
    """Of the record of a sweep of tiles. Seconds a row: each tile is counted on a sample of its blocks. Raises
    NothingToJudge."""
    rows = [row for row in measured.get("rows", ()) if row["kind"] == "tiles" and "ways" in row]
    if not rows:
        raise NothingToJudge("the record has no sweep of tiles")
    if measured["dry"]:
        raise NothingToJudge("the record is of a rehearsal, whose times mean nothing")
    words = measured["machine"]["gpu"].split()
    gpu = next((gpu for gpu in GPUS.values() if set(gpu.name.split()) <= set(words)), None)
    if gpu is None:
        raise NothingToJudge(f"the record is of a GPU whose limits convlab does not know, {' '.join(words)}")
    return [_choice_of_tiles(row, gpu) for row in rows]


def _choice_of_tiles(row: dict, gpu: Gpu) -> Choice:
    layer, dtype, pass_ = row["layer"], row["precision"], row["pass"]
    problem = replace(find(layer).problem(getattr(torch, dtype)), multiprocessors=gpu.sms, capability=gpu.generation)
    prefix, times, predicted = f"{OURS} ", {}, {}
    rung = next(a for a in algorithms() if any(way.startswith(f"{prefix}{a.name} ") for way in row["ways"]))
    for name, tile in with_each_tile(rung, problem, pass_).items():
        if prefix + tile.name not in row["ways"]:
            raise NothingToJudge(f"the record is of other tiles than {rung.name} has now")
        times[name] = row["ways"][prefix + tile.name]["cold"]["median"]
        counted = _counted((layer, dtype, pass_, tile.name), {"auto": times[name]}, tile)
        predicted[name] = Case(counted, *prediction.ready(counted, gpu)).predicted(gpu=gpu)
    model = min(predicted, key=predicted.__getitem__)
    return Choice(f"{layer} {dtype} {pass_} {rung.name}", times, tile_name(rung.plan(problem, pass_)), model)


def fit(some: list[Case], constants: Constants = START) -> Constants:
    """One constant after the other is made larger or smaller as long as that helps, by less and less."""

    def loss(c):
        return sum(min(abs(math.log(case.predicted(c) / case.row.measured)), FAR) ** 1.5 for case in some)

    best, steps = loss(constants), dict.fromkeys(Constants._fields, STEP)
    for name in list(Constants._fields) * ROUNDS:
        for factor in (steps[name], 1 / steps[name]):
            changed = getattr(constants, name) * factor
            other = constants._replace(**{name: min(changed, MOST.get(name, changed))})
            if (new := loss(other)) < best:
                best, constants = new, other
                break
        else:
            steps[name] = math.sqrt(steps[name])
    return Constants(*(float(f"{value:.4g}") for value in constants))


def joined() -> Iterator[Row]:
    """The records' rows of convlab's rungs in NCHW, with counts: of the second what runs on tensor cores, which the first
    one does not have. Which rung "auto" took no record says: the rows do that there were, else it is what it takes now."""
    ladder, found = {a.name: a for a in algorithms()}, {}
    taken = {(row[:3], row.auto): row.rung for row in prediction.rows() if row.auto}
    for path, step in ((TIMES, "bench"), (TIMES_ON_CORES, "bench"), (TIMES_ON_CORES, "tiles")):
        for row in record.load(path, step)["rows"]:
            if row["kind"] not in ("conv", "ladder", "tiles") or row["layout"] != "nchw":
                continue
            what = row["layer"], row["precision"], row["pass"]
            for way, times in row["ways"].items():
                if way == OURS and row["kind"] == "conv":
                    with rounding_to(row["precision"]):
                        known = taken.get((what, times["cold"]["median"]))
                        rung, at = known or chosen_of(_problem(what), row["pass"]), "auto"
                elif way.startswith(f"{OURS} "):
                    rung, at = way.removeprefix(f"{OURS} "), "auto" if row["kind"] == "tiles" else "ladder"
                else:
                    continue
                if on_tensor_cores(rung) == (path != TIMES):
                    found.setdefault((*what, rung), {}).setdefault(at, times["cold"]["median"])
    for key, times in found.items():
        name, _, tile = key[3].partition(" ")
        rung = with_each_tile(ladder[name], _problem(key), key[2])[tile] if tile else ladder[name]
        yield _counted(key, times, rung)


def on_tensor_cores(rung: str) -> bool:
    return rung.split()[0] in ON_TENSOR_CORES


def _problem(key) -> Conv2dProblem:
    return find(key[0]).problem(dtype_of(key[1]))


@contextmanager
def rounding_to(precision: str):
    """With torch's switch for TF32 as it was when that was measured."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _counted(key, times, rung) -> Row:
    problem, (_, precision, pass_, _) = _problem(key), key
    one_in = max(round(work_of(problem, pass_).flops / COUNTED_FLOPS), 1)
    print(*key, f"one block in {one_in}", file=sys.stderr)
    with rounding_to(precision):
        planned = Counter(
            (one.kernel, one.source.split(":")[0], math.prod(one.grid), math.prod(one.block), one.shared_bytes)
            for one in planned_launches(rung, problem, pass_)
        )
        workspace = rung.plan(problem, pass_)["workspace"]
        asked = tuple(asked_of(count(rung, problem, pass_, one_in).traffic))
    launches = tuple((*launch, n) for launch, n in planned.items())
    return Row(*key, times.get("ladder"), times.get("auto"), workspace, one_in, launches, asked)


def save(found: Iterable[Row]):
    MEASURED.write_text("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in found) + "\n]\n")


def plot(some: list[Case], path: str):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 6))
    ends = (10, 3e4)
    axes.plot(ends, ends, color="#444444", lw=1)
    axes.fill_between(ends, [e / 1.6 for e in ends], [e * 1.6 for e in ends], color="#eeeeee", label="within 1.6")
    for fitted, mark, colour, label in ((True, "x", "#999999", "fitted"), (False, "o", "#4477aa", "judged")):
        chosen = [case for case in some if case.for_fitting == fitted]
        axes.scatter(
            [case.row.measured for case in chosen],
            [case.predicted() for case in chosen],
            s=18,
            marker=mark,
            color=colour,
            label=f"{label}: {len(chosen)} rows",
            zorder=3,
        )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set_xlabel("microseconds, measured on an H200")
    axes.set_ylabel("microseconds, modelled")
    axes.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None} if path.endswith(".png") else {"Date": None})


def show(found: list[Choice]):
    print(*found, sep="\n")
    for who in ("auto", "model"):
        lost = [choice.lost(getattr(choice, who)) for choice in found]
        print(f"{who}: {statistics.geometric_mean(lost):.3f} times the least, {max(lost):.2f} at most  [measured]")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--choice", action="store_true")
    parser.add_argument(
        "--record", type=Path, default=TIMES_ON_CORES, metavar="FILE", help="of a gpu-report, for --choice of tiles"
    )
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--count", action="store_true")
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # as rows of float32 were measured
    if args.count:
        save(joined())
    all_cases = cases()
    fitting, judging = ([case for case in all_cases if case.for_fitting == which] for which in (True, False))
    if args.fit:
        constants = fit(fitting)
        text = {"fitted_on": prediction.fitted_on(), "constants": constants._asdict()}
        FITTED.write_text(json.dumps(text, indent=1) + "\n")
        prediction.fitted.cache_clear()
    if args.rows:
        for case in all_cases:
            predicted, measured = case.predicted(), case.row.measured
            words = f"{predicted:9,.1f} us  measured {measured:9,.1f}  {predicted / measured:.2f}"
            print(f"{' '.join(case.row[:4]):55}{words}  {'fitted' if case.for_fitting else ''}")
    if args.choice:
        show(choices(all_cases))
        try:
            show(tile_choices(record.load(args.record, "tiles")))
        except (record.BadRecord, NothingToJudge) as why:
            print(f"no choice of a tile is judged: {why}. On a GPU, make gpu-report STEP=tiles measures them all")
    print("fitted on", ", ".join(prediction.fitted_on()), " [measured]")
    print("there    ", quality(fitting))
    print("elsewhere", quality(judging))
    print("elsewhere on tensor cores", quality([case for case in judging if on_tensor_cores(case.row.rung)]))
    if args.plot:
        plot(all_cases, args.plot)


if __name__ == "__main__":
    run(main)
