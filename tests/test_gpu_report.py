"""The GPU's benchmark and report, rehearsed without one: every step runs, and what fails is recorded and survived."""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import figures
import gpu_counters
import gpu_report
import gpu_subset
import pytest
import torch
import works_with
from gpu_report import Step

import convlab
from convlab import layers
from convlab._algorithms import _AUTOMATIC, PASSES, WITH_TF32, algorithms
from convlab._measure import Limits
from convlab.bench import cases, gpu, measure, networks, record, report, timer
from convlab.bench import command as bench
from convlab.bench.case import HEAD, LAYOUTS, PRECISIONS, Case, Way, cast
from convlab.bench.gpu import MARK, Gpu, split_at
from convlab.bench.record import BadRecord

ROOT = Path(__file__).parent.parent

PYTHON = sys.executable
STEPS = ["build", "subset", "test", "memcheck", "racecheck", "ceilings", "counters", "tiles", "bench"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nothing here is measured: other tests run beside these."""
    monkeypatch.setattr(timer, "CALIBRATION", 0)


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


# ---- without a GPU ---------------------------------------------------------------------------------------------------


@without_gpu
def test_without_a_gpu_a_line_says_so(capsys):
    environ = {key: value for key, value in os.environ.items() if key not in ("DRY", "STEP")}
    for python in ([PYTHON], [PYTHON, "-S"]):  # the latter finds no torch either
        done = subprocess.run(
            [*python, "-m", "tools.gpu_report"], cwd=ROOT, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 3 and not done.stdout and done.stderr.count("\n") == 1 and "no GPU" in done.stderr
    with pytest.raises(SystemExit) as end:
        bench.main(["gpu"])
    said = capsys.readouterr()
    assert end.value.code == 3 and not said.out and said.err.count("\n") == 1 and "no GPU" in said.err


def test_a_dry_run(tmp_path):
    """One for all that is asked of it."""
    path = tmp_path / "report.json"
    environ = {**os.environ, "DRY": "1", "OMP_NUM_THREADS": "1", "STEP": ""}
    code = subprocess.run(
        [PYTHON, "-m", "tools.gpu_report", "--output", str(path)], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL
    ).returncode
    report, log = json.loads(path.read_text()), path.with_suffix(".log").read_text()
    assert {name: done["why"] for name, done in report["steps"].items()} == dict.fromkeys(STEPS, "") and code == 0
    assert list(report["steps"]) == STEPS == [step.name for step in gpu_report.steps("9.0")]
    assert all(done["ok"] and done["commands"] and f"== {name}: ok" in log for name, done in report["steps"].items())
    assert re.search(r"^\d+ outputs are right", report["steps"]["subset"]["tail"], re.M)
    every_kind_of_row_is_measured(record.load(path), report["steps"]["ceilings"]["data"]["ceilings"][0])
    every_rung_is_counted(report["steps"]["counters"]["data"]["rows"])
    every_tile_is_timed(record.load(path, "tiles"))
    the_page_shows_it(report, path)


def every_kind_of_row_is_measured(measured, found):
    assert measured["complete"] and measured["dry"] and (measured["left_out"], measured["why_left_out"]) == (0, "")
    assert [row["refused"] for row in measured["rows"] if "refused" in row] == []
    errors = {"float32": (0, 1e-5), "tf32": (0, 5e-3), "bfloat16": (5e-4, 5e-2), "float16": (5e-5, 5e-3)}
    for precision, layout in itertools.product(errors, LAYOUTS):
        head = ("conv", "lenet-c1@1024", "wgrad", layout, precision)
        (row,) = (row for row in measured["rows"] if tuple(row[key] for key in HEAD) == head)
        assert set(row["ways"]) == {"convlab", "torch nchw", "torch channels_last"}
        for way in row["ways"].values():
            assert all(way[heat]["median"] > 0 and not way[heat]["captured"] for heat in ("cold", "warm"))
            assert errors[precision][0] < way["error"] < errors[precision][1]
    assert {row["precision"] for row in measured["rows"] if row["kind"] == "step"} == {*PRECISIONS[:3]}
    rows = [row for row in measured["rows"] if row["precision"] == "float32"]
    rows = {(row["kind"], row["layer"], row["pass"], row["layout"]): row for row in rows}
    assert {kind for kind, *_ in rows} == set(gpu_report.KINDS)
    ladder = set(rows["ladder", "lenet-c1@1024", "forward", "nchw"]["ways"])
    assert {"convlab direct", "convlab tiled", "convlab small_filter"} < ladder
    for layout in ("nchw", "channels_last"):
        pool = rows["pool", "max-lenet@1024", "backward", layout]
        assert set(pool["ways"]) == {"convlab", "torch nchw", "torch channels_last"}
    activations = {key[2]: set(row["ways"]) for key, row in rows.items() if key[0] == "activation"}
    assert activations == {key: {"convlab", "torch nchw"} for key in ("inference", "forward", "backward")}
    step = rows["step", "lenet-5@1024", "step", "nchw"]
    assert "torch channels_last graph" in step["ways"] and "cold" not in step["ways"]["convlab"]
    assert found["copy"] > 0 and found["ffma"] is None and "ffma" in found["failed"] and found["matmul_tf32"] > 0


def every_rung_is_counted(rows):
    problem = gpu_counters.find(gpu_counters.DRY_LAYERS[0]).problem()
    able = {
        (a.name, p)
        for a in convlab.algorithms()
        for p in a.passes_by_backend.get("cuda", ())
        if a.supports(problem, p)[0]
    }
    assert {(row["algorithm"], row["pass"]) for row in rows} == able
    direct = next(row for row in rows if (row["algorithm"], row["pass"]) == ("direct", "forward"))
    assert (
        direct["simulated"]["read_requests"] == 2 * 25 * 147 and direct["measured"] is None
    )  # x and w, 25 steps, 4704 outputs in 147 warps


def every_tile_is_timed(measured):
    assert measured["complete"] and measured["dry"]
    rows = {(row["kind"], row["pass"], row["precision"]): row for row in measured["rows"]}
    assert set(rows) == {("tiles", "wgrad", precision) for precision in ("float32", "bfloat16", "float16")}
    ways = rows["tiles", "wgrad", "float32"]["ways"]
    tiles = {f"convlab register_tiled {tile}" for tile in ("128x128", "128x32", "64x64", "16x32")}
    assert set(ways) == {"convlab", "torch nchw", *tiles}
    assert all(way["cold"]["median"] > 0 and way["error"] < 1e-4 for way in ways.values())
    assert ways["torch nchw"]["cold"]["ratio"] > 0


def the_page_shows_it(report, path):
    with pytest.raises(BadRecord, match="a dry one"):
        figures.tables(report)
    data = report["steps"]["bench"]["data"]
    why = "the GPU took a nap"
    data |= {"dry": False, "options": data["options"] | {"words": []}, "left_out": 3, "why_left_out": why}
    data["ceilings"][0] |= {"ffma": 6e13, "matmul_tf32": 4e14, "matmul_bfloat16": 8e14, "copy": 4.3e12}
    before = (
        "a\n<!-- measured on a GPU: nothing -->\nNot measured yet.\n<!-- end of what was measured on a GPU -->\nz\n"
    )
    after = figures.updated(before, report, "benchmarks/results/report.json")
    assert after.startswith("a\n<!-- measured on a GPU: benchmarks/results/report.json -->\n") and after.endswith(
        "-->\nz\n"
    )
    assert "copy 4,300 GB/s, multiply-adds 60 TFLOP/s" in after and "failed" not in after
    assert "3 rows were left out: the GPU took a nap." in after
    lines = {
        line.split(" | ")[0].strip("| "): line.count(" | ") for line in after.splitlines() if line.startswith("| ")
    }
    assert lines["lenet-c1@1024"] > 3 and lines["max-lenet@1024"] == lines["leaky_relu-lenet@1024"] == 5
    assert lines["lenet-5@1024, float32"] == 4 and "| tf32 convolution @ batch | forward nchw | " in after
    assert figures.tables(data | {"command": "gpu"}).startswith("On an ")  # a run without a report
    assert after.splitlines()[2].startswith("On an ") and "| LeNet's convolutions in channels_last, tf32 | " in after
    rungs, steps = (
        next(line for line in after.splitlines() if line.startswith(f"| {head}"))
        for head in ("rungs", "training step,")
    )
    assert " | small_filter | " in rungs and "graph |" not in steps.split("CUDA graph", 1)[1]
    assert "Counted by the hardware" not in after
    counted = report["steps"]["counters"]
    counted |= {"ok": False, "why": "stopped after 9 s"}
    shared = {"shared_wavefronts": 10}
    counted["data"]["rows"] = [
        {
            "layer": "a",
            "simulated": {"read_requests": 5, "read_sectors": 9} | shared,
            "measured": {"read_requests": 5, "read_sectors": 8},
        },
        {
            "layer": "a",
            "simulated": {"read_requests": 7} | shared,
            "measured": {"read_requests": 7, "shared_wavefronts": 10.5},
        },
        {"layer": "b", "simulated": {"read_requests": 7}, "measured": None},
    ]
    place = next(i for i, row in enumerate(data["rows"]) if row["kind"] == "conv")
    data["rows"][place] |= {"refused": "MemoryError: x"}
    del data["rows"][place]["ways"]
    after = figures.tables(report)
    assert "in the 2 kernels of the rungs on a: " in after
    assert "in 2 of 3 counts; wavefronts of shared memory are within 10 % in 1 of 1." in after
    assert "failed: counters (stopped after 9 s)" in after and "1 rows were refused" in after and "| refused |" in after


# ---- the report ------------------------------------------------------------------------------------------------------


def report_of(monkeypatch, tmp_path, todo, *argv):
    """(exit status, the report) of steps run as if there were a GPU."""
    monkeypatch.setattr(gpu_report, "find_gpu", lambda: ("NVIDIA Test 7", "9.0"))
    monkeypatch.setattr(gpu_report, "steps", lambda capability: todo)
    monkeypatch.setattr(gpu_report, "RESULTS", tmp_path)
    for variable in ("STEP", "DRY", "BUDGET"):
        monkeypatch.delenv(variable, raising=False)
    code = gpu_report.main(list(argv))
    (path,) = tmp_path.glob("nvidia-test-7-*.json")
    return code, json.loads(path.read_text())


def python(text):
    return [PYTHON, "-c", text]


def test_a_failing_step_is_recorded_and_survived(monkeypatch, tmp_path):
    late = tmp_path / "late"
    code, report = report_of(
        monkeypatch,
        tmp_path,
        [
            Step("fails", [python("print('why'); raise SystemExit(5)"), python("raise SystemExit('never begun')")], 20),
            Step("crashes", [python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")], 20),
            Step("hangs", [["sh", "-c", f"echo begun; (sleep 6; touch {late}) & sleep 60"]], 3),
            Step("writes", [["sh", "-c", "echo '{\"rows\": [1]}' >$0; sleep 60", "{data}"]], 3),
            Step("garbles", [[*python("import sys; open(sys.argv[1], 'w').write('{')"), "{data}"]], 20),
            Step("misses", [["no-such-sanitizer"]], 20, "no-such-sanitizer"),
            Step("cannot", [[str(tmp_path / "nothing")]], 20),
            Step("works", [python("import os; print('here', os.environ['MARK'])")], 20, environ={"MARK": "7"}),
        ],
    )
    why = {name: done["why"] for name, done in report["steps"].items()}
    assert code == 1 and [name for name, done in report["steps"].items() if done["ok"]] == ["works"]
    assert (
        why["fails"] == "exit status 5"
        and len(report["steps"]["fails"]["commands"]) == 1
        and "why" in report["steps"]["fails"]["tail"]
    )
    assert (
        why["crashes"] == "killed by signal 11"
        and why["hangs"] == "stopped after 3 s"
        and "begun" in report["steps"]["hangs"]["tail"]
    )
    assert why["writes"] == "stopped after 3 s" and report["steps"]["writes"]["data"] == {"rows": [1]}
    assert (
        "wrote no JSON" in why["garbles"]
        and why["misses"] == "left out: no no-such-sanitizer on PATH"
        and "cannot be started" in why["cannot"]
    )
    assert "here 7" in report["steps"]["works"]["tail"]
    time.sleep(4)
    assert not late.exists()  # what a stopped step had started is stopped, too


def test_a_report_can_be_split(monkeypatch, tmp_path):
    todo = [Step(name, [python(f"print('{name}')")], 20) for name in ("one", "two", "three")]
    assert report_of(monkeypatch, tmp_path, todo, "--step", "three")[0] == 0
    code, report = report_of(monkeypatch, tmp_path, todo, "--step", "one,three")
    assert code == 0 and set(report["steps"]) == {"one", "three"}
    with pytest.raises(SystemExit) as end:
        report_of(monkeypatch, tmp_path, todo, "--step", "four")
    assert end.value.code == 2
    (log,) = tmp_path.glob("*.log")
    assert log.read_text().count("== three ==") == 2


def test_the_budget_is_kept(monkeypatch, tmp_path):
    todo = [Step(name, [["sleep", "30"]], 60) for name in ("one", "two")]
    start = time.monotonic()
    code, report = report_of(monkeypatch, tmp_path, todo, "--budget", "11")
    assert code == 1 and time.monotonic() - start < 25
    assert (
        report["steps"]["one"]["why"].startswith("stopped after 1")
        and report["steps"]["two"]["why"] == "left out: the time is up"
    )


def test_a_file_that_is_no_report_is_not_continued(tmp_path):
    for text in (
        "{",
        "[]",
        '{"version": 1, "command": "gpu-report", "steps": {}}',
        '{"version": 2, "command": "cpu", "steps": {}}',
    ):
        (tmp_path / "old.json").write_text(text)
        assert gpu_report.begun(tmp_path / "old.json", "a GPU")["steps"] == {}


def test_the_steps_commands_exist(monkeypatch, capsys):
    """On a GPU nobody is there to correct an option that is misspelled."""
    scripts = {
        "tools.gpu_counters": gpu_counters,
        "tools.gpu_subset": gpu_subset,
    }
    for step in gpu_report.steps("9.0") + gpu_report.dry_steps():
        for command in step.commands:
            assert command[0] in (PYTHON, "compute-sanitizer")
            if command[1:3] == ["-m", "convlab.bench"]:
                words = ["9" if word == "{seconds}" else word for word in command[3:] if word != "{data}"]
                words.remove("--output")
                assert bench.parse(words).command == "gpu"
            for i, word in enumerate(command):
                assert not word.startswith(("tests/", "convlab/")) or (ROOT / word).exists()
                assert not word.startswith("tools.") or importlib.util.find_spec(word)
                if script := scripts.get(word):  # asked for help behind its own options, it must know them
                    monkeypatch.setattr(sys, "argv", [*command[i:], "--help"])
                    with pytest.raises(SystemExit) as end:
                        script.main()
                    assert end.value.code == 0 and "usage" in capsys.readouterr().out


# ---- the benchmark ---------------------------------------------------------------------------------------------------


class HostAsGpu(Gpu):
    """What the benchmark asks of a GPU, answered by the host: graphs are calls, and the CPU's kernels run."""

    type = "cpu"
    least, most = 1e-5, 4

    def __init__(self, **ceilings):
        super().__init__(Limits(rounds=2, seconds=0.01, patience=0.01))
        self._ceilings, self.captures = CEILINGS | ceilings, 0

    def check(self):
        pass

    clean = check
    timing = gpu.Cpu.timing

    def captured(self, run):
        self.captures += 1
        run()
        return run

    def cache_bytes(self):
        return 10_000

    def free_bytes(self):
        return 2**26

    def kernels_of(self, calls):
        for call in calls.values():
            call()
        return {name: ["a kernel"] for name in calls}


CEILINGS = {"copy": 1e9, "ffma": 1e9, "matmul_tf32": 6e9, "matmul_bfloat16": 8e9, "matmul_float16": 9e9, "failed": {}}


def test_a_row_of_a_convolution(monkeypatch):
    monkeypatch.setattr(gpu, "COLD_BYTES", 100_000)
    device, layer = HostAsGpu(), layers.Conv(2, 3, 10, 10, 4, 3, 3, padding=(1, 1), name="small")
    rates = {"float32": 2e9, "tf32": 6e9, "bfloat16": 8e9, "float16": 9e9}
    errors = {"float32": (0, 1e-5), "tf32": (0, 1e-5), "bfloat16": (1e-4, 2e-2), "float16": (1e-5, 2e-3)}
    for precision, layout, pass_ in zip(PRECISIONS, 2 * [*LAYOUTS], itertools.cycle(PASSES)):
        row = measure.measure(cases.convolution(layer, pass_, layout, precision, "cuda"), device)
        assert "refused" not in row and (row["precision"], row["layout"]) == (precision, layout)
        assert set(row["ways"]) == {"convlab", "torch nchw", "torch channels_last"}
        assert {n for n, way in row["ways"].items() if "ratio" in way["cold"]} == set(row["ways"]) - {"convlab"}
        least = 1e6 * max(layer.flops / rates[precision], row["bytes"] / 1e9)
        assert row["floor"] == {precision: pytest.approx(least)}
        for way in row["ways"].values():
            assert way["cold"]["captured"] and way["warm"]["captured"]
            assert errors[precision][0] < way["error"] < errors[precision][1]
            assert way["cold"]["calls"] >= 100_000 // row["bytes"]  # every copy once at least
        named = {n for n, way in row["ways"].items() if "kernels" in way}
        assert named == ({"torch nchw", "torch channels_last"} if layout == "nchw" else set())


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("algo", ["auto", "register_tiled"])
def test_the_switch_decides_about_a_way(monkeypatch, pass_, algo):
    """In TF32, convlab's operator is told so, as its functions tell it; in the other precisions it is not."""
    device, layer = HostAsGpu(), layers.Conv(1, 2, 6, 6, 2, 3, 3, name="small")
    named, told = next(a for a in algorithms() if a.name == "register_tiled"), []
    usual = 0 if algo == "auto" else named.number
    monkeypatch.setattr(cases, "_by_number", lambda layer, pass_, number: told.append(number) or (lambda t: None))
    for precision in PRECISIONS:
        case = cases.convolution(layer, pass_, "nchw", precision, "cuda", algo)
        way, t = case.ways["convlab"], cast(case.draw(), case.dtype)
        with device.setting("convlab", way.precision):
            way.bind(t)
    rounded = _AUTOMATIC["tf32"] if algo == "auto" else usual + WITH_TF32
    assert told == [usual, rounded, usual, usual]


def test_what_a_budget_cuts_comes_last():
    """In order, a GPU measures what people ask about first, whole; large batches and the sweep of tiles come last."""
    found = sorted(cases.cases_of(cases.zoo("cuda"), "cuda"), key=cases.rank)
    place = {tuple(case.head.values()): i for i, case in enumerate(found)}
    assert len(place) == len(found)
    first = [f"resnet-{C}@64" for C in (64, 128, 256, 512)]
    first += [
        "cifar-3-32@512",
        "cifar-32-64@512",
        "cifar-64-128@512",
        "lenet-c1@1024",
        "lenet-c3@1024",
        "lenet-c5@1024",
    ]
    combinations = {("conv", *of) for of in itertools.product(first, PASSES, LAYOUTS, ("float32", "tf32", "bfloat16"))}
    assert {tuple(case.head.values()) for case in found[: len(combinations)]} == combinations
    assert all(found[i].layer == "resnet-64@64" for i in range(18))
    twins = [i for key, i in place.items() if key[-1] == "float16"]
    large = [i for key, i in place.items() if key[0] == "conv" and key[1].endswith(("@256", "@10000"))]
    large = [i for i in large if "depthwise" not in found[i].layer]
    others = [i for key, i in place.items() if key[0] not in ("conv", "tiles")]
    tiles = [i for key, i in place.items() if key[0] == "tiles"]
    twins = [i for i in twins if i not in tiles]
    assert len(twins) == 36 and max(others) < min(twins) and max(twins) < min(large) and max(large) < min(tiles)


def test_a_record_is_not_written_all_the_time(monkeypatch, tmp_path):
    """It grows with the rows, and what it takes to write it grows with it."""
    saved, found = [], [doubling({"convlab": by(lambda x: 2 * x)})] * 6
    monkeypatch.setattr(bench, "devices_of", lambda args: [HostAsGpu()])
    monkeypatch.setattr(bench.cases, "cases_of", lambda *_: found)
    monkeypatch.setattr(HostAsGpu, "facts", lambda self: {})
    save = lambda kept, path: (saved.append(len(kept["rows"])), time.sleep(0.2))  # noqa: E731
    monkeypatch.setattr(bench.record, "save", save)
    with pytest.raises(SystemExit) as end:
        bench.main(["gpu", "--json", "--output", str(tmp_path / "run.json")])
    assert end.value.code == 0 and saved == [0, 6]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_row_of_a_step(precision):
    case = networks.step(networks.LENET_5.batched(2), "nchw", precision, "cuda", compiled=False)
    row = measure.measure(case, HostAsGpu())
    assert "refused" not in row and all("warm" in way and "cold" not in way for way in row["ways"].values())
    captured = {name for name, way in row["ways"].items() if way["warm"]["captured"]}
    assert captured == {name for name in row["ways"] if name.endswith("graph")} and "convlab graph" in captured
    assert {name for name, way in row["ways"].items() if "ratio" not in way["warm"]} == {"convlab", "convlab graph"}


def doubling(ways):
    draw = lambda: {"x": torch.randn(2, 3, 4, 5)}  # noqa: E731
    return Case("test", "doubling", "forward", "nchw", "float32", 100, 1000, draw, ways, lambda t: lambda: 2 * t["x"])


def by(function, *precision, **more):
    return Way("nchw", lambda t: lambda: function(t["x"]), *precision, **more)


def crash(x):
    raise RuntimeError("no such thing")


def row_of(device=None, **ways):
    ways = {name.replace("_", " "): way for name, way in ways.items()}
    return measure.measure(doubling(ways), device or HostAsGpu())


def test_a_wrong_kernel_is_refused_and_a_failing_peer_recorded():
    right, wrong, failing = by(lambda x: 2 * x), by(lambda x: 2.1 * x), by(crash)
    row = row_of(convlab=wrong, torch_nchw=right)
    assert "its error against float64" in row["refused"] and "ways" not in row
    assert row_of(convlab=failing, torch_nchw=right)["refused"] == "convlab: RuntimeError: no such thing"
    row = row_of(convlab=right, torch_nchw=failing)
    assert "refused" not in row and row["ways"]["torch nchw"] == {"failed": "RuntimeError: no such thing"}
    missing = row_of(HostAsGpu(copy=None), convlab=right)
    assert missing["floor"] == {"float32": None} and missing["ways"]["convlab"]["warm"]["median"] > 0
    assert "refused" in row_of(**{"convlab": right, "convlab other": wrong, "torch nchw": right})


def test_what_cannot_be_captured_is_called():
    class Uncaptured(HostAsGpu):
        def captured(self, run):
            raise RuntimeError("cannot be captured into a CUDA graph")

    row = row_of(Uncaptured(), convlab=by(lambda x: 2 * x), torch_nchw=by(lambda x: 2 * x, capture=False))
    ours, theirs = row["ways"]["convlab"], row["ways"]["torch nchw"]
    assert not ours["cold"]["captured"] and "cannot be captured" in ours["not_captured"]
    assert not theirs["cold"]["captured"] and "not_captured" not in theirs


def test_precisions_are_set_for_calls_and_put_back():
    seen, cudnn = [], torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark

    def told(tf32):
        return lambda x: (seen.append((cudnn.allow_tf32 == tf32, cudnn.benchmark)), 2 * x)[1]

    row_of(convlab=by(told(False), capture=False), torch_nchw=by(told(True), "tf32", capture=False))
    assert len(seen) > 10 and set(seen) == {(True, True)} and (cudnn.allow_tf32, cudnn.benchmark) == before


def test_a_lost_gpu_ends_the_run(monkeypatch, capsys):
    """CUDA repeats an error for every later call of the process: rows after it would say nothing of their kernels."""

    class Lost(HostAsGpu):
        clean = Gpu.clean

        def lost(self):
            return True

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: crash(None))
    monkeypatch.setattr(bench, "devices_of", lambda args: [Lost()])
    found = [doubling({"convlab": by(function)}) for function in (lambda x: 2 * x, crash, lambda x: 2 * x)]
    monkeypatch.setattr(bench.cases, "cases_of", lambda *_: found)
    monkeypatch.setattr(HostAsGpu, "facts", lambda self: {})
    with pytest.raises(SystemExit) as end:
        bench.main(["gpu", "--json"])
    kept = json.loads(capsys.readouterr().out)
    assert end.value.code == 1 and len(kept["rows"]) == 2 and not kept["complete"]
    assert (kept["left_out"], kept["why_left_out"]) == (1, "the GPU took no more calls of the process")


