"""Breaks the kernels in one place at a time and checks that the tests notice.

    make mutants                                    all
    python -m tools.mutants --sample 10 --seed 0    some
    python -m tools.mutants --only gemm.h           those whose place contains this text

A mutant is a kernel without one of its barriers, or with one comparison changed (< to <=, == to !=, and so on), in
device code of csrc/kernels, csrc/geometry and csrc/device/reduce.h. It is given the problems that the tests give its
kernel, on the simulator, plain and checking, until one fails. Survivors must stand in tests/harmless_mutants.txt, with
the reason.

Many are compiled together, in a copy of csrc: each place asks at run time whether it is the one that is broken
(tools/mutant_switches.h), and a mutant costs no more than the problems that ask about it. What no problem asks about,
because only the compiler evaluates it, is compiled and tried by itself, as are few.
"""

import argparse
import ctypes
import importlib
import json
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tools import run

ROOT = Path(__file__).resolve().parent.parent
HARMLESS = ROOT / "tests" / "harmless_mutants.txt"
SWITCHES = ROOT / "tools" / "mutant_switches.h"
SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
PROBLEMS_SECONDS = 20  # of CPU time: whose problems take longer, hangs; others take 10 at most
TOGETHER = 20  # mutants, from which on compiling them into one library takes less time than one after the other
NONE = -1  # of the switches
TORCH_IMPORTS_LATE = "torch._dynamo", "torch.fx.experimental.symbolic_shapes"  # 3 s, at the first operator and gradient


# ---- finding them
# -----------------------------------------------------------------------------------------------------


class Mutant(NamedTuple):
    file: str  # relative to the root
    line: int
    begin: int  # what is replaced, as offsets into the file
    end: int
    was: str
    new: str
    old_line: str
    new_line: str

    @property
    def is_barrier(self) -> bool:
        return not self.new

    def __str__(self):
        return f"{self.file}:{self.line}: {self.new_line or 'without ' + self.old_line}"

    @property
    def key(self):
        """What names it in the list of harmless ones, whatever its line."""
        return self.file, self.new_line or "without " + self.old_line


