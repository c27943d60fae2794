"""What there is to build convlab with: torch, the compilers, the GPU architectures, the number of jobs.

setup.py and the doctor ask; where a build cannot go on, the answer is a Refusal, one sentence on the terminal.
Importing this module does nothing, and it needs nothing of convlab: setup.py imports it before anything is built.
"""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from typing import NamedTuple

OLDEST_TORCH = "2.11"  # the stable ABI that csrc/ is written to
OLDEST_PYTHON = (3, 10)
OLDEST_GXX = 11  # C++20 with std::source_location and std::bit_cast
OLDEST_CUDA = 12  # C++20
# Where no GPU is seen. 8.6 and 8.9 run machine code of 8.0: made for them it differs in the registers that nvcc spends, of
# which it has more for a thread where fewer threads fit. PTX: newer GPUs compile it when they load it.
DEFAULT_ARCHS = "8.0;9.0+PTX"
NAMED_ARCHS = {  # torch's names for them, in torch.utils.cpp_extension
    "Volta": "7.0+PTX",
    "Volta+Tegra": "7.2",
    "Turing": "7.5+PTX",
    "Ampere": "8.0;8.6+PTX",
    "Ampere+Tegra": "8.7",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
    "Blackwell+Tegra": "11.0",
    "Rubin": "10.7+PTX",
}
LAUNCHERS = ("ccache", "sccache", "distcc", "icecc", "buildcache")  # of compilers, as the first word of CXX
GB_PER_JOB = 1.0  # measured: 0.4 for the largest file

# PyPI's nvcc and what it compiles against, for CUDA 13 and later: {0} is torch's CUDA version, {1} the next major one.
NVCC_PACKAGES = [
    "nvidia-cuda-nvcc=={0}.*",
    "nvidia-cuda-crt=={0}.*",
    "nvidia-nvvm=={0}.*",
    "nvidia-cuda-runtime=={0}.*",
    "nvidia-cuda-cccl>={0},<{1}",
]


class Refusal(SystemExit):
    """Why a build cannot go on: printed as it is, without a traceback."""

    def __init__(self, sentence):
        super().__init__("convlab: " + sentence)


def numbers(version) -> tuple[int, ...]:
    """'2.15.0+cu132' -> (2, 15, 0)"""
    return tuple(int(n) for n in re.match(r"\d+(?:\.\d+)*", version).group().split("."))


def output(*command) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


# ---- Python and its packages
# ------------------------------------------------------------------------------------------


class Torch(NamedTuple):
    version: str  # without the local part: 2.15.0
    cuda: str | None  # 13.2, or None for a CPU-only torch
    include: str
    lib: str


