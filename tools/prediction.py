"""How good the predicted times are, on an H200's record.

    python -m tools.prediction              predicted against measured, on layers that were not used for fitting
    python -m tools.prediction --rows       and every row
    python -m tools.prediction --choice     what "auto" chose, what these times would choose, and the fastest: of the rungs, and
                                            of a rung's tiles, where the newest record has a sweep of them, or --record FILE's
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
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from convlab._algorithms import algorithms, names_of, tile_name, with_each_tile
from convlab.bench import record
from convlab.bench.case import OURS
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
COUNTED_FLOPS = 8e6  # of a row
ALIKE = 1.02  # times that differ by less have no order: repeated measurements differ as much
START = Constants(2, 1500, 0.9, 1.5, 1, 24, 0.89, 0.45, 1, 3)  # of a fit
ROUNDS, STEP, FAR = 6, 1.3, 1.5


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
    ordered, pairs: of two rungs for one pass of a layer, those that are predicted in the right order, and all."""

    rows: int
    median: float
    within: float
    ordered: int
    pairs: int

    def __str__(self):
        return (
            f"{self.rows} rows: median factor {self.median:.3f}, {self.within:.1%} within 1.6; "
            f"{self.ordered} of {self.pairs} pairs of rungs in the right order"
            + (f" ({self.ordered / self.pairs:.1%})" if self.pairs else "")
        )


def quality(some: list[Case], constants: Constants | None = None) -> Quality:
    errors = [abs(math.log(case.predicted(constants) / case.row.measured)) for case in some]
    ordered, pairs = 0, 0
    for a, b in itertools.combinations([case for case in some if case.row.ladder], 2):
        measured = math.log(a.row.ladder / b.row.ladder)
        if a.row[:3] == b.row[:3] and abs(measured) >= math.log(ALIKE):
            pairs += 1
            ordered += measured * (a.predicted(constants) - b.predicted(constants)) > 0
    within = sum(error <= math.log(1.6) for error in errors) / len(errors)
    return Quality(len(some), math.exp(statistics.median(errors)), within, ordered, pairs)


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
    by_pass: dict[tuple, dict[str, Case]] = {}
    for case in some:
        if case.row.ladder:
            by_pass.setdefault(case.row[:3], {})[case.row.rung] = case
    found = []
    for (layer, dtype, pass_), rungs in by_pass.items():
        problem = find(layer).problem(getattr(torch, dtype))
        times = {name: case.row.ladder for name, case in rungs.items()}
        model, auto = min(rungs, key=lambda name: rungs[name].predicted()), names_of("auto", problem)[pass_]
        if auto in times:  # the record may be older than a rung
            found.append(Choice(f"{layer} {dtype} {pass_}", times, auto, model))
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
        counted = _counted((layer, dtype, pass_, tile.name), {"ladder": times[name]}, tile)
        predicted[name] = Case(counted, *prediction.ready(counted, tile, gpu)).predicted(gpu=gpu)
    model = min(predicted, key=predicted.__getitem__)
    return Choice(f"{layer} {dtype} {pass_} {rung.name}", times, tile_name(rung.plan(problem, pass_)), model)


def fit(some: list[Case], constants: Constants = START) -> Constants:
    """One constant after the other is made larger or smaller as long as that helps, by less and less."""

    def loss(c):
        return sum(min(abs(math.log(case.predicted(c) / case.row.measured)), FAR) ** 1.5 for case in some)

    best, steps = loss(constants), dict.fromkeys(Constants._fields, STEP)
    for name in list(Constants._fields) * ROUNDS:
        for factor in (steps[name], 1 / steps[name]):
            other = constants._replace(**{name: getattr(constants, name) * factor})
            if (new := loss(other)) < best:
                best, constants = new, other
                break
        else:
            steps[name] = math.sqrt(steps[name])
    return Constants(*(float(f"{value:.4g}") for value in constants))


def newest() -> Path:
    """The record that has what there is of tiles."""
    return max((ROOT / record.FOLDER).glob("nvidia-h200-*.json"))


def joined() -> list[Row]:
    """The record's rows of convlab's rungs in NCHW, with counts."""
    ladder, found = {a.name: a for a in algorithms()}, {}
    for row in record.load(TIMES)["rows"]:
        if row["kind"] not in ("conv", "ladder") or row["layout"] != "nchw" or row["precision"] == "tf32":
            continue
        problem, pass_ = find(row["layer"]).problem(getattr(torch, row["precision"])), row["pass"]
        for way, times in row["ways"].items():
            if way == "convlab" and row["kind"] == "conv":
                rung, at = chosen_of(problem, pass_), "auto"
            elif way.startswith("convlab "):
                rung, at = way.removeprefix("convlab "), "ladder"
            else:
                continue
            found.setdefault((row["layer"], row["precision"], pass_, rung), {})[at] = times["cold"]["median"]
    return [_counted(key, times, ladder[key[3]]) for key, times in found.items()]


def _counted(key, times, rung) -> Row:
    layer, dtype, pass_, _ = key
    problem = find(layer).problem(getattr(torch, dtype))
    one_in = max(round(work_of(problem, pass_).flops / COUNTED_FLOPS), 1)
    planned = Counter(
        (one.kernel, one.source.split(":")[0], math.prod(one.grid), math.prod(one.block), one.shared_bytes)
        for one in planned_launches(rung, problem, pass_)
    )
    print(*key, f"one block in {one_in}", file=sys.stderr)
    return Row(
        *key,
        times.get("ladder"),
        times.get("auto"),
        one_in,
        tuple((*launch, n) for launch, n in planned.items()),
        tuple(asked_of(count(rung, problem, pass_, one_in).traffic)),
    )


def save(found: list[Row]):
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
        "--record", type=Path, default=newest(), metavar="FILE", help="of a gpu-report, for --choice of tiles"
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
    if args.plot:
        plot(all_cases, args.plot)


if __name__ == "__main__":
    run(main)
