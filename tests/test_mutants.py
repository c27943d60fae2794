"""A sample of `make mutants`: kernels broken in one place, which the tests must notice. And how the places are
found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not list(ROOT.glob("build/*/_sim")), reason="the objects of the build are gone: make build")
@pytest.mark.parametrize("sample,seed", [(2, 1), *(pytest.param(10, seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_some_mutants_are_noticed(sample, seed):
    command = [sys.executable, "-m", "tools.mutants", "--sample", str(sample), "--seed", str(seed), "--jobs", "1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_build_it_says_so(tmp_path, monkeypatch):
    """And ends: workers that cannot begin would be started again and again."""
    monkeypatch.setattr(mutants, "built", lambda: ROOT / "build" / "of nobody")
    monkeypatch.setattr(sys, "argv", ["mutants.py", "--sample", "1", "--jobs", "1"])
    with pytest.raises(SystemExit, match=r"_sim/csrc/kernels/adaptive_pool2d.cu.o is missing: make build"):
        mutants.main()


def test_every_kernel_has_problems():
    """Of its own: others never launch what was broken."""
    for source in sorted((ROOT / "csrc" / "kernels").glob("*.cu")):
        assert callable(next(mutants.problems_of(source, True))), source


SOURCE = """
#define CONVLAB_HD __host__ __device__
template <class T, int n = 3> constexpr int twice(T a) { return a < n ? 1 : 2; }
__device__ int declared(int a);
template <class Tile> __global__ void __launch_bounds__(256, 2) kernel(const Tile t, int n) {
  static_assert(sizeof(T) < 3, "a < b");
  if (n >= 3 && a <b> (c)) return;  // n == 4
  for (int i = 0; i < n; i++) { __syncthreads(); }
  x << 3; y->z; __syncwarp(); if (n != 2) "a == b";
}
CONVLAB_HD inline bool both(int a) { return a <= 0; }
void launcher(int n) { if (n == 3) launch(kernel<Tile<1, 2>>, n); }
"""


def test_where_mutants_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "a.cu").write_text(SOURCE)
    found, left_out = mutants.mutants_of(tmp_path / "a.cu")
    assert left_out == 2  # in functions of the host
    assert [(m.line, SOURCE[m.begin : m.end], m.new) for m in found] == [
        (7, ">=", ">"),
        (8, "<", "<="),
        (8, "__syncthreads();", ""),
        (9, "__syncwarp();", ""),
        (9, "!=", "=="),
        (11, "<=", "<"),
    ]
    assert str(found[0]) == "a.cu:7: if (n > 3 && a <b> (c)) return;  // n == 4"
    assert found[3].key == ("a.cu", 'without x << 3; y->z; __syncwarp(); if (n != 2) "a == b";')


FUNCTIONS = """
int synchronised = 0;
void __syncthreads() { synchronised++; }
__device__ constexpr int sign(int a) { return a < 0 ? -1 : a > 0 ? 1 : 0; }
__device__ bool kernel(unsigned a, long long b) {
  if (b + 1 < 3) {
    __syncthreads();
  } else return a <= 2 && b - 1 >= 2 && a != 0;
  return (a == 2) == (b + sign(int(a) - 1) > 0);
}
int all() {
  int bits = 0;
  for (int n = 0; n != 20; n++) bits = 2 * bits + kernel(n / 5, n % 5);
  return bits * 32 + synchronised;
}
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_switches_are_the_mutants(tmp_path, monkeypatch):
    """Functions with a switch in every place do, with one of them on, what they do with that place changed alone; and
    what the compiler evaluates is as it was."""
    (tmp_path / "a.cu").write_text(FUNCTIONS)
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    found, _ = mutants.mutants_of(tmp_path / "a.cu")
    assert {m.was for m in found} == {"<", "<=", ">", ">=", "==", "!=", "__syncthreads();"}

    def after(edits):
        text = FUNCTIONS
        for m, new in reversed(edits):
            text = text[: m.begin] + new + text[m.end :]
        return text

    text = f"namespace original {{ {FUNCTIONS} }} namespace switched {{ {after([(m, mutants.switch(m, n)) for n, m in enumerate(found)])} }}"
    text += "static_assert(switched::sign(0) == 0 && switched::sign(-2) == -1);"
    calls = ""
    for n, m in enumerate(found):
        text += f"namespace mutant{n} {{ {after([(m, m.new)])} }}"
        calls += f"original::synchronised = switched::synchronised = 0, convlab_mutant = {n};"
        calls += f'std::printf("%d %d %d\\n", switched::all(), mutant{n}::all(), original::all());'
    (tmp_path / "a.cpp").write_text(f"#include <cstdio>\n{text} int main() {{ {calls} }}")
    command = ["g++", "-std=c++20", "-D__device__=", "-DCONVLAB_DEFINE_SWITCHES", "-include", mutants.SWITCHES]
    subprocess.run([*command, tmp_path / "a.cpp", "-o", tmp_path / "a"], check=True)
    said = subprocess.run([tmp_path / "a"], capture_output=True, text=True, check=True).stdout.splitlines()
    numbers = [line.split() for line in said]
    assert len(numbers) == len(found) and all(a == b != original for a, b, original in numbers), numbers


def test_every_harmless_mutant_has_a_reason():
    assert all(len(reason) > 20 for reason in mutants.read_harmless().values())