def package(name):
    """The directory of an importable package, without importing it; None if there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except ImportError:
        return None
    return os.path.dirname(spec.origin) if spec and spec.origin else None


def torch_facts():
    """What torch's version.py says (`__version__`, `cuda`), without importing torch, which would take seconds; None
    where there is none."""
    root = package("torch")
    return root and runpy.run_path(os.path.join(root, "version.py"))


def find_torch() -> Torch:
    facts = torch_facts()
    again = f"pip install 'torch>={OLDEST_TORCH}', then pip install --no-build-isolation ."
    if facts is None:
        raise Refusal(
            f"building needs torch >= {OLDEST_TORCH} in this environment ({sys.prefix}), which has none: {again}"
        )
    root, version = package("torch"), str(facts["__version__"]).split("+")[0]
    if numbers(version) < numbers(OLDEST_TORCH):
        raise Refusal(
            f"building needs torch >= {OLDEST_TORCH}, and this environment ({sys.prefix}) has {version}: {again}"
        )
    return Torch(version, facts.get("cuda"), os.path.join(root, "include"), os.path.join(root, "lib"))


def check_machine(environ):
    """Refuses what no installing of Python packages would help."""
    if not sys.platform.startswith("linux"):
        raise Refusal(f"builds on Linux; this is {sys.platform}")
    if sys.version_info < OLDEST_PYTHON:
        raise Refusal(
            "needs Python >= {}.{}; this is {}.{} ({})".format(*OLDEST_PYTHON, *sys.version_info[:2], sys.executable)
        )
    find_cxx(environ)
    python_include()


def check_packages():
    find_torch()
    missing = [name for name in ("ninja", "pybind11") if package(name) is None]
    if missing:
        raise Refusal(
            f"building needs {' and '.join(missing)} in this environment ({sys.prefix}), which has none: "
            f"pip install {' '.join(missing)}, then pip install --no-build-isolation ."
        )


def python_include() -> str:
    include = sysconfig.get_path("include")
    if not os.path.exists(os.path.join(include, "Python.h")):
        raise Refusal(
            f"Python.h is not in {include}: install Python's headers (Debian, Ubuntu: apt install python3-dev)"
        )
    return include


# ---- the C++ compiler
# -------------------------------------------------------------------------------------------------


class Compiler(NamedTuple):
    path: str
    version: str  # the first line of --version
    launcher: list[str]  # ccache, in front of it
    flags: list[str]  # behind it


def find_cxx(environ) -> Compiler:
    """What CXX names: a compiler, maybe behind a launcher, maybe with flags. g++ where it names nothing."""
    named = environ.get("CXX", "").strip() or "g++"
    search = environ.get("PATH")
    words = [named] if shutil.which(named, path=search) else shlex.split(named)  # a path may have blanks
    launcher = []
    while len(words) > 1 and os.path.basename(words[0]) in LAUNCHERS and not words[1].startswith("-"):
        launcher.append(words.pop(0))
    for name in [*launcher, words[0]]:
        if shutil.which(name, path=search) is None:
            raise Refusal(
                f"building needs a C++ compiler, and {name} is not on PATH: install it (Debian, Ubuntu: apt install g++), "
                "or name another in CXX"
            )
    path = shutil.which(words[0], path=search)
    version = (output(path, "--version").splitlines() or [""])[0]
    major = output(path, "-dumpversion").split(".")[0].strip()
    if not major.isdigit():
        raise Refusal(f"building needs a C++ compiler, and {path} does not say its version: name another in CXX")
    if "clang" not in version and int(major) < OLDEST_GXX:
        raise Refusal(
            f"building needs g++ >= {OLDEST_GXX} for C++20, and {path} is {major}: install a newer one and name it in CXX"
        )
    return Compiler(path, version, launcher, words[1:])


# ---- nvcc -------------------------------------------------------------------------------------------------------------


class Nvcc(NamedTuple):
    path: str
    version: str  # 13.0.88
    archs: list[str]  # what --list-gpu-arch names: 75, 80, ...
    include: list[str]
    cudart: str | None  # libcudart_static.a
    missing: list[str]  # files that a whole toolkit has


def nvcc_candidates(environ):
    """Where an nvcc may be, best first, as (where that is in words, path)."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(variable):
            yield f"{variable}={environ[variable]}", os.path.join(environ[variable], "bin", "nvcc")
    yield "PATH", shutil.which("nvcc", path=environ.get("PATH")) or ""
    yield "/usr/local/cuda", "/usr/local/cuda/bin/nvcc"
    try:
        spec = importlib.util.find_spec("nvidia")  # a namespace package: what nvidia's packages on PyPI install into
    except ImportError:
        spec = None
    yield (
        "site-packages/nvidia",
        next(
            (
                path
                for root in (spec and spec.submodule_search_locations) or []
                for path in sorted(glob.glob(os.path.join(root, "cu*", "bin", "nvcc")), reverse=True)
            ),
            "",
        ),
    )


