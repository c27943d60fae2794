"""A kernel of one's own: what is wrong with it is found, at its line; what does not compile says so; what is right
passes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convlab import check, testing, toolchain
from convlab.testing import CONTRACTS, CheckError, CompileError, check_kernel, host_compiler, template
from convlab.testing.predicted import prediction_of
from convlab.testing.program import Program, nvcc_says

TEMPLATE = template("conv2d_forward")


def kernel(tmp_path, *changes, text=TEMPLATE) -> Path:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "mine.cuh"
    path.write_text(text)
    return path


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if text in line)


# What is changed in the template, the subject of the finding, what its message has, and a text in the line that it
# names.
BEGIN = "  float sum = bias ? bias[k] : 0.0f;\n"
BUGS = {
    "bounds": ([("h < 0 || h >= g.H || v < 0 || v >= g.W", "h < 0 || v < 0")], "bounds", "'input'", "sum += x["),
    "unguarded": (
        [("  if (i >= (long long)g.N * g.K * g.P * g.Q) return;\n", "")],
        "bounds",
        "'weight'|'output'|'bias'|'input'",
        None,
    ),
    "race": (
        [
            (
                BEGIN,
                "  SHARED(float, parts, [kThreads]);\n  parts[threadIdx.x] = 0;\n  parts[threadIdx.x ^ 1] = 1;\n  float sum = bias ? bias[k] : 0.0f;\n",
            )
        ],
        "races",
        "shared 'parts'",
        "parts[threadIdx.x",
    ),
    "uninitialised": (
        [
            (
                BEGIN,
                "  SHARED(float, parts, [kThreads]);\n  if (threadIdx.x) parts[threadIdx.x] = 0;\n  float sum = parts[threadIdx.x] + (bias ? bias[k] : 0.0f);\n",
            )
        ],
        "uninitialised reads",
        "shared 'parts' element 0",
        "float sum = parts",
    ),
    "reads its output": (
        [("  y[i] = sum;", "  y[i] += sum;")],
        "uninitialised reads",
        "device memory 'output'",
        "y[i] += sum",
    ),
    "barrier": (
        [
            (
                "      for (int s = 0; s < g.S; s++) {\n",
                "      for (int s = 0; s < g.S; s++) {\n        if (q == 0) __syncthreads();\n",
            )
        ],
        "barriers",
        "barrier",
        "__syncthreads",
    ),
    "two blocks": ([("  y[i] = sum;", "  y[i / 2] = sum;")], "races", "device memory 'output'", "y[i / 2] = sum"),
    "launch": ([("dim3(kThreads), 0, stream", "dim3(2 * kThreads), 0, stream")], "launches", "__launch_bounds__", None),
    "wrong": (
        [
            ("- g.pad_h + r * g.dilation_h", "- g.pad_h + (g.R - 1 - r) * g.dilation_h"),
            ("- g.pad_w + s * g.dilation_w", "- g.pad_w + (g.S - 1 - s) * g.dilation_w"),
        ],
        "results",
        "the filter is flipped",
        None,
    ),
    "unwritten": ([("  y[i] = sum;", "  if (q + 1 < g.Q) y[i] = sum;")], "results", "q = 8 (the last)", None),
}


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs(name, tmp_path):
    changes, subject, words, at = BUGS[name]
    source = kernel(tmp_path, *changes)
    report = check_kernel(source, random_cases=0, most_findings=1)
    assert not report.ok and not report.numbers
    (finding,) = report.findings
    assert finding.subject == subject and any(word in finding.message for word in words.split("|")), report
    assert finding.problem.startswith("x") and finding.message in str(report).replace("\n  ", "\n")
    if at:
        assert finding.where in [
            f"{source}:{n}" for n, line in enumerate(source.read_text().splitlines(), 1) if at in line
        ], report


def test_what_a_report_says(tmp_path):
    """Different findings, each once; the problems refused and why; and for what is right, its traffic beside the
    ladder's."""
    source = kernel(tmp_path)
    report = check_kernel(source, random_cases=2)
    assert report.ok and report.problems > 10 and set(report.refused.values()) == {"has no groups"}
    assert {"LeNet C3", "ResNet-20"} == set(report.numbers) == set(report.traffic)
    text = str(report)
    assert (
        "races                none found" in text
        and "results              right" in text
        and "more refused: has no groups" in text
    )
    rows = {line.split()[0]: line.split()[1:] for line in text.split("LeNet C3")[1].splitlines()[2:9]}
    assert rows["mine.cuh"][:2] == rows["direct"][:2] and {"tiled", "register_tiled"} <= set(
        rows
    )  # the same reads of x and w
    assert report.launches[0].kernel.startswith("my_kernel") and report.launches[0].source.startswith(f"{source}:")
    two = [
        ("sum += x[((long long)", "sum += x[(g.pad_h ? 1 << 30 : 0) + ((long long)"),
        ("  y[i] = sum;", "  y[i] += sum;"),
    ]
    report = check_kernel(kernel(tmp_path, *two), random_cases=0)
    assert {f.subject for f in report.findings} == {"bounds", "uninitialised reads"} and max(
        f.problems for f in report.findings
    ) > 1