def test_kernels_are_told_apart():
    names = ["memset", f"void {MARK}(long)", "a", "b", f"{MARK}(long)", f"{MARK}(long)", "c"]
    assert split_at(MARK, names) == [["a", "b"], [], ["c"]]


def test_the_benchmark_is_told_what_time_it_has(monkeypatch, tmp_path):
    todo = [Step("bench", [[*python("import sys; print('has', sys.argv[1])"), "{seconds}"]], 400)]
    _, report = report_of(monkeypatch, tmp_path, todo, "--budget", "100")
    assert 100 - gpu_report.MARGIN - 10 < int(report["steps"]["bench"]["tail"].split()[1]) <= 100 - gpu_report.MARGIN


def test_the_layers_of_a_gpu():
    problems = cases.zoo("cuda")
    names = [layer.name for layer in problems.convolutions]
    assert len(names) == len(set(names)) and {layer.name for layer in problems.ladder} == {
        *("lenet-c1@1024", "lenet-c3@1024", "cifar-32-64@512", "resnet-128@64", "resnet-stem@64"),
        "depthwise-128-56@64",
    }
    assert {"lenet-c1@10000", "cifar-64-128@512", "resnet-stem@256", "resnet-1x1-s2@64", "depthwise-512-14@256"} < set(
        names
    )
    assert {network.name for network in problems.networks} == {
        "lenet-5@1024",
        "lenet-5@10000",
        "cifar@512",
        "fashion@1024",
    }