@functools.cache
def inspect_nvcc(path, cxx) -> Nvcc:
    """Asks nvcc itself where its headers and libraries are: it knows for every layout (toolkit, conda, PyPI, a wrapper
    script)."""
    version = re.search(r"V(\d+\.\d+\.\d+)", output(path, "--version"))
    plan = output(path, "--dryrun", "-ccbin", cxx, "-x", "cu", "-c", os.devnull, "-o", os.devnull)
    named = {key: re.search(rf"^#\$ {key}=(.*)$", plan, re.M) for key in ("INCLUDES", "SYSTEM_INCLUDES", "LIBRARIES")}
    directories = {
        key: re.findall(r'"(?:-I|-L)?([^"]+)"', found.group(1)) if found else [] for key, found in named.items()
    }
    include = [d for d in directories["INCLUDES"] + directories["SYSTEM_INCLUDES"] if os.path.isdir(d)]
    cudart = next(
        (p for p in (os.path.join(d, "libcudart_static.a") for d in directories["LIBRARIES"]) if os.path.exists(p)),
        None,
    )
    if cudart is None:  # a distribution's package puts it where the linker looks anyway
        found = output(cxx, "-print-file-name=libcudart_static.a").strip()
        cudart = found if os.path.isabs(found) else None
    missing = [
        h
        for h in ("cuda_runtime.h", "nv/target")
        if not any(os.path.exists(os.path.join(d, h)) for d in [*include, "/usr/include"])
    ]
    if cudart is None:
        missing.append("libcudart_static.a")
    return Nvcc(
        path,
        version.group(1) if version else "unknown",
        re.findall(r"compute_(\d+)", output(path, "--list-gpu-arch")),
        [os.path.realpath(d) for d in include],
        cudart,
        missing,
    )


def unusable(nvcc: Nvcc) -> str | None:
    """Why this nvcc cannot compile the kernels, or None."""
    if nvcc.missing:
        return f"an nvcc without {' and '.join(nvcc.missing)} ({nvcc.path})"
    if nvcc.version == "unknown" or numbers(nvcc.version)[0] < OLDEST_CUDA:
        return f"an nvcc {nvcc.version} ({nvcc.path}), too old for C++20"
    return None


def wants_cuda(environ) -> str:
    """'auto', '1' or '0'"""
    value = environ.get("CONVLAB_CUDA") or ("1" if environ.get("FORCE_CUDA") == "1" else "auto")
    if value not in ("auto", "1", "0"):
        raise Refusal(f"CONVLAB_CUDA is {value!r}: expected auto, 1 or 0")
    return value


def choose_nvcc(environ, cxx) -> tuple[Nvcc | None, str]:
    """The nvcc to build with, or None and the reason. A GPU, or a torch that sees one, is not asked for."""
    wanted = wants_cuda(environ)
    if wanted == "0":
        return None, "CONVLAB_CUDA=0"
    without, reasons = [], []
    for where, path in nvcc_candidates(environ):
        if not os.access(path, os.X_OK):
            without.append(where)
            continue
        nvcc = inspect_nvcc(path, cxx)
        reason = unusable(nvcc)
        if reason is None:
            return nvcc, ""
        reasons.append(reason)
    reason = ", ".join([*reasons, "no nvcc in " + " or ".join(without)] if without else reasons)
    if wanted == "1":
        raise Refusal(
            f"CONVLAB_CUDA=1 asks for the CUDA kernels, but there is {reason}: install the CUDA toolkit (12 or newer) and set CUDA_HOME, "
            "or build for the CPU with CONVLAB_CUDA=0"
        )
    return None, reason


def host_compiler_refused(nvcc, cxx) -> str:
    """What nvcc's headers say against this host compiler: they name the newest they take. "" where they take it."""
    done = subprocess.run(
        [nvcc, "-ccbin", cxx, "-x", "cu", "-E", os.devnull, "-o", os.devnull], capture_output=True, text=True
    )
    said = re.search(r"#error\s*(?:-- )?(unsupported [^!]*)", done.stdout + done.stderr)
    return said.group(1) if done.returncode and said else ""


def nvcc_packages(torch_cuda) -> list[str]:
    """PyPI's packages that make an nvcc of torch's CUDA version (13 for a CPU-only torch). [] where there are none."""
    cuda = torch_cuda or "13"
    return [name.format(cuda, numbers(cuda)[0] + 1) for name in NVCC_PACKAGES] if numbers(cuda)[0] >= 13 else []


# ---- architectures
# ----------------------------------------------------------------------------------------------------


