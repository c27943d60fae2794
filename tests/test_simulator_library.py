"""The simulator's libraries are in every install, need only the stable ABI of torch, and bring the sources that reports
quote."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import convlab
from convlab import libraries

ROOT = Path(__file__).parent.parent
LIBRARIES = [Path(convlab.__file__).with_name(name) for name in ("_sim.so", "_sim_check.so")]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_what_a_library_needs_and_shows(library):
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not on PATH")
    symbols = subprocess.run(["nm", "-D", str(library)], check=True, capture_output=True, text=True).stdout
    undefined = re.findall(r" [Uw] (\S+)", symbols)
    assert not [s for s in undefined if re.search(r"^_Z.*(3c10|2at|5torch)|^_?Py", s)]
    assert not [s for s in undefined if "tsan" in s or "ubsan" in s or s.startswith("cuda")]
    assert re.findall(r" T (\S+)", symbols) == ["convlab_simulator"]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_no_path_of_the_building_machine_is_inside(library):
    content = library.read_bytes()
    for path in {str(ROOT), str(Path.home()), sys.prefix}:
        assert path == "/" or path.encode() + b"/" not in content, path


def test_the_page_shows_real_output():
    """Its first command and what that prints."""
    command, output = re.findall(r"```\n(.*?)\n```", (ROOT / "docs" / "simulate.md").read_text(), re.S)[:2]
    command = command.replace("python ", f"'{sys.executable}' ", 1)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == output.strip()


def test_sources_that_are_newer_than_the_library_are_named(tmp_path, monkeypatch):
    """Of a source tree, and only what a simulator is built of."""
    package, kernel = tmp_path / "convlab", tmp_path / "csrc" / "kernels" / "mine.cu"
    other = tmp_path / "csrc" / "cpu" / "other.cpp"
    monkeypatch.setattr(libraries, "FOLDER", package)
    for path in (package / "_sim.so", package / "_sim_check.so", kernel, other, tmp_path / "setup.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1000, 1000))
    os.utime(other, (2000, 2000))
    assert libraries.newer_sources() is None
    os.utime(kernel, (2000, 2000))
    assert "csrc/kernels/mine.cu was changed after the simulator was built" in libraries.newer_sources()
    (tmp_path / "setup.py").unlink()  # installed
    assert libraries.newer_sources() is None


LENET_STEP = """
import sys
import torch
from torch import nn
import convlab
assert convlab.__file__.startswith(sys.argv[1]), convlab.__file__
torch.manual_seed(0)
model = convlab.convert(nn.Sequential(
    nn.Conv2d(1, 6, 5), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
    nn.Conv2d(16, 12, 5), nn.ReLU(), nn.Flatten(), nn.Linear(12, 10)))
x, target = torch.randn(4, 1, 32, 32), torch.randint(10, (4,))
def step():
    model.zero_grad()
    loss = nn.functional.cross_entropy(model(x), target)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]
expected = step()
with convlab.simulate(check=True, count=True) as sim:
    actual = step()
for a, e in zip(actual, expected):
    torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-6)
assert len(sim.launches) > 15 and all(row.source for row in sim.traffic)
"""


def test_a_wheel_in_an_empty_folder(tmp_path):
    """A training step of LeNet from a wheel: the CPU backend's loss and gradients, and the source lines quoted."""
    for needed in ("ninja", "pybind11", "wheel"):
        pytest.importorskip(needed)
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on PATH")
    empty = tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    for command in (
        [*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        [
            *pip,
            "install",
            "--no-deps",
            "--no-index",
            "--target",
            str(tmp_path / "site"),
            "--find-links",
            str(tmp_path),
            "convlab",
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    site = str(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {site!r})\n" + LENET_STEP, site],
        cwd=empty,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
