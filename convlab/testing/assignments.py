"""The assignments of a course: a file to start from, what a solution must do beside being right, and how convlab does
it. docs/course.md has the syllabus."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from .kernel import KernelReport
from .traffic import digits

FOLDER = Path(__file__).parent / "course"
LAYER = "LeNet C3"  # whose counts are judged


class Requirement(NamedTuple):
    """What is asked for, and a function of the report and of the source without comments: what is there instead, or
    "" where it is met."""

    asked: str
    missing: Callable[[KernelReport, str], str]


class Assignment(NamedTuple):
    number: int
    title: str
    start: str  # a file of convlab/testing/course
    solution: str  # convlab's own, a file
    requirements: tuple[Requirement, ...] = ()
    dtype: torch.dtype = torch.float32
    like: str = "conv2d_forward"

    @property
    def text(self) -> str:
        """Of the file to start from."""
        return (FOLDER / self.start).read_text()


def _at_most(column: str, most: float, asked: str) -> Requirement:
    """By a column of convlab.testing.traffic."""

    def missing(report, text):
        number = report.numbers.get(LAYER, {}).get(column, 0)
        return f"{digits(number)} for {LAYER}" if number > most else ""

    return Requirement(asked, missing)


def _written(pattern: str, asked: str) -> Requirement:
    return Requirement(asked, lambda report, text: "" if re.search(pattern, text) else "the file has none")


def _launches(able: Callable[[int], bool], asked: str) -> Requirement:
    """Of the first problem, which has two images."""

    def missing(report, text):
        n = len(report.launches)
        return "" if able(n) else f"{n} launch{'es' * (n != 1)} for two images"

    return Requirement(asked, missing)


def _own_memory(wanted: bool, asked: str) -> Requirement:
    def missing(report, text):
        rows = report.traffic.get(LAYER, [])
        has = any(row.memory.startswith("cudaMalloc") for row in rows)
        return "" if has == wanted else "kernels read memory of cudaMalloc" if has else "no kernel does"

    return Requirement(asked, missing)


_SHARED = Requirement(
    "shared memory",
    lambda report, text: "" if any(launch.shared_bytes for launch in report.launches) else "no launch has any",
)
_X_IN_TILES = _at_most("x", 20, "each element of x read 20 times at most (1 reads it 204 times)")
_HALF = torch.float16

ASSIGNMENTS = {
    one.number: one
    for one in (
        Assignment(1, "the basic convolution", "1_basic.cu", "csrc/kernels/conv2d_direct.cu"),
        Assignment(
            2,
            "tiles in shared memory, filters in constant memory",
            "2_tiled.cu",
            "csrc/kernels/conv2d_tiled.cu",
            (
                _SHARED,
                _X_IN_TILES,
                _written(r"__constant__", "filters in constant memory"),
                _at_most("w", 0, "w never read by the kernel from device memory"),
            ),
        ),
        Assignment(
            3,
            "unroll, then multiply matrices",
            "3_unroll.cu",
            "csrc/kernels/conv2d_im2col_gemm.cu",
            (
                _own_memory(True, "the unrolled matrix in device memory"),
                _launches(lambda n: n >= 2, "a kernel that unrolls, and one that multiplies"),
                _SHARED,
            ),
        ),
        Assignment(
            4,
            "unrolling fused into the multiplication",
            "4_fused.cu",
            "csrc/kernels/conv2d_implicit_gemm.cu",
            (
                _own_memory(False, "no unrolled matrix in device memory"),
                _launches(lambda n: n == 1, "one launch"),
                _SHARED,
                _X_IN_TILES,
            ),
        ),
        Assignment(
            5,
            "joint register and shared-memory tiling",
            "5_registers.cu",
            "csrc/kernels/conv2d_register_tiled.cu",
            (
                _SHARED,
                _at_most(
                    "shared",
                    5,
                    "5 bytes of shared memory read for a multiply-add at most (the start reads more than 8)",
                ),
                _X_IN_TILES,
            ),
        ),
        Assignment(
            6,
            "the batch in streams",
            "6_streams.cu",
            "csrc/kernels/conv2d_direct.cu",
            (
                _launches(lambda n: n >= 2, "a launch for each part of the batch"),
                _written(r"cudaStreamCreate", "streams of its own"),
                _written(r"<<<[^;]*,[^;]*,[^;]*,[^;]*>>>", "launches that name their stream"),
                _written(r"cudaStreamSynchronize|cudaDeviceSynchronize", "a wait for them"),
            ),
        ),
        Assignment(7, "16-bit floats, summed in float32", "7_half.cu", "csrc/kernels/conv2d_direct.cu", dtype=_HALF),
        Assignment(
            8,
            "tensor cores",
            "8_tensor_cores.cu",
            "csrc/device/mma.h",
            (_written(r"\bmma_sync\b", "products by wmma::mma_sync"), _SHARED, _X_IN_TILES),
            _HALF,
        ),
    )
}


def missing(assignment: Assignment, report: KernelReport, source) -> dict[str, str]:
    """Of a kernel that is right: what is asked for -> what is there instead."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", Path(source).read_text(errors="replace"), flags=re.S)
    found = {one.asked: one.missing(report, text) for one in assignment.requirements}
    return {asked: instead for asked, instead in found.items() if instead}


def graded(assignment: Assignment, report: KernelReport, source) -> tuple[bool, str]:
    """Whether it is passed, and the lines that say why."""
    head = f"assignment {assignment.number}, {assignment.title}"
    if not report.ok:
        return False, f"{head}: not passed, what is wrong stands above"
    lacks = missing(assignment, report, source)
    lines = [f"{head}: {'not passed' if lacks else 'passed'}"]
    for one in assignment.requirements:
        lines.append(f"  no   {one.asked}: {lacks[one.asked]}" if one.asked in lacks else f"  yes  {one.asked}")
    if not lacks:
        lines.append(f"  how convlab does it: {assignment.solution}")
    return not lacks, "\n".join(lines)
