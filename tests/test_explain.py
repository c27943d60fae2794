"""convlab.explain: what is modelled follows from published limits and the plans, what is counted agrees with arithmetic
done by hand."""

import ctypes
import dataclasses
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ladder import problem_of

import convlab
from convlab import layers, simulate
from convlab.explain import GPUS, compiled, counting, explain, explanation, plot, svg
from convlab.explain import __main__ as command
from convlab.explain import text as as_text
from convlab.explain.picture import Picture, picture_of
from convlab.explain.work import work_of
from convlab.gpus import waves_of
from convlab.testing import AWKWARD

PASSES = ("forward", "dgrad", "wgrad")
RUNGS = [a for a in convlab.algorithms() if "cuda" in a.backends]
FLOAT = 4


def of(explained, pass_, name):
    (p,) = (p for p in explained.passes if p.name == pass_)
    (rung,) = (rung for rung in p.rungs if rung.algorithm == name)
    return rung


def counted(layer, pass_, name):
    return of(explain(layer, name, passes=[pass_], count=True), pass_, name).counted


# ---- counted ---------------------------------------------------------------------------------------------------------


def test_requested_bytes_of_direct_by_hand():
    """LeNet C3: a thread an output, and for each of its 6 x 5 x 5 multiply-adds one element of x and one of w."""
    N, K, P, CRS = 4, 16, 10, 6 * 5 * 5
    asked = counted("lenet.c3@4", "forward", "direct")
    assert asked.requested_by_tensor == {
        "x": FLOAT * N * K * P * P * CRS,
        "w": FLOAT * N * K * P * P * CRS,
        "y": FLOAT * N * K * P * P,
    }


def test_requested_bytes_of_direct_with_padding_by_hand():
    """Of a 3 x 3 window at a corner of a padded 16 x 16 plane four taps are inside, at an edge six: (3 * 16 - 2)^2 taps
    a plane in all."""
    taps = (3 * 16 - 2) ** 2
    asked = counted("cifar-32-64@1", "forward", "direct")
    assert asked.requested("input") == asked.requested("weight") == FLOAT * 64 * 32 * taps