@pytest.mark.parametrize("arch", ["75", "90"])
def test_the_loop_of_multiply_adds_compiles(arch, tmp_path):
    try:
        library = gpu.compile_ffma(tmp_path, arch)
    except RuntimeError as error:
        if "needs nvcc" in str(error):
            pytest.skip(str(error))
        raise
    assert library.exists()


@pytest.mark.cuda
def test_on_a_gpu(tmp_path):
    """Short, and of the small layers: a benchmark that does not run shows before the long one."""
    path = tmp_path / "run.json"
    layers_ = "lenet-c3@1024,lenet-5@1024,max-lenet@1024,leaky_relu-lenet@1024"
    with pytest.raises(SystemExit) as end:
        bench.main(["gpu", layers_, "wgrad,backward,step", "--quick", "--no-compile", "--output", str(path)])
    kept = record.load(path)
    assert end.value.code == 0, [row["refused"] for row in kept["rows"] if "refused" in row]
    ceilings = kept["ceilings"][0]
    assert kept["complete"] and not ceilings["failed"]
    assert all(ceilings[key] > 1e11 for key in ("copy", "ffma", "matmul_tf32"))
    for row in kept["rows"]:
        for name, way in row["ways"].items():
            assert "failed" not in way, (row["layer"], name, way)
            if row["kind"] != "step" and not name.endswith(" tiled"):
                assert way["cold"]["captured"], (name, way["not_captured"])
        if row["kind"] in ("pool", "activation", "step") or (row["kind"], row["layout"]) == ("conv", "nchw"):
            kernels = [way["kernels"] for way in row["ways"].values() if "kernels" in way]
            assert kernels and all(kernels) and not any(MARK in kernel for names in kernels for kernel in names), row[
                "layer"
            ]


