"""`make lint` finds a planted example of each kind, and suppressions stay few. The tools themselves are judged on one file
each, with the project's configuration; `make lint` as a whole by test_commands.py."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import checkout
import pytest

from tools import links

ROOT = Path(__file__).parent.parent
CONFIGURATION = ("pyproject.toml", ".clang-format")

# tool: (its command, the file it is run on, what is planted there, what it says)
PLANTED = {
    "ruff check": (["ruff", "check"], "planted.py", "import os\n", "F401"),
    "ruff format": (["ruff", "format", "--check"], "planted.py", "x = [1,2]\n", "would be reformatted"),
    "clang-format": (["clang-format", "--dry-run", "-Werror"], "planted.cpp", "int  a;\n", "clang-format-violations"),
    "codespell": (["codespell"], "planted.md", "It " + "seveicer"[::-1] + " x.\n", "==> receives"),
}
TOO_MANY = 40
SUPPRESSION = re.compile(
    r"(?:#|//)\s*(?:noqa|type: ignore|mypy: ignore|fmt: (?:skip|off)|ruff: noqa|isort: skip|clang-format off"
    r"|codespell:ignore|pylint: disable|pyright: ignore|NOLINT)(.*)"
)


def tool(name: str) -> str:
    path = shutil.which(name, path=f"{Path(sys.executable).parent}")
    if path is None:
        pytest.skip(f"{name} is not installed: make lint does")
    return path


def said(command, folder, status: int) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_example_is_found(kind, tmp_path):
    (name, *options), file, text, finding = PLANTED[kind]
    for configuration in CONFIGURATION:
        shutil.copy(ROOT / configuration, tmp_path)
    (tmp_path / file).write_text(text)
    assert finding in said([tool(name), *options, file], tmp_path, 65 if name == "codespell" else 1)


def test_an_import_upwards_is_found(tmp_path):
    for path in (ROOT / "convlab").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "convlab" / "functional.py").open("a") as file:
        file.write("\nfrom . import testing\n")
    found = said([tool("lint-imports"), "--no-cache", "--no-logo"], tmp_path, 1)
    assert "convlab.functional -> convlab.testing" in found


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-heading-with-code) [b](other.md#nowhere)\n`[c](code.md)` [d](gone.md) [e](https://x.org)\n"
    )
    assert links.broken(page) == ["other.md#nowhere", "gone.md"]
    assert links.main() == 0  # none of the project's own


@pytest.mark.long
def test_a_missing_annotation_is_found(tmp_path):
    """By `make lint`, which mypy, the last but one, makes fail."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed: make lint does")
    copy = checkout.copy(tmp_path / "convlab")
    with (copy / "convlab" / "modules.py").open("a") as file:
        file.write("\n\ndef planted(x):\n    return x\n")
    found = checkout.run("make -o build lint", copy, 2)
    assert "no-untyped-def" in found and re.findall(r"make lint: ([\w-]+) fails", found) == ["mypy"]


def test_suppressions_are_few_and_name_their_rule():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".pyi", ".cpp", ".h", ".cu", ".cuh") and path.is_file():
            found += [(name, match[0]) for match in SUPPRESSION.finditer(path.read_text())]
    assert 5 < len(found) <= TOO_MANY, found
    assert not [suppression for _, suppression in found if not re.search(r": ?[A-Z]+\d+|\[[\w-]+\]", suppression)]


def test_tools_end_quietly_where_nobody_reads_on():
    """All in one way, and one of them behind a pipe that is closed."""
    programs = [path for path in (ROOT / "tools").glob("*.py") if "__main__" in path.read_text()]
    assert len(programs) > 15
    assert [
        path.name for path in programs if not path.read_text().endswith('\nif __name__ == "__main__":\n    run(main)\n')
    ] == []
    nobody, pipe = os.pipe()
    os.close(nobody)
    with os.fdopen(pipe) as out:
        command = [sys.executable, "-m", "tools.gpu_report", "--help"]
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # else argparse alone would see the error, and keep it
        done = subprocess.run(command, cwd=ROOT, env=buffered, stdout=out, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