@pytest.mark.parametrize("batch", [32, 5])
def test_requested_bytes_of_register_tiled_by_hand(batch):
    """LeNet C3 in tiles of 16 x 128: a block loads 16 filters whole, and for each of its 128 pixels the 150 elements of
    the window.

    Columns past the last pixel load what the last one loads; 32 images are 25 whole tiles, 5 are 3.9.
    """
    pixels, CRS = batch * 10 * 10, 6 * 5 * 5
    blocks = -(-pixels // 128)
    asked = counted(f"lenet.c3@{batch}", "forward", "register_tiled")
    assert asked.requested_by_tensor == {
        "x": FLOAT * blocks * 128 * CRS,
        "w": FLOAT * blocks * 16 * CRS,
        "y": FLOAT * pixels * 16,
    }


@pytest.mark.parametrize("layer,replication", [("lenet.c1@4", 19.1), ("lenet.c3@4", 12.8), ("lenet.c5@4", 1.0)])
def test_replication_of_the_unrolled_input(layer, replication):
    """The course's numbers: modelled, and counted of the kernel that unrolls."""
    explained = explain(layer, "im2col_gemm", passes="forward", count=True)
    (p,) = explained.passes
    assert p.work.replication == pytest.approx(replication, abs=0.05)
    asked, elements = p.rungs[0].counted, math.prod(explained.problem.x)
    assert asked.requested("input") / (FLOAT * elements) == pytest.approx(p.work.replication)


def test_the_whole_ladder_is_counted_in_time(monkeypatch):
    """Half a minute is promised; CPU time, because tests run side by side."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    explained = explain("lenet.c3", count=True)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 30
    monkeypatch.setattr(as_text, "_folded", lambda line: [line])
    text = str(explained)
    for p in explained.passes:
        for rung in p.rungs:
            assert bool(rung.refused) != bool(rung.counted), rung.algorithm
            assert rung.refused or rung.bound.microseconds >= p.bound.microseconds > 0
    for quoted in ("sum += acc_t<T>(xc[h * g.W + v])", "conv2d_direct.cu:", "gemm.h:", "not for this: it has no wgrad"):
        assert quoted in text
    for line in text.splitlines():  # what has a unit says where it comes from
        if any(unit in line for unit in (" us", "FLOP", "registers and", "times the least")):
            assert any(
                mark in line for mark in ("[modelled", "[counted", "[published]", "recorded from", "read from")
            ), line


@pytest.mark.parametrize(
    "pass_,name", [("forward", "direct"), ("dgrad", "register_tiled"), ("wgrad", "register_tiled")]
)
def test_a_sample_of_the_blocks_tells_of_all(pass_, name):
    """Of the launches that are meant, kernel by kernel: a smaller batch would get other tiles."""
    problem, rung = layers.find("cifar-32-64@1").problem(), next(r for r in RUNGS if r.name == name)
    whole, part = (counting.count(rung, problem, pass_, one_block_in) for one_block_in in (1, 5))
    assert (whole.one_block_in, part.one_block_in) == (1, 5)
    rows = [{row[:7]: row for row in counted.traffic} for counted in (whole, part)]
    assert rows[0].keys() == rows[1].keys()
    for key, row in rows[0].items():
        assert rows[1][key].bytes == pytest.approx(row.bytes, rel=0.25) and rows[1][key].requests, key
    assert part.global_bytes == pytest.approx(whole.global_bytes, rel=0.1)
    assert part.sectors_a_request == pytest.approx(whole.sectors_a_request, rel=0.1)


def test_what_is_too_large_to_count_is_counted_in_a_sample(monkeypatch):
    """Of gigabytes that are nowhere, in seconds."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    before = resource.getrusage(resource.RUSAGE_SELF)
    explained = explain("resnet-128@2048", "direct", passes=["wgrad"], count=True)
    after = resource.getrusage(resource.RUSAGE_SELF)
    rung = of(explained, "wgrad", "direct")
    assert rung.counted.one_block_in > 10_000 and "[counted in a sample of the blocks]" in str(explained)
    assert {row.kernel for row in rung.counted.traffic} == {launch.kernel for launch in rung.launches}
    terms = 2048 * (3 * 28 - 2) ** 2  # of which a block, of any of 128 x 128 x 9 sums, adds up a ninth, but for edges
    for operand in ("grad_output", "input"):
        assert rung.counted.requested(operand) == pytest.approx(FLOAT * 128 * 128 * terms, rel=0.1)
    assert after.ru_utime - before.ru_utime < 30 and after.ru_maxrss - before.ru_maxrss < 1e6


# ---- planned ---------------------------------------------------------------------------------------------------------

SOME = [conv for conv in AWKWARD if conv.N and conv.K * conv.H * conv.W < 8000]


def is_recorded(kernel) -> bool:
    """Whether the tables have an instance of the kernel: of a rung that is new, they have none yet."""
    name = kernel.split("<")[0]
    return any(known.split(": ")[-1].split("<")[0] == name for known in compiled._newest_table()[0])


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_what_is_planned_is_what_is_launched(rung):
    """Every pass of the awkward problems: the same kernels in the same order, in the same grids, for the same shared
    memory."""
    compared = 0
    for conv in SOME:
        problem = problem_of(conv, torch.float16 if rung.name == "warpgroup" else torch.float32)
        for pass_ in PASSES:
            if not rung.supports(problem, pass_)[0]:
                continue
            planned = counting.planned_launches(rung, problem, pass_)
            with simulate(check=False) as sim:
                counting.call_of(rung, problem, pass_)()
            assert [launch[:4] for launch in planned] == [launch[:4] for launch in sim.launches], (conv, pass_)
            for plan, launch in zip(planned, sim.launches):
                assert plan.shared_bytes <= launch.shared_bytes
                arch = "9.0" if "warpgroup_" in launch.kernel else "8.0"
                if not (found := compiled.resources_of(launch.kernel, launch.source, arch)):
                    assert not is_recorded(launch.kernel), launch
                    continue
                registers, static, _ = found
                more = launch.shared_bytes - (plan.shared_bytes + static)
                # the last array ends anywhere for nvcc, which leaves out one of a single element that nothing reads
                assert 0 < registers <= 255 and 0 <= more <= 16, (launch, static)
            compared += 1
    assert compared >= 2


def test_planning_runs_nothing():
    """A problem of terabytes of multiply-adds and gigabytes of tensors is planned at once, and outputs are not
    touched."""
    start = time.process_time()
    assert counting.planned_launches(None, problem_of(AWKWARD[-2]._replace(N=10000), torch.float32), "forward")
    assert time.process_time() - start < 5
    y = torch.full((5,), 7.0)
    x = torch.randn(5)
    from convlab.simulator import launches_of

    launches = launches_of(lambda: y.copy_(convlab.functional.leaky_relu(x, 0.1)))
    assert [launch.kernel.split("<")[0] for launch in launches] == ["unary_kernel"]
    assert not torch.equal(y, torch.nn.functional.leaky_relu(x, 0.1))


def test_wasted_threads_by_hand():
    explained = explain("lenet.c3", passes=["forward", "wgrad"])
    wasted = {(p.name, rung.algorithm): rung.wasted for p in explained.passes for rung in p.rungs if not rung.refused}
    assert wasted["forward", "tiled"] == pytest.approx(1 - 100 / 256)  # planes of 10 x 10 in tiles of 16 x 16
    assert wasted["forward", "direct"] == 0 and wasted["forward", "register_tiled"] == 0
    assert wasted["wgrad", "direct"] == pytest.approx(1 - 100 / 256)  # 256 threads share images of 100 pixels
    assert wasted["wgrad", "register_tiled"] == pytest.approx(1 - 150 / 160)  # 150 taps in tiles of 32
    assert all(share is None or 0 <= share < 1 for share in wasted.values())  # None: the plan does not say


@pytest.mark.parametrize("conv", SOME, ids=str)
def test_no_rung_wastes_less_than_nothing(conv):
    for rung in RUNGS:
        for pass_ in PASSES:
            if rung.supports(problem_of(conv, torch.float32), pass_)[0]:
                useful = rung.plan(problem_of(conv, torch.float32), pass_)["useful"]
                assert useful is None or 0 < useful <= 1 + 1e-12, (rung.name, pass_, useful)


def test_work_against_counting():
    """Taps inside, elements seen, and copies made, by unrolling a tensor that numbers its elements."""
    for conv in SOME:
        problem = problem_of(conv, torch.float32)
        numbers = torch.arange(1, 1 + conv.H * conv.W, dtype=torch.float64).view(1, 1, conv.H, conv.W)
        unrolled = torch.nn.functional.unfold(numbers, (conv.R, conv.S), conv.dilation, conv.padding, conv.stride)
        inside, seen = int((unrolled > 0).sum()), len(set(unrolled[unrolled > 0].tolist()))
        work = work_of(problem, "forward")
        assert work.flops == 2 * conv.N * conv.K * conv.C // conv.groups * inside
        assert work.replication == pytest.approx(inside / (conv.H * conv.W))
        others = conv.K * conv.C // conv.groups * conv.R * conv.S + conv.N * conv.K * problem.y[2] * problem.y[3]
        assert work.bytes == FLOAT * (conv.N * conv.C * seen + others)
        assert work_of(problem, "dgrad").bytes == FLOAT * (conv.N * conv.C * conv.H * conv.W + others)


# ---- GPUs ------------------------------------------------------------------------------------------------------------


def nvidias_calculator(folder):
    """cuda_occupancy.h, which comes with the toolkit, as a function of (major, minor, threads an SM, shared an SM, a
    block, reserved, threads, registers, shared)."""
    headers = [Path(root) / "cuda_occupancy.h" for root in ("/usr/local/cuda/include", "/usr/include")]
    headers += [path for root in sys.path for path in Path(root).glob("nvidia/cu*/include/cuda_occupancy.h")]
    header = next((path for path in headers if path.exists()), None)
    if header is None or not shutil.which("g++"):
        pytest.skip("no cuda_occupancy.h, which comes with the CUDA toolkit")
    (folder / "occupancy.cpp").write_text("""
#include "cuda_occupancy.h"
extern "C" int blocks(int major, int minor, int threads_sm, int shared_sm, int shared_block, int reserved, int threads, int registers, int shared) {
  cudaOccDeviceProp p{};
  p.computeMajor = major, p.computeMinor = minor, p.maxThreadsPerBlock = 1024, p.maxThreadsPerMultiprocessor = threads_sm;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536, p.warpSize = 32, p.sharedMemPerBlock = 48 * 1024;
  p.sharedMemPerMultiprocessor = shared_sm, p.numSms = 1, p.sharedMemPerBlockOptin = shared_block, p.reservedSharedMemPerBlock = reserved;
  cudaOccFuncAttributes a{};
  a.maxThreadsPerBlock = 1024, a.numRegs = registers, a.sharedSizeBytes = 0, a.partitionedGCConfig = PARTITIONED_GC_OFF;
  a.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN, a.maxDynamicSharedSizeBytes = shared_block, a.numBlockBarriers = 1;
  cudaOccDeviceState s{};
  s.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
  cudaOccResult r{};
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&r, &p, &a, &s, threads, shared) != CUDA_OCC_SUCCESS) return -1;
  return r.activeBlocksPerMultiprocessor;
}
""")
    command = ["g++", "-shared", "-fPIC", "-w", f"-I{header.parent}", "occupancy.cpp", "-o", "occupancy.so"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "occupancy.so")).blocks


