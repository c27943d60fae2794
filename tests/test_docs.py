"""The pages build without a warning, and how to add a rung, an algorithm of the CPU or an operator is what they say. Their commands:
test_commands.py."""

import os
import re
import subprocess
import sys

import checkout
import pytest
import torch
from commands import ROOT, commands_of

import convlab
import convlab.functional

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    page = (tmp_path / "ladder" / "register_tiled.html").read_text()
    assert "<svg" in page and "{{" not in page
    rows = re.findall(r"<td>(?:LeNet C3|ResNet-20)</td>\s*<td>[xw]</td>\s*<td>(.+?)</td>\s*<td>(.+?) times</td>", page)
    assert len(rows) == 4 and all(predicted == counted for predicted, counted in rows)
    index = (tmp_path / "index.html").read_text()
    assert re.search(r"register_tiled</code></a></td>.*?<td>39 us</td>\s*<td>12.8, 25.0</td>", index, re.S)
    assert "██" in (tmp_path / "performance.html").read_text()
    for name in re.findall(r"ladder/(\w+)\.html", index):
        assert (tmp_path / "ladder" / f"{name}.html").exists()


SHOWN = {
    f"{page.stem} {i}": code
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if not page.stem.startswith("add-")  # whose code is put into a copy of the checkout, below
    for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S), start=1)
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long) if "torch.compile" in SHOWN[n] else n for n in SHOWN]
)
def test_the_python_that_pages_show_runs(name, capsys):
    """As it stands there, on its own."""
    exec(compile(SHOWN[name], name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("broken", ["[no such page](nowhere.md)", "[no such part](notation.md#nowhere)"])
def test_make_docs_fails_on_a_broken_link(broken, tmp_path):
    """By the command that stands in the Makefile, over a page of its own."""
    pytest.importorskip("material")
    options = re.search(r"-m (mkdocs build .*?) \$\(ARGS\)", (ROOT / "Makefile").read_text())[1].split()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n{broken}\n")
    (tmp_path / "docs" / "notation.md").write_text("# Notation\n")
    text = (ROOT / "mkdocs.yml").read_text().split("nav:")[0].replace("hooks:", "# hooks:")
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"\nplugins:.*?\nmarkdown", "\nmarkdown", text, flags=re.S))
    done = subprocess.run([sys.executable, "-m", *options], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "nowhere" in done.stdout + done.stderr


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs" / "reference.md").read_text()
    public = set(convlab.__all__) - {"functional"}
    assert {name for name in public if f"::: convlab.{name}\n" not in page + "\n"} == set()
    (members,) = re.findall(r"members: \[(.*)\]", page)
    functions = {
        name
        for name, value in vars(convlab.functional).items()
        if callable(value)
        and value.__module__.startswith("convlab")
        and value.__doc__
        and hasattr(torch.nn.functional, name)
    }
    functions |= {"conv2d_block"}
    assert set(members.split(", ")) == functions
    shown = "".join(code for name, code in SHOWN.items() if name.startswith("reference "))
    wanted = {f"convlab.{name}" for name in public} | {f"CF.{name}" for name in functions}
    assert wanted - set(re.findall(r"\b(?:convlab|CF)\.\w+", shown)) == set()


def test_the_citation_is_of_this_version():
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, re.M)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_badges_are_true():
    project, badges = (ROOT / "pyproject.toml").read_text(), (ROOT / "README.md").read_text().split("\n", 3)[2]
    shown = dict(re.findall(r"img\.shields\.io/badge/(\w+)-([\w.%]+)-", badges))
    python, torch = re.search(r'requires-python = ">=(.+)"\ndependencies = \["torch>=(.+)"\]', project).groups()
    licence = (ROOT / "LICENSE").read_text().split()[0]
    assert shown == {"Python": f"{python}%2B", "torch": f"{torch}%2B", "licence": licence}