def parse_archs(text, known) -> tuple[list[str], list[str]]:
    """'8.0;9.0+PTX' or 'Ampere', and the numbers nvcc knows -> those it compiles for, those it does not.

    PTX asked of one that is left out goes to the newest that stays, so that later GPUs still have something to compile.
    """
    kept, dropped = {}, {}
    wanted = [NAMED_ARCHS.get(name, name) for name in re.split(r"[;,\s]+", text) if name] or [DEFAULT_ARCHS]
    for arch in ";".join(wanted).split(";"):
        match = re.fullmatch(r"((\d+)\.(\d)[af]?)(\+PTX)?", arch)
        if match is None:
            raise Refusal(
                f"TORCH_CUDA_ARCH_LIST is {text!r}: expected compute capabilities such as {DEFAULT_ARCHS!r} or "
                f"names ({', '.join(NAMED_ARCHS)}), not {arch!r}"
            )
        name, major, minor, ptx = match.groups()
        (kept if major + minor in known else dropped)[name] = ptx or ""
    if not kept:
        raise Refusal(
            f"this nvcc compiles for none of TORCH_CUDA_ARCH_LIST={text!r}; it knows "
            + ", ".join(f"{n[:-1]}.{n[-1]}" for n in known)
        )
    newest = max(kept, key=lambda name: (numbers(name), name))
    if any(dropped.values()) and not any(kept.values()):
        kept[newest] = "+PTX"
    return [name + ptx for name, ptx in kept.items()], list(dropped)


def archs_here(known) -> str:
    """For the GPUs that the driver sees, with PTX of the newest for those to come: '8.9;9.0+PTX'. "" where it sees none,
    or one that this nvcc does not know."""
    try:
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        done = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = {line.strip() for line in done.stdout.splitlines()}
    whole = not done.returncode and found and all(re.fullmatch(r"\d+\.\d", name) for name in found)
    if not whole or any(name.replace(".", "") not in known for name in found):
        return ""
    return ";".join(sorted(found, key=numbers)) + "+PTX"


def runs_on(archs, capability) -> bool:
    """Whether code for `archs` (['8.0', '9.0+PTX']) runs on a GPU of this compute capability ('8.9'): machine code on
    its own major version from its minor one on, PTX on whatever is newer, and what ends in a or f on its own alone."""
    gpu = numbers(capability)
    for arch in archs:
        own, special = numbers(arch), re.match(r"[\d.]+[af]", arch)
        if own == gpu or (not special and own <= gpu and (own[0] == gpu[0] or arch.endswith("+PTX"))):
            return True
    return False


def gencode(archs) -> list[str]:
    """Making PTX is half of nvcc's work, so one serves what it can: 8.0's from 8.0 to 9.0 (what is 9.0's alone is in files
    for 9.0a), and of others the oldest GPU's all of its generation."""
    names, flags = [arch.removesuffix("+PTX") for arch in archs], []
    for arch, name in zip(archs, names):
        family = [n for n in names if n[-1].isdigit() and name[-1].isdigit() and numbers(n)[0] == numbers(name)[0]]
        virtual = "8.0" if family and name[0] in "89" else min(family or [name], key=numbers)
        for code in (f"sm_{name}", *([f"compute_{virtual}"] if arch.endswith("+PTX") else [])):
            flags.append(f"-gencode=arch=compute_{virtual},code={code}".replace(".", ""))
    return flags


# ---- jobs -------------------------------------------------------------------------------------------------------------


def read(path) -> str:
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def free_gb() -> float | None:
    """Memory to be had, in GB: the machine's, or what the container's limit leaves. None if unknown."""
    machine = re.search(r"MemAvailable:\s*(\d+) kB", read("/proc/meminfo"))
    known = [int(machine.group(1)) * 1024] if machine else []
    limit, used = read("/sys/fs/cgroup/memory.max").strip(), read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        known.append(int(limit) - int(used))
    return min(known) / 1e9 if known else None


def jobs(environ, cores, gigabytes) -> tuple[int, str]:
    """How many compilers to run at a time, and why."""
    asked = environ.get("MAX_JOBS")
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise Refusal(f"MAX_JOBS is {asked!r}: expected a number of jobs, 1 or more")
        return int(asked), "MAX_JOBS"
    fit = cores if gigabytes is None else int(gigabytes / GB_PER_JOB)
    reason = f"{cores} cores" + ("" if gigabytes is None else f", {gigabytes:.0f} GB free")
    return max(1, min(cores, fit)), reason


if __name__ == "__main__":  # for the Makefile, before it installs anything
    check_machine(os.environ)