def test_occupancy_is_what_nvidias_calculator_says(tmp_path):
    blocks = nvidias_calculator(tmp_path)
    for gpu in GPUS.values():
        major, minor = map(int, gpu.capability.split("."))
        for threads in (1, 32, 96, 128, 160, 256, 512, 1024):
            for registers in (16, 32, 40, 63, 64, 65, 80, 104, 128, 168, 255):
                for shared in (0, 1, 1000, 9416, 16384, 33000, 48 * 1024, gpu.shared_a_block, gpu.shared_a_block + 1):
                    expected = blocks(
                        major,
                        minor,
                        gpu.threads,
                        gpu.shared,
                        gpu.shared_a_block,
                        gpu.reserved,
                        threads,
                        registers,
                        shared,
                    )
                    assert gpu.blocks_at_once(threads, registers, shared) == expected, (
                        gpu.name,
                        threads,
                        registers,
                        shared,
                    )


def test_published_rates():
    """TFLOP/s of float32 on the data sheets."""
    rates = {"T4": 8.1, "A100": 19.5, "A10": 31.2, "L4": 30.3, "RTX 4090": 82.6, "H100": 67, "H200": 67, "B200": 75}
    assert {gpu.name: gpu.peak / 1e12 for gpu in GPUS.values()} == pytest.approx(rates, rel=0.01)