@pytest.mark.parametrize(
    "changes,words",
    [
        ([("  y[i] = sum;", "  y[i] = some;")], ["mine.cuh:{y[i] = some}:", "some", "y[i] = some;"]),
        (
            [(BEGIN, BEGIN + "  cudaMallocPitch(0, 0, 0, 0);\n")],
            ["mine.cuh:{cudaMallocPitch}: cudaMallocPitch", "has no pitch"],
        ),
        ([(BEGIN, BEGIN + "  cudaOdd();\n")], ["cudaOdd", "those that launchers use"]),
        (
            [
                ("  y[i] = sum;", "  y[i] = elsewhere(sum);"),
                ("constexpr int kThreads", "float elsewhere(float);\nconstexpr int kThreads"),
            ],
            ["elsewhere(float) is declared, but defined nowhere"],
        ),
        (
            [("void conv2d_forward(", "void forward(")],
            [
                "does not define the launcher",
                "T is float",
                CONTRACTS["conv2d_forward"].signature,
                "mine.cuh:{void forward}: void forward(const Conv2d& g, const float* x,",
                "--new mine_new.cuh",
            ],
        ),
        (
            [
                ("const float* bias, float* y, cudaStream_t", "float* y, cudaStream_t"),
                ("stream, g, x, w, bias,", "stream, g, x, w, nullptr,"),
            ],
            ["does not define the launcher", "cannot be called", "const float* w, float* y, cudaStream_t stream)"],
        ),
        (
            [
                (
                    "const float* w, const float* bias, float* y, cudaStream_t",
                    "const flaot* w, const float* bias, float* y, cudaStream_t",
                )
            ],
            ["mine.cuh:{const flaot* w}: ‘flaot’ does not name a type", "!does not define", "!cuda_on_host.h"],
        ),
        (
            [("constexpr int kThreads = 256;", "constexpr int kThreads = many;")],
            ["mine.cuh:{kThreads = many}: ‘many’ was not declared", "!does not define"],
        ),
        (
            [
                (
                    "const float* w, const float* bias, float* y, cudaStream_t",
                    "const __half* w, const float* bias, float* y, cudaStream_t",
                )
            ],
            ["__half", "#include <cuda_fp16.h> has __half", "!does not define"],
        ),
        ([("  y[i] = sum;", "  y[i] = __shfl_down(sum, 1);")], ["hint: GPUs of today", "__shfl_down_sync(0xffffffff"]),
        (
            [("constexpr int kThreads", "#include <helper_cuda.h>\nconstexpr int kThreads")],
            ["helper_cuda.h: No such file", "hint: headers beside the file are found"],
        ),
    ],
)
def test_compile_errors_are_readable(changes, words, tmp_path):
    source = kernel(tmp_path, *changes)
    with pytest.raises(CompileError) as caught:
        check_kernel(source)
    said = str(caught.value)
    for word in words:
        if word.startswith("mine.cuh:{"):
            text, rest = word[10:].split("}", 1)
            word = f"{source}:{line_of(source, text)}{rest}"
        assert word.startswith("!") != (word.removeprefix("!") in said), said
    assert len(said.splitlines()) < 20 and "convlab_kernel" not in said and "/tmp" not in said.replace(str(source), "")


