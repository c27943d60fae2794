"""The benchmark measures what it says: work counted as it is, contestants paired, wrong outputs refused, runs kept
whole."""

import contextlib
import itertools
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import figures
import pytest
import torch
from torch.nn import functional as F

from convlab import _files, layers
from convlab import _measure as disturbance
from convlab._measure import Limits, Timing
from convlab.bench import command, device, measure, models, networks, record, report, survey, timer
from convlab.bench.case import HEAD, LAYOUTS, OURS, Case, Way
from convlab.bench.cases import Problems, cases_of, zoo
from convlab.layers import Conv, real_taps

FAST = ["--rounds", "2", "--seconds", "0.01", "--patience", "0.01"]
QUICK = Limits(2, 0.01, 0.01)
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nothing here is measured: other tests run beside these."""
    monkeypatch.setattr(timer, "CALIBRATION", 0)


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


def test_a_cpu_convolves_in_other_precisions_where_it_is_asked_to():
    usual, more = ({c.precision for c in cases_of(zoo("cpu"), "cpu", precisions=p)} for p in ((), ("bf16", "bfloat16")))
    assert usual == {"float32"} and more == {"float32", "bf16", "bfloat16"}


def test_on_a_cpu_torchs_switch_is_as_a_precision_says():
    switch, machine = torch.backends.mkldnn.conv, device.Cpu(1)
    for precision, expected in (("bf16", "bf16"), ("tf32", "tf32"), ("float32", "none"), ("bfloat16", "none")):
        with machine.setting("", precision):
            assert switch.fp32_precision == expected
        assert switch.fp32_precision == "none"


def test_steps_count_every_convolution():
    for network in networks.NETWORKS:
        x = torch.zeros(1, *network.convolutions[0].x[1:])
        sizes = []
        for module in network.make():
            x_before, x = x, module(x)
            if isinstance(module, torch.nn.Conv2d):
                sizes.append((x_before.shape[1:], x.shape[1:], module.weight.shape))
        assert sizes == [(c.x[1:], c.y[1:], c.w) for c in network.convolutions]
        assert [m.in_features for m in network.make() if isinstance(m, torch.nn.Linear)] == list(network.linear[:-1])


# ---- timing ----------------------------------------------------------------------------------------------------------


class FakeMachine(device.Cpu):
    """A clock that calls put forward, and a count of the time that other programs took."""

    cools = False

    def __init__(self, *limits):
        super().__init__(1, limits=Limits(*limits))
        self.now = self.lost = 0.0
        self.order = []

    def clock(self):
        return self.now

    def waited(self):
        return self.lost

    def call(self, name, seconds, lost=lambda: 0.0):
        def call():
            self.order.append(name)
            taken = lost()
            self.now += seconds + taken
            self.lost += taken

        return call

    def time(self, calls):
        series = {name: timer.series_of(self, [call], contextlib.nullcontext, False) for name, call in calls.items()}
        return timer.time_paired(self, series, self.limits)


def seconds(times, name):
    return [r[name].seconds / times.series[name].calls for r in times.rounds]


def test_every_round_times_everybody():
    machine = FakeMachine(20, 60)
    times = machine.time({"slow": machine.call("slow", 3e-3), "fast": machine.call("fast", 1e-5)})
    assert seconds(times, "slow") == pytest.approx([3e-3] * 20) and seconds(times, "fast") == pytest.approx([1e-5] * 20)
    assert times.ratios("slow", "fast") == pytest.approx([300] * 20)
    assert times.series["slow"].calls == 1 and times.series["fast"].calls * 1e-5 >= machine.least
    assert (times.left_out, times.disturbed) == (0, False)
    turns = [name for name, _ in itertools.groupby(machine.order)]
    assert sum(a == b for a, b in zip(turns[-20::2], turns[-18::2])) > 5, "who is first changes only now and then"


def test_rounds_end_with_the_budget():
    machine = FakeMachine(1000, 2.0)
    assert disturbance.FEWEST_ROUNDS < len(machine.time({"one": machine.call("one", 0.11)}).rounds) < 20
    assert len(machine.time({"one": machine.call("one", 100)}).rounds) == disturbance.FEWEST_ROUNDS


def test_disturbed_rounds_are_left_out():
    machine, turn = FakeMachine(30, 60, 60), itertools.count()
    times = machine.time({"one": machine.call("one", 2e-3, lambda: 8e-3 if next(turn) % 5 == 0 else 0.0)})
    assert seconds(times, "one") == pytest.approx([2e-3] * 30)
    assert times.left_out > 3 and not times.disturbed


def test_patience_ends_and_the_row_is_marked():
    machine = FakeMachine(30, 0.1, 1.0)
    times = machine.time({"one": machine.call("one", 2e-3, lambda: 8e-3)})
    assert times.disturbed and times.left_out == 0
    assert times.rounds and min(seconds(times, "one")) == pytest.approx(1e-2)
    assert machine.now < 2


def test_series_rotate():
    """As many calls as take the time that is wanted, each as often as the others, and outputs are kept meanwhile."""
    machine, alive = FakeMachine(), set()

    class Output:
        def __init__(self, i):
            machine.now += 1e-4
            alive.add(i)
            self.i = i
            most.append(len(alive))

        def __del__(self):
            alive.discard(self.i)

    most, calls = [], [lambda i=i: Output(i) for i in range(7)]
    series = timer.series_of(machine, calls, contextlib.nullcontext, False)
    assert series.calls == 21 and series.calls * 1e-4 >= machine.least
    most.clear()
    series.run()
    assert len(most) == 21 and max(most) == 7


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


def test_page_faults_are_counted():
    """256 fresh pages, of memory that is given back in every call."""
    pages = b"x" * (256 * mmap.PAGESIZE)

    def run():
        mmap.mmap(-1, len(pages)).write(pages)

    series = {"fresh": timer.Series(run, 1)}
    assert timer.time_paired(device.Cpu(1), series, QUICK).of("fresh")["faults"] >= 256


def test_a_disturbed_ceiling_is_looked_for_again(monkeypatch):
    timings = iter([Timing(4.0, True), Timing(2.0, False)])
    monkeypatch.setattr(device, "best", lambda *_: next(timings))
    cpu = device.Cpu(1)
    slow = cpu.floor(0, 2**24 - 5, "float32")
    assert cpu.ceilings()["disturbed"] and cpu.ceilings()["threads"] == 1
    assert cpu.floor(0, 2**24 - 5, "float32") == slow / 2 and cpu.floor(0, 2**24, "float32") == 2e6
    assert not cpu.ceilings()["disturbed"] and cpu.ceilings()["copy"] == {str(2**24): 2**23}


# ---- outputs ---------------------------------------------------------------------------------------------------------


def doubling(ours, layout="nchw", layer="doubling", **more):
    """The case of 2 x, as `ours` does it."""
    torchs = lambda t: lambda: 2 * t["x"]  # noqa: E731
    ways = {OURS: Way(layout, lambda t: lambda: ours(t["x"])), "torch nchw": Way("nchw", torchs)} | more
    draw = lambda: {"x": torch.randn(2, 3, 4, 5)}  # noqa: E731
    return Case("conv", layer, "forward", layout, "float32", 1000, 1000, draw, ways, torchs)


def row_of(case, cold=False):
    cpu = device.Cpu(torch.get_num_threads(), cold, QUICK)
    return measure.measure(case, cpu)


def nan_somewhere(x):
    y = 2 * x
    y[0, 0, 0, 0] = float("nan")
    return y


def crash(*_):
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
    row = row_of(doubling(ours))
    assert message in row["refused"] and "ways" not in row
    assert report.groups([row]) == {} and "refused" in report.all_rows([row])[1][0]


def test_a_peer_that_fails_is_recorded():
    row = row_of(doubling(lambda x: 2 * x, **{"torch.compile": Way("nchw", lambda t: crash)}))
    assert row["ways"]["torch.compile"] == {"failed": "ValueError: no such thing"}
    assert row["ways"][OURS]["error"] < 1e-7 and row["ways"]["torch nchw"]["warm"]["ratio"] > 0


def test_cold_data_rotates(monkeypatch):
    monkeypatch.setattr(device, "last_level_cache", lambda: 5000)
    seen = set()

    def ours(x):
        seen.add(x.data_ptr())
        return 2 * x

    row = row_of(doubling(ours), cold=True)
    assert len(seen) == 2 * 5000 // 1000 + 2 and set(row["ways"][OURS]) == {"error", "cold"}


@pytest.fixture
def untimed(monkeypatch):
    """Whoever is to be timed takes a second."""

    def times(device, series, limits):
        return timer.Times(series, [dict.fromkeys(series, Timing(1.0, False))], 0, False)

    monkeypatch.setattr(measure, "series_of", lambda device, calls, *_: timer.Series(calls[0], 1))
    monkeypatch.setattr(measure, "time_paired", times)


@pytest.mark.parametrize("layer,rows", [("lenet-c5", 6), ("max-lenet", 4), ("leaky_relu-1mb", 3), ("relu-1mb", 2)])
def test_outputs_of_every_kind_pass(layer, rows, untimed):
    """Of each kind's smallest layer, in every pass and layout: everybody answers the same question."""
    found = [row_of(case) for case in cases_of(zoo("cpu"), "cpu") if case.layer == layer]
    assert [row.get("refused") for row in found] == [None] * rows