def test_waves_by_hand():
    """64 registers and 256 threads: 4 blocks a multiprocessor, 528 on the H200's 132. 3 of 1056 places of two waves
    stay free."""
    waves = waves_of(GPUS["H200"], 1053, 256, 64, 0)
    assert waves == (type(waves))(4, 0.5, 2, 525 / 528, 1053 / 1056)
    assert waves_of(GPUS["T4"], 1, 256, 64, 65537) is None


def test_every_rung_has_a_predicted_time_on_every_gpu():
    """No less than the layer's floor there; an H200, with more multiprocessors and a faster clock, beats a T4."""
    times = {}
    for gpu in GPUS:
        for p in explain("lenet.c3@64", ["direct", "small_filter"], gpu=gpu, count=True).passes:
            for rung in p.rungs:
                assert rung.predicted_us >= rung.floor_us > 0 and rung.bound_by in rung.prediction.by_resource
                times[gpu, p.name, rung.algorithm] = rung.predicted_us
    assert all(us < times["T4", pass_, name] for (gpu, pass_, name), us in times.items() if gpu == "H200")


def test_what_was_measured_stands_beside(capsys):
    command.main(["lenet.c3@1024", "--algo", "small_filter", "--pass", "forward", "--count", "--json"])
    (rung,) = json.loads(capsys.readouterr().out)["passes"][0]["rungs"]
    assert rung["measured_us"] == 31.277 and 0.5 < rung["predicted_us"] / rung["measured_us"] < 2
    assert rung["floor_us"] < rung["bound_us"] < rung["measured_us"] and rung["bound_by"]
    command.main(["lenet.c3@64", "--algo", "small_filter", "--pass", "forward", "--gpu", "all"])
    table = capsys.readouterr().out
    assert all(gpu in table for gpu in GPUS) and "[modelled]" in table and "small_filter" in table


# ---- what the compiler said ------------------------------------------------------------------------------------------


def test_resources_are_recorded():
    registers, shared, who = compiled.resources_of("wgrad_kernel<float>", "csrc/kernels/conv2d_direct.cu:81", "9.0")
    assert who.startswith(("recorded from nvcc", "read from")) and registers > 0
    assert shared == 256 * FLOAT  # a float a thread; the driver's kilobyte, which the compiler counts in, left out
    assert compiled.resources_of("no_such_kernel", "csrc/kernels/conv2d_direct.cu:81", "9.0") is None


