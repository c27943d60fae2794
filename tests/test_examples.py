"""Every example does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import example_steps
import pytest

from convlab.testing import check_kernel

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_is_found_and_counted():
    """The report, with file and line, and the counted traffic of each step; all of them right."""
    page = (example_steps.FOLDER / "README.md").read_text()
    assert page == example_steps.page(), "python -m tools.example_steps --write, if it is meant"
    shown = (ROOT / "README.md").read_text().split("0_with_a_bug.cuh\n", 1)[1].split("\n```")[0]
    assert f"```\n{shown}\n" in page  # as it begins


def test_the_bug_is_where_it_is_planted():
    source = example_steps.FOLDER / "0_with_a_bug.cuh"
    (finding,) = check_kernel(source, random_cases=0).findings
    lines = source.read_text().splitlines()
    file, line = finding.where.split(":")
    assert "at the end of the loop's body, before the brace in line" in finding.message
    assert finding.subject == "races" and Path(file).name == source.name and "tile[i][j] = " in lines[int(line) - 1]
    repaired = (example_steps.FOLDER / "1_repaired.cuh").read_text().splitlines()
    assert [line.strip().split(";")[0] for line in repaired if line not in lines and not line.startswith("//")] == [
        "__syncthreads()"
    ]  # all it takes


def run(*command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_torchvision_model():
    pytest.importorskip("torchvision")
    assert "through convlab" in run("examples/torchvision_model.py")


@pytest.mark.long
def test_keywords():
    said = run("examples/keywords.py")
    assert "new sounds are told right" in said and "Conv1d" in said


def test_overlap():
    assert re.search("16 parts (give the bits of the whole|in 3 stream)", run("examples/overlap.py"))


def test_ddp():
    assert "2 processes: gradients as of one" in run(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "examples/ddp.py"
    )
