"""The benchmark measures what it says: work counted as it is, contestants paired, wrong outputs refused, runs kept
whole."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from convlab import _measure as disturbance
from convlab import layers
from convlab._measure import Limits
from convlab.bench import __main__ as command
from convlab.bench import ceilings, measure, overhead, readme, record, steps, targets, timer
from convlab.bench.case import Case, Contestant, torch_and_ours
from convlab.bench.cases import KINDS, cases_of
from convlab.bench.memory import Memory
from convlab.layers import Conv, real_taps

FAST = ["--rounds", "2", "--seconds", "0.01", "--patience", "0.01"]


# ---- what there is to do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size,padding", [(5, 0), (8, 0), (1, 2), (2, 2), (5, 1), (8, 1), (5, 2), (8, 4)])
def test_real_taps_against_counting(size, kernel, stride, padding):
    outputs = (size + 2 * padding - kernel) // stride + 1
    inside = sum(0 <= q * stride - padding + r < size for q in range(outputs) for r in range(kernel))
    assert real_taps(size, outputs, kernel, stride, padding) == inside


@pytest.mark.parametrize("layer", layers.CONVOLUTIONS, ids=lambda layer: layer.name)
def test_operations_of_a_layer(layer):
    """A convolution of ones by ones counts its own multiply-adds."""
    y = F.conv2d(torch.ones(1, *layer.x[1:]), torch.ones(layer.w), None, *layer.arguments)
    assert y.shape[1:] == layer.y[1:]
    assert layer.flops == 2 * layer.N * y.double().sum()


def test_steps_count_every_convolution():
    for network in steps.NETWORKS:
        x = torch.zeros(1, *network.convolutions[0].x[1:])
        sizes = []
        for module in network.make():
            x_before, x = x, module(x)
            if isinstance(module, torch.nn.Conv2d):
                sizes.append((x_before.shape[1:], x.shape[1:], module.weight.shape))
        assert sizes == [(c.x[1:], c.y[1:], c.w) for c in network.convolutions]
        assert [m.in_features for m in network.make() if isinstance(m, torch.nn.Linear)] == list(network.linear[:-1])


# ---- timing ----------------------------------------------------------------------------------------------------------


class FakeMachine:
    """A clock that calls put forward, and a count of the time that other programs took."""

    def __init__(self):
        self.now = self.lost = 0.0
        self.order = []

    def call(self, name, seconds, lost=lambda: 0.0):
        def call():
            self.order.append(name)
            taken = lost()
            self.now += seconds + taken
            self.lost += taken

        return call

    def time(self, calls, *limits):
        return timer.time_paired(calls, Limits(*limits), clock=lambda: self.now, waited=lambda: self.lost)


def test_every_round_times_every_contestant():
    machine = FakeMachine()
    times = machine.time({"slow": machine.call("slow", 3e-3), "fast": machine.call("fast", 1e-5)}, 20, 60)
    assert times.seconds["slow"] == pytest.approx([3e-3] * 20) and times.seconds["fast"] == pytest.approx([1e-5] * 20)
    assert times.ratios("slow", "fast") == pytest.approx([300] * 20)
    assert times.repeats["slow"] == 1 and times.repeats["fast"] * 1e-5 >= timer.LEAST
    assert (times.left_out, times.disturbed) == (0, False)
    turns = [name for name, _ in itertools.groupby(machine.order)]
    assert sum(a == b for a, b in zip(turns[-20::2], turns[-18::2])) > 5, "who is first changes only now and then"


def test_rounds_end_with_the_budget():
    machine = FakeMachine()
    times = machine.time({"one": machine.call("one", 0.1)}, 1000, 2.0)
    assert disturbance.FEWEST_ROUNDS < len(times.seconds["one"]) < 20
    times = machine.time({"one": machine.call("one", 100)}, 1000, 2.0)
    assert len(times.seconds["one"]) == disturbance.FEWEST_ROUNDS


def test_disturbed_rounds_are_left_out():
    machine, turn = FakeMachine(), itertools.count()
    times = machine.time({"one": machine.call("one", 2e-3, lambda: 8e-3 if next(turn) % 5 == 0 else 0.0)}, 30, 60, 60)
    assert times.seconds["one"] == pytest.approx([2e-3] * 30)
    assert times.left_out > 3 and not times.disturbed


def test_patience_ends_and_the_row_is_marked():
    machine = FakeMachine()
    times = machine.time({"one": machine.call("one", 2e-3, lambda: 8e-3)}, 30, 0.1, 1.0)
    assert times.disturbed and times.left_out == 0
    assert times.seconds["one"] and min(times.seconds["one"]) == pytest.approx(1e-2)
    assert machine.now < 2


@pytest.mark.skipif(
    disturbance.waited() == 0 and not Path("/proc/self/schedstat").exists(), reason="the system does not count it"
)
def test_waiting_for_a_core_is_noticed():
    """Two busy processes on one core: each waits for the other."""
    script = """
