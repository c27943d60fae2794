"""The suite's core under other versions of torch, with the library that is built here: `make test-versions`.

    python -m tools.torch_versions                   # the oldest supported torch and the newest
    python -m tools.torch_versions 2.12.1 2.14.1
    python -m tools.torch_versions --here            # the torch that runs this, nothing installed

Each version has an environment of its own in build/versions, with this Python, made once (torch with CUDA takes 6 GB) and
removed by `make clean`. convlab is the checkout, as it was built for whatever torch: nothing is compiled. Files behind
the versions (tests/test_fx.py) run instead of the core.
"""

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

from convlab import toolchain
from tools import run

ROOT = Path(__file__).resolve().parent.parent
NEWEST = "newest"

# Each operator against float64 and torch, and each protocol of torch's that convlab takes part in: what a version may
# change. Not what takes compilers, other packages or minutes.
CORE = [
    "test_avg_pool2d.py",
    "test_bad_input.py",
    "test_compile.py",
    "test_conv2d.py",
    "test_convert.py",
    "test_flops.py",
    "test_fork.py",
    "test_func_transforms.py",
    "test_fx.py",
    "test_gradients.py",
    "test_interrupt.py",
    "test_leaky_relu.py",
    "test_max_pool2d.py",
    "test_modules.py",
    "test_operators.py",
    "test_quantization.py",
    "test_summary.py",
    "test_torch_function.py",
]
PACKAGES = ["pytest", "pytest-xdist", "hypothesis", "numpy"]


def environment(version: str) -> str:
    """The Python of an environment with this torch: the one that is there, or made now. Of the newest, brought up to
    date. Raises RuntimeError, with what pip says, where that cannot be."""
    folder = ROOT / "build" / "versions" / version.removesuffix(".*")
    if not (folder / ".whole").exists():
        venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    if version == NEWEST or not (folder / ".whole").exists():
        wanted = "torch" if version == NEWEST else f"torch=={version}"
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--upgrade",
            wanted,
            *PACKAGES,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"torch {version} is not installed: {(done.stdout.strip().splitlines() or ['?'])[-1]}")
        (folder / ".whole").touch()
    return str(python)


def passes(python: str, files: list[str]) -> bool:
    """Whether the tests pass under this Python's torch."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    about = "import torch, convlab; print('torch', torch.__version__ + ', convlab built with', convlab.build_info()['torch_built'])"
    subprocess.run([python, "-c", about], cwd=ROOT, env=environ)
    command = [python, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "4", "-p", "no:cacheprovider", *files]
    return subprocess.run(command, cwd=ROOT, env=environ).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", help="as pip knows them, or newest; and test files")
    parser.add_argument("--here", action="store_true", help="under the torch that runs this, and no other")
    args = parser.parse_args()
    files = [name for name in args.versions if name.endswith(".py")] or [f"tests/{name}" for name in CORE]
    versions = [name for name in args.versions if not name.endswith(".py")]
    passed = {}
    for version in ["this"] if args.here else versions or [toolchain.OLDEST_TORCH + ".*", NEWEST]:
        print(f"---- torch {version}", flush=True)
        try:
            passed[version] = passes(sys.executable if args.here else environment(version), files)
        except RuntimeError as error:
            print(f"convlab: {error}", flush=True)
            passed[version] = False
    for version, ok in passed.items():
        print(f"torch {version}: {'passed' if ok else 'FAILED'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    run(main)
