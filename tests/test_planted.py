"""Every planted bug (tests/planted/) is reported, in every order, at the line where it is; kernels without a bug are
left alone."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from convlab.testing.host_compiler import ROOT, RUNTIME, compiled, kept, linked

FOLDER = ROOT / "tests" / "planted"
X86 = platform.machine() == "x86_64"
CROSS, QEMU = "aarch64-linux-gnu-g++", "qemu-aarch64"


def run(command, **environment) -> str:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Mark(NamedTuple):
    line: int
    where: str  # both, check, plain, or plain on x86-64
    texts: list


KERNELS = sorted(FOLDER.glob("*.cu"))


def expectations(kernels=KERNELS) -> dict[str, tuple[str, list[Mark]]]:
    """name of a planted kernel -> its file, and the marks in it"""
    found = {}
    for path in kernels:
        marks = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            marks += [
                Mark(number, m[1], m[2].split(" | "))
                for m in re.finditer(r"// (both|check|plain on x86-64|plain): (.*?)(?=\s*//|$)", line)
            ]
            if planted := re.match(r"PLANTED(?:_LAUNCH)?\((\w+)", line):
                found[planted[1]] = f"tests/planted/{path.name}", marks
                marks = []
    return found


def complaints(output: str, check: bool, x86: bool, kernels=KERNELS) -> list[str]:
    """What is not as it must be in the lines that run.cpp prints."""
    here = {"both", "check"} if check else {"both", "plain", "plain on x86-64"} if x86 else {"both", "plain"}
    expected, wrong, orders = expectations(kernels), [], {}
    for line in output.splitlines():
        name, order, verdict, report = line.split("\t")
        file, marks = expected[name]
        orders.setdefault(name, []).append((order, verdict))
        lines = report.split("|")
        if mine := [m for m in marks if m.where in here]:
            place = next((part.strip() for part in lines[1:] if part.strip().startswith(("at ", "kernel "))), "")
            hit = [m for m in mine if f"{file}:{m.line}:" in place + ":" or f"({file}:{m.line})" in place]
            if verdict != "error" or not any(text in report for m in hit for text in m.texts):
                wrong.append(f"{name}, {order}: {verdict} " + "\n    ".join(lines))
            for part in ("block (", "thread (") if place.startswith("at ") else ("kernel ",):
                if part not in report:
                    wrong.append(f"{name}, {order}: the report does not name {part!r}: {report}")
        elif not marks and verdict != "right":
            wrong.append(f"{name}, {order}: {verdict}, though it has no bug: {report}")
    for name in expected:
        if [order for order, _ in orders.get(name, [])] != ["forward", "reverse", "random"]:
            wrong.append(f"{name} did not run in every order")
    return wrong


def silent_in_the_plain_build(output: str) -> set[str]:
    """Planted bugs that no order shows: no error, and no wrong value."""
    shown = {line.split("\t")[0] for line in output.splitlines() if line.split("\t")[2] in ("error", "wrong")}
    return {name for name, (_, marks) in expectations().items() if marks} - shown


def program(folder: Path, check: bool, cxx="g++", extra=(), link=(), kernels=KERNELS) -> Path:
    return linked(
        folder / "program", compiled(folder, [*kernels, *RUNTIME, FOLDER / "run.cpp"], check, cxx, extra), cxx, link
    )


@pytest.fixture(scope="module")
def plain_runtime() -> list[str]:
    return kept(RUNTIME, False)


def test_there_are_enough_bugs():
    assert sum(bool(marks) for _, marks in expectations().values()) >= 22
    assert sum(not marks for _, marks in expectations().values()) >= 10


AS_PYTHON_SEES_THEM = """
import faulthandler, sys, torch
faulthandler.enable()
torch.ops.load_library(sys.argv[1])
x = torch.randn(256)
for order, name in enumerate(("forward", "reverse", "random")):
    index = 0
    while True:
        verdict, report = "ran", ""
        try:
            torch.ops.convlab_planted.run(x, index, order)
        except IndexError:
            break
        except RuntimeError as error:
            verdict, report = "error", str(error)
        print(index, name, verdict, report.replace("\\n", "|"), sep="\\t")
        index += 1