import os, time
from convlab import _measure as disturbance
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
other = os.fork()
if other == 0:
    end = time.monotonic() + 10
    while time.monotonic() < end and os.getppid() != 1: pass
    os._exit(0)
def busy():
    end = time.monotonic() + 0.3
    while time.monotonic() < end: pass
try:
    assert disturbance.timed(busy, time.monotonic).disturbed
finally:
    os.kill(other, 9)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_spread():
    assert timer.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median": 3, "q1": 2, "q3": 4, "least": 1}
    assert timer.spread([7.0]) == {"median": 7, "q1": 7, "q3": 7, "least": 7}


def test_a_disturbed_ceiling_is_looked_for_again(monkeypatch):
    timings = iter([disturbance.Timing(4.0, True), disturbance.Timing(2.0, False)])
    monkeypatch.setattr(ceilings, "best", lambda *_: next(timings))
    found = ceilings.Ceilings()
    slow = found.bandwidth(2**24 - 5)
    assert found.record()["disturbed"]
    assert found.bandwidth(2**24 - 5) == 2 * slow == found.bandwidth(2**24) == 2**24 / 2
    assert not found.record()["disturbed"]


# ---- outputs ---------------------------------------------------------------------------------------------------------


def doubling(ours, layout="nchw"):
    """The case of 2 x, as `ours` does it."""
    return Case(
        "conv",
        "doubling",
        "forward",
        layout,
        1000,
        1000,
        lambda: {"x": torch.randn(2, 3, 4, 5)},
        torch_and_ours(layout, lambda t: lambda: 2 * t["x"], lambda t: lambda: ours(t["x"])),
        reference=lambda t: 2 * t["x"],
    )


def nan_somewhere(x):
    y = 2 * x
    y[0, 0, 0, 0] = float("nan")
    return y


def crash(x):
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    "ours,message",
    [
        pytest.param(lambda x: 2.001 * x, "error against float64", id="value"),
        pytest.param(nan_somewhere, "error against float64 is inf", id="nan"),
        pytest.param(lambda x: 2 * x[:1], "where (2, 3, 4, 5) is expected", id="shape"),
        pytest.param(lambda x: (2 * x).contiguous(memory_format=torch.channels_last), "not nchw", id="layout"),
        pytest.param(crash, "ValueError: no such thing", id="crash"),
    ],
)
def test_wrong_outputs_are_refused_before_timing(ours, message, monkeypatch):
    monkeypatch.setattr(measure, "time_paired", lambda *_: pytest.fail("was timed"))
    row = measure.measure(doubling(ours), measure.Options())
    assert message in row["refused"] and "times" not in row
    figures = targets.figures([row])
    assert figures and not any(figure.reached for figure in figures)


def test_a_peer_that_fails_is_recorded():
    case = doubling(lambda x: 2 * x)
    case.contestants["torch.compile"] = Contestant("nchw", lambda t: lambda: crash(t))
    row = measure.measure(case, measure.Options(Limits(2, 0.01, 0.01)))
    assert "failed" in row["times"]["torch.compile"] and "torch.compile" not in row["ratios"]
    assert row["times"]["convlab"]["error"] < 1e-7


def test_cold_data_rotates(monkeypatch):
    monkeypatch.setattr(measure, "last_level_cache", lambda: 5000)
    seen = set()

    def ours(x):
        seen.add(x.data_ptr())
        return 2 * x

    limits = Limits(2, 0.01, 0.01)
    measure.measure(doubling(ours), measure.Options(limits, cold=True))
    assert len(seen) == 1 + 2 * 5000 // 1000 + 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "step"])