def blanked(text):
    """The text with comments, strings, static_asserts and the preprocessor's lines blanked, every offset kept."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|static_assert\([^;]*;|^[ \t]*#[^\n]*'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S | re.M)


def device_functions(code):
    """[begin, end) of the bodies of __global__, __device__ and CONVLAB_HD functions; `code` is blanked."""
    for match in re.finditer(r"__global__|__device__|CONVLAB_HD", code):
        depth, i = 0, match.end()
        while i < len(code) and not (depth == 0 and code[i] in "{;"):
            depth += (code[i] in "(") - (code[i] in ")")
            i += 1
        if i == len(code) or code[i] == ";":
            continue
        begin, depth = i, 0
        while True:
            depth += (code[i] == "{") - (code[i] == "}")
            i += 1
            if depth == 0:
                break
        yield begin, i


def mutants_of(path: Path):
    """(mutants, comparisons left out because they are the host's)"""
    text = path.read_text()
    code = blanked(text)
    device = list(device_functions(code))
    found, left_out = [], 0
    for match in re.finditer(r"(?:__syncthreads|__syncwarp)\([^()]*\);|(?<=\s)(<=|>=|==|!=|<|>)(?=\s)", code):
        if not any(begin <= match.start() < end for begin, end in device):
            left_out += 1
            continue
        new = SWAPS[match.group(1)] if match.group(1) else ""
        start, stop = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
        old_line = text[start:stop].strip()
        new_line = (text[start : match.start()] + new + text[match.end() : stop]).strip() if new else ""
        line = text.count("\n", 0, match.start()) + 1
        place = match.start(), match.end(), match.group()
        found.append(Mutant(str(path.relative_to(ROOT)), line, *place, new, old_line, new_line))
    return found, left_out


def find_mutants():
    patterns = ("kernels/*.cu", "kernels/*.h", "geometry/*.h", "device/reduce.h")
    found = [mutants_of(path) for pattern in patterns for path in sorted((ROOT / "csrc").glob(pattern))]
    return [m for mutants, _ in found for m in mutants], sum(left_out for _, left_out in found)


def read_harmless():
    """key -> reason"""
    reasons = {}
    for line in HARMLESS.read_text().splitlines() if HARMLESS.exists() else []:
        if line.strip() and not line.startswith("#"):
            file, code, reason = (part.strip() for part in line.split(" ## "))
            reasons[file, code] = reason
    return reasons


# ---- building one
# -----------------------------------------------------------------------------------------------------


def built() -> Path:
    """Where the build has its objects."""
    return ROOT / "build" / sysconfig.get_config_var("SOABI")


def missing_objects() -> list[Path]:
    """Of the simulators' kernels."""
    sources = sorted(source.relative_to(ROOT) for source in (ROOT / "csrc" / "kernels").glob("*.cu"))
    objects = [built() / library / f"{source}.o" for library in ("_sim", "_sim_check") for source in sources]
    return [path.relative_to(ROOT) for path in objects if not path.exists()]


class Workshop:
    """A copy of csrc/ to break, and the simulators linked from it and from the objects of the build."""

    def __init__(self):
        os.chdir(ROOT)
        from convlab import toolchain

        self.setup = runpy.run_path("setup.py", run_name="setup")
        self.torch, self.cxx = toolchain.find_torch(), toolchain.find_cxx(os.environ).path
        self.folder = Path(tempfile.mkdtemp(prefix="convlab-mutants-"))
        shutil.copytree(ROOT / "csrc", self.folder / "csrc")

    def close(self):
        shutil.rmtree(self.folder)

    def includers(self, file) -> list[str]:
        """The .cu files that `file` is compiled into, the quickest to compile first."""

        def includes(source, seen):
            for name in re.findall(r'#include "([^"]+)"', source.read_text()):
                path = ROOT / "csrc" / name
                if path not in seen and path.exists():
                    seen.add(path)
                    includes(path, seen)
            return seen

        if file.endswith(".cu"):
            return [file]
        sources = [s for s in (ROOT / "csrc" / "kernels").glob("*.cu") if ROOT / file in includes(s, set())]
        return sorted(
            (str(s.relative_to(ROOT)) for s in sources), key=lambda s: self.object_of(s, "_sim").stat().st_size
        )

    def object_of(self, source, library) -> Path:
        return built() / library / (source + ".o")

    def compile(self, source, check, *more) -> str:
        """This .cu from the copy; what the compiler says if it does not compile."""
        # the map: so that what has not changed is the same to the byte
        flags = [*self.library(check).cu_flags, f"-ffile-prefix-map={self.folder}=.", *more]
        command = [self.cxx, *flags, "-w", "-c", source, "-o", str(self.target(source, check))]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    def is_changed(self, source, check) -> bool:
        """Whether compile() made something else than the build."""
        original = self.object_of(source, name_of(self.library(check)))
        return self.target(source, check).read_bytes() != original.read_bytes()

    def link(self, source, check, folder, *more):
        """The simulator with what compile() made, into a folder."""
        library = self.library(check)
        original = self.object_of(source, name_of(library))
        folders = built() / name_of(library), built() / "ladder"  # what all libraries share
        others = [str(path) for folder in folders for path in sorted(folder.rglob("*.o")) if path != original]
        # the mutant first: of a kernel that several files have, the linker keeps the first copy
        objects = [str(self.target(source, check)), *others, *more]
        subprocess.run(
            [self.cxx, "-o", str(folder / library.name), *objects, *library.link_flags], cwd=ROOT, check=True
        )

    def library(self, check):
        return self.setup["simulator"](self.torch, check)

    def target(self, source, check) -> Path:
        return self.folder / f"{name_of(self.library(check))}_{Path(source).stem}.o"


class Switched(Workshop):
    """The simulators with a switch in the place of each of these mutants: its number is its index."""

    def __init__(self, mutants):
        super().__init__()
        for file in {m.file for m in mutants}:
            text = (self.folder / file).read_text()
            here = [(m.begin, m.end, switch(m, number)) for number, m in enumerate(mutants) if m.file == file]
            for begin, end, new in sorted(here, reverse=True):
                text = text[:begin] + new + text[end:]
            (self.folder / file).write_text(text)
        self.switches = str(self.folder / "switches.so")
        flags = ["-std=c++20", "-O2", "-fPIC", "-shared", "-DCONVLAB_DEFINE_SWITCHES"]
        subprocess.run([self.cxx, *flags, "-x", "c++", str(SWITCHES), "-o", self.switches], check=True)

    def build(self, source, check) -> Path:
        """The folder with the simulator of which this .cu has the switches."""
        errors = self.compile(source, check, "-include", SWITCHES)
        if errors:
            raise RuntimeError(f"{source} does not compile with switches in it:\n{errors}")
        folder = self.folder_of(source)
        folder.mkdir(exist_ok=True)
        self.link(source, check, folder, self.switches)
        return folder

    def folder_of(self, source) -> Path:
        return self.folder / Path(source).stem


def switch(m, number):
    """What stands in the place of a mutant; tools/mutant_switches.h."""
    if m.is_barrier:
        return f"(convlab_mutated({number}) ? void() : {m.was.rstrip(';')});"
    return f"{m.was} ::convlab::mutants::Switch{{{number}}} {m.was}"


def name_of(library) -> str:
    return library.name.split(".")[0]


# ---- running one
# ------------------------------------------------------------------------------------------------------


def problems_of(source, check):
    """What the tests have for the kernels of a .cu, as functions that raise where a result is wrong."""
    import ladder
    import test_conv2d_block_on_cuda as blocks
    import test_ladder
    import test_simulator_random as others

    rng = random.Random(1)
    name = Path(source).stem
    if name in ("conv2d_tensor_core", "tensor_core_float32", "conv2d_warpgroup", "warpgroup_wgrad"):
        yield from tensor_core_problems(name, check, rng)
        return
    rungs = [r for r in ladder.RUNGS if name == "conv2d_" + r.name] or [
        r for r in ladder.RUNGS if name + ".cu" in used_by(r)
    ]
    if not rungs:
        kinds = others.KINDS[name]
        for _ in range(30 if check else 60):
            yield partial(others.run_problems, rng.randrange(2**32), 5, check, kinds)
        return
    for rung in rungs:
        passes = sorted(rung.passes_by_backend["cuda"])
        draw = [
            ladder.random_problem(rng, rung, passes[i // 2 % len(passes)] if i % 2 else None)
            for i in range(16 if check else 120)
        ]
        table = [c for c in test_ladder.AWKWARD + test_ladder.MORE_AWKWARD if ladder.passes_of(rung, c)]
        large = [c for c in test_ladder.LARGE if not check and ladder.has_tiles(rung) and ladder.passes_of(rung, c)]
        import torch

        for i, (conv, dtype) in enumerate(draw[:8] + [(c, torch.float32) for c in table + large] + draw[8:]):
            order = ("reverse", "random", "forward")[i % 3]
            passes_here, lay = ladder.passes_of(rung, conv, dtype), ladder.last if i % 4 == 3 else ladder.plain
            check_passes = partial(ladder.check_passes, rung, conv, dtype, passes_here, lay_x=lay, lay_dy=lay)
            yield partial(check_passes, check=check, order=order, seed=i)
        for seed in range((10 if check else 60) if rung.name in blocks.EPILOGUES else 0):
            yield partial(blocks.check_random_calls, 1, seed, check, [rung.name])


def tensor_core_problems(name, check, rng):
    """For the kernels of a file of the two rungs: awkward ones, infinities, and random ones, every other one of several
    tiles, and with each tile."""
    import tensor_core
    import test_tensor_core as tests
    import torch

    torch.backends.cudnn.allow_tf32 = False  # as the tests have it, for check_infinities
    rung, passes = tensor_core.RUNG, tensor_core.PASSES
    precisions = ["tf32", "3xtf32"] if name == "tensor_core_float32" else ["float16", "bfloat16"]
    warpgroups = name.endswith(("warpgroup", "warpgroup_wgrad"))
    if warpgroups:
        rung, precisions = tensor_core.WARPGROUP, list(tensor_core.PRECISIONS)
        passes = ["wgrad"] if name == "warpgroup_wgrad" else ["forward", "dgrad"]
    fixed = tests.JOINED + tests.GROUPS + tests.HEADS + ([] if check else tests.TILES)
    for i in range(len(fixed) + (16 if check else 60)):
        precision, pass_ = precisions[i % len(precisions)], passes[i // 2 % len(passes)]
        several = (precision, pass_) if i % 4 >= 2 else None
        conv = fixed[i] if i < len(fixed) else tensor_core.random_conv(rng, 500_000, several, rung)
        tiles = {p: tensor_core.tiles_of(rung, precision, p) for p in passes}
        tile = [*tiles[pass_]][i % len(tiles[pass_])]
        having = [p for p in passes if tile in tiles[p]]
        order = ("forward", "random", "reverse")[i % 3]
        check_conv = partial(tensor_core.check_conv, conv, precision, rng.random() < 0.5, having, rng.random() < 0.1)
        yield partial(check_conv, rung=tiles[pass_][tile], check=check, order=order, seed=i)
    for dtype in dict.fromkeys(tensor_core.PRECISIONS[p][0] for p in precisions if p != "tf32"):
        yield partial(tests.check_infinities, rung.name, dtype, check)
    if name == "tensor_core_float32":  # lays dy out for warpgroup's wgrad: a quarter of its problems
        wgrad = tensor_core_problems("warpgroup_wgrad", check, rng)
        yield from (problem for i, problem in enumerate(wgrad) if i % 8 in (2, 3))


def used_by(rung):
    """Files whose launchers a rung calls."""
    text = (ROOT / "csrc" / "kernels" / f"conv2d_{rung.name}.cu").read_text()
    return {name + ".cu" for name in re.findall(r"\b(conv2d_\w+)\(", text)}


def run_problems(folder, source, check, switch, wanted, pipe):
    """In a process of its own: the mutated library is loaded here only. With the switch NONE each problem's line in the
    pipe is the mutants that it asked about; `wanted`: the problems to run, if not all."""
    os.environ["CONVLAB_SIMULATOR_TIME_LIMIT"] = "5"
    resource.setrlimit(resource.RLIMIT_CPU, (PROBLEMS_SECONDS + int(time.process_time()), PROBLEMS_SECONDS * 10))
    if switch is not None:
        switches = ctypes.CDLL(str(folder.parent / "switches.so"))
        ctypes.c_int.in_dll(switches, "convlab_mutant").value = switch
        asked = (ctypes.c_ubyte * ctypes.c_int.in_dll(switches, "convlab_mutants").value).in_dll(
            switches, "convlab_asked"
        )
    import convlab.simulator

    convlab.simulator._PACKAGE = folder
    import torch

    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True, warn_only=True)  # new memory is NaN: what a mutant does not write, shows
    number = -1
    try:
        for number, problem in enumerate(problems_of(source, check)):
            if wanted is not None and number not in wanted:
                continue
            problem()
            if switch == NONE:
                os.write(pipe, json.dumps([i for i, was_asked in enumerate(asked) if was_asked]).encode() + b"\n")
                ctypes.memset(asked, 0, len(asked))
    except BaseException as error:  # noqa: BLE001  (whatever a broken kernel brings about)
        cause = error.__cause__ or error
        os.write(pipe, f"problem {number}: {' '.join(str(cause).split())[:160]}".encode())
        os._exit(1)
    os._exit(0)


def outcome(folder, source, check, switch=None, wanted=None) -> tuple[bool, str]:
    """Whether the tests pass with the library in `folder`, and what they say."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        run_problems(folder, source, check, switch, wanted, write)
    os.close(write)
    with os.fdopen(read, errors="replace") as said:
        message = said.read()
    _, status = os.waitpid(child, 0)
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
    return status == 0, message or ("hangs" if ended == "SIGXCPU" else ended)


def noticed(folder, source, check, switch=None, wanted=None) -> str | None:
    """What the tests say if they do not pass."""
    passes, said = outcome(folder, source, check, switch, wanted)
    return None if passes else f"{Path(source).name}, {'checking' if check else 'plain'}: {said}"


workshop = None  # of a worker process
switched: Switched | None = None  # of all workers, if there is one


def start_worker():
    global workshop
    workshop = Workshop()
    multiprocessing.util.Finalize(workshop, workshop.close, exitpriority=1)


def prepare(part):
    """Builds the simulator of (source, check); mutant -> the problems that ask about it."""
    folder = switched.build(*part)
    passes, said = outcome(folder, *part, NONE)
    if not passes:
        raise RuntimeError(f"the problems of {part[0]} find something without a mutant: {said}")
    problems = {}
    for problem, asked in enumerate(map(json.loads, said.splitlines())):
        for number in asked:
            problems.setdefault(number, set()).add(problem)
    return problems


def try_switch(number, part, problems):
    """(mutant's number, seconds, what notices it or None)"""
    begin = time.monotonic()
    said = noticed(switched.folder_of(part[0]), *part, number, problems)
    return number, time.monotonic() - begin, said


def try_switches(pool, jobs, mutants, report):
    """Reports what is noticed, and returns the others: {number: whether a problem asked about it}"""
    left = dict.fromkeys(range(len(mutants)), False)
    includers = {m.file: set(switched.includers(m.file)) for m in mutants}
    sources = sorted(set().union(*includers.values()), key=lambda s: switched.object_of(s, "_sim").stat().st_size)
    parts = deque((source, check) for check in (False, True) for source in sources)
    prepared = deque()
    while parts or prepared:
        while parts and len(prepared) < jobs:  # ahead of what is tried
            part = parts.popleft()
            if any(part[0] in includers[mutants[number].file] for number in left):
                prepared.append((part, pool.apply_async(prepare, (part,))))
        if not prepared:
            break
        part, problems = prepared.popleft()
        problems = problems.get()
        asked = [number for number in left if number in problems]
        left.update(dict.fromkeys(asked, True))
        for tried in [pool.apply_async(try_switch, (number, part, problems[number])) for number in asked]:
            number, seconds, said = tried.get()
            if said:
                del left[number]
                report(mutants[number], seconds, said)
    return left


def try_alone(m):
    """(mutant, seconds, what notices it or None)"""
    begin = time.monotonic()
    copy = workshop.folder / m.file
    text = copy.read_text()
    said = None
    try:
        copy.write_text(text[: m.begin] + m.new + text[m.end :])
        for source in workshop.includers(m.file):
            for check in (True, False) if m.is_barrier else (False, True):
                if workshop.compile(source, check):
                    said = "does not compile"
                elif workshop.is_changed(source, check):
                    workshop.link(source, check, workshop.folder)
                    said = noticed(workshop.folder, source, check)
                if said:
                    return m, time.monotonic() - begin, said
        return m, time.monotonic() - begin, None
    finally:
        copy.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="only so many of them, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="only those whose place and text contain one of these")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--apart", action="store_true", help="compile each alone, however many they are")
    parser.add_argument("--list", action="store_true", help="print them and try none")
    args = parser.parse_args()

    mutants, left_out = find_mutants()
    barriers = sum(m.is_barrier for m in mutants)
    print(
        f"{len(mutants)} mutants: {barriers} barriers, {len(mutants) - barriers} comparisons; {left_out} comparisons of the host left out",
        flush=True,
    )
    harmless = read_harmless()
    gone = sorted(set(harmless) - {m.key for m in mutants})
    chosen = [m for m in mutants if any(text in str(m) for text in args.only)]
    if args.sample:
        chosen = random.Random(args.seed).sample(chosen, min(args.sample, len(chosen)))
    if args.list:
        print("\n".join(map(str, chosen)))
        return

    missing = missing_objects()
    if missing:  # a worker could only end itself, and the pool would start another, for ever
        sys.exit(f"mutants: {missing[0]} is missing: make build")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]  # as pytest has them
    import torch

    torch.set_num_threads(1)
    for name in (
        "test_conv2d_block_on_cuda",
        "test_ladder",
        "test_simulator_random",
        "test_tensor_core",
        "test_warpgroup",
        *TORCH_IMPORTS_LATE,
    ):
        importlib.import_module(name)  # once, before the workers fork

    survivors, begin = [], time.monotonic()
    reported = 0

    def report(m, seconds, said):
        nonlocal reported
        reported += 1
        if said is None:
            survivors.append(m)
        verdict = said or ("survives; harmless: " + harmless[m.key] if m.key in harmless else "SURVIVES")
        print(f"[{reported}/{len(chosen)}] {seconds:3.0f} s  {m}\n        {verdict}", flush=True)

    global switched
    switched = Switched(chosen) if len(chosen) >= TOGETHER and not args.apart else None
    with multiprocessing.get_context("fork").Pool(args.jobs, start_worker) as pool:
        alone = chosen
        if switched:
            left = try_switches(pool, args.jobs, chosen, report)
            alone = []
            for number, asked in left.items():
                if asked:
                    report(chosen[number], 0, None)
                else:
                    alone.append(chosen[number])
            switched.close()
        for tried in pool.imap_unordered(try_alone, alone):
            report(*tried)
        pool.close()
        pool.join()
    unknown = [m for m in survivors if m.key not in harmless]
    keys = {m.key for m in survivors}  # the same line may stand in a file twice
    wrong = [m for m in chosen if m.key in harmless and m.key not in keys]
    print(
        f"{len(chosen)} mutants in {time.monotonic() - begin:.0f} s: {len(chosen) - len(survivors)} noticed, {len(survivors)} survive, {len(survivors) - len(unknown)} of them known as harmless"
    )
    for m in unknown:
        print(
            f"no test notices {m}\n    was: {m.old_line}\n    add a problem that does, or say in {HARMLESS.relative_to(ROOT)} why it is harmless"
        )
    for m in wrong:
        print(f"{m} is in {HARMLESS.relative_to(ROOT)}, but a test notices it")
    for file, code in gone:
        print(f"{HARMLESS.relative_to(ROOT)} lists what is no longer there: {file} ## {code}")
    sys.exit(bool(unknown or wrong or gone))


if __name__ == "__main__":
    run(main)