# ---- counters --------------------------------------------------------------------------------------------------------

NCU = """==PROF== Connected to process 7 (/usr/bin/python3)
==PROF== Disconnected from process 7
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"
"0","7","python3","127.0.0.1","void convlab::<unnamed>::forward_kernel<float>(convlab::Conv2d, const T1 *)","1","7","(256, 1, 1)","(7, 1, 1)","0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","4,384"
"0","7","python3","127.0.0.1","void convlab::<unnamed>::forward_kernel<float>(convlab::Conv2d, const T1 *)","1","7","(256, 1, 1)","(7, 1, 1)","0","9.0","Command line profiler metrics","l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum","sector","49600"
"0","7","python3","127.0.0.1","void convlab::<unnamed>::forward_kernel<float>(convlab::Conv2d, const T1 *)","1","7","(256, 1, 1)","(7, 1, 1)","0","9.0","Command line profiler metrics","dram__bytes_read.sum","byte","n/a"
"10","7","python3","127.0.0.1","unroll_kernel(Conv2d)","1","7","(256, 1, 1)","(7, 1, 1)","0","9.0","Command line profiler metrics","sm__warps_active.avg.pct_of_peak_sustained_active","%","12.5"
"""


def test_ncus_table_is_read():
    assert gpu_counters.parsed(NCU) == [
        {
            "kernel": "void convlab::<unnamed>::forward_kernel<float>(convlab::Conv2d, const T1 *)",
            "microseconds": 4.384,
            "read_sectors": 49600.0,
        },
        {"kernel": "unroll_kernel(Conv2d)", "warps_active": 12.5},
    ]
    assert [gpu_counters.base_name(row["kernel"]) for row in gpu_counters.parsed(NCU)] == [
        "forward_kernel",
        "unroll_kernel",
    ]
    for name in (
        "void (anonymous namespace)::tiled_kernel<(bool)1, (int)4>(Conv2d)",
        "void unnamed>::tiled_kernel<float>(Conv2d, const T1 *)",
        "tiled_kernel",
    ):
        assert gpu_counters.base_name(name) == "tiled_kernel"
    assert gpu_counters.parsed("==ERROR== no permission\n") == []