def test_outputs_of_every_kind_pass(kind, monkeypatch):
    """Of each kind's smallest layer, in every pass and layout: the contestants answer the same question."""
    monkeypatch.setattr(
        measure,
        "time_paired",
        lambda calls, _: timer.Times({name: [1.0] for name in calls}, dict.fromkeys(calls, 1), 0, False),
    )
    smallest = {"conv": "lenet-c5", "pool": "max-lenet", "activation": "leaky_relu-1mb"}[kind]
    rows = [measure.measure(case, measure.Options()) for case in cases_of(kind) if case.layer == smallest]
    assert len(rows) == {"conv": 6, "pool": 4, "activation": 2}[kind]
    assert [row.get("refused") for row in rows] == [None] * len(rows)


# ---- targets ---------------------------------------------------------------------------------------------------------


def conv_row(name, ratio, torch_share, our_share=0.5, pass_="forward", layout="nchw"):
    ratios = {peer: {"median": ratio * factor} for peer, factor in (("torch nchw", 2), ("torch channels_last", 1))}
    return {
        "kind": "conv",
        "layer": name,
        "pass": pass_,
        "layout": layout,
        "flops": 1,
        "bytes": 1,
        "ratios": ratios,
        "best": "torch channels_last",
        "share": {"convlab": our_share, "torch channels_last": torch_share},
    }


def test_near_the_peak_a_draw_is_enough():
    rows = [
        conv_row("a", 0.93, 0.86),
        conv_row("b", 0.99, 0.84),
        conv_row("c", 4.0, 0.3),
        conv_row("d", 0.91, 0.9, layout="channels_last"),
    ]
    found = {figure.name: figure for figure in targets.figures(rows)}
    near = found["convolutions, NCHW, each against torch's best, where that is above 85 % of peak"]
    elsewhere = found["convolutions, NCHW, each against torch's best, elsewhere"]
    assert near.reached and near.rows == 1 and near.value == 0.93
    assert not elsewhere.reached and elsewhere.misses == ["conv b forward nchw"]
    assert found["convolutions, NCHW, against torch's best"].value == pytest.approx((0.93 * 0.99 * 4) ** (1 / 3))
    assert found["convolutions, NCHW, against torch NCHW"].reached
    assert not found["convolutions, channels_last, each against torch's best"].reached


def test_share_of_peak_is_asked_of_the_wide_layers():
    rows = [
        conv_row(name, 1, 0.9, 0.91 if name != "resnet-256" else 0.89, pass_)
        for name in targets.PEAK_LAYERS
        for pass_ in ("dgrad", "wgrad")
    ]
    (figure,) = (figure for figure in targets.figures(rows) if "share of FMA peak" in figure.name)
    assert figure.misses == ["conv resnet-256 dgrad nchw"] and figure.rows == len(targets.PEAK_LAYERS)


def test_the_layers_named_in_targets_exist():
    assert set(targets.PEAK_LAYERS) <= {layer.name for layer in layers.CONVOLUTIONS}
    leaky = [
        case for case in cases_of("activation") if case.layer.startswith("leaky_relu") and case.bytes >= 2 * targets.MB8
    ]
    assert len(leaky) >= 4


# ---- the command -----------------------------------------------------------------------------------------------------


def run(*argv):
    """The exit status."""
    pytest.importorskip("rich")
    threads = torch.get_num_threads()
    try:
        command.main(list(map(str, argv)))
    except SystemExit as end:
        return end.code
    finally:
        torch.set_num_threads(threads)
    return 0


def test_a_run_is_recorded_and_compared(tmp_path, capsys):
    path = tmp_path / "results" / "run.json"
    chosen = [
        "cpu",
        "conv",
        "pool",
        "--layers",
        "lenet-c5",
        "max-lenet",
        "--passes",
        "forward",
        "--layout",
        "nchw",
        *FAST,
    ]
    assert run(*chosen, "--output", path) == 0
    kept = json.loads(path.read_text())
    assert kept == record.load(path) and os.listdir(path.parent) == ["run.json"]
    assert (
        kept["complete"]
        and kept["machine"]["threads"] == 1
        and kept["machine"]["cpu"]
        and kept["ceilings"]["peak_gflops"] > 0
    )
    assert [targets.row_id(row) for row in kept["rows"]] == [
        "conv lenet-c5 forward nchw",
        "pool max-lenet forward nchw",
    ]
    for row in kept["rows"]:
        assert set(row["times"]) == {"convlab", "torch nchw", "torch channels_last"}
        assert all(t["q1"] <= t["median"] <= t["q3"] and t["error"] >= 0 for t in row["times"].values())
        assert row["floor"] > 0 and row["share"]["convlab"] > 0 and row["best"] in row["ratios"]
    said = capsys.readouterr()
    assert "lenet-c5" in said.out and "targets" in said.out and f"wrote {path}" in said.out and not said.err
    assert run(*chosen, "--no-save", "--filter", "pool", "--compare", path) == 0
    said = capsys.readouterr().out
    assert "compared with" in said and "lenet-c5" not in said


