"""The assignments of docs/course.md: what one starts from compiles and does not pass, a solution passes, and what is asked
beside right results is judged."""

import re
from pathlib import Path

import pytest
from student_kernels import FOLDER

from convlab import check
from convlab.testing import check_kernel
from convlab.testing.assignments import ASSIGNMENTS, graded

ROOT = Path(__file__).parent.parent
SOLUTIONS = {
    1: "basic",
    2: "tiled_constant",
    3: "unrolled",
    4: "fused",
    5: "register_tiled",
    6: "streams",
    7: "half",
    8: "wmma",
}
# What is right, and still not what the assignment asks for: a file of tests/student/, and what it lacks.
ELSEWHERE = {
    2: ("constant", ["shared memory", "each element of x read 20 times"]),
    3: ("fused", ["the unrolled matrix in device memory", "a kernel that unrolls"]),
    4: ("unrolled", ["no unrolled matrix", "one launch"]),
    5: ("tiled", ["5 bytes of shared memory read"]),
    6: ("basic", ["a launch for each part", "streams of its own", "launches that name", "a wait"]),
    8: ("half", ["products by wmma::mma_sync"]),
}


def each(numbers, fast=(2,)):
    """The others are long."""
    return [n if n in fast else pytest.param(n, marks=pytest.mark.long) for n in numbers]


def grade(number: int, source: Path):
    assignment = ASSIGNMENTS[number]
    report = check_kernel(source, assignment.like, dtype=assignment.dtype, random_cases=0)
    return report, *graded(assignment, report, source)


@pytest.mark.parametrize("number", each(ASSIGNMENTS))
def test_the_start_compiles_and_does_not_pass(number, tmp_path, capsys):
    source = tmp_path / "mine.cu"
    assert check.main(["--new", str(source), "--assignment", str(number)]) == 0
    assert (
        f"--assignment {number}" in capsys.readouterr().out and f"{source} --assignment {number}" in source.read_text()
    )
    assert check.main([str(source), "--assignment", str(number), "--random", "0"]) == 1
    assert f"assignment {number}, {ASSIGNMENTS[number].title}: not passed" in capsys.readouterr().out


@pytest.mark.parametrize("number", each(SOLUTIONS))
def test_solutions_pass(number):
    _, passed, said = grade(number, FOLDER / f"{SOLUTIONS[number]}.cu")
    assert passed and said.count("  yes  ") == len(ASSIGNMENTS[number].requirements), said


@pytest.mark.parametrize("number", each(ELSEWHERE, fast=()))
def test_what_is_right_and_not_what_was_asked(number):
    name, lacks = ELSEWHERE[number]
    report, passed, said = grade(number, FOLDER / f"{name}.cu")
    assert report.ok and not passed
    assert [words for words in lacks if f"  no   {words}" not in said] == [] and said.count("  no   ") == len(lacks), (
        said
    )


def test_the_syllabus_names_them():
    page = (ROOT / "docs" / "course.md").read_text()
    for assignment in ASSIGNMENTS.values():
        assert (ROOT / assignment.solution).exists()
        row = next(line for line in page.splitlines() if line.startswith(f"| {assignment.number} |"))
        assert assignment.title in row and Path(assignment.solution).name in row
    assert ASSIGNMENTS.keys() == SOLUTIONS.keys()
    assert re.search(r"--assignment \d", page)


def test_the_page_on_streams_shows_the_solution():
    (code,) = re.findall(r"```cpp\n(.*?)```", (ROOT / "docs" / "streams.md").read_text(), re.S)
    assert code in (FOLDER / "streams.cu").read_text()