def test_every_gpu_has_its_compiled_kernels():
    for gpu in GPUS:
        explained = explain("resnet-64", gpu=gpu)
        rungs = [rung for p in explained.passes for rung in p.rungs]
        if gpu == "T4":  # whose tensor cores do not have these instructions
            rungs = [rung for rung in rungs if rung.algorithm != "tensor_core"]
        launches = [launch for rung in rungs for launch in rung.launches]
        assert all(launch.compiled and launch.waves for launch in launches if is_recorded(launch.kernel)), gpu
        assert sum(is_recorded(launch.kernel) for launch in launches) > 12


def test_an_unknown_kernel_is_shown_as_such(monkeypatch):
    monkeypatch.setattr(explanation, "resources_of", lambda *_: None)
    explained = explain("lenet.c5@1", "direct", passes="forward", count=True)
    assert "?" in str(explained) and "unknown" in str(explained)
    assert all(launch.waves is None for p in explained.passes for rung in p.rungs for launch in rung.launches)


def test_a_pass_that_no_rung_does_has_no_table():
    (one,) = explain("lenet.c3@1", "direct", passes="forward").passes
    refused = dataclasses.replace(one.rungs[0], refused="has only a forward pass", launches=())
    without = dataclasses.replace(one, rungs=(refused,))
    assert list(as_text.launch_table(one)) and not list(as_text.launch_table(without))
    said = list(as_text._pass(explain("lenet.c3@1", "direct", passes="forward"), without))
    assert not any("registers" in line for line in said) and ["", ""] not in [said[i : i + 2] for i in range(len(said))]
    assert "    not for this: it has only a forward pass" in said


# ---- the answer ------------------------------------------------------------------------------------------------------


def test_text_fits_a_terminal():
    """Every kernel's full name, too; and no word is lost where a sentence is folded."""
    for e in (explain("lenet.c3@64"), explain("resnet-128"), explain("lenet.c1@1", "direct", count=True)):
        lines = str(e).splitlines()
        assert max(map(len, lines)) <= as_text.WIDTH
        assert all(
            any(launch.kernel in line for line in lines)
            for p in e.passes
            for rung in p.rungs
            for launch in rung.launches
        )
    long = "  y: " + "a sentence of words " * 12 + " [modelled]"
    assert len(as_text._folded(long)) > 1 and " ".join(as_text._folded(long)).split() == long.split()


def test_the_function_is_in_the_package_of_the_command():
    assert convlab.explain.explain is explain and len(explain("lenet.c1").passes) == 3
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "convlab.explain", "lenet.c5", "--algo", "direct"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr and "[modelled]" in done.stdout, done.stderr


def test_auto_is_named():
    for layer in ("lenet.c1", "fashion-c1", "fashion-c2"):
        assert {p.chosen for p in explain(layer).passes} == {"small_filter"}, layer
    assert {p.chosen for p in explain("resnet-128").passes} == {"warpgroup"}
    assert {p.chosen for p in explain("depthwise-96").passes} == {"depthwise"}


def test_layers_are_the_benchmarks():
    for layer in (*layers.CONVOLUTIONS, *layers.GPU_CONVOLUTIONS):
        name, problem = explanation._problem(layer.name, GPUS["H200"])
        assert (name, problem.x, problem.w, problem.y, problem.backend) == (
            layer.name,
            layer.x,
            layer.w,
            layer.y,
            "cuda",
        )
        assert work_of(problem, "wgrad").flops == layer.flops


def test_layers_around_are_explained_as_the_convolutions_that_run():
    """A row is an image of height 1; a transposed convolution runs dgrad of the one that it transposes."""
    for call in layers.AROUND:
        x, w, *_ = (torch.empty(shape, device="meta") for shape in (call.x, *call.parameters))
        y = getattr(torch.nn.functional, call.function)(x, w, None, *call.arguments)
        assert call.y == y.shape
        explained = explain(call.name, "direct", passes="forward")
        mine = [y, x] if call.is_transposed else [x, y]
        assert [[n for n in shape if n != 1] for shape in (explained.problem.x, explained.problem.y)] == [
            [n for n in t.shape if n != 1] for t in mine
        ]
        assert explained.transposed is call.is_transposed is ("of a transposed convolution" in str(explained))
    said = " ".join(str(explain("sound-k80-s4", "direct", passes="forward")).split())  # lines are folded
    assert "windows of 80 elements, begin every 4, and share 76 elements with the next" in said
    assert "a filter is used for 1,981 windows of each image" in said