def test_counters_are_matched_with_launches(monkeypatch):
    layer = "lenet-c5@1"
    rungs = {"tiled", "im2col_gemm"}
    calls = [call for call in gpu_counters.calls_of(layer) if call[0].name in rungs and call[1] == "forward"]
    monkeypatch.setattr(gpu_counters, "calls_of", lambda layer: calls)
    counts = {(rung.name, pass_): gpu_counters.counted(layer, rung.name, pass_) for rung, pass_, _, _ in calls}
    planned = [
        launch for rung, pass_, problem, _ in calls for launch in gpu_counters.planned_launches(rung, problem, pass_)
    ]
    measured = [
        {"kernel": f"void convlab::{launch.kernel}(x)", "read_sectors": 10.0, "warps_active": float(i)}
        for i, launch in enumerate(planned)
    ]
    rows = gpu_counters.rows_of(layer, counts, [{"kernel": "void at::native::fill_kernel<float>(x)"}, *measured])
    tiled = next(row for row in rows if row["algorithm"] == "tiled")
    assert tiled["launches"] == 3 and tiled["measured"] == {"read_sectors": 30.0, "warps_active": 1.0}
    with pytest.raises(RuntimeError, match="other launches than were planned"):
        gpu_counters.rows_of(layer, counts, measured[1:])


