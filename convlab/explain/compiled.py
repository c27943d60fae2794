"""What nvcc made of the kernels: registers and shared memory, from the table that comes with convlab or from the
library itself.

The library keeps, for each kernel and architecture, what `ptxas -v` printed when it was compiled: nothing is compiled
again. Reading it needs cuobjdump: the CUDA toolkit's, or PyPI's nvidia-cuda-cuobjdump. The tables, one for each version
of nvcc, come from builds that tests have read; tools/compiled_kernels.py writes them.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .._build_info import build_info

HERE = Path(__file__).parent
LIBRARY = HERE.parent / "_C.so"
# From this compute capability on, the compiler's figure for a kernel with shared memory includes the bytes that the
# driver reserves for itself.
SHARED_WITH_RESERVED, RESERVED = (9, 0), 1024


class Resources(NamedTuple):
    """registers: per thread. shared: static bytes per block. stack: bytes per thread, for spills and for arrays that
    registers cannot hold."""

    registers: int
    shared: int
    stack: int


class NoTools(RuntimeError):
    """cuobjdump or nvdisasm is not on this machine."""


def resources_of(kernel: str, source: str, capability: str) -> tuple[int, int, str] | None:
    """(registers a thread, bytes of static shared memory a block, who says so) of a kernel for GPUs of a compute
    capability.

    kernel, source: as the simulator names them, such as "forward_kernel<float>" and "csrc/kernels/conv2d_direct.cu:36".
    Asked in turn: the table of the nvcc that built this convlab, the library, the newest table. None if none of them
    has it.
    """
    names = names_of(kernel, source)
    for found in (_table_of_the_build, _library, _newest_table):
        by_kernel, who = found()
        for name in names:
            by_arch = by_kernel.get(name, {})
            if arch := nearest(by_arch, capability):
                registers, shared = by_arch[arch]
                if shared and _numbers(arch) >= SHARED_WITH_RESERVED:
                    shared -= RESERVED
                return registers, shared, who if arch == capability else f"{who} for {arch}"
    return None


def names_of(kernel: str, source: str) -> tuple[str, str]:
    """A table's possible names for a kernel that the simulator names so; the first if it is private to its file."""
    for simulated, native in (("bfloat16", "__nv_bfloat16"), ("float16", "__half")):
        kernel = re.sub(rf"(?<!_)\b{simulated}\b", native, kernel)
    return f"{Path(source.split(':')[0]).name}: {kernel}", kernel


def nearest(architectures: Iterable[str], capability: str) -> str | None:
    """The newest of these architectures that is not newer than the GPU's capability; if all are, the oldest."""
    known = sorted(architectures, key=_numbers)
    older = [arch for arch in known if _numbers(arch) <= _numbers(capability)]
    return next(iter(older[-1:] or known), None)


@functools.cache
def _tables():
    """{version of nvcc: ({kernel: {architecture: [registers, shared]}}, who says so)}"""
    names = {_numbers(path.stem.removeprefix("nvcc-")): path for path in HERE.glob("nvcc-*.json")}
    return {
        version: (json.loads(path.read_text()), f"recorded from {path.stem.replace('-', ' ')}")
        for version, path in names.items()
    }


def _table_of_the_build():
    built = build_info()["nvcc"]
    return _tables().get(_numbers(built)[:2], ({}, "")) if built else ({}, "")


def _newest_table():
    return _tables()[max(_tables())]


@functools.cache
def _library():
    """The library's resources, in the form of a table, and who says so."""
    if not build_info()["cuda"]:
        return {}, ""
    try:
        found = resources(LIBRARY)
    except (NoTools, OSError, subprocess.CalledProcessError):
        return {}, ""
    by_kernel = {}
    for arch, kernels in found.items():
        for kernel, r in kernels.items():
            by_kernel.setdefault(kernel, {})[arch] = [r.registers, r.shared]
    return by_kernel, f"read from {LIBRARY.name}"


def _numbers(version):
    return tuple(map(int, version.split(".")))


# ---- reading a library ----------------------------------------------------------------------------------------------


def find_tools() -> str | None:
    """The folder with cuobjdump and nvdisasm (cuobjdump calls nvdisasm): PyPI's, or the toolkit's. None if there is
    none."""
    pypi = [
        path.parent for root in sys.path for path in sorted(Path(root).glob("nvidia/cu*/bin/cuobjdump"), reverse=True)
    ]
    on_path = [Path(path).parent for path in [shutil.which("cuobjdump")] if path]
    toolkits = [
        Path(root, "bin")
        for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
        if root
    ]
    return next(
        (
            str(f)
            for f in (*pypi, *on_path, *toolkits)
            if all(os.access(f / tool, os.X_OK) for tool in ("cuobjdump", "nvdisasm"))
        ),
        None,
    )


def cuobjdump(library, *options) -> str:
    """What it prints. Raises NoTools."""
    folder = find_tools()
    if folder is None:
        raise NoTools("cuobjdump and nvdisasm are needed: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    environ = {**os.environ, "PATH": folder + os.pathsep + os.environ["PATH"]}
    command = [os.path.join(folder, "cuobjdump"), *options, str(library)]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout


def readable(mangled: list[str]) -> dict[str, str]:
    """Mangled names -> names as in the sources, such as 'conv2d_direct.cu: forward_kernel<float>', with the file if the
    kernel is private to it."""
    demangled = subprocess.run(
        ["c++filt"], input="\n".join(mangled), check=True, capture_output=True, text=True
    ).stdout.splitlines()
    names = {}
    for key, name in zip(mangled, demangled):
        private = re.search(
            r"_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_[0-9a-f]", key
        )  # a name that nvcc gives a file's anonymous namespace
        name = re.sub(r"\(anonymous namespace\)::|convlab::|^void ", "", name)
        depth = 0
        for i, c in enumerate(name):  # what follows the template arguments are the parameters
            depth += (c in "<(") - (c in ">)")
            if c == "(" and depth == 1:
                name = name[:i]
                break
        names[key] = f"{private.group(1)}.cu: {name}" if private else name
    return names


def sass(library, arch) -> dict[str, list[str]]:
    """kernel -> its lines"""
    kernels, kernel = {}, None
    # of 9.0, with what runs on sm_90a alone
    for line in cuobjdump(library, "-sass", "-arch", f"sm_{arch.replace('.', '')}").splitlines():
        if match := re.match(r"\s*Function : (\S+)", line):
            kernel = kernels.setdefault(match.group(1), [])
            kernel.clear()  # two files may have made the same kernel
        elif kernel is not None:
            kernel.append(line)
    names = readable(list(kernels))
    return {names[kernel]: lines for kernel, lines in sorted(kernels.items())}


def resources(library) -> dict[str, dict[str, Resources]]:
    """architecture -> kernel -> Resources"""
    found, arch, kernel = {}, None, None
    for line in cuobjdump(library, "-res-usage").splitlines():
        if match := re.match(r"arch = sm_(\d+)(\d)", line):
            arch = ".".join(match.groups())
        elif match := re.match(r"\s*Function (\S+):", line):
            kernel = match.group(1)
        elif kernel and (match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line)):
            registers, stack, shared, local = map(int, match.groups())
            found.setdefault(arch, {})[kernel] = Resources(registers, shared, stack + local)
            kernel = None
    names = readable(sorted({kernel for kernels in found.values() for kernel in kernels}))
    return {arch: {names[kernel]: value for kernel, value in kernels.items()} for arch, kernels in found.items()}