def test_a_step_is_measured(monkeypatch, capsys):
    lenet = steps.NETWORKS[0]
    monkeypatch.setattr(
        steps, "NETWORKS", [lenet._replace(batch=2, convolutions=tuple(c._replace(N=2) for c in lenet.convolutions))]
    )
    assert run("cpu", "step", "--no-compile", "--no-save", *FAST) == 0
    assert "LeNet-5 step" in capsys.readouterr().out


def test_what_has_no_time_says_why(monkeypatch, capsys):
    case = doubling(lambda x: 2 * x)
    case.contestants["torch.compile"] = Contestant("nchw", lambda t: lambda: crash(t))
    monkeypatch.setattr(command, "cases_of", lambda *_: [case])
    assert run("cpu", "conv", "--no-save", *FAST) == 0
    assert "failed: conv doubling forward nchw: torch.compile: ValueError: no such thing" in capsys.readouterr().out


def test_overhead(capsys):
    assert run("overhead", "--no-save", *FAST) == 0
    out = capsys.readouterr().out
    assert all(case.pass_ in out for case in overhead.cases()) and "floor" not in out


def test_a_refused_row_is_the_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(command, "cases_of", lambda *_: [doubling(lambda x: 3 * x)])
    assert run("cpu", "--no-save", *FAST) == 1
    assert "refused: conv doubling forward nchw: its error against float64" in capsys.readouterr().out


def test_disturbed_rows_are_measured_again(monkeypatch, tmp_path):
    disturbed = {"first": iter([True, True]), "second": iter([False]), "third": iter([True, False])}
    taken = []

    def fake(case, options):
        taken.append(case.layer)
        row = measure.measure(case, options)
        return row | {"disturbed": next(disturbed[case.layer])}

    monkeypatch.setattr(command, "measure", fake)
    monkeypatch.setattr(
        command,
        "cases_of",
        lambda *_: [dataclasses.replace(doubling(lambda x: 2 * x), layer=name) for name in disturbed],
    )
    assert run("cpu", "conv", "--output", tmp_path / "run.json", *FAST) == 0
    assert taken == ["first", "second", "third", "first", "third"]
    assert [(row["layer"], row["disturbed"]) for row in record.load(tmp_path / "run.json")["rows"]] == [
        ("first", True),
        ("second", False),
        ("third", False),
    ]


def test_an_interrupted_run_keeps_its_rows(monkeypatch, tmp_path):
    def interrupt(x):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "cases_of", lambda *_: [doubling(lambda x: 2 * x), doubling(interrupt)])
    assert run("cpu", "conv", "--output", tmp_path / "run.json", *FAST) == 130
    kept = record.load(tmp_path / "run.json")
    assert not kept["complete"] and len(kept["rows"]) == 1


