"""What a newcomer does: `pip install .`, or a wheel, into a fresh environment, and then work in a folder of their own."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import checkout
import pytest
import torch

import convlab

ROOT = Path(__file__).parent.parent

UNSEEN = (
    "numpy",
    "torchvision",
    "convlab",
    "__editable__",
    "__pycache__",
    "pip",
    "_distutils_hack",
    "distutils-precedence",
)


def fresh_environment(folder: Path) -> Path:
    """Its Python. It sees this process's torch, what that needs and what builds; of numpy, without which torch does, and of
    torchvision, which needs it, it knows nothing."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    seen = folder / "seen"
    seen.mkdir()
    for kind in dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")):
        for entry in Path(kind).iterdir():
            if not entry.name.startswith(UNSEEN):
                (seen / entry.name).symlink_to(entry)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(packages, "seen.pth").write_text(f"{seen}\n")
    return folder / "bin" / "python"


def test_a_folder_of_its_name_does_not_hide_it(tmp_path):
    """Such as the checkout, for who works beside it."""
    (tmp_path / "convlab").mkdir()
    used = "import convlab; print(convlab.__file__)"
    outcome = subprocess.run([sys.executable, "-c", used], cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == 0 and outcome.stdout.strip().endswith("__init__.py"), outcome.stderr


@pytest.mark.long
def test_a_newcomer_installs_and_uses_it(tmp_path):
    python = str(fresh_environment(tmp_path / "environment"))
    source, work = checkout.copy(tmp_path / "source"), tmp_path / "work"
    for library in (source / "convlab").glob("*.so"):
        library.unlink()
    work.mkdir()
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environ |= {"CONVLAB_CUDA": "0", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(folder, *command):
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    run(source, python, "-m", "pip", "install", "--no-build-isolation", ".")
    script = "import convlab; print(convlab.__file__, convlab.__version__)"
    file = run(work, python, "-c", script).strip()
    assert Path(file.split()[0]).is_relative_to(tmp_path / "environment") and not file.endswith("+source"), file
    assert run(work, python, "-m", "convlab.doctor").splitlines()[-1] == "nothing at fault"
    run(work, python, "-m", "convlab.check", "--new", "mine.cuh")
    assert "results              right" in run(work, python, "-m", "convlab.check", "mine.cuh", "--random", "1")
    assert "lenet-c1" in run(work, python, "-m", "convlab.explain", "lenet.c1@1", "--algo", "direct", "--count")


# ---- a wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Of what is built here: where that is up to date nothing is compiled."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", str(folder), "."]
    environ = {**os.environ, "CONVLAB_CUDA": str(int(convlab.build_info()["cuda"]))}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (file,) = folder.glob("*.whl")
    assert file.name.split("-")[2] == ("1cuda" if convlab.build_info()["cuda"] else "0cpu")
    return file


class Newcomer:
    """In an empty folder, with an environment that has the wheel; on PATH are its programs and `programs`."""

    def __init__(self, folder: Path, python: Path, wheel: Path, programs: str = ""):
        self.folder, self.python = folder, str(python)
        self.environ = {"PATH": os.pathsep.join([str(python.parent), programs]), "HOME": str(folder)}
        self.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        self.run("-m", "pip", "install", "--quiet", "--no-deps", str(wheel))

    def run(self, *command: str, status: int = 0) -> str:
        """What Python says to the command."""
        done = subprocess.run(
            [self.python, *command], cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == status, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


OTHER_TORCH = "2.14.1" if torch.__version__.startswith("2.13.") else "2.13.0"
A_STEP = """
import torch, convlab

torch.manual_seed(0)
torch.backends.cudnn.allow_tf32 = False  # or tensor cores round, in the simulator as on a GPU
model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 4, 3, padding=1))
x = torch.randn(3, 1, 13, 11)

def gradients():
    model.zero_grad()
    model(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]

expected = gradients()
convlab.fuse(model)
torch.testing.assert_close(gradients(), expected, rtol=1e-4, atol=1e-4)
with convlab.simulate() as sim:
    torch.testing.assert_close(gradients(), expected, rtol=1e-4, atol=1e-4)
print(torch.__version__, convlab.__version__, len(sim.launches) > 4)
"""


@pytest.mark.long
def test_a_wheel_works_beside_another_torch_and_without_a_compiler(wheel, tmp_path):
    """A torch from the package index, and nothing on PATH but the environment."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", f"torch=={OTHER_TORCH}"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode and re.search(r"Retrying \(Retry\(|No matching distribution", done.stderr):
        pytest.skip(f"torch {OTHER_TORCH} is not to be had")
    assert done.returncode == 0, done.stderr
    (work := tmp_path / "work").mkdir()
    newcomer = Newcomer(work, python, wheel)
    said = newcomer.run("-m", "convlab.doctor")
    assert said.splitlines()[-1] == "nothing at fault", said
    lines = {line[6:].split("  ")[0]: line for line in said.splitlines()}
    assert f" {OTHER_TORCH}" in lines["torch"] and lines["host compiler"].startswith("note"), said
    assert f"torch {torch.__version__.split('+')[0]}," in lines["built with"]  # not the one that it runs beside
    assert re.fullmatch(rf"{OTHER_TORCH}\S* 0\.\S+ True", newcomer.run("-c", A_STEP).strip())
    shutil.rmtree(environment)  # hundreds of megabytes


THEIRS = """
import torch
from torch import nn
from torch.nn import functional as F

import convlab


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.conv = nn.Conv2d(16, 24, 5, stride=2)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(24, 7)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(self.stem(x))), 2)
        return self.out(self.drop(x.mean((2, 3))))


torch.manual_seed(0)
model, images = Classifier(), torch.randn(4, 3, 24, 24)
expected = model.eval()(images)
convlab.convert(model)
torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
print(convlab.summary(model.train(), images, compare=True))
"""


@pytest.fixture
def newcomer(wheel, tmp_path) -> Newcomer:
    (work := tmp_path / "work").mkdir()
    return Newcomer(work, Path(fresh_environment(tmp_path / "environment")), wheel, os.environ["PATH"])


@pytest.mark.long
def test_a_walk_to_a_model_of_theirs_and_whether_it_is_faster(newcomer):
    (newcomer.folder / "theirs.py").write_text(THEIRS)
    said = newcomer.run("theirs.py")
    assert re.search(r"\d+\.\d+ times (as fast|faster)", said.strip().splitlines()[-1]), said
    assert {"stem.0", "stem.2", "conv"} <= set(re.findall(r"[\w.]+", said)), said


@pytest.mark.long
def test_a_walk_to_a_race_in_a_kernel_of_theirs(newcomer):
    kernel = (ROOT / "tests" / "student" / "tiled.cu").read_text()
    lines = [line for line in kernel.splitlines(keepends=True) if "// used" not in line]
    (newcomer.folder / "mine.cu").write_text("".join(lines))
    said = newcomer.run("-m", "convlab.check", "mine.cu", status=1)
    product = next(i for i, line in enumerate(lines, start=1) if "sum += " in line)
    assert re.search(r"races +1 found", said) and f"\n    at mine.cu:{product}:" in said, said
    (newcomer.folder / "mine.cu").write_text(kernel)
    said = newcomer.run("-m", "convlab.check", "mine.cu")
    assert re.search(r"races +none found", said) and re.search(r"results +right", said), said
