"""A sample of `make mutants`: kernels broken in one place, which the tests must notice. And how the places are
found."""

import os
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


def test_every_harmless_mutant_has_a_reason():
    assert all(len(reason) > 20 for reason in mutants.read_harmless().values())