def counters_with(monkeypatch, tmp_path, ncu, *options):
    """(exit status, what was written) of counters of one pass of one rung, with `ncu` for Nsight Compute."""
    calls = [call for call in gpu_counters.calls_of("lenet-c5@1") if (call[0].name, call[1]) == ("direct", "forward")]
    monkeypatch.setattr(gpu_counters, "LAYERS", ("lenet-c5@1",))
    monkeypatch.setattr(gpu_counters, "find_ncu", lambda: ncu)
    monkeypatch.setattr(gpu_counters, "calls_of", lambda *_: calls)
    monkeypatch.setattr(sys, "argv", ["gpu_counters.py", "--output", str(tmp_path / "c.json"), *options])
    return gpu_counters.main(), json.loads((tmp_path / "c.json").read_text())


def test_counters_without_ncu_say_so(monkeypatch, tmp_path, capsys):
    code, kept = counters_with(monkeypatch, tmp_path, None)
    assert code == 1 and "no ncu on PATH" in kept["failed"]["lenet-c5@1"] and kept["rows"][0]["simulated"]
    assert "lenet-c5@1: not measured" in capsys.readouterr().out


def test_an_ncu_that_takes_too_long_is_stopped(monkeypatch, tmp_path):
    """With what it started, and though that keeps what it prints open."""
    late, ncu = tmp_path / "late", tmp_path / "ncu"
    ncu.write_text(f"#!/bin/sh\necho connected\n(sleep 6; touch {late}) &\nsleep 60\n")
    ncu.chmod(0o755)
    start = time.monotonic()
    code, kept = counters_with(monkeypatch, tmp_path, str(ncu), "--seconds", "2")
    assert code == 1 and "stopped after 2 s: connected" in kept["failed"]["lenet-c5@1"] and kept["rows"][0]["simulated"]
    time.sleep(max(start + 9 - time.monotonic(), 0))
    assert not late.exists()


