"""Installs nvcc from PyPI into this environment if the machine has none: `make test` compiles the CUDA kernels with
it."""

import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

from tools import run

# Run as a file: this comes before the build, and importing the package needs the build.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
toolchain = SimpleNamespace(**runpy.run_path(os.path.join(ROOT, "convlab", "toolchain.py")))


def main():
    if toolchain.wants_cuda(os.environ) == "0":
        return
    cxx = toolchain.find_cxx(os.environ)
    nvcc, reason = toolchain.choose_nvcc({**os.environ, "CONVLAB_CUDA": "auto"}, cxx.path)
    if nvcc:
        return
    torch = toolchain.find_torch()
    packages = toolchain.nvcc_packages(torch.cuda)
    if not packages:
        print(
            f"convlab: {reason}; PyPI has one for CUDA 13 and later, and torch {torch.version} is for CUDA {torch.cuda}"
        )
        return
    print(f"convlab: {reason}; installing {' '.join(packages)}", flush=True)
    # --force-reinstall: a package that an interrupted pip left half installed counts as installed.
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--force-reinstall",
        "--no-deps",
    ]
    sys.exit(subprocess.run(pip + packages).returncode)


if __name__ == "__main__":
    run(main)
