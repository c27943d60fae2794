"""The CPU kernels without torch: for this machine, and for aarch64 under qemu. tests/without_torch/cpu_kernels.cpp says
what is checked."""

import os
import runpy
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETUP = runpy.run_path(str(ROOT / "setup.py"))
CROSS = "aarch64-linux-gnu-g++"
ONE_SET = ["-DCONVLAB_EACH_SET(f, ...)=f(baseline, __VA_ARGS__)"]  # the baseline, which any machine runs


def objects_of_the_build(kernels) -> list[str]:
    """Of the baseline, where there are all: compiled without torch's headers, too, and with the same flags."""
    objects = [ROOT / "build" / sysconfig.get_config_var("SOABI") / "_C" / f"{path}.baseline.o" for path in kernels]
    return [str(path) for path in objects] if all(path.exists() for path in objects) else []


def compile_with(cxx, folder, *link_flags):
    """Compiles the kernels with the build's flags, and the program around them with -O1, which takes less time."""
    kernels = [path.relative_to(ROOT) for path in sorted((ROOT / "csrc" / "cpu").rglob("*.kernel.cpp"))]
    built = [] if cxx == CROSS else objects_of_the_build(kernels)
    sources = [] if built else [(path, SETUP["isa_flags"]("baseline")) for path in kernels]
    host = [
        *SETUP["LADDER"],
        "csrc/cpu/conv2d/bias_grad.cpp",
        *sorted((ROOT / "csrc/cpu/conv2d").glob("*/*.cpp")),
        "tests/without_torch/cpu_kernels.cpp",
    ]
    sources += [
        (path, [*SETUP["CXX_FLAGS"], "-O1", "-Itests/without_torch"])
        for path in host
        if not str(path).endswith(".kernel.cpp")
    ]
    commands = [
        [cxx, *flags, *ONE_SET, "-c", str(source), "-o", str(folder / f"{i}.o")]
        for i, (source, flags) in enumerate(sources)
    ]
    with ThreadPoolExecutor(4) as compilers:
        for done in compilers.map(lambda c: subprocess.run(c, cwd=ROOT, stderr=subprocess.PIPE, text=True), commands):
            assert done.returncode == 0, done.stderr
    objects = [*sorted(map(str, folder.glob("*.o"))), *built]
    subprocess.run([cxx, *objects, "-o", str(folder / "cpu_kernels"), *link_flags], check=True)
    return folder / "cpu_kernels"


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0 and " 0 failures" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]


def test_on_this_machine(tmp_path):
    cxx = shutil.which(os.environ.get("CXX", "g++"))
    if cxx is None:
        pytest.skip("needs a C++ compiler")
    run(compile_with(cxx, tmp_path), 1, 500)


def test_on_aarch64(tmp_path):
    cxx = shutil.which(CROSS)
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if cxx is None or qemu is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64: apt install g++-aarch64-linux-gnu qemu-user")
    run(qemu, compile_with(cxx, tmp_path, "-static"), 2, 100)