class AnsweringMachine:
    """A device that times nothing: answers are compared, and that is all."""

    type = "cpu"

    def setting(self, *_):
        return contextlib.nullcontext()

    def heats(self, _):
        return {}


def small_call(call):
    """One of few channels and elements, so that all of them take a second."""
    few = min(4, call.x[1])
    x = (1, few, *(min(n, 97 if len(call.x) == 3 else 16) for n in call.x[2:]))
    if not call.function.startswith("conv"):
        return call._replace(x=x, parameters=tuple((min(4, *w),) for w in call.parameters))
    (w, _), groups = call.parameters, call.arguments[3]
    fewer = min(groups, few) if groups > 1 else 1
    arguments = tuple(fewer if i == 3 else n for i, n in enumerate(call.arguments))
    w = (few, few // fewer, *w[2:])
    return call._replace(x=x, parameters=(w, (few,)), arguments=arguments)


def test_functions_around_answer_what_torchs_do():
    """In every pass and layout; of the zoo's calls, small ones."""
    calls = tuple(map(small_call, (*layers.AROUND, *layers.FUNCTIONS)))
    cases = cases_of(Problems(calls=calls), "cpu")
    assert len(cases) == sum(len(call.passes) * (1 + (len(call.x) == 4)) for call in calls)
    for case in cases:
        assert case.ways.keys() == {OURS, "torch nchw", "torch channels_last"}
        assert (case.flops > 0) is case.kind.startswith("conv") and case.bytes > 0
        with torch.set_grad_enabled(case.grad):
            row = measure._measured(case, AnsweringMachine())
        assert all("failed" not in way for way in row["ways"].values()), case.head


def test_both_devices_time_the_same_operators():
    """Whatever both have is the same row but for the batch, and takes as many bytes an element."""

    def cases(backend):
        found = [case for case in cases_of(zoo(backend), backend) if case.kind in ("pool", "activation")]
        return {
            tuple(case.layer.split("@")[0] if key == "layer" else case.head[key] for key in HEAD): case
            for case in found
        }

    def work(case):
        with torch.device("meta"):
            return case.bytes / case.draw()["x"].numel(), set(case.ways)

    cpu, gpu = cases("cpu"), cases("cuda")
    both = set(cpu) & set(gpu)
    assert len(both) == 16 and all(work(cpu[key]) == work(gpu[key]) for key in both)
    assert {key[2] for key in gpu if key[0] == "activation"} == {"inference", "forward", "backward"}


def test_cases_of_any_problems(untimed):
    """Not of the zoo alone: of whatever convolutions somebody has."""
    layer = Conv(1, 4, 7, 6, 6, 3, 2, (2, 1), (1, 0), (1, 2), 2)
    found = cases_of(Problems((layer,), (layer,)), "cpu")
    assert {case.kind for case in found} == {"conv", "ladder"} and {case.layer for case in found} == {str(layer)}
    assert [row_of(case).get("refused") for case in found] == [None] * 9


# ---- the command -----------------------------------------------------------------------------------------------------


def run(*argv):
    """The exit status."""
    threads = torch.get_num_threads()
    try:
        command.main(list(map(str, argv)))
    except SystemExit as end:
        return end.code
    finally:
        torch.set_num_threads(threads)
    return 0


def test_a_run_is_recorded_and_compared(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    path = tmp_path / "results" / "run.json"
    chosen = ["cpu", "conv,pool", "lenet-c5,max-lenet", "forward", "nchw", *FAST]
    assert run(*chosen, "--output", path) == 0
    kept = record.load(path)
    assert os.listdir(path.parent) == ["run.json"] and kept["complete"] and kept["machine"]["cpu"]
    assert [ceilings["threads"] for ceilings in kept["ceilings"]] == [1, 2]
    assert all(ceilings["fma"] > 1e9 and ceilings["copy"] for ceilings in kept["ceilings"])
    assert [record.row_id(row) for row in kept["rows"]] == [
        "conv lenet-c5 forward nchw float32 1 thread",
        "conv lenet-c5 forward nchw float32 2 threads",
        "pool max-lenet forward nchw float32 1 thread",
        "pool max-lenet forward nchw float32 2 threads",
    ]
    for row in kept["rows"]:
        assert set(row["ways"]) == {"convlab", "torch nchw", "torch channels_last"} and row["floor"]["float32"] > 0
        for name, way in row["ways"].items():
            t = way["warm"]
            assert t["least"] <= t["q1"] <= t["median"] <= t["q3"] and way["error"] >= 0 and t["faults"] >= 0
            assert name == OURS or t["ratio_q1"] <= t["ratio"] <= t["ratio_q3"]
    said = capsys.readouterr()
    assert "LeNet's convolutions, threads: 2" in said.out and "page faults" in said.out and f"wrote {path}" in said.out
    assert said.err.startswith("timing ") and " min or more; WORDs choose" in said.err.splitlines()[0]
    assert "wanted" not in said.out and said.err.count("us, convlab") >= 4  # a line a row, as it comes
    assert run(*chosen, "--no-save", "max-lenet", "--threads", "1", "--compare", path) == 0
    said = capsys.readouterr().out
    assert f"compared with the run of {kept['when']} on {kept['machine']['cpu']}" in said
    assert "times as fast" in said and "2 threads" not in said.split("compared with")[1]


def test_a_record_is_printed(capsys):
    assert run("lenet-c5", "wgrad", "nchw", "--threads", "1", "--json", *FAST) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["layer"], row["pass"], row["threads"]) == ("lenet-c5", "wgrad", 1)


def test_any_convolution(capsys):
    problem = ["--shape", "2,6,9,9", "--filters", "8,3,3", "--padding", "1", "--groups", "2"]
    assert run(*problem, "dgrad", "channels_last", "--threads", "1", "--json", *FAST) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["layer"] == "x2.6.9.9-w8.3.3-p1.1-g2" and "refused" not in row


def test_the_survey_is_of_problems_that_torch_has(capsys):
    """Sizes are torch's, names tell rows apart, and a draw is the same for a seed."""
    problems = survey.problems()
    assert [len(rows) for rows in problems[:4:2]] == [886, 116] and len(problems.activations) == 238
    for pool in problems.pools:
        window = pool.kernel, pool.stride, pool.padding
        torchs = F.max_pool2d(torch.empty(pool.x, device="meta"), *window, ceil_mode=pool.ceil_mode)
        assert pool.operation == "average" or torchs.shape == pool.y, pool
    assert all(min(layer.outputs) > 0 for layer in problems.convolutions)
    names = [str(layer) for layer in problems.convolutions] + [p.name for p in (*problems.pools, *problems.activations)]
    assert len(set(names)) == len(names)
    drawn = [command.parse(["survey", "conv", "--sample", "3", "--seed", str(seed)]).cases for seed in (1, 1, 2)]
    first, again, other = ([case.head for case in cases] for cases in drawn)
    assert len(first) == 3 and first == again != other
    assert run("survey", "relu-x1.16.55", "forward", "--threads", "1", "--no-save", *FAST) == 0
    assert "relu-x1.16.55" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.parse(["survey", "nothing"])
    assert len(capsys.readouterr().err) < 5000  # not a thousand names


def test_models_are_whole(untimed, capsys):
    """A step and inference of each, in both layouts, right before they are timed."""
    pytest.importorskip("torchvision")
    found = command.parse(["models"]).cases
    assert len(found) == 5 * len(models.NAMES) and {case.kind for case in found} == {"step", "inference", "compiled"}
    assert len(command.parse(["models", "--no-compile"]).cases) == 4 * len(models.NAMES)
    (compiled,) = command.parse(["models", "squeezenet1_1", "compiled"]).cases
    assert set(compiled.ways) == {
        OURS,
        *(f"{torchs} {layout}" for torchs in ("torch", "torch.compile") for layout in LAYOUTS),
    }
    (case,) = command.parse(["models", "squeezenet1_1", "inference", "channels_last"]).cases
    row = row_of(case)
    assert "refused" not in row and set(row["ways"]) == {OURS, "torch nchw", "torch channels_last"}
    assert "inference" in report.in_all([row])[1][0][0]


def test_models_need_torchvision(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(SystemExit):
        command.parse(["models"])
    assert "pip install torchvision" in capsys.readouterr().err


def test_a_step_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(command.cases, "zoo", lambda _: Problems(networks=(networks.LENET_5.batched(2),)))
    assert run("step", "nchw", "--no-compile", "--json", "--threads", "1", *FAST) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["layer"] == "lenet-5@2" and set(row["ways"]) == {"convlab", "torch nchw", "torch channels_last"}


def with_cases(monkeypatch, *found):
    monkeypatch.setattr(command.cases, "cases_of", lambda *_: list(found))


def test_what_has_no_time_says_why(monkeypatch, capsys):
    with_cases(monkeypatch, doubling(lambda x: 2 * x, **{"torch.compile": Way("nchw", lambda t: crash)}))
    assert run("cpu", "conv", "--no-save", "--threads", "1", *FAST) == 0
    line = "failed: conv doubling forward nchw float32 1 thread: torch.compile: ValueError: no such thing"
    assert line in capsys.readouterr().out


def test_without_rich_a_line_says_what_draws_the_tables(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    with_cases(monkeypatch, doubling(lambda x: 2 * x))
    assert run("--no-save", "--threads", "1", *FAST) == 0
    assert "not installed: pip install rich" in capsys.readouterr().out


def test_without_torch_a_sentence_says_so():
    script = "import sys, runpy; sys.modules['torch'] = None; sys.argv[0] = '-m'; runpy.run_module('convlab.bench')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("pip install 'torch>=2.11'\n"), done.stderr


def test_overhead(capsys):
    pytest.importorskip("rich")
    assert run("overhead", "--no-save", "--threads", "1", *FAST) == 0
    out = capsys.readouterr().out
    assert "overhead tiny forward nchw" in out and "overhead tiny forward+backward nchw" in out


def test_a_refused_row_is_the_exit_status(monkeypatch, capsys):
    with_cases(monkeypatch, doubling(lambda x: 3 * x))
    assert run("cpu", "--no-save", "--threads", "1", *FAST) == 1
    line = "refused: conv doubling forward nchw float32 1 thread: convlab: its error against float64"
    assert line in capsys.readouterr().out


def test_disturbed_rows_are_measured_again(monkeypatch, tmp_path):
    disturbed = {"first": iter([True, True]), "second": iter([False]), "third": iter([True, False])}
    taken, right = [], measure.measure

    def fake(case, *rest):
        taken.append(case.layer)
        return right(case, *rest) | {"disturbed": next(disturbed[case.layer])}

    monkeypatch.setattr(command, "measure", fake)
    with_cases(monkeypatch, *(doubling(lambda x: 2 * x, layer=name) for name in disturbed))
    assert run("cpu", "conv", "--threads", "1", "--output", tmp_path / "run.json", *FAST) == 0
    assert taken == ["first", "second", "third", "first", "third"]
    rows = record.load(tmp_path / "run.json")["rows"]
    assert {row["layer"]: row["disturbed"] for row in rows} == {"first": True, "second": False, "third": False}


def test_an_interrupted_run_keeps_its_rows(monkeypatch, tmp_path):
    def interrupt(x):
        raise KeyboardInterrupt

    with_cases(monkeypatch, doubling(lambda x: 2 * x), doubling(interrupt))
    assert run("cpu", "conv", "--threads", "1", "--output", tmp_path / "run.json", *FAST) == 130
    kept = record.load(tmp_path / "run.json")
    assert not kept["complete"] and len(kept["rows"]) == 1 and kept["left_out"] == 1


@pytest.mark.parametrize(
    "argv,message",
    [
        (["cpu", "convolution"], "no row has all of 'convolution'; there are kind: conv, pool"),
        (["cpu", "resnet-46"], "no row has all of 'resnet-46'"),
        (["cpu", "pool", "wgrad"], "nothing to measure: no row has all of 'pool wgrad'"),
        (["cpu", "conv", "max-lenet"], "nothing to measure"),
        (["cpu", "--algo", "tiled"], "'tiled' is no algorithm for cpu: choose one of auto, "),
        (["cpu", "--rounds", "0"], "'0' is no whole number from 1 up"),
        (["cpu", "--seconds", "-1"], "'-1' is no number above 0"),
        (["cpu", "--compare", "nowhere.json"], "nowhere.json cannot be read as the JSON of a run"),
        (["cpu", "--compare", __file__], "cannot be read as the JSON of a run"),
        (["cpu", "--no-save", "--output", "x.json"], "leave one of them out"),
        (["cpu", "--dry"], "argument --dry: goes with gpu only"),
        (["gpu", "--dry", "--threads", "2"], "argument --threads: goes with cpu only"),
        (["--shape", "1,2,3"], "'1,2,3': expected whole numbers from 1 up, N,C,H,W"),
        (["--shape", "1,2,3,4"], "one goes with the other"),
        (["--shape", "1,2,3,4", "--filters", "1,5,5"], "arguments --shape and --filters: "),
        (["gpu", "--dry", "pools"], "no row has all of 'pools'; there are kind: conv, ladder"),
        (["gpu", "--dry", "conv", "lenet-c9"], "no row has all of 'conv lenet-c9'"),
    ],
)
def test_bad_arguments(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words,layers_",
    [
        (["conv", "resnet-64"], {"resnet-64"}),
        (["conv", "cifar-"], {"cifar-3-32", "cifar-32-64", "cifar-64-128"}),
        (["step", "cifar"], {"cifar"}),
        (["depthwise,relu-1mb"], {"depthwise-96", "relu-1mb"}),
    ],
)
def test_words_choose_rows(words, layers_):
    assert {case.layer for case in command.parse(["cpu", *words]).cases} == layers_


# ---- records ---------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path):
    row = row_of(doubling(lambda x: 2 * x))
    row["ways"]["torch nchw"]["kernels"] = ["b<float>", "a", "b<float>"]
    kept = {"version": record.VERSION, "command": "cpu", "rows": [row, doubling(crash).head | {"refused": "it"}]}
    record.save(kept, tmp_path / "run.json")
    again, text = record.load(tmp_path / "run.json"), (tmp_path / "run.json").read_text()
    for way in again["rows"][0]["ways"].values():
        assert way["warm"].pop("ratio", None) is not None or way["warm"].pop("ratio_q1", None) is None
    assert again["rows"][0]["ways"]["torch nchw"]["kernels"] == ["b<float>", "a", "b<float>"]
    assert again["rows"][0]["ways"][OURS]["warm"]["median"] == record.rounded(row["ways"][OURS]["warm"]["median"])
    assert again["rows"][1] == kept["rows"][1] and text.count("b<float>") == 1


def test_json_in_lines():
    value = {"short": [1, 2], "long": [{"a": "x" * 80, "b": [i]} for i in range(5)], "empty": {}, "text": "y" * 300}
    text = _files.compact(value)
    assert json.loads(text) == value and _files.compact({"a": [1]}) == '{"a": [1]}'
    assert len(text.splitlines()) == 6 and max(map(len, text.splitlines()[:3])) <= _files.WIDTH


@pytest.mark.parametrize(
    "text", ['{"version": 1, "rows": []}', '{"version": 2}', '{"command": "gpu-report", "steps": {}}']
)
def test_a_record_of_another_format_is_refused(text, tmp_path):
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(record.BadRecord, match=r"has no record of `python -m convlab.bench`"):
        record.load(tmp_path / "old.json")


def test_an_error_while_saving_leaves_the_old_record(tmp_path):
    path = tmp_path / "run.json"
    record.save({"rows": []}, path)
    before = path.read_text()
    with pytest.raises(TypeError):
        record.save({"rows": [{"x": object()}]}, path)
    assert path.read_text() == before and os.listdir(tmp_path) == ["run.json"]


def test_results_in_git_are_compact():
    assert sum(len(path.read_text().splitlines()) for path in RESULTS.glob("*.json")) < 15000


@pytest.mark.parametrize("name", ["cpu.json", "cpu-avx512.json"])
def test_the_cpus_record_has_its_rows(name):
    kept = record.load(RESULTS / name)
    kinds = [row["kind"] for row in kept["rows"]]
    around = {"conv1d": 30, "conv_transpose1d": 6, "conv_transpose2d": 72, "prelu": 16, "relu6": 8, "max_unpool2d": 8}
    around |= {"max_pool1d": 8, "avg_pool1d": 4, "adaptive_avg_pool1d": 8, "adaptive_max_pool1d": 4}
    around |= {"adaptive_avg_pool2d": 24, "adaptive_max_pool2d": 16}
    plain = {"conv": 216, "pool": 48, "activation": 40, "step": 12, "overhead": 4}
    assert {kind: kinds.count(kind) for kind in set(kinds)} == plain | around
    rows = {record.row_id(row): row["ways"] for row in kept["rows"]}
    assert {"conv lenet-c1 forward nchw float32 2 threads", "step cifar step channels_last float32 2 threads"} < set(
        rows
    )
    for ways in rows.values():
        ours = ways[OURS]["warm"]
        assert 0 < ours["least"] <= ours["q1"] <= ours["median"] <= ours["q3"]
        others = [way["warm"] for name, way in ways.items() if name != OURS]
        assert others and all(0 < way["ratio_q1"] <= way["ratio"] <= way["ratio_q3"] for way in others)
    assert all(0 < rows[name][OURS]["error"] < 1e-6 for name in rows if name.startswith("conv lenet"))


# ---- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [figures.CPU, figures.AVX512, figures.MODELS])
def test_the_page_says_what_was_measured(block):
    text = figures.PAGE.read_text()
    source = figures.source_of(text, block)
    assert figures.contents_of(text, block) == figures.tables(record.read(ROOT / source))


def test_the_readme_has_the_pages_bars():
    readme = figures.README.read_text()
    assert figures.with_bars(readme, figures.PAGE.read_text()) == readme, "python -m tools.figures draws them"
    assert figures.with_bars("<!-- how fast -->\n<!-- end of how fast -->", figures.PAGE.read_text()) in readme


def test_a_bar(whole_run):
    of, line, *_ = figures.bars(whole_run).splitlines()
    assert of == "A processor, AVX512, 2 threads, torch 2.11, float32"
    assert line == "  " + "LeNet's convolutions".ljust(36) + "█" * 10 + "│" + "█" * 5 + " 1.50"
    of_both, line_of_both, *_ = figures.bars(whole_run, whole_run).splitlines()
    assert of_both == f"{of}; behind, with AVX512" and line_of_both == f"{line}, 1.50"


@pytest.fixture
def whole_run(tmp_path):
    """A run, as its file has it."""

    def row(layer, pass_, layout):
        ways = {OURS: {"warm": {"median": 2.0}}}
        ratios = {"torch nchw": 3.0, "torch channels_last": 1.5}
        ways |= {name: {"warm": {"median": 2 * ratio, "ratio": ratio}} for name, ratio in ratios.items()}
        head = ("conv", layer.name, pass_, layout, "float32")
        return dict(zip(HEAD, head)) | {"threads": 2, "flops": 246800, "bytes": 1, "ways": ways, "disturbed": False}

    product = itertools.product(layers.CONVOLUTIONS, ("forward", "dgrad", "wgrad"), ("nchw", "channels_last"))
    kept = {
        "version": record.VERSION,
        "command": "cpu",
        "complete": True,
        "dry": False,
        "left_out": 0,
        "when": "2026-11-30T01:45:37+00:00",
        "options": dict.fromkeys(("words", "shape", "cold")) | {"algo": "auto"},
        "machine": {"cpu": "A processor", "capability": "AVX512", "torch": "2.11", "commit": "abc1234"}
        | {"environment": {"DNNL_VERBOSE": "1"}},
        "ceilings": [{"threads": 1, "fma": 2e11}, {"threads": 2, "fma": 5e11}],
        "rows": [row(*of) for of in product],
    }
    record.save(kept, tmp_path / "run.json")
    return json.loads((tmp_path / "run.json").read_text())


def test_the_page_is_written_from_a_run(whole_run):
    before = "above\n<!-- measured: nothing -->\nNot measured yet.\n<!-- end of what was measured -->\nbelow\n"
    after = figures.updated(before, whole_run, "benchmarks/results/run.json")
    assert after.startswith("above\n") and after.endswith("-->\nbelow\n")
    assert figures.source_of(before) is None and figures.source_of(after) == "benchmarks/results/run.json"
    assert (
        "A processor, AVX512, 2 threads, DNNL_VERBOSE=1, float32, torch 2.11, 2026-11-30 at abc1234: a peak of 500 GFLOP/s."
        in after
    )
    assert "| 64 x 1 x 32 x 32 -> 6, 5 x 5 | 123 GFLOP/s, 1.50 | 123 GFLOP/s, 1.50 |" in after
    assert "| ResNet's convolutions in nchw | 1.50 (1.50 to 1.50) | 3.00 (3.00 to 3.00) |" in after
    assert figures.contents_of(after) == figures.tables(whole_run) and "wanted" not in after


def test_the_page_says_that_rows_were_disturbed(whole_run):
    assert "disturbed" not in figures.tables(whole_run)
    whole_run["rows"][0]["disturbed"] = True
    assert f"Other programs disturbed 1 of {len(whole_run['rows'])} rows." in figures.tables(whole_run)


@pytest.mark.parametrize(
    "option,value", [("words", ["lenet-c1"]), ("cold", True), ("algo", "direct"), ("of", "survey")]
)
def test_the_page_takes_whole_runs_only(whole_run, option, value):
    with pytest.raises(record.BadRecord, match="no block"):
        figures.updated("# a page without it", whole_run, "run.json")
    whole_run["options"][option] = value
    with pytest.raises(record.BadRecord, match="whole runs"):
        figures.tables(whole_run)


def test_a_step_in_float64_has_no_error():
    """The same weights for everyone: otherwise the networks would have nothing in common."""
    models = [networks.model_of(networks.LENET_5, layout, torch.float64) for layout in ("nchw", "channels_last")]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters()))


def test_names_of_rows_are_unique():
    for backend in ("cpu", "cuda"):
        heads = [tuple(case.head.values()) for case in cases_of(zoo(backend), backend)]
        assert len(heads) == len(set(heads)) > 100