def test_lanes_that_are_left(tmp_path):
    """What a warp does after some of its lanes have returned is right, until it uses a value of one of those."""
    legal = (
        "  y[i] = sum;",
        "  float next = __shfl_down_sync(0xffffffff, sum, 1);\n"
        "  const unsigned left = __ballot_sync(0xffffffff, 1), lane = threadIdx.x % 32;\n"
        "  if (lane == 31 || !(left >> (lane + 1) & 1)) next = sum;\n"
        "  __syncwarp();\n"
        "  y[i] = __all_sync(left, next == next) ? sum : 0;",
    )
    report = check_kernel(kernel(tmp_path, legal), random_cases=0, count=False)
    assert report.ok and report.compared == report.problems, report
    for used in ("max(sum, {})", "min(sum, {})", "sum + 0 * {}"):
        next_lane = used.format("__shfl_down_sync(0xffffffff, sum, 1)")
        wrong = (
            "  y[i] = sum;",
            f"  const float other = {next_lane};\n  y[i] = threadIdx.x % 32 < 31 && i + 1 == (long long)g.N * g.K * g.P * g.Q ? other : sum;",
        )
        report = check_kernel(kernel(tmp_path, wrong), random_cases=0, count=False, most_findings=1)
        assert [f.subject for f in report.findings] == ["results"], report


def test_results_that_were_not_compared(tmp_path):
    """Where every problem breaks off, nothing is known of the results; where some do, how many are."""
    report = check_kernel(kernel(tmp_path, ("  y[i] = sum;", "  y[-1] = sum;")), random_cases=0)
    assert report.problems and not report.compared and "results              not compared" in str(report)
    assert "races                not looked for further: every problem broke off at the first fault\n" in str(report)
    assert "none found" not in str(report) and "bounds               1 found" in str(report)
    some = kernel(tmp_path, ("  y[i] = sum;", "  y[g.dilation_h > 1 ? -1 : i] = sum;"))
    report = check_kernel(some, random_cases=0)
    assert 0 < report.compared < report.problems and len(report.findings) == 1
    assert "races                none found" in str(report)
    assert f"right where they were compared: {report.compared} of {report.problems} problems" in str(report)
    failing = kernel(
        tmp_path,
        ("  y[i] = sum;", "  assert(sum != sum);\n  y[i] = sum;"),
        ("constexpr int kThreads", "#include <cassert>\nconstexpr int kThreads"),
    )
    (finding,) = check_kernel(failing, random_cases=0, most_findings=1).findings
    assert (
        finding.message.startswith("assertion failed: sum != sum")
        and finding.where == f"{failing}:{line_of(failing, 'assert(')}"
    )


WITHOUT_NUMPY = """
import sys, warnings
sys.modules["numpy"] = None
warnings.simplefilter("ignore")  # torch's own, of its import
import torch
warnings.simplefilter("error")
from convlab import check
file = sys.argv[1]
sys.exit(check.main(["--new", file, "--dtype", "float16"]) or check.main([file, "--dtype", "float16", "--random", "0"]))
"""


def test_without_numpy_in_another_dtype(tmp_path):
    """NumPy is no dependency: torch does not bring it. --new writes for the dtype that it is given."""
    source = tmp_path / "mine.cuh"
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY, source], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"python -m convlab.check {source} --like conv2d_forward --dtype float16\n" in done.stdout
    assert "conv2d_forward, float16" in done.stdout and "--dtype float16\n" in source.read_text()