def test_an_ncu_that_works(monkeypatch, tmp_path):
    ncu = tmp_path / "ncu"
    ncu.write_text("#!/bin/sh\nwhile [ $1 != --log-file ]; do shift; done\ncat >$2 <<'EOF'\n" + NCU + "EOF\n")
    ncu.chmod(0o755)
    code, kept = counters_with(monkeypatch, tmp_path, str(ncu))
    assert (
        code == 0
        and not kept["failed"]
        and kept["rows"][0]["measured"] == {"microseconds": 4.384, "read_sectors": 49600.0}
    )


# ---- the page ---------------------------------------------------------------------------------------------------------


RECORD = ROOT / "benchmarks" / "results" / "nvidia-h200-2026-11-20.json"


def test_the_h200s_record_has_its_rows():
    """What was measured stays what it was, however it is written down."""
    read, kept = record.read(RECORD), record.load(RECORD)
    rows = {tuple(row[key] for key in ("kind", "layer", "pass", "precision", "layout")): row for row in kept["rows"]}
    kinds = [kind for kind, *_ in rows]
    counts = {"conv": 150, "ladder": 18, "pool": 16, "activation": 6, "step": 6}
    assert {kind: kinds.count(kind) for kind in kinds} == counts and len(kept["rows"]) == 196
    assert (
        list(read["steps"]) == [step for step in STEPS if step != "tiles"]
        and len(read["steps"]["counters"]["data"]["rows"]) == 44
    )
    assert sum(len(row["ways"]) for row in rows.values()) == 843
    c1 = rows["conv", "lenet-c1@1024", "forward", "float32", "nchw"]
    assert c1["floor"] == {"float32": 5.4927, "tf32": 5.4927} and c1["flops"] == 240844800
    ours, theirs = c1["ways"]["convlab"], c1["ways"]["torch nchw"]
    assert [ours["cold"][key] for key in ("median", "q1", "q3", "least")] == [17.883, 17.421, 18.119, 17.346]
    assert [theirs["cold"][key] for key in ("ratio", "ratio_q1", "ratio_q3")] == [2.7367, 2.6954, 2.7727]
    assert theirs["warm"]["median"] == 52.912 and theirs["warm"]["calls"] == 4 and theirs["warm"]["captured"]
    assert len(theirs["kernels"]) == 5 and theirs["kernels"][0].startswith(
        "void flip_filter<float, float>(float*, float"
    )
    rung = rows["ladder", "resnet-128@64", "wgrad", "float32", "nchw"]["ways"]["convlab direct"]
    assert rung["cold"]["median"] == 18766 and "kernels" not in rung
    assert kept["left_out"] == 6 and kept["ceilings"][0]["copy"] == 4.2716e12
    names = [name for row in rows.values() for way in row["ways"].values() for name in way.get("kernels", ())]
    assert len(set(names)) == 322 and RECORD.read_text().count("void flip_filter<float, float>") == 1


