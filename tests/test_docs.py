"""The pages build without a warning, and every command in them and in the README does what it is there for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "conv2d" / "README.md"]


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    page = (tmp_path / "ladder" / "register_tiled.html").read_text()
    assert "<svg" in page and "{{" not in page
    rows = re.findall(r"<td>(?:LeNet C3|ResNet-20)</td>\s*<td>[xw]</td>\s*<td>(.+?)</td>\s*<td>(.+?) times</td>", page)
    assert len(rows) == 4 and all(predicted == counted for predicted, counted in rows)
    for name in re.findall(r"ladder/(\w+)\.html", (tmp_path / "index.html").read_text()):
        assert (tmp_path / "ladder" / f"{name}.html").exists()


# ---- commands ---------------------------------------------------------------------------------------------------------


def commands_of(page: Path) -> list[str]:
    """What its code blocks tell to run; comments behind commands left out. A quoted argument may have several lines."""
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S):
        if language in ("", "sh"):
            found += re.findall(r"^((?:python|make|pip|ncu|torchrun)\b(?:'[^']*'|\"[^\"\n]*\"|[^'\"#\n])*)", block, re.M)
    return [command.strip() for command in found]


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})
# What cannot run in a test: make would build an environment, so it only says what it would do, which fails for a target that is
# not there. Installing has tests of its own: tests/test_build.py.
DRY, INSTALLS = re.compile(r"make\b"), re.compile(r"pip install")
MARKS = {r"convlab\.bench|train_lenet|cifar_train": pytest.mark.long, r"ncu\b|--device cuda": pytest.mark.cuda}


def test_commands_are_found():
    assert {"make lenet", "make test", "make kernel-notes"} <= set(COMMANDS) and len(COMMANDS) > 10
    assert any("convlab.simulate" in command for command in COMMANDS)


def marked(command):
    return pytest.param(command, marks=[mark for pattern, mark in MARKS.items() if re.search(pattern, command)], id=command.split("\n")[0])


@pytest.mark.parametrize("command", [marked(command) for command in COMMANDS])
def test_commands(command, tmp_path):
    """Each runs in a folder of its own, beside what the command before it has made."""
    if INSTALLS.match(command):
        pytest.skip("installing has tests of its own")
    if DRY.match(command):
        made = ["-o", ".venv/.ready", "-o", ".venv/.torch"]  # as if the environment were there
        run(["bash", "-c", command.replace("make", f"make -n -C '{ROOT}' {' '.join(made)}", 1)], tmp_path)
        return
    if re.search(r"--data (cifar10|mnist)|--resume", command):
        pytest.skip("needs data of its own, or a run before it: tests of the training scripts have both")
    if command.startswith("ncu") and not shutil.which("ncu"):
        pytest.skip("ncu is not on PATH")
    for name in ("examples", "train_lenet.py", "cifar_train.py"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    if " my_kernel.cuh" in command and "--new" not in command:
        run([sys.executable, "-m", "convlab.check", "--new", "my_kernel.cuh", *re.findall(r"--like \w+", command)[0].split()], tmp_path)
    expected = 1 if "with_a_bug" in command else 0
    run(["bash", "-c", command.replace("python", sys.executable, 1)], tmp_path, expected)


def run(command, folder, expected=0):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, env=ENVIRONMENT)
    assert done.returncode == expected, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


# ---- how to add a rung ------------------------------------------------------------------------------------------------

IN_THE_COPY = """
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
try:
    import convlab.explain as explain
except ImportError:
    explain = None
if explain:
    import subprocess
    said = subprocess.run([sys.executable, "-m", "convlab.explain", "lenet.c3", "--algo", "four_maps"], capture_output=True, text=True)
    assert said.returncode == 0 and "four_maps" in said.stdout, said.stderr
"""


def files_of_the_page() -> dict[str, str]:
    """What 'how to add a rung' says: path -> text; of the file that exists already, with its lines put in."""
    page = (ROOT / "docs" / "add-a-rung.md").read_text()
    new = re.findall(r"New file `(\S+)`:\n\n```cpp\n(.*?)```", page, re.S)
    table = re.search(r"In `(\S+)`, with the other headers:\n\n```cpp\n(.*?)```\n\nand at the end of `(\w+)`.*?```cpp\n(.*?)```", page, re.S)
    path, include, array, row = table.groups()
    text = (ROOT / path).read_text()
    first = text.index('#include "kernels/')
    text = text[:first] + include + text[first:]
    end = text.index("};", text.index(f"{array}[]"))
    return {**dict(new), path: text[:end] + row + text[end:]}


def test_a_rung_takes_three_files():
    assert len(files_of_the_page()) == 3


@pytest.mark.long
def test_how_to_add_a_rung(tmp_path):
    """Literally, in a copy of the tree: the table, the chooser, the ladder's tests and explain see it. The simulators are built anew."""
    copy = tmp_path / "convlab"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    for name in tracked or [str(p.relative_to(ROOT)) for d in ("csrc", "convlab", "tools", "tests") for p in (ROOT / d).rglob("*.*")] + ["setup.py", "pyproject.toml"]:
        if (ROOT / name).is_file() and not name.endswith(".so"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for path, text in files_of_the_page().items():
        (copy / path).write_text(text)
    shutil.copy(ROOT / "convlab" / "_C.so", copy / "convlab")  # the CPU's operators do not concern CUDA's rungs
    environment = {**ENVIRONMENT, "PYTHONPATH": str(copy), "CONVLAB_CUDA": "0"}

    def in_copy(*command):
        done = subprocess.run([sys.executable, *command], cwd=copy, capture_output=True, text=True, timeout=1800, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    in_copy("-c", BUILD)
    in_copy("-c", IN_THE_COPY)
    in_copy("-m", "pytest", "-q", "-p", "no:xdist", "tests/test_ladder.py", "-k", "four_maps and test_awkward_shapes and not w1", "-x")
    in_copy("tools/kernel_notes.py", "--only", "four_maps", "--write")
    assert "What is counted" in (copy / "csrc/kernels/conv2d_four_maps.cu").read_text()


# What `python setup.py build_ext --inplace` does, but for _C.
BUILD = """
import os, shutil, setup
torch, cxx = setup.toolchain.find_torch(), setup.toolchain.find_cxx(os.environ)
os.makedirs("build/rung")
libraries = [lib for lib in setup.libraries(torch, cxx, None, []) if lib.name != "_C.so"]
setup.write_graph("build/rung/build.ninja", cxx, None, libraries)
setup.run_ninja("build/rung/build.ninja", 2, cxx, None)
for lib in libraries:
    setup.replace("build/rung/" + lib.name, "convlab/" + lib.name)
"""
