"""Plain CUDA as students write it: the right kernels pass, the mistakes are named at their lines, and nvcc compiles what
the simulator runs."""

import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from student_kernels import CORRECT, DTYPES, FOLDER, LIKE, MISTAKES, changed, complaints

import convlab.check
from convlab.testing import CompileError, check_kernel
from convlab.testing.plain_cuda import translated
from convlab.testing.program import like_of, nvcc_says
from convlab.testing.suggestions import suggestion

SAMPLE = random.Random(4).sample(sorted(MISTAKES), 4)  # the others are long


def dtype_of(file: str) -> torch.dtype:
    return getattr(torch, DTYPES.get(file, "float32"))


def check(folder: Path, file: str, changes=(), **options):
    source = folder / f"{file}.cu"
    source.write_text(changed(file, changes))
    return source, check_kernel(source, LIKE[file], dtype=dtype_of(file), **options)


@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.long) for name in MISTAKES]
)
def test_mistakes(name, tmp_path):
    mistake = MISTAKES[name]
    source, report = check(tmp_path, mistake.file, mistake.changes, random_cases=0, most_findings=1)
    assert not complaints(mistake, source, report)
    assert name != "uninitialised sum" or any("‘sum’" in warning for warning in report.warnings)
    assert name != "no barrier after using" or "in the loop's next iteration" in str(report)
    assert name != "endless loop" or (report.stopped and report.problems == 1)


@pytest.mark.long
def test_macros_of_the_file_are_its_own(tmp_path):
    """Whatever they are called: what is compiled behind the file has the same names."""
    source, names = tmp_path / "mine.cu", ("T", "E", "in", "out", "problem", "workspace", "Problem", "kForm")
    text = "".join(f"#define {name} 16\n" for name in names) + " # define  P(a) (a)\n"
    source.write_text((FOLDER / "basic.cu").read_text() + text)
    assert check_kernel(source, random_cases=0).ok


CUDA = """\
#include <cuda_runtime.h>
// __shared__ float x[3]; k<<<1, 2>>>()
#include "beside.h"
static __constant__ float w[16];
template <int T> __global__ void k(float* x) {
  __shared__ float tile[T][T + 1], other[3],
      last;
  __align__(16) static __shared__ std::array<float, 3> a;
  extern __shared__ float4 buffer[];
  printf("<<<%d>>> __shared__", 3);
}
void launcher(float* x) {
  a::k<(3 > 2)><<<dim3(1, 2), 3>>>(
      x);
}
"""
CPP = """\
#include <cuda_runtime.h>
// __shared__ float x[3]; k<<<1, 2>>>()
#include "BESIDE"
 __constant__ float w[16];
template <int T> __global__ void k(float* x) {
  struct convlab_shared_1 {  float tile[T][T + 1], other[3],
      last; }; CONVLAB_SHARED(convlab_shared_1, tile) CONVLAB_SHARED(convlab_shared_1, other) CONVLAB_SHARED(convlab_shared_1, last)
  struct convlab_shared_2 { __align__(16)   std::array<float, 3> a; }; CONVLAB_SHARED(convlab_shared_2, a)
  struct convlab_shared_3 {   float4 buffer[1]; }; CONVLAB_DYNAMIC_SHARED(convlab_shared_3, buffer)
  printf("<<<%d>>> __shared__", 3);
}
void __attribute__((optimize("O0"))) launcher(float* x) {
  CONVLAB_LAUNCH(a::k<(3 > 2)>)(dim3(1, 2), 3)(
      x);
}
"""


def test_the_translation_keeps_lines(tmp_path):
    source, folder = tmp_path / "mine.cu", tmp_path / "translated"
    folder.mkdir()
    source.write_text(CUDA)
    (tmp_path / "beside.h").write_text("__shared__ int n;\n")
    copy, unsupported = translated(source, "launcher", folder)
    beside = next(folder.glob("*_beside.h"))
    assert copy.read_text() == f'#line 1 "{source}"\n' + CPP.replace("BESIDE", str(beside))
    assert [str(u) for u in unsupported] == [
        f"  {tmp_path}/beside.h:1: shared memory outside of a function\n      declare it in the kernel that uses it"
    ]


# What is put into the basic kernel, and what is said of it.
NOT_SIMULATED = {
    '  asm volatile("bar.sync 0;");\n': "basic.cu:11: asm\n      inline PTX is not simulated",
    "  __shared__ float tile = 0;\n": "basic.cu:11: shared memory with an initial value",
}


@pytest.mark.parametrize("line", NOT_SIMULATED)
def test_what_is_not_simulated_is_named(line, tmp_path):
    with pytest.raises(CompileError) as caught:
        check(tmp_path, "basic", [("  float sum = 0.0f;\n", line + "  float sum = 0.0f;\n")])
    assert NOT_SIMULATED[line] in str(caught.value)


