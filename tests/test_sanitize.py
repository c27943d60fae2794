"""`make sanitize` sees what goes wrong in the CPU kernels: past the end of a tensor, and of the scratch memory that is
kept from call to call and cut into arrays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CXX = shutil.which(os.environ.get("CXX", "g++"))

OVERRUN = """
#include "cpu/scratch.h"
#include "cpu/workspace.h"
#include <cstdio>
#include <cstdlib>

int main(int, char** arguments) {
  using namespace convlab;
  const int what = std::atoi(arguments[1]);
  { const CpuScratch larger(CpuScratch::own, 4096); }
  const CpuScratch scratch(CpuScratch::own, 1000);
  Carver carver{scratch.get()};
  float *first, *second, *none, *rest;
  carver.take(first, 32), carver.take(second, 3), carver.take(none, 0), carver.take(rest, 0);
  if (first[0] == first[0] || none != rest) return 1;  // NaN
  for (int i = 0; i < 32; i++) first[i] = 0;
  for (int i = 0; i < 3; i++) second[i] = 0;
  for (float* p = rest; p < reinterpret_cast<float*>(scratch.get()) + 250; p++) *p = 0;
  std::puts("inside");
  std::fflush(stdout);
  float* const past[] = {first + 32, second + 3, reinterpret_cast<float*>(scratch.get()) + 250};
  if (what < 3) *past[what] = 0;
  return 0;
}
"""


@pytest.fixture(scope="module")
def overrun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overrun")
    (folder / "overrun.cpp").write_text(OVERRUN)
    command = [
        CXX or "g++",
        "-std=c++20",
        "-g1",
        "-fsanitize=address",
        f"-I{ROOT / 'csrc'}",
        str(folder / "overrun.cpp"),
        "-o",
        str(folder / "overrun"),
    ]
    if CXX is None or subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs g++ with AddressSanitizer")
    return folder / "overrun"


@pytest.mark.parametrize("what", ["an array", "an array of an odd size", "the call's bytes", "nothing"])
def test_overruns_of_scratch_are_reported(what, overrun):
    names = ["an array", "an array of an odd size", "the call's bytes", "nothing"]
    environ = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS")}
    done = subprocess.run([overrun, str(names.index(what))], env=environ, capture_output=True, text=True)
    assert done.stdout == "inside\n"
    assert (done.returncode == 0) == (what == "nothing")
    assert ("use-after-poison" in done.stderr and "overrun.cpp" in done.stderr) == (what != "nothing"), done.stderr


PAST_THE_END = """
import ctypes, sys, torch, convlab.functional as CF
x, w = torch.randn(1, 16, 5, 7), torch.randn(16, 16, 3, 3)
call = lambda: CF.conv2d(x, w, algo=sys.argv[1])
call()
print("inside", flush=True)
ctypes.CDLL(None).__asan_poison_memory_region(ctypes.c_void_p(x.data_ptr() + x.nbytes - 4), ctypes.c_size_t(4))
call()
"""


@pytest.mark.skipif(os.environ.get("CONVLAB_SANITIZE") != "1", reason="for `make sanitize`")
@pytest.mark.parametrize("algo", ["reference", "register_tiled", "direct"])
def test_the_kernels_are_watched(algo):
    """x ends one element too early."""
    environ = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sys.executable, "-c", PAST_THE_END, algo], env=environ, capture_output=True, text=True)
    assert done.stdout == "inside\n", done.stderr
    assert done.returncode != 0 and "ERROR: AddressSanitizer" in done.stderr and "csrc/cpu/" in done.stderr
