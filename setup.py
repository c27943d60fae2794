"""Builds convlab: one ninja graph for all its libraries. Needs torch, ninja, pybind11 and g++; with nvcc, the CUDA
kernels too.

    pip install --no-build-isolation .      or, in place, python setup.py build_ext --inplace

CONVLAB_CUDA=auto|1|0      1: fail without nvcc; 0: leave the CUDA kernels out
TORCH_CUDA_ARCH_LIST       compute capabilities to compile for; else those of the GPUs here, or of all that are common
CONVLAB_SANITIZE=1         _C and _lab alone, for the CPU, under AddressSanitizer and UBSan: tools/sanitize.py
MAX_JOBS, CXX, CUDA_HOME   as everywhere
"""

from __future__ import annotations

import glob
import os
import platform
import re
import resource
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from types import SimpleNamespace
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = os.path.dirname(os.path.abspath(__file__))
# By its file: importing the package needs what is built here.
toolchain = SimpleNamespace(**runpy.run_path(os.path.join(ROOT, "convlab", "toolchain.py")))

CXX_FLAGS = ["-std=c++20", "-Icsrc", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
NVCC_FLAGS = [
    "-std=c++20",
    "-Icsrc",
    "-O3",
    "--expt-relaxed-constexpr",
    "-Xcompiler",
    "-fPIC,-fvisibility=hidden,-Wall,-Wextra",
]
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # 2.11: toolchain.OLDEST_TORCH
# csrc/cpu/**/*.kernel.cpp once for each instruction set; which of them run is decided at run time.
ISA_FLAGS = {
    "avx512": "-mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx2 -mfma -mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma -mf16c",
    "baseline": "-O2",
}
KERNEL_FLAGS = ["-ffp-contract=fast"]
LADDER = [
    "csrc/algorithms.cpp",
    "csrc/cpu/instruction_sets.cpp",
]  # the algorithms and their plans, as data: every library's, and compiled once for all
# Symbols of a static library stay inside: torch loads a libcudart of its own, and the two must not answer for each
# other.
STRIP = "-Wl,-s"
LINK_FLAGS = ["-shared", STRIP, "-Wl,--exclude-libs,ALL"]
# Lines for the sanitizers' reports; with more than -O1, compiling takes minutes
SANITIZE_FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


class Library(NamedTuple):
    """A shared object: its sources as glob patterns, and how each kind is compiled."""

    name: str  # the file, under convlab/
    sources: list[str]
    cxx_flags: list[str]  # for .cpp
    cu_flags: list[str]  # for .cu
    link_flags: list[str]
    cu_compiler: str = "nvcc"  # or "cxx": for the simulator


def libraries(torch, cxx, nvcc, archs) -> list[Library]:
    # _C: the operators. Python-free, and only the stable ABI of torch; libtorch.so stays needed because it brings
    # libtorch_cuda.so into scope, where there is one.
    ops = Library(
        "_C.so",
        ["csrc/ops.cpp", "csrc/cpu/**/*.cpp", "csrc/algorithms.cpp"],
        [*CXX_FLAGS, STABLE_ABI, "-isystem", torch.include, f"-fmacro-prefix-map={torch.include}/="],
        [],
        [*LINK_FLAGS, "-Wl,-z,defs", "-Wl,--no-as-needed", "-L" + torch.lib, "-ltorch", "-ltorch_cpu"],
    )
    if nvcc:
        ops = ops._replace(
            sources=[*ops.sources, "csrc/cuda/*.c*", "csrc/kernels/*.cu"],
            cxx_flags=ops.cxx_flags + [flag for d in nvcc.include for flag in ("-isystem", d)],
            cu_flags=[*NVCC_FLAGS, "-ccbin", cxx.path, *host_flags(cxx), *toolchain.gencode(archs)],
            link_flags=[*ops.link_flags, nvcc.cudart, "-ldl", "-lrt", "-lpthread"],
        )

    # _lab: the pybind11 module, torch-free.
    import pybind11

    build = {"TORCH": torch.version, "NVCC": nvcc.version if nvcc else "", "ARCHS": ";".join(archs), "CXX": cxx.version}
    lab = Library(
        "_lab" + sysconfig.get_config_var("EXT_SUFFIX"),
        ["csrc/bindings.cpp", "csrc/simulator_bindings.cpp", *LADDER],
        CXX_FLAGS
        + ["-O1", "-isystem", toolchain.python_include(), "-isystem", pybind11.get_include()]
        + [f'-DCONVLAB_BUILD_{key}="{value}"' for key, value in build.items()],
        [],
        LINK_FLAGS,
    )
    if sanitize():
        return [
            ops._replace(
                cxx_flags=ops.cxx_flags + SANITIZE_FLAGS,
                link_flags=[flag for flag in ops.link_flags if flag != STRIP] + SANITIZE_FLAGS,
            ),
            lab,
        ]
    return [ops, lab] + [simulator(torch, check) for check in (False, True)]


def host_flags(cxx):
    """For nvcc: what CXX says behind the compiler's name."""
    return [word for flag in cxx.flags for word in ("-Xcompiler", flag)]


def sanitize():
    return os.environ.get("CONVLAB_SANITIZE") == "1"


def instruction_sets():
    """Those of ISA_FLAGS that this machine may have."""
    return [isa for isa in ISA_FLAGS if platform.machine() in ("x86_64", "AMD64") or isa == "baseline"]


def isa_flags(isa):
    """A kernel sees no torch: its flags are not its library's."""
    return [*CXX_FLAGS, *KERNEL_FLAGS, *ISA_FLAGS[isa].split(), "-DCONVLAB_ISA=" + isa]


def objects_of(source, lib):
    """(object file, rule, flags) for each object that is compiled from a source."""
    folder = lib.name.split(".")[0] + "/"
    if source in LADDER and not sanitize():
        return [(f"ladder/{source}.o", "cxx", CXX_FLAGS)]
    if source.endswith(".kernel.cpp"):
        more = SANITIZE_FLAGS if sanitize() else []
        return [(f"{folder}{source}.{isa}.o", "cxx", isa_flags(isa) + more) for isa in instruction_sets()]
    if source.endswith(".cu"):
        flags = lib.cu_flags
        if lib.cu_compiler == "nvcc" and source.endswith(("/conv2d_tensor_core.cu", "/tensor_core_float32.cu")):
            flags = for_tensor_cores(flags)
        if lib.cu_compiler == "nvcc" and source.endswith(("/conv2d_warpgroup.cu", "/warpgroup_wgrad.cu")):
            flags = for_warpgroups(flags)
        return [(f"{folder}{source}.o", lib.cu_compiler, flags)]
    return [(f"{folder}{source}.o", "cxx", lib.cxx_flags)]


def capability_of(flag):
    """Of the machine code or PTX that one of nvcc's flags asks for, ten times its compute capability."""
    return int(re.search(r"code=\w+_(\d+)", flag)[1])


def for_tensor_cores(flags):
    """nvcc's flags for kernels that have instructions of 8.0 and later. Where older GPUs alone are wanted the rung refuses,
    but has to link."""
    code = [flag for flag in flags if "code=" in flag]
    kept = [flag for flag in code if capability_of(flag) >= 80]
    rest = [flag for flag in flags if "code=" not in flag]
    return rest + (kept or ["-gencode=arch=compute_80,code=sm_80"])


def for_warpgroups(flags):
    """nvcc's flags for kernels that have instructions of 9.0 alone: its machine code with them (sm_90a), and where others
    are wanted, none. The rung refuses there, but has to link."""
    rest = [flag for flag in flags if "code=" not in flag]
    if any("code=sm_90" in flag for flag in flags):
        return [*rest, "-gencode=arch=compute_90a,code=sm_90a"]
    return [*flags, "-DCONVLAB_NO_WARPGROUPS"]


def simulator(torch, check) -> Library:
    """The CUDA backend once more, on the host: operators of a namespace of their own over kernels that g++ compiles.
    Unlike the others it keeps its lines and symbols, for reports; every path in it is relative to the root."""
    name = "_sim_check" if check else "_sim"
    flags = runpy.run_path("convlab/simulator_flags.py")
    relative = [f"-ffile-prefix-map={ROOT}=."]
    host = [
        "-DCONVLAB_SIMULATED",
        "-DCONVLAB_NAMESPACE=convlab" + name,
        STABLE_ABI,
        "-isystem",
        torch.include,
        f"-ffile-prefix-map={torch.include}/=",
    ]
    return Library(
        name + ".so",
        ["csrc/ops.cpp", "csrc/cuda/*.c*", "csrc/simulator/*.cpp", "csrc/kernels/*.cu", *LADDER],
        flags["runtime_flags"](check) + relative + host,
        flags["kernel_flags"](check) + relative,
        [
            "-shared",
            "-Wl,-Bsymbolic",
            "-Wl,--version-script=csrc/simulator/exports.map",
            "-Wl,-z,defs",
            "-Wl,--no-as-needed",
            "-L" + torch.lib,
            "-ltorch",
            "-ltorch_cpu",
            *flags["link_flags"](),
        ],
        "cxx",
    )


# About how long a file takes to compile, beside another: nvcc's and the simulators' of a kernel alike
COMPILE_SECONDS = {
    "conv2d_register_tiled.cu": 25,
    "conv2d_small_filter.cu": 25,
    "conv2d_depthwise.cu": 20,
    "tensor_core_float32.cu": 20,
    "register_tiled.kernel.cpp": 17,
    "max.kernel.cpp": 15,
    "conv2d_tensor_core.cu": 14,
    "conv2d_warpgroup.cu": 14,
    "planes.kernel.cpp": 12,
    "average.kernel.cpp": 12,
    "warpgroup_wgrad.cu": 12,
    "conv2d_block.cu": 11,
    "max_pool2d.cu": 11,
}
OTHERS = {".cu": 4, ".kernel.cpp": 5, "": 2}


def seconds_for(source: str) -> float:
    name = os.path.basename(source)
    return COMPILE_SECONDS.get(name) or next(n for end, n in OTHERS.items() if name.endswith(end))


def write_graph(path, cxx, nvcc, libs):
    """The ninja file. Sources are relative to the root, so that no path of this machine gets into a library. Returns the
    sources, one for each object. ninja begins with what takes longest: none is left alone at the end, on one core of
    several."""
    from ninja.ninja_syntax import Writer

    def shell(flags):
        return " ".join(shlex.quote(flag) for flag in flags).replace("$", "$$")

    folder = os.path.dirname(path)
    with open(path, "w") as f:
        graph = Writer(f)
        graph.comment("written by setup.py")
        graph.variable("builddir", folder)
        compiler = [*cxx.launcher, cxx.path, *cxx.flags]
        for rule, command in (("cxx", compiler), ("nvcc", [nvcc.path] if nvcc else [""])):
            graph.rule(
                rule,
                shell(command) + " $flags -MD -MF $out.d -c $in -o $out",
                depfile="$out.d",
                deps="gcc",
                description=rule + " $in",
            )
        graph.rule("link", shell(compiler) + " -o $out $in $flags", description="link $out")
        edges = {}  # by target: libraries share some
        for lib in libs:
            objects = []
            for pattern in lib.sources:
                sources = sorted(glob.glob(pattern, recursive=True))
                if not sources:
                    raise toolchain.Refusal(f"no source file matches {pattern} in {ROOT}: the checkout is not whole")
                for source in sources:
                    for name, rule, flags in objects_of(source, lib):
                        objects.append(f"{folder}/{name}")
                        edges[objects[-1]] = (objects[-1], rule, source, {"flags": shell(flags)})
            graph.build(folder + "/" + lib.name, "link", objects, variables={"flags": shell(lib.link_flags)})
        for target, rule, source, variables in sorted(edges.values(), key=lambda edge: -seconds_for(edge[2])):
            graph.build(target, rule, source, variables=variables)
    return [source for _, _, source, _ in edges.values()]


def write_compile_commands(graph, path):
    """For clangd (.clangd) and other tools that read C++. Of what g++ compiles, kernels for the simulators included."""
    done = subprocess.run([ninja(), "-f", graph, "-t", "compdb", "cxx"], stdout=subprocess.PIPE, check=True)
    with open(path + ".new", "wb") as f:
        f.write(done.stdout)
    os.replace(path + ".new", path)


def ninja() -> str:
    import ninja

    return os.path.join(ninja.BIN_DIR, "ninja")


class Progress:
    """How far a build is: a line at the start, and every `SECONDS`. Under pip on the terminal, because pip keeps to itself
    what a build prints; else beside ninja's lines."""

    SECONDS = 20

    def __init__(self, terminal, begin, sources):
        """sources: of a whole build; where some are compiled already, those that are left take what all take in the mean"""
        self.terminal, self.begin, self.last = terminal, begin, begin - self.SECONDS
        self.left = [seconds_for(source) for source in sources]
        self.seen = 0.0

    def line(self, said, now):
        """said: a line of ninja's."""
        match = re.match(r"\[(\d+)/(\d+)\] (.*)", said)
        if not match:
            return
        done, total, took = int(match[1]), int(match[2]), seconds_for(match[3])
        self.seen += took
        if took in self.left:
            self.left.remove(took)
        if now - self.last < self.SECONDS:
            return
        left = (now - self.begin) / self.seen * sum(self.left) / max(len(self.left), 1) * (total - done)
        guess = f", about {max(round(left / 60), 1)} min left" if now > self.begin + self.SECONDS else ""
        self.say(f"compiled {done} of {total}, {match[3]}{guess}")
        self.last = now

    def say(self, words):
        begin = "" if self.terminal is sys.stdout else "\r"
        print(f"{begin}convlab: {words}", file=self.terminal, flush=True)


def terminal():
    """Of whoever waits for pip, where pip is what builds, and there is one."""
    if not {"_PYPROJECT_HOOKS_BUILD_BACKEND", "PEP517_BUILD_BACKEND"} & set(os.environ):
        return None
    try:
        return open("/dev/tty", "w")
    except OSError:
        return None


def tell(words):
    """On the terminal, too, where pip would keep it to itself."""
    print(words, flush=True)
    out = terminal()
    if out:
        with out:
            print(f"\r{words}", file=out)


def children_seconds() -> float:
    """CPU time of all programs that this one has run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def run_ninja(path, jobs, cxx, nvcc, sources):
    command = [ninja(), "-f", path, "-j", str(jobs)]
    said = []
    out = terminal()
    progress = Progress(out or sys.stdout, time.monotonic(), sources)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
            progress.line(line, time.monotonic())
    if out:
        out.close()
    if process.returncode == 0:
        return
    said = "".join(said)
    if "unsupported GNU version" in said or "unsupported clang version" in said:
        raise toolchain.Refusal(
            f"nvcc {nvcc.version} does not take {cxx.version} as its host compiler: install an older g++ and name it in CXX, "
            "or build for the CPU with CONVLAB_CUDA=0"
        )
    if "Killed" in said:
        raise toolchain.Refusal("a compiler was killed, most likely for want of memory: build again with MAX_JOBS=1")
    raise toolchain.Refusal(f"the build failed ({' '.join(command)}); the first error stands above")


class BuildWithNinja(build_ext):
    def run(self):
        os.chdir(ROOT)
        torch, cxx = toolchain.find_torch(), toolchain.find_cxx(os.environ)
        nvcc, reason = toolchain.choose_nvcc(os.environ, cxx.path)
        wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
        if wheel:  # one index may hold both, and pip takes the greater: it serves machines without a GPU, too
            wheel.build_number = "1cuda" if nvcc else "0cpu"
        jobs, because = toolchain.jobs(os.environ, len(os.sched_getaffinity(0)), toolchain.free_gb())
        archs = []
        if nvcc:
            asked = os.environ.get("TORCH_CUDA_ARCH_LIST")
            here = "" if asked else toolchain.archs_here(nvcc.archs)
            archs, dropped = toolchain.parse_archs(asked or here or toolchain.DEFAULT_ARCHS, nvcc.archs)
            if dropped:
                tell(f"convlab: nvcc {nvcc.version} does not compile for {', '.join(dropped)}: left out")
            if torch.cuda and toolchain.numbers(torch.cuda)[0] != toolchain.numbers(nvcc.version)[0]:
                tell(
                    f"convlab: nvcc is of CUDA {nvcc.version}, torch {torch.version} of CUDA {torch.cuda}: it builds and loads, but a GPU needs a driver for both"
                )
            tell(
                f"convlab: building for the CPU and CUDA: nvcc {nvcc.version} ({nvcc.path}), "
                f"architectures {';'.join(archs)}" + (", of the GPUs here" if here else "")
            )
        else:
            tell(f"convlab: building for the CPU only: {reason}")
        tell(f"convlab: torch {torch.version}, {cxx.version}, {jobs} jobs ({because})")

        # Kept between builds, also those that pip starts, and apart for each Python.
        folder = ("build/sanitize/" if sanitize() else "build/") + sysconfig.get_config_var("SOABI")
        os.makedirs(folder, exist_ok=True)
        libs = libraries(torch, cxx, nvcc, archs)
        sources = write_graph(folder + "/build.ninja", cxx, nvcc, libs)
        if not sanitize():
            write_compile_commands(folder + "/build.ninja", "build/compile_commands.json")
        # objects of sources that are gone: tools/mutants.py links all that lie there
        dead = [ninja(), "-f", folder + "/build.ninja", "-t", "cleandead"]
        subprocess.run(dead, stdout=subprocess.DEVNULL, check=True)
        before, begin = children_seconds(), time.monotonic()
        run_ninja(folder + "/build.ninja", jobs, cxx, nvcc, sources)
        tell(
            f"convlab: built in {minutes(time.monotonic() - begin)}, {minutes(children_seconds() - before)} of CPU time"
        )
        for lib, extension in zip(libs, self.extensions):
            replace(os.path.join(folder, lib.name), self.get_ext_fullpath(extension.name))

    def get_ext_filename(self, fullname):
        if fullname.endswith("_lab"):
            return super().get_ext_filename(fullname)
        return fullname.replace(".", os.sep) + ".so"  # no Python module: the same file for every Python


def replace(source, target):
    """Copies by renaming, so that a process that has the old library open keeps it."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(source, target + ".new")
    os.replace(target + ".new", target)


class BuildPyAnew(build_py):
    """setuptools keeps build/lib, and would put into a wheel what has been deleted from convlab/ since. And the
    kernels' sources go along: reports quote them, and kernels of one's own are compiled against them."""

    SOURCES = (
        "csrc/*.h",
        *(f"csrc/{folder}/**/*" for folder in ("device", "geometry", "kernels", "simulator", "testing")),
    )

    def run(self):
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        sources = (path for pattern in self.SOURCES for path in glob.glob(pattern, recursive=True))
        for source in [] if self.editable_mode else sorted(filter(os.path.isfile, sources)):
            target = os.path.join(self.build_lib, "convlab", source)
            self.mkpath(os.path.dirname(target))
            self.copy_file(source, target)


if __name__ == "__main__":
    if "sdist" not in sys.argv:
        toolchain.check_machine(os.environ)
        toolchain.check_packages()
    setup(
        license="MIT",
        ext_modules=[Extension("convlab." + name, []) for name in ("_C", "_lab", "_sim", "_sim_check")],
        cmdclass={"build_ext": BuildWithNinja, "build_py": BuildPyAnew},
    )