def test_what_is_said_beside_findings(tmp_path):
    """What kernel and launcher print, and where neighbouring threads read what lies far apart."""
    changes = [
        ("  int q = blockIdx.x * blockDim.x + threadIdx.x;", "  int q = blockIdx.x * blockDim.x + threadIdx.y;"),
        ("  int p = blockIdx.y * blockDim.y + threadIdx.y;", "  int p = blockIdx.y * blockDim.y + threadIdx.x;"),
        ("  if (bias) sum += bias[k];", '  if (p == 1) printf("sum %g\\n", sum);\n  if (bias) sum += bias[k];'),
        ("  dim3 block(TILE, TILE);", '  printf("%d images\\n", N);\n  dim3 block(TILE, TILE);'),
    ]
    seen = []
    _, report = check(tmp_path, "basic", changes, random_cases=0, progress=lambda done, what: seen.append((done, what)))
    assert report.ok and report.compared == report.problems, report
    kernel, launcher = report.printed.split("\nthe launcher")
    assert kernel.startswith(
        "the kernel printed, in x [2, 3, 7, 11], w [5, 3, 3, 3]\n  block (0,0,0), thread (1,0,0): sum "
    )
    assert len(kernel.splitlines()) == 12 and "\n  and 80 more" in kernel and "  2 images" in launcher
    assert "basic.cu:15: reads of 'input' move" in str(report) and "are 56 bytes apart" in str(report)
    assert seen[0] == (0, "x [2, 3, 7, 11], w [5, 3, 3, 3]") and seen[-1] == (report.problems, "LeNet C3")


@pytest.mark.parametrize("name,status", [("", 0), ("no barrier in the tree", 1)])
def test_a_program_with_a_main_of_its_own(name, status, tmp_path, capfd):
    """Nobody says what it is like."""
    source = tmp_path / "reduction.cu"
    source.write_text(changed("reduction", MISTAKES[name].changes if name else []))
    assert convlab.check.main([str(source)]) == status
    said = capfd.readouterr().out
    assert said.startswith("reduction.cu as a program, its main() run in 3 orders of threads and blocks\n")
    if name:
        assert "race (" in said and f"at {source}:15:" in said and "suggests: a __syncthreads() between" in said
        assert re.search(r"bounds +not looked for further: the run ended at the first fault\n", said), said
        assert re.search(r"races +1 found\n", said) and "none found" not in said
    else:
        assert re.search(r"bounds +none found\n", said) and "not looked for" not in said
        assert "the program printed, in main()\n  the sum: 500, expected 500\n" in said
        assert re.search(r"reduction.cu:12 +read global cudaMalloc of line 25 +32 ", said), said


def test_a_host_that_faults_before_any_kernel(tmp_path):
    """Nothing is said to be free of faults that never ran."""
    source = tmp_path / "host.cu"
    source.write_text("int main() { *(volatile int*)nullptr = 3; }\n")
    said = str(check_kernel(source, "main"))
    assert re.search(r"host code +1 found\n", said) and "SIGSEGV" in said and "none found" not in said, said


SHIFT = """
__global__ void shift(float* a) {
  __shared__ float s[64];
  int t = threadIdx.x;
  s[t] = a[t];
  __syncthreads();
  float mine = s[t];
  float left = s[(t + 1) % 64];  // what races
  mine += s[t];
  s[t] = mine + left;
  __syncthreads();
  a[t] = s[t];
}
int main() {
  float* a;
  cudaMalloc(&a, 64 * 4), cudaMemset(a, 0, 64 * 4);
  shift<<<1, 64>>>(a);
  cudaDeviceSynchronize();
}
"""


def test_a_race_names_the_read_of_another_thread(tmp_path):
    """Of several, the writer's own read is no part of it."""
    source = tmp_path / "shift.cu"
    source.write_text(SHIFT)
    (race,) = check_kernel(source, "main", count=False).findings
    assert "write after read" in race.message and "shift.cu:8:" in race.message, race
    assert "shift.cu:7:" not in race.message and "shift.cu:9:" not in race.message


MANAGED = """
#include <cstdio>
__global__ void add(int n, float* x, float* y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] + y[i];
}
int main() {
  float *x, *y, sum = 0;
  cudaMallocManaged(&x, 400), cudaMallocManaged(&y, 400);
  for (int i = 0; i < 100; i++) x[i] = 1, y[i] = 2;
  add<<<4, 32>>>(100, x, y);
  cudaDeviceSynchronize();
  for (int i = 0; i < 100; i++) sum += y[i];
  cudaFree(x), cudaFree(y);
  return sum == 300 ? 0 : 1;
}
"""


@pytest.mark.parametrize(
    "before,after,said",
    [
        ("", "", ""),
        (
            "  cudaDeviceSynchronize();",
            "",
            "reads managed memory, 'cudaMallocManaged of line 9', while a kernel may still run",
        ),
        ("if (i < n)", "if (i <= n)", "behind the end of 'cudaMallocManaged of line 9' (400 bytes)"),
    ],
)
def test_managed_memory(before, after, said, tmp_path):
    """The host uses it as its own, but while a kernel may run."""
    source = tmp_path / "add.cu"
    source.write_text(MANAGED.replace(before, after, 1) if before else MANAGED)
    report = check_kernel(source, "main", count=False)
    assert report.ok if not said else [said in f.message for f in report.findings] == [True], report