@pytest.mark.parametrize(
    "options,layer",
    [
        ("--shape 16,1,8000 --filters 32,80 --stride 4", "sound-k80-s4"),
        ("--shape 4,64,2048 --filters 128,2 --dilation 8", "wavenet-d8"),
        ("--shape 32,128,16,16 --filters 64,4,4 --stride 2 --padding 1 --transposed", "dcgan-16"),
        ("--shape 4,128,128 --filters 64,16 --stride 8 --padding 4 --transposed", "vocoder-s8"),
    ],
)
def test_shapes_of_layers_around(options, layer):
    _, args = command.parse(options.split())
    problem, expected = args.problem, layers.find(layer).problem()
    assert (problem.x, problem.w, problem.y) == (expected.x, expected.w, expected.y)
    assert problem.geometry == expected.geometry and args.transposed is (layer in layers.TRANSPOSED)


@pytest.mark.parametrize("conv", [conv for conv in AWKWARD if conv.N], ids=str)
def test_any_problem_is_explained(conv):
    explained = explain(problem_of(conv, torch.float32))
    assert all(len(p.rungs) == len(RUNGS) for p in explained.passes) and str(explained)
    again = json.loads(json.dumps(explained.as_dict()))
    assert [p["name"] for p in again["passes"]] == list(PASSES) and again["gpu"]["peak"] == GPUS["H200"].peak


def test_the_picture_to_scale():
    assert str(Picture("two rows of tiles", 5, 20, (4, 8))).splitlines() == [
        "two rows of tiles",
        "    0         8         16",
        "   ┌─────────┬─────────┬─────────┐",
        " 0 │ 0       │ 1       │ 2  ░░░░░│",
        "   │         │         │    ░░░░░│",
        "   ├─────────┼─────────┼─────────┤",
        " 4 │ 3       │ 4       │ 5  ░░░░░│",
        "   │░░░░░░░░░│░░░░░░░░░│░░░░░░░░░│",
        "   └─────────┴─────────┴─────────┘",
    ]


def test_one_a_thread_is_said_where_it_is_so():
    """A new rung's plan has a grid, and may have a thread make several outputs: how those are cut, nobody knows."""
    _, problem = explanation._problem("lenet.c3", GPUS["H200"])  # 102,400 outputs
    plan = next(a for a in RUNGS if a.name == "direct").plan(problem, "forward")
    picture = picture_of(plan, problem, "forward")
    assert picture.title.endswith("102,400 elements in a row: 256 a block, one a thread") and picture.tile == (1, 256)
    picture = picture_of(plan | {"grid": (100, 1, 1)}, problem, "forward")  # four outputs a thread
    assert str(picture) == "102,400 elements of y, about 1,024 a block; which ones, the plan does not say"
    assert svg.blocks(picture) == ""
    picture = picture_of(plan | {"grid": (102400, 1, 1)}, problem, "forward")
    assert picture.title.endswith("a block each, whose 256 threads share the sum") and picture.tile == (1, 1)
    _, problem = explanation._problem("lenet.c1@1", GPUS["H200"])  # 4,704 outputs: the last block has some left over
    plan = next(a for a in RUNGS if a.name == "direct").plan(problem, "forward")
    assert picture_of(plan, problem, "forward").tile == (1, 256)


@pytest.mark.parametrize(
    "layer,arguments,message",
    [
        ("lenet.c2", {}, "layer 'lenet.c2' is unknown: did you mean 'lenet-c"),
        ("lenet.c1@x", {}, "expected a batch of 1 or more"),
        ("lenet.c1", {"algo": "fast"}, "algo='fast' is no algorithm: choose 'all' or one of"),
        ("lenet.c1", {"passes": ["backward"]}, "'backward', expected some of 'forward', 'dgrad', 'wgrad'"),
        (
            "lenet.c1",
            {"gpu": "V100"},
            "gpu='V100' is none whose limits convlab knows: did you mean 'H100'? choose one of T4, ",
        ),
        (7, {}, "got int"),
        (problem_of(AWKWARD[0], torch.float64), {}, "torch.float64, expected one of torch.float32"),
        (dataclasses.replace(problem_of(AWKWARD[0], torch.float32), x=(0, 3, 7, 11)), {}, "the problem is empty"),
    ],
)
def test_bad_arguments(layer, arguments, message):
    with pytest.raises(ValueError) as error:
        explain(layer, **arguments)
    assert message in str(error.value)