def test_the_page_says_what_was_measured_on_a_gpu():
    text = figures.PAGE.read_text()
    source = figures.source_of(text, figures.GPU)
    assert figures.contents_of(text, figures.GPU) == figures.tables(record.read(ROOT / source))


def a_row(kind, layer, precision, layout="nchw", **medians):
    """Of a report: convlab took 2 us, and the others that many times as long."""
    medians = {"convlab": 1, **medians}
    named = lambda name: name.replace("_", " ").replace("channels last", "channels_last")  # noqa: E731
    heat = "warm" if kind == "step" else "cold"
    ways = {}
    for name, times in medians.items():
        base = medians.get("convlab_graph") if name.endswith("graph") else 1
        ratio = {} if name.startswith("convlab") else {"ratio": times / base}
        ways[named(name)] = {heat: {"median": 2 * times} | ratio}
    head = {"kind": kind, "layer": layer, "pass": "forward", "precision": precision, "layout": layout}
    return head | {"ways": ways}


def test_the_page_says_first_what_is_faster_and_what_is_not():
    refused = a_row("conv", "cifar-3-32@8", "float32") | {"refused": "wrong"}
    del refused["ways"]
    steps = {"convlab_graph": 0.5, "torch_nchw": 0.75, "torch_nchw_graph": 1.0, "torch_nchw_tf32_graph": 0.25}
    rows = [
        a_row("conv", "lenet-c1@8", "float32", torch_nchw=4.0, torch_channels_last=8.0, torch_nchw_tf32=0.5),
        a_row("conv", "lenet-c3@8", "float32", torch_nchw=9.0),
        a_row("conv", "resnet-64@8", "float32", torch_nchw=0.5),
        a_row("conv", "lenet-c1@8", "bfloat16", torch_nchw=0.25),
        a_row("ladder", "lenet-c1@8", "float32", torch_nchw=99.0),
        a_row("pool", "max-lenet@8", "float32", torch_nchw=2.0, torch_channels_last=3.0),
        a_row("pool", "max-lenet@8", "float32", "channels_last", torch_nchw=1.0, torch_channels_last=0.5),
        a_row("step", "lenet-5@8", "float32", **steps),
        refused,
    ]
    sentence = figures._sentence({"machine": {"gpu": "NVIDIA X"}, "rows": rows})
    assert sentence == (
        "On an NVIDIA X, in float32 and by geometric means, faster than torch at its best: training steps as CUDA graphs (2.00 times), LeNet's "
        "convolutions (6.00 times), max pooling in nchw (2.00 times); slower: training steps called one by one (0.75 times), ResNet's convolutions "
        "(0.50 times), max pooling in channels_last (0.50 times)."
    )
    headings, lines = report.in_all(rows)
    cells = {name: dict(zip(headings[1:], rest)) for name, *rest in lines}
    assert cells["LeNet's convolutions, float32"] == {
        "torch at its best": "6.00 (4.00 to 9.00)",
        "torch in the same layout": "6.00 (4.00 to 9.00)",
        "torch also in TF32": "0.50 (0.50 to 0.50)",
    }
    assert cells["LeNet's convolutions, bfloat16"]["torch at its best"] == "0.25 (0.25 to 0.25)"
    assert cells["training steps as CUDA graphs"]["torch also in TF32"] == "0.50 (0.50 to 0.50)"
    assert cells["max pooling in channels_last"]["torch also in TF32"] == "-" and len(cells) == 7
    assert figures._sentence({"machine": {"gpu": "NVIDIA X"}, "rows": []}) == ""


def test_what_a_report_shows_to_work(monkeypatch):
    """The table of what convlab works with says of tests that only a GPU runs whether one did."""
    marks = {"cuda": pytest.mark.cuda.mark, "works_with": pytest.mark.works_with("streams").mark}
    assert works_with.verdict(marks) == works_with.NOT_SHOWN
    assert works_with.verdict(marks | {"works_with": pytest.mark.works_with("two", gpus=2).mark}) == works_with.ON_GPUS
    for name, verdict in ((None, works_with.NOT_SHOWN), ("NVIDIA H200", "yes, on an NVIDIA H200")):
        monkeypatch.setattr(works_with, "shown_on_a_gpu", lambda name=name: (name, {"test_of_something_else"}))
        rows = works_with.rows()
        assert rows["CUDA streams and graphs"] == verdict and rows["several GPUs in one process"] == works_with.ON_GPUS
        assert rows["out of memory: an error with the number of bytes, and what needs none"] == "yes"


def test_the_page_takes_reports_only(tmp_path):
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(BadRecord, match="cannot be read"):
        record.read(tmp_path / "half.json")
    with pytest.raises(BadRecord, match=r"has no record of `python -m convlab.bench`"):
        figures.tables({"command": "gpu-report", "steps": {"bench": {"data": None}}})