def test_contributing_names_files_that_exist():
    """NAME stands for that of a kernel, an algorithm, an operator."""
    named = re.findall(r"`((?:csrc|convlab|docs|tests|benchmarks)/[\w./*]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 20
    assert [path for path in named if not list(ROOT.glob(path.replace("NAME", "*")))] == []


# ---- how to add a rung
# ------------------------------------------------------------------------------------------------

FOUR_MAPS = """
import sys, torch, convlab, convlab.functional as CF
sys.path.insert(0, "tests")
import ladder
from convlab.testing import Conv

rung = next(a for a in convlab.algorithms() if a.name == "four_maps")
assert rung in ladder.RUNGS and rung.backends == {"cuda"} and rung.passes == {"forward"}
ladder.check_passes(rung, Conv(2, 3, 7, 11, 8, 3, 3, padding=(1, 1)), torch.float32, ["forward"], check=True)

x, w = torch.randn(1, 3, 5, 5), torch.randn(8, 3, 3, 3)
with convlab.simulate() as sim:
    y = CF.conv2d(x, w)                      # few pixels: "auto" takes it
    CF.conv2d(torch.randn(4, 3, 9, 9), w)    # many: it does not
    CF.conv2d(torch.randn(4, 3, 9, 9), w, algo="four_maps")
assert ["four_maps" in launch.kernel for launch in sim.launches] == [True, False, True], sim.launches
torch.testing.assert_close(y, torch.nn.functional.conv2d(x, w), rtol=1e-4, atol=1e-4)
import subprocess
explain = [sys.executable, "-m", "convlab.explain", "lenet.c3", "--algo", "four_maps", "--count"]
said = subprocess.run(explain, capture_output=True, text=True)
assert said.returncode == 0 and "four_maps" in said.stdout and "no faster than" in said.stdout, said.stderr
assert "one a thread" not in said.stdout, said.stdout
"""
WALKING = ("test_explain.py", "test_docs.py", "test_compiled.py", "test_kernel_notes.py", "test_algorithms.py")


AXPY = """
import subprocess, sys, torch, convlab, convlab.functional as CF
from convlab._algorithms import names_of

axpy = next(a for a in convlab.algorithms() if a.name == "axpy")
assert axpy.backends == {"cpu"} and axpy.passes == {"forward"}
for x, w, arguments in [
    (torch.randn(2, 6, 9, 21), torch.randn(8, 3, 3, 5), dict(stride=(2, 1), padding=(1, 3), dilation=(1, 2), groups=2)),
    (torch.randn(3, 5, 1, 40), torch.randn(4, 5, 1, 3), dict(padding="same")),
]:
    b = torch.randn(w.shape[0])
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            xt, wt, bt = x.to(dtype, memory_format=layout), w.to(dtype, memory_format=layout), b.to(dtype)
            y = CF.conv2d(xt, wt, bt, **arguments, algo="axpy")
            expected = torch.nn.functional.conv2d(xt.double(), wt.double(), bt.double(), **arguments)
            torch.testing.assert_close(y.double(), expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-3)
assert names_of("auto", convlab.Conv2dProblem.of(x, w, padding="same"))["forward"] == "axpy"
strided = convlab.Conv2dProblem.of(torch.empty(1, 1, 1, 9), torch.empty(1, 1, 1, 3), stride=2)
assert axpy.supports(strided, "forward") == (False, "reads neighbouring columns, and the stride between them is 2")
assert names_of("auto", strided)["forward"] != "axpy"
assert axpy.plan(convlab.Conv2dProblem.of(x, w), "forward")["scratch"] > 0
said = subprocess.run([sys.executable, "-m", "convlab.explain", "lenet.c3"], capture_output=True, text=True)
assert said.returncode == 0 and "axpy" in said.stdout, said.stderr
"""


BLOCK = r"\n\n```\w+\n(.*?)```"


def files_of_the_page(page: str) -> dict[str, str]:
    """What a page says: path -> text, of files that exist already with its lines put in."""
    page = (ROOT / "docs" / page).read_text()
    files = dict(re.findall(r"New\s+file\s+`(\S+)`:" + BLOCK, page, re.S))

    def put(path, code, position):
        text = files[path] if path in files else (ROOT / path).read_text()
        at = position(text)
        files[path] = text[:at] + code + text[at:]

    header = r"In `(\S+)`, with the other headers:" + BLOCK + r"\n\nand at the end of `(\w+)`[^`]*?:" + BLOCK
    for path, include, array, row in re.findall(header, page, re.S):
        put(path, include, lambda text, include=include: text.index(include.split("/")[0]))
        put(path, row, lambda text, array=array: text.index("};", text.index(f"{array}[]")))
    for path, line, code in re.findall(r"[Ii]n\s+`(\S+)`,\s+under\s+`([^`]+)`:" + BLOCK, page, re.S):
        put(path, code, lambda text, line=line: text.index("\n", text.index(line)) + 1)
    for path, code in re.findall(r"At\s+the\s+end\s+of\s+`(\S+)`:" + BLOCK, page, re.S):
        put(path, "\n\n" + code, len)
    return files


def followed(page: str, folder, checks: str) -> tuple:
    """A copy of the checkout after the page and its build, where the checks hold; and what its other commands say."""
    copy = checkout.copy(folder / "convlab")
    for path, text in files_of_the_page(page).items():
        (copy / path).parent.mkdir(exist_ok=True)
        (copy / path).write_text(text)
    build, *others = commands_of(ROOT / "docs" / page)
    assert build == "make build"
    checkout.run(build, copy, CONVLAB_CUDA="0")
    checkout.run(f"python -c '{checks}'", copy)
    for command in others:
        if command == "make sanitize":
            continue  # compiles everything once more
        if command != build:  # built is built
            command = command.replace("make", "make -o build -o nvcc", 1)
        said = checkout.run(command, copy, CONVLAB_CUDA="0")
        assert "make test" not in command or " passed" in said
    return copy


def test_how_many_files_it_takes():
    assert len(files_of_the_page("add-a-rung.md")) == 3
    assert len(files_of_the_page("add-a-cpu-algorithm.md")) == 3 + 1  # and the table
    assert len(files_of_the_page("add-an-operator.md")) == 7 + 7  # and what lists them


@pytest.mark.long
def test_how_to_add_a_rung(tmp_path):
    """Literally, in a copy of the checkout, the commands of the page too: the table, the chooser, the ladder's tests
    and explain see it, and whatever walks the table passes its tests."""
    copy = followed("add-a-rung.md", tmp_path, FOUR_MAPS)
    assert "What is counted" in (copy / "csrc/kernels/conv2d_four_maps.cu").read_text()
    tests = " ".join(f"tests/{name}" for name in WALKING)
    assert " passed" in checkout.run(f"python -m pytest -q {tests}", copy, CONVLAB_CUDA="0")


@pytest.mark.long
def test_how_to_add_a_cpu_algorithm(tmp_path):
    """The same: the table, the chooser, explain, and the tests of the CPU's kernels see it."""
    followed("add-a-cpu-algorithm.md", tmp_path, AXPY)


@pytest.mark.long
def test_how_to_add_an_operator(tmp_path):
    """The same: its tests, the operators' and the table of counts see it."""
    copy = followed("add-an-operator.md", tmp_path, "")
    assert "What is counted" in (copy / "csrc/kernels/softshrink.cu").read_text()


def test_a_program_and_its_report(tmp_path):
    """docs/own-kernel.md shows what check says of its program, and how to repair it."""
    page = (ROOT / "docs" / "own-kernel.md").read_text()
    program, report = re.search(r"```cpp\n(#include.*?)```\n\n```text\n(.*?)```\n", page, re.DOTALL).groups()

    def checked(text):
        (tmp_path / "total.cu").write_text(text)
        command = [sys.executable, "-m", "convlab.check", "total.cu"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
        return done.returncode, done.stdout

    assert checked(program) == (1, report)
    step = "    if (t < step) sums[t] += sums[t + step];\n"
    assert step in program
    returncode, said = checked(program.replace(step, "  {\n" + step + "    __syncthreads();\n  }\n"))
    assert returncode == 0 and "found" not in said.replace("none found", ""), said


def test_python_m_convlab_lists_the_commands():
    done = subprocess.run([sys.executable, "-m", "convlab"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^python -m convlab\.(\w+) ", done.stdout, re.M))
    assert listed == {path.parent.name for path in ROOT.glob("convlab/*/__main__.py")} | {"check"}