def test_the_page_shows_what_is_printed(capsys, monkeypatch):
    """With torch's switches as a command of its own finds them."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    if convlab.build_info()["nvcc"] and not compiled._table_of_the_build()[0]:
        pytest.skip("built by another nvcc than the page's figures are from: registers may differ")
    text = (Path(__file__).parent.parent / "docs" / "explain.md").read_text()
    typed, printed = text.split("```\n")[1::2]
    command.main(typed.split("convlab.explain ")[1].split())
    assert capsys.readouterr().out == printed


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_shape_of_ones_own(capsys):
    command.main(
        [
            "--shape",
            "8,4,9,12",
            "--filters",
            "6,3,2",
            "--stride",
            "2,1",
            "--padding",
            "1",
            "--groups",
            "2",
            "--gpu",
            "rtx4090",
            "--pass",
            "dgrad",
            "--algo",
            "direct",
            "--dtype",
            "bfloat16",
            "--json",
        ]
    )
    explained = json.loads(capsys.readouterr().out)
    problem = explained["problem"]
    assert (
        problem["x"] == [8, 4, 9, 12]
        and problem["w"] == [6, 2, 3, 2]
        and problem["y"] == [8, 6, 5, 13]
        and problem["dtype"] == "torch.bfloat16"
    )
    assert explained["gpu"]["name"] == "RTX 4090" and [p["name"] for p in explained["passes"]] == ["dgrad"]


def test_a_layer_but_for_what_is_said(capsys):
    options = ["--dtype", "float16", "--stride", "2", "--padding", "1,2", "--dilation", "2", "--groups", "2"]
    command.main(["lenet.c3@8", *options, "--algo", "direct", "--pass", "wgrad", "--json"])
    explained = json.loads(capsys.readouterr().out)
    x, w = (torch.empty(shape, dtype=torch.float16) for shape in ((8, 6, 14, 14), (16, 3, 5, 5)))
    expected = dataclasses.replace(convlab.Conv2dProblem.of(x, w, 2, (1, 2), 2, 2), backend="cuda")
    assert explained["problem"] == json.loads(json.dumps(explanation._plain(expected)))
    assert explained["layer"] == "lenet-c3@8 with stride 2, padding 1,2, dilation 2, groups 2, dtype float16"
    command.main(
        ["depthwise-96@1", "--stride", "2", "--algo", "direct", "--pass", "forward"]
    )  # the rest is the layer's
    said = " ".join(capsys.readouterr().out.split())
    assert "w 96 x 1 x 3 x 3 -> y 1 x 96 x 28 x 28, stride 2, padding 1, 96 groups" in said


def test_ends_quietly_where_nobody_reads_on():
    command = f"set -o pipefail; '{sys.executable}' -m convlab.explain lenet.c3 --pass forward | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("lenet-c3: ") and done.stdout.count("\n") == 1 and done.stderr == ""


def test_the_plot(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib import image

    command.main(["lenet.c5@2", "--plot", str(tmp_path / "roofline.png"), "--pass", "forward"])
    pixels = image.imread(tmp_path / "roofline.png")
    assert pixels.shape[0] > 500 and pixels.shape[1] > 500 and pixels.std() > 0.02
    drawn = plot.figure_of(explain("lenet.c5@2", "direct", passes="forward", count=True))
    drawn.canvas.draw()
    title, whole = drawn._suptitle.get_window_extent(), drawn.bbox
    assert whole.x0 <= title.x0 and title.x1 <= whole.x1 and title.y1 <= whole.y1  # nothing of one panel's is cut off
    with pytest.raises(ValueError, match="count=True"):
        plot.draw(explain("lenet.c5"), tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


@pytest.mark.parametrize(
    "argv,message",
    [
        ([], "expected LAYER, or --shape and --filters"),
        (["lenet.c1", "--shape", "1,1,8,8"], "expected LAYER, or --shape and --filters"),
        (["lenet-c9"], "layer 'lenet-c9' is unknown"),
        (["resnet-65"], "layer 'resnet-65' is unknown: did you mean 'resnet-64'? choose one of lenet-c1, "),
        (
            ["lenet.c1", "--algo", "drect"],
            "algo='drect' is no algorithm: did you mean 'direct'? choose 'all' or one of",
        ),
        (["lenet.c1", "--gpu", "h2000"], "gpu='h2000' is none whose limits convlab knows: did you mean 'H200'?"),
        (["--shape", "1,8", "--filters", "1,3,3"], "'1,8' is not 4 or 3 whole number(s)"),
        (["--shape", "1,1,8", "--filters", "1,3,3"], "expected N,C,H,W and K,R,S, or N,C,W and K,S"),
        (["lenet.c1", "--transposed"], "argument --transposed: goes with --shape"),
        (["--shape", "1,3,8,8", "--filters", "1,3,3", "--groups", "2"], "--groups 2 does not divide the 3 channels"),
        (["--shape", "1,1,2,2", "--filters", "1,3,3"], "kernel"),
        (["--shape", "0,1,8,8", "--filters", "1,3,3"], "empty"),
        (["lenet.c3", "--filters", "16,3,3"], "expected LAYER, or --shape and --filters"),
        (["lenet.c3", "--groups", "4"], "--groups 4 does not divide the 6 channels of LAYER"),
        (["lenet.c3", "--stride", "2", "--padding", "same"], "padding"),
    ],
)
def test_bad_commands(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(argv)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_the_cpu_beside_the_gpu():
    """Its algorithms are shown where all are asked for: "auto"'s is one that can, and a plan is Algorithm.plan's."""
    explained = explain("lenet.c3")
    for p in explained.passes:
        able = {rung.algorithm for rung in p.cpu if not rung.refused}
        assert p.chosen_on_cpu in able and "reference" in able
        assert all(bool(rung.refused) == (rung.plan is None) for rung in p.cpu)
        assert {rung.algorithm: rung.refused for rung in p.cpu}["depthwise"].startswith("has one input")
        assert f"On this CPU auto takes {p.chosen_on_cpu}" in str(explained)
    assert "CPU" not in str(explain("lenet.c3", "direct"))


def test_an_algorithm_of_the_cpu_alone():
    (p,) = explain("resnet-64", "winograd_2x2", passes="forward").passes
    assert not p.rungs and [rung.algorithm for rung in p.cpu] == ["winograd_2x2"]
    with pytest.raises(ValueError, match="nothing was counted"):
        plot.draw(explain("resnet-64", "winograd_2x2"), "nothing.png")


def test_multiplications_of_winograd_by_hand():
    """3 -> 5 channels of 4 x 4, padding 1: four tiles of 2 x 2, 16 points each. One dimension's transformation takes 4
    additions of inputs, 3 of a filter and 4 of outputs; inputs have theirs along a row of tiles' 4 columns, then along
    4 rows of each tile; filters along 3 and 4, outputs along 4 and 2."""
    x, w = torch.empty(1, 3, 4, 4), torch.empty(5, 3, 3, 3)
    explained = explain(convlab.Conv2dProblem.of(x, w, 1, 1), "winograd_2x2")
    inputs, outputs, filters = 2 * 4 * 4 + 4 * 4 * 4, 4 * (4 + 2) * 4, (3 + 4) * 3
    gradients, sums = 4 * (2 + 4) * 2, (4 + 3) * (2 + 1 + 1)  # wgrad: taps of dy, 2 additions; three outputs
    for p in explained.passes:
        counted = p.cpu[0].multiplied
        assert counted.definition == 15 * (3 * 4 - 2) ** 2 and counted.products == 15 * 4 * 16
        assert (
            counted.additions
            == {
                "forward": 3 * inputs + 5 * outputs + 15 * filters,
                "dgrad": 5 * inputs + 3 * outputs + 15 * filters,
                "wgrad": 3 * inputs + 5 * gradients + 15 * sums,
            }[p.name]
        )
    assert "960 products for the 1.5 k multiplications of the definition, 1.56 times fewer" in str(explained)


@pytest.mark.parametrize("size,points", [(7, 11), (8, 12), (13, 21), (14, 22), (5, 9), (6, 10)])
def test_points_that_edge_tiles_of_winograd_leave_out(size, points):
    x, w = torch.empty(2, 16, size, size), torch.empty(48, 16, 3, 3)
    for p in explain(convlab.Conv2dProblem.of(x, w, 1, 1), "winograd_4x4").passes:
        assert p.cpu[0].multiplied.products == 2 * 16 * 48 * points**2