@pytest.mark.parametrize(
    "who,advice",
    [
        ("thread (0,0,0)", "atomicAdd where threads add to one element"),
        ("a thread of another block", "no barrier reaches"),
    ],
)
def test_a_race_in_device_memory_suggests(who, advice):
    race = "race (write after write) on device memory 'output' element 0 (byte 0)\n  at mine.cu:5:8\n"
    assert advice in suggestion(f"{race}  written by {who}, unordered, at mine.cu:5:80")
    guard = suggestion(f"{race}  written by {who}, unordered, at mine.cu:5:8\n  and more")
    assert "an if around it" in guard and "barrier" not in guard


def test_a_missing_barrier_is_suggested_in_one_way():
    races = [f"race ({kind}) on shared memory 'tile'\n" for kind in ("read after write", "write after write")]
    assert len({suggestion(race) for race in races}) == 1
    assert "__syncthreads() between the two, which all threads" in suggestion(races[0])
    assert not suggestion("race (read before write)")


LOOP = """\
for (int t = 0; t < n; t++) {
  tile[i] = x[t];
  __syncthreads();  // loaded
  for (int j = 0; j < 8; j++) sum += tile[j];
}
"""


@pytest.mark.parametrize("kind,at,by", [("write after read", "3:3", "5:38"), ("read after write", "5:38", "3:3")])
@pytest.mark.parametrize(
    "change,in_the_next_iteration",
    [
        (("", ""), True),
        (("  __sync", "  // __sync"), False),
        (("  __sync", "  if (t) __sync"), False),
        (("__syncthreads();", "if (t) { __syncthreads(); }"), False),
        (("for (int t = 0; t < n; t++) {", "{"), False),
        (("for (int t = 0; t < n; t++) {", "for (; t < 4; t++) s += t;\nif (t) {"), False),
        (("for (int t = 0; t < n; t++) {", "do {"), True),
        (("for (int t = 0; t < n; t++) {", "while (t < f(n)) {"), True),
    ],
)
def test_a_race_with_the_next_iteration_suggests_the_end_of_the_loop(
    kind, at, by, change, in_the_next_iteration, tmp_path
):
    """Where a barrier stands between the two lines already, and all threads reach it."""
    text = LOOP.replace(*change, 1)
    (tmp_path / "mine.cu").write_text("\n" * (6 - len(text.splitlines())) + text)  # the lines keep their numbers
    race = f"race ({kind}) on shared 'tile' element 0 (byte 0)\n  at {tmp_path}/mine.cu:{at}\n  by thread 1, unordered, at {tmp_path}/mine.cu:{by}\n"
    said = suggestion(race)
    if in_the_next_iteration:
        assert "the read at line 5 comes first, and the write at line 3 follows in the loop's next iteration" in said
        assert (
            "a __syncthreads() at the end of the loop's body, before the brace in line 6" in said
            and "between" not in said
        )
    else:
        assert "a __syncthreads() between the two" in said


def test_what_a_file_is_like(tmp_path):
    source = tmp_path / "mine.cu"
    source.write_text("int main() {}\n")
    with pytest.raises(CompileError, match=r"but has a main\(\): leave --like out"):
        check_kernel(source)
    texts = {
        "int main(int n, char** words) {}": "main",
        "int mains() {}": "conv2d_forward",
        "// int main() {}": "conv2d_forward",
    }
    texts |= {"void prelu_forward(float* x) {}\nint main() {}": "prelu_forward"}
    for text, like in texts.items():
        source.write_text(text)
        assert like_of(source) == like
    assert like_of(tmp_path / "none.cu") == "conv2d_forward"


def test_there_are_enough():
    assert len(CORRECT) + len(MISTAKES) >= 40 and {m.file for m in MISTAKES.values()} == set(LIKE)
    assert {path.stem for path in FOLDER.glob("*.cu")} == set(LIKE)


@pytest.mark.parametrize("file", ["wmma", *(pytest.param(f, marks=pytest.mark.long) for f in CORRECT if f != "wmma")])
def test_right_ones(file, tmp_path):
    _, report = check(tmp_path, file, random_cases=1)
    assert report.ok and report.compared == report.problems and report.traffic and not report.warnings, report
    assert report.problems >= 6 or LIKE[file] == "main"


@pytest.mark.long
@pytest.mark.parametrize("file", CORRECT)
def test_silent_in_every_order(file, tmp_path):
    for seed in range(20):
        _, report = check(tmp_path, file, random_cases=2, seed=seed, count=False)
        assert report.ok, f"seed {seed}\n{report}"


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
@pytest.mark.parametrize("file", LIKE)
def test_nvcc_compiles_them_unchanged(file):
    assert nvcc_says(FOLDER / f"{file}.cu") == f"nvcc compiles {file}.cu as it is"
