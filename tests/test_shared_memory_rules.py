"""How many wavefronts the simulator says a request to shared memory takes: by the banks, and as an H200's counters have
it for 16 bytes a lane."""

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
DRIVER = """
#include "simulator/traffic.h"
#include <cstdio>
int main() {
  unsigned bytes;
  while (std::scanf("%u", &bytes) == 1) {
    uintptr_t address[32];
    for (uintptr_t& a : address) std::scanf("%lu", &a);
    std::printf("%u\\n", convlab::sim::wavefronts_of(address, ~0u, bytes).taken);
  }
}
"""
CASES = {  # name: (bytes a lane, address of a lane, wavefronts)
    "neighbouring words": (4, lambda lane: 4 * lane, 1),
    "one word for all": (4, lambda lane: 64, 1),
    "every other word": (4, lambda lane: 8 * lane, 2),
    "a column of 32": (4, lambda lane: 128 * lane, 32),
    "a column, padded": (4, lambda lane: 132 * lane, 1),
    "8 bytes, side by side": (8, lambda lane: 8 * lane, 2),
    # one multiply of the matrix rungs, as ncu counted it on an H200: 12 for these pairs of two loads each, 12, then 8
    "16 bytes, side by side": (16, lambda lane: 16 * lane, 4),
    "16 bytes, one for all": (16, lambda lane: 0, 2),
    "2 x 16 lanes: rows": (16, lambda lane: 16 * (lane // 16), 2),
    "2 x 16 lanes: columns": (16, lambda lane: 16 * (lane % 16), 4),
    "4 x 8 lanes: rows": (16, lambda lane: 16 * (lane // 8), 2),
    "4 x 8 lanes: columns": (16, lambda lane: 16 * (lane % 8), 4),
    "4 x 8 lanes, in pairs: rows": (16, lambda lane: 16 * (lane // 16 * 2 + lane % 2), 2),
    "4 x 8 lanes, in pairs: columns": (16, lambda lane: 16 * (lane // 2 % 8), 2),
}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    compiler = shutil.which("g++") or pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("rules")
    (folder / "driver.cpp").write_text(DRIVER)
    command = [
        compiler,
        "-std=c++20",
        "-O1",
        "-ffunction-sections",
        "-Wl,--gc-sections",
        f"-I{CSRC}",
        "driver.cpp",
        str(CSRC / "simulator" / "traffic.cpp"),
        "-o",
        "driver",
    ]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    given = "\n".join(
        " ".join(map(str, [size, *(address(lane) for lane in range(32))])) for size, address, _ in CASES.values()
    )
    done = subprocess.run([folder / "driver"], input=given, capture_output=True, text=True, check=True, timeout=60)
    return dict(zip(CASES, map(int, done.stdout.split())))


@pytest.mark.parametrize("name", CASES)
def test_wavefronts(counted, name):
    assert counted[name] == CASES[name][2]