@pytest.mark.long
@pytest.mark.parametrize("plain", [False, True], ids=["device.h", "plain"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("like", CONTRACTS)
def test_templates_of_other_dtypes(like, dtype, plain, tmp_path):
    source = tmp_path / "mine.cu"
    source.write_text(template(like, dtype, plain))
    report = check_kernel(source, like, dtype=dtype, random_cases=1, count=False)
    assert report.ok and report.compared == report.problems >= 5, report
    assert not plain or not shutil.which("nvcc") or nvcc_says(source) == "nvcc compiles mine.cu as it is"


@pytest.mark.long
@pytest.mark.parametrize("like", CONTRACTS)
def test_plain_templates_are_right(like, tmp_path):
    (tmp_path / "mine.cu").write_text(template(like, plain=True))
    report = check_kernel(tmp_path / "mine.cu", like, random_cases=2)
    assert report.ok and report.compared == report.problems >= 7 and report.numbers, report


def test_what_cannot_be_checked(tmp_path):
    with pytest.raises(ValueError, match="like='conv3d' must be one of 'conv2d_forward'"):
        check_kernel(kernel(tmp_path), "conv3d")
    with pytest.raises(ValueError, match=r"dtype=torch.int8"):
        check_kernel(kernel(tmp_path), dtype=torch.int8)
    with pytest.raises(FileNotFoundError, match=r"nothing.cuh: there is no such file; .*--new"):
        check_kernel(tmp_path / "nothing.cuh")
    with pytest.raises(IsADirectoryError, match="is a folder: name the kernel's file"):
        check_kernel(tmp_path)
    with pytest.raises(CheckError, match="refuses every problem: never today"):
        check_kernel(
            kernel(
                tmp_path,
                (
                    '  if (g.groups != 1) return "has no groups";\n  return nullptr;',
                    '  return g.N < 0 ? nullptr : "never today";',
                ),
            )
        )
    with pytest.raises(FileNotFoundError, match=r"g\+\+-none is not on PATH.*apt install"):
        check_kernel(kernel(tmp_path), cxx="g++-none")


@pytest.mark.parametrize(
    "source",
    sorted(s for s in host_compiler.ROOT.glob("csrc/kernels/conv2d_*.cu") if "ConvKernels" in s.read_text()),
    ids=lambda source: source.stem,
)
def test_a_rung_of_convlab_is_known_as_one(source, capsys):
    """Which command checks it, rather than which launcher it lacks."""
    name = source.stem.removeprefix("conv2d_")
    assert check.main([str(source)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{source.name} is a rung of convlab") and "does not define" not in said
    assert f'make test ARGS="tests/test_ladder.py -k {name}"\n' in said
    assert f"python -m convlab.explain lenet.c3 --algo {name} --count\n" in said


def test_a_host_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr("convlab.testing.program._TIME_LIMIT", 1)
    endless = kernel(
        tmp_path, ("cudaStream_t stream) {\n", "cudaStream_t stream) {\n  for (volatile int i = 0;;) i = 1;\n")
    )
    report = check_kernel(endless)
    (finding,) = report.findings
    assert finding.subject == "host code" and "that does not end" in finding.message and report.problems == 1


def test_workspace_dtypes_and_what_ends_the_program(tmp_path):
    """A launcher with scratch memory, of another element type; and host code that crashes ends its own process only."""
    text = (
        TEMPLATE.replace("float", "T")
        .replace("using namespace convlab;", "using namespace convlab;\nusing T = double;")
        .replace("0.0f", "0.0")
    )
    launcher = (
        "T* y, cudaStream_t stream) {\n",
        'T* y, void* scratch, cudaStream_t stream) {\n  if (!scratch) throw std::runtime_error("no scratch memory");\n',
    )
    more = (
        "// What is checked.",
        "inline long long workspace_bytes(const Conv2d& g) { return 8LL * g.N; }\n// What is checked.",
    )
    assert check_kernel(
        kernel(tmp_path, launcher, more, text=text), dtype=torch.float64, random_cases=0, count=False
    ).ok
    crash = ("cudaStream_t stream) {\n", "cudaStream_t stream) {\n  abort();\n")
    report = check_kernel(kernel(tmp_path, crash), most_findings=1)
    assert "ended with status -6 (SIGABRT" in str(report) and not report.ok
    thrown = ("cudaStream_t stream) {\n", 'cudaStream_t stream) {\n  throw std::runtime_error("not my day");\n')
    assert "the launcher threw an exception: not my day" in str(check_kernel(kernel(tmp_path, thrown), most_findings=1))


@pytest.mark.parametrize("like", [like for like in CONTRACTS if like != "conv2d_forward"])
def test_templates_are_right(like, tmp_path):
    (tmp_path / "mine.cuh").write_text(template(like))
    report = check_kernel(tmp_path / "mine.cuh", like, random_cases=2)
    assert report.ok and report.problems >= 7 and report.numbers, report


def test_the_command(tmp_path, capsys):
    source = tmp_path / "my_kernel.cuh"
    assert check.main(["--new", str(source), "--like", "leaky_relu_forward"]) == 0
    assert f"python -m convlab.check {source} --like leaky_relu_forward" in source.read_text()
    assert check.main(["--new", str(source)]) == 1 and "name a new file" in capsys.readouterr().err
    assert check.main([str(source), "--like", "leaky_relu_forward", "--lines"]) == 0
    assert "by source line" in capsys.readouterr().out
    assert check.main([str(source), "--like", "conv2d_forward"]) == 1
    assert "does not define the launcher" in capsys.readouterr().err
    assert [check.main([str(path)]) for path in (tmp_path / "none.cu", tmp_path)] == [2, 2]
    assert "none.cu: there is no such file" in (said := capsys.readouterr().err) and "is a folder" in said
    source.write_text(source.read_text().replace("x[i] > 0", "x[i + 1] > 0"))
    assert check.main([str(source), "--like", "leaky_relu_forward"]) == 1 and "bounds" in capsys.readouterr().out
    source = tmp_path / "plain.cu"
    assert check.main(["--new", str(source), "--like", "leaky_relu_backward"]) == 0 and "<<<" in source.read_text()
    assert check.main([str(source), "--like", "leaky_relu_backward", "--random", "0", "--no-count"]) == 0
    capsys.readouterr()
    assert check.main(["--forms", "--dtype", "float16"]) == 0
    assert (
        "void conv2d_forward(const __half* x, const __half* w, const __half* bias_or_null, __half* y, int N, int C,"
        in (capsys.readouterr().out)
    )
    assert check.main(["--columns"]) == 0 and "how often each byte" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        check.main([])
    done = subprocess.run([sys.executable, "-m", "convlab.check", "--help"], capture_output=True, text=True, check=True)
    assert all(like in done.stdout for like in testing.CONTRACTS)


def test_reports_name_the_file_as_the_command_line_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    source = kernel(tmp_path / "a folder", ("h < 0 || h >= g.H", "h < 0")).relative_to(tmp_path)
    assert check.main([str(source), "--random", "0"]) == 1
    assert f"    at {source}:{line_of(source, 'sum += x[')}:" in capsys.readouterr().out


def test_a_wrong_name_is_what_one_sees(capsys):
    """Without the usage, and with the nearest name."""
    for wrong, says in (
        ("conv2d_foward", "did you mean 'conv2d_forward'?"),
        ("lstm", "'lstm' is unknown: choose one of conv2d_forward, "),
    ):
        with pytest.raises(SystemExit) as ended:
            check.main(["--like", wrong, "mine.cu"])
        said = capsys.readouterr().err
        assert (
            ended.value.code == 2
            and says in said
            and said.startswith("python -m convlab.check: error: argument --like")
        )


def test_what_was_compiled_serves_every_checkout(tmp_path, monkeypatch):
    """It does not know where the tree lies, only what is in it."""
    folders = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(host_compiler, "compiled", lambda folder, *rest: folders.append(folder))
    here, copy = host_compiler.kept(host_compiler.RUNTIME, True), tmp_path / "copy"
    shutil.copytree(host_compiler.ROOT / "csrc", copy / "csrc")
    sources = [copy / source.relative_to(host_compiler.ROOT) for source in host_compiler.RUNTIME]
    monkeypatch.setattr(host_compiler, "ROOT", copy)
    assert host_compiler.kept(sources, True) == here and len(folders) == 1
    sources[0].write_text("// other\n")
    assert host_compiler.kept(sources, True) != here and len(folders) == 2


# ---- how long it would take ------------------------------------------------------------------------------------------


def predicted_of(path, like):
    with Program(path, CONTRACTS[like]) as program:
        return prediction_of(program, path, CONTRACTS[like])


def test_without_nvcc_a_sentence_says_what_it_takes(tmp_path, monkeypatch):
    """And convlab's kernels are there all the same, of the record."""
    monkeypatch.setenv("CONVLAB_CUDA", "0")
    found = predicted_of(kernel(tmp_path), "conv2d_forward")
    assert found.prediction is None and "nvcc (CONVLAB_CUDA=0); " in str(found) and "install" in str(found)
    for name, (us, measured) in found.rungs.items():
        assert us == pytest.approx(measured, rel=0.6), name
    assert {"direct", "tiled", "register_tiled"} <= found.rungs.keys()


@pytest.mark.long
@pytest.mark.parametrize("name", ["mine.cu", "mine.cuh"])
def test_how_long_it_would_take(tmp_path, name):
    """A thread an output, as `direct` has it."""
    if not toolchain.choose_nvcc({**os.environ, "CONVLAB_CUDA": "auto"}, "g++")[0]:
        pytest.skip("there is no nvcc")
    (tmp_path / name).write_text(template("conv2d_forward", plain=name.endswith(".cu")))
    found = predicted_of(tmp_path / name, "conv2d_forward")
    assert found.prediction, found.why_not
    direct, _ = found.rungs["direct"]
    assert 0.5 < found.prediction.microseconds / direct < 2
    (code,) = found.code.values()
    assert code.profile.main.body.global_loads >= 2 and "registers" in str(found) and "multiply-adds" in str(found)