"""


def test_checking_build(tmp_path):
    objects = compiled(tmp_path, KERNELS, True) + kept(RUNTIME, True)
    main = compiled(tmp_path, [FOLDER / "run.cpp"], True)
    output = run([str(linked(tmp_path / "program", objects + main))])
    assert not complaints(output, True, X86)

    # the same as an operator: every report is an ordinary RuntimeError, and the process goes on, faulthandler or not
    from torch.utils.cpp_extension import include_paths, library_paths

    torch_flags = [
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        "-DCONVLAB_SIMULATED",
        *(f for path in include_paths() for f in ("-isystem", path)),
    ]
    operator = compiled(tmp_path, [FOLDER / "operators.cpp"], True, extra=torch_flags)
    library = linked(
        tmp_path / "planted.so",
        objects + operator,
        extra=["-shared", "-Wl,-Bsymbolic", *(f"-L{path}" for path in library_paths()), "-ltorch", "-ltorch_cpu"],
    )
    seen = run([sys.executable, "-c", AS_PYTHON_SEES_THEM, str(library)], CONVLAB_SIMULATOR_TIME_LIMIT="0.3")
    names = list(dict.fromkeys(line.split("\t")[0] for line in output.splitlines()))
    expected = {
        (line.split("\t")[0], line.split("\t")[1]): line.split("\t")[2] == "error" for line in output.splitlines()
    }
    actual = {
        (names[int(index)], order): verdict == "error"
        for index, order, verdict, _ in (line.split("\t") for line in seen.splitlines())
    }
    assert actual == expected


def test_plain_build(tmp_path, plain_runtime):
    objects = compiled(tmp_path, [*KERNELS, FOLDER / "run.cpp"], False)
    output = run([str(linked(tmp_path / "program", objects + plain_runtime))])
    assert not complaints(output, False, X86)
    # what needs the checking build: nothing faults, and in one process the values happen to be right
    assert "missing_barrier_after_load" not in silent_in_the_plain_build(output)
    assert {"lost_update", "dynamic_memory_too_short", "race_in_a_conversion"} <= silent_in_the_plain_build(output)


def test_a_kernel_that_two_files_have(tmp_path, plain_runtime):
    """They link in any order, and nobody's launch bounds get lost."""
    objects = compiled(tmp_path, [FOLDER / "two_files" / name for name in ("one.cu", "other.cu", "main.cpp")], False)
    for order in (objects, objects[::-1]):
        said = run([str(linked(tmp_path / "program", order + plain_runtime))])
        assert re.findall(r"(\d+) threads a block, but the kernel's __launch_bounds__ says at most (\d+)", said) == [
            ("33", "32"),
            ("97", "96"),
            ("33", "32"),
            ("161", "160"),
        ]


@pytest.mark.parametrize("kernels", [[FOLDER / "barriers.cu"], pytest.param(KERNELS, marks=pytest.mark.long)], ids=len)
def test_without_own_stack_switch(kernels, tmp_path):
    """What machines other than x86-64 and aarch64 get: ucontext."""
    output = run([str(program(tmp_path, True, extra=["-DCONVLAB_SIM_UCONTEXT"], kernels=kernels))])
    assert not complaints(output, True, X86, kernels)


@pytest.mark.skipif(not (X86 and shutil.which(CROSS) and shutil.which(QEMU)), reason=f"needs {CROSS} and {QEMU}")
@pytest.mark.parametrize("check", [True, False], ids=["check", "plain"])
def test_aarch64(check, tmp_path):
    built = program(tmp_path, check, cxx=CROSS, link=["-static"])
    assert not complaints(run([QEMU, str(built)]), check, False)