@pytest.mark.parametrize(
    "argv,message",
    [
        (["cpu", "convolution"], "'convolution' is not measured, choose from: conv, pool"),
        (["cpu", "--layers", "resnet-46"], "'resnet-46' is none of: lenet-c1, "),
        (["cpu", "conv", "--layers", "max-lenet"], "'max-lenet' is none of: lenet-c1, "),
        (["cpu", "pool", "--passes", "wgrad"], "nothing to measure"),
        (["cpu", "--filter", "nowhere"], "nothing to measure"),
        (["cpu", "--algo", "tiled"], "'tiled' is no algorithm for the CPU, choose from: auto, "),
        (["cpu", "--rounds", "0"], "'0' is no whole number from 1 up"),
        (["cpu", "--seconds", "-1"], "'-1' is no number above 0"),
        (["cpu", "--compare", "nowhere.json"], "nowhere.json cannot be read as the JSON of a run"),
        (["cpu", "--compare", __file__], "cannot be read as the JSON of a run"),
        (["cpu", "--no-save", "--output", "x.json"], "leave one of them out"),
    ],
)
def test_bad_arguments(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_record_of_another_format_is_refused(tmp_path):
    (tmp_path / "old.json").write_text('{"version": 0, "rows": []}')
    with pytest.raises(record.BadRecord, match=r"is no record of `python -m convlab.bench`"):
        record.load(tmp_path / "old.json")


def test_an_error_while_saving_leaves_the_old_record(tmp_path):
    path = tmp_path / "run.json"
    record.save({"rows": []}, path)
    with pytest.raises(TypeError):
        record.save({"rows": [object()]}, path)
    assert json.loads(path.read_text()) == {"rows": []} and os.listdir(tmp_path) == ["run.json"]


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux only")
def test_memory_of_a_call():
    """Leaky ReLU takes its output, 8 MiB, and nothing beside it."""
    (case,) = (case for case in cases_of("activation") if case.id == "activation leaky_relu-8mb forward nchw")
    with Memory() as memory:
        counted = memory.of(case)
    assert set(counted) == {"convlab", "torch nchw"}
    for of in counted.values():
        assert of["outputs"] == 8 * 2**20 and of["outputs"] - 2**16 <= of["peak"] < of["outputs"] + 2**20


# ---- the README ------------------------------------------------------------------------------------------------------


def test_the_readme_says_what_was_measured():
    text = (readme.ROOT / "README.md").read_text()
    source = readme.source_of(text)
    assert readme.contents_of(text) == (readme.tables(record.load(readme.ROOT / source)) if source else readme.NOT_YET)


def whole_run():
    rows = [
        conv_row(layer.name, 1.5, 0.5, pass_=pass_)
        for layer in layers.CONVOLUTIONS
        for pass_ in ("forward", "dgrad", "wgrad")
    ]
    for row in rows:
        row["rate"] = {"convlab": 123.4}
    options = dict.fromkeys(("filter", "layers", "passes", "layout", "kinds", "cold")) | {"algo": "auto"}
    ceilings = {"peak_gflops": 500.0}
    machine = {"cpu": "A processor", "threads": 2, "capability": "AVX512", "torch": "2.11"}
    return {
        "command": "cpu",
        "complete": True,
        "options": options,
        "machine": machine,
        "ceilings": ceilings,
        "rows": rows,
    }


def test_the_readme_is_written_from_a_run():
    before = "above\n<!-- measured: nothing -->\nNot measured yet.\n<!-- end of what was measured -->\nbelow\n"
    after = readme.updated(before, whole_run(), "benchmarks/results/run.json")
    assert after.startswith("above\n") and after.endswith("-->\nbelow\n")
    assert readme.source_of(before) is None and readme.source_of(after) == "benchmarks/results/run.json"
    assert "| 64 x 1 x 32 x 32 -> 6, 5 x 5 | 123 GFLOP/s, 1.50 |" in after
    assert readme.contents_of(after) == readme.tables(whole_run())


def test_the_readme_says_that_rows_were_disturbed():
    kept = whole_run()
    assert "disturbed" not in readme.tables(kept)
    kept["rows"][0]["disturbed"] = True
    assert "Other programs disturbed 1 of 48 rows." in readme.tables(kept)


def test_the_readme_takes_whole_runs_only():
    for option, value in {"layers": ["lenet-c1"], "cold": True, "algo": "direct"}.items():
        part = whole_run()
        part["options"][option] = value
        with pytest.raises(record.BadRecord, match="whole runs"):
            readme.tables(part)
    with pytest.raises(record.BadRecord, match="no block"):
        readme.updated("# a README without it", whole_run(), "run.json")


def test_a_step_in_float64_has_no_error():
    """The same weights for everyone: otherwise the networks would have nothing in common."""
    network = steps.NETWORKS[0]
    models = [steps.model_of(network, layout, torch.float64) for layout in ("nchw", "channels_last")]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters()))


def test_layer_names_are_unique():
    names = [layer.name for layer in (*layers.CONVOLUTIONS, *layers.POOLS, *layers.ACTIVATIONS, *steps.NETWORKS)]
    assert len(names) == len(set(names)) and all(isinstance(layer, Conv) for layer in layers.CONVOLUTIONS)
