"""What a newcomer does: `pip install .` into a fresh environment, and then work in a folder of their own."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import checkout
import pytest

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
