"""The library loads nothing of what stands on it, and no name of a module is that of a function."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import convlab

INSTRUMENTS = ("bench", "check", "doctor", "explain", "testing", "training")


def test_an_import_loads_no_instrument():
    script = "import convlab, sys; print(*(name for name in sys.modules if name.startswith('convlab.')))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"convlab.functional", "convlab.modules", "convlab._summary"} <= set(loaded)
    assert not [name for name in loaded if name.split(".")[1] in INSTRUMENTS], loaded


def test_what_is_asked_for_is_loaded():
    script = "import convlab, sys; assert 'convlab.explain' not in sys.modules; print(convlab.explain.explain.__name__)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "explain\n"
    assert {*convlab.__all__, "bench", "doctor", "explain", "testing", "training"} <= set(dir(convlab))
    for name in convlab.__all__:
        assert getattr(convlab, name).__name__.split(".")[-1] == name


def test_no_module_is_shadowed_by_a_function_of_its_name():
    for module in pkgutil.walk_packages(convlab.__path__, "convlab."):
        if module.name.rsplit(".", 1)[-1] == "__main__" or "._" in module.name:
            continue
        parent, _, name = module.name.rpartition(".")
        imported = importlib.import_module(module.name)
        assert getattr(sys.modules[parent], name) is imported, module.name


def test_imports_go_downwards():
    """By the contract in pyproject.toml."""
    pytest.importorskip("importlinter")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0 and "0 broken" in done.stdout, done.stdout + done.stderr
