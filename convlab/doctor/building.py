"""What a build needs. An installation that works needs none of it, so what is missing is a note."""

import os
import sys

from .. import toolchain
from .finding import Finding, note, ok


def host_compiler() -> tuple[Finding, str | None]:
    """And its path."""
    try:
        cxx = toolchain.find_cxx(os.environ)
        toolchain.python_include()
    except toolchain.Refusal as refusal:
        return note("host compiler", *_said_and_fix(refusal)), None
    return ok("host compiler", f"{cxx.version} ({cxx.path})"), cxx.path


def nvcc(cxx: str | None, torch_cuda: str | None) -> Finding:
    if cxx is None:
        return note("nvcc", "not tried without a host compiler")
    try:
        found, reason = toolchain.choose_nvcc({**os.environ, "CONVLAB_CUDA": "auto"}, cxx)
    except toolchain.Refusal as refusal:
        return note("nvcc", *_said_and_fix(refusal))
    if found is None:
        packages = " ".join(f"'{package}'" for package in toolchain.nvcc_packages(torch_cuda))
        return note(
            "nvcc",
            f"{reason}; to build for CUDA",
            f"pip install {packages}" if packages else "install the CUDA toolkit and set CUDA_HOME",
        )
    said = f"{found.version} ({found.path})"
    if complaint := toolchain.host_compiler_refused(found.path, cxx):
        return note("nvcc", f"{said} does not take {cxx}: {complaint}", "install an older g++ and name it in CXX")
    if torch_cuda and toolchain.numbers(torch_cuda)[0] != toolchain.numbers(found.version)[0]:
        return note(
            "nvcc",
            f"{said}, and torch is of CUDA {torch_cuda}: what it builds needs a driver for both",
            f"install CUDA {toolchain.numbers(torch_cuda)[0]}'s toolkit and set CUDA_HOME",
        )
    return ok("nvcc", said)


def ninja() -> Finding:
    missing = [name for name in ("ninja", "pybind11") if toolchain.package(name) is None]
    if missing:
        return note(
            "ninja",
            f"{' and '.join(missing)} not installed in {sys.prefix}; to build",
            f"pip install {' '.join(missing)}",
        )
    return ok("ninja", "and pybind11 installed")


def memory() -> Finding:
    free = toolchain.free_gb()
    jobs, reason = toolchain.jobs({**os.environ, "MAX_JOBS": ""}, len(os.sched_getaffinity(0)), free)
    found = f"a build would run {jobs} compilers at a time ({reason})"
    if free is not None and free < toolchain.GB_PER_JOB:
        return note(
            "memory", found + f", and one takes up to {toolchain.GB_PER_JOB:g} GB", "free memory before building"
        )
    return ok("memory", found)


def _said_and_fix(refusal) -> tuple[str, str]:
    said, _, fix = str(refusal).removeprefix("convlab: ").rpartition(": ")
    return said, fix
