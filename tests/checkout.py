"""A copy of the checkout, for commands that change it, with an environment in .venv that make takes for one it has
made."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNWANTED = (
    ".git",
    ".venv",
    "build",
    "dist",
    "runs",
    "data",
    "*.egg-info",
    "__pycache__",
    ".pytest_cache",
    ".hypothesis",
)
# What a make or a pytest around this one, or whoever called it, says to its own.
OTHERS = ("MAKE", "MFLAGS", "PYTEST_", "ARGS", "STEP", "DRY", "BUDGET", "PIP_", "VIRTUAL_ENV")


def copy(folder: Path) -> Path:
    """With the libraries that were built. The environment has this process's interpreter; it is only a name for it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    if listed:
        for name in [name for name in listed if (ROOT / name).is_file()] + [
            f"convlab/{path.name}" for path in ROOT.glob("convlab/*.so")
        ]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    else:
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*UNWANTED))
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "python3"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (programs / name).chmod(0o755)
    _make_is_content(folder)
    return folder


def give_it_an_environment(folder: Path):
    """One of its own instead, to install into: it sees what this process's has."""
    shutil.rmtree(folder / ".venv")
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=folder, check=True)
    there = sysconfig.get_path("purelib", vars={"base": str(folder / ".venv"), "platbase": str(folder / ".venv")})
    Path(there, "seen.pth").write_text(
        "\n".join(dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))) + "\n"
    )
    _make_is_content(folder)


def _make_is_content(folder):
    for name in (".torch", ".ready", ".lint"):
        (folder / ".venv" / name).touch()


def environment(folder: Path, **more) -> dict:
    """Of a command there: its programs are found first, and its package too."""
    path = os.pathsep.join(
        [str(folder / ".venv" / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    return {
        **kept,
        "PATH": path,
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "CONVLAB_IN_A_COMMAND": "1",
        **more,
    }


def run(command: str, folder: Path, status=0, **more) -> str:
    """What it prints."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=3000,
        env=environment(folder, **more),
    )
    assert done.returncode == status, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr
