"""The tests on a GPU: builds in place for the one at hand, then runs the whole suite, the tests marked `cuda` among it.

For a machine that has torch, setuptools, ninja, pybind11, pytest and nvcc, and perhaps no network: nothing is
installed. Arguments go to pytest.
"""

import importlib.util
import os
import subprocess
import sys

import torch

from tools import run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    if not torch.cuda.is_available():
        sys.exit(
            f"convlab: torch {torch.__version__} ({sys.executable}) sees no GPU: gpu-test needs one, and a torch with CUDA"
        )
    capability = "{}.{}".format(*torch.cuda.get_device_capability())
    print(
        f"convlab: testing on {torch.cuda.get_device_name()}, compute capability {capability}, Python {sys.version.split()[0]}, torch {torch.__version__}",
        flush=True,
    )

    environ = {"TORCH_CUDA_ARCH_LIST": capability, **os.environ, "CONVLAB_CUDA": "1"}
    workers = ["-n", str(min(len(os.sched_getaffinity(0)), 12))] if importlib.util.find_spec("xdist") else []
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    test = [sys.executable, "-m", "pytest", *workers, *sys.argv[1:]]
    for command in (build, test):
        code = subprocess.run(command, cwd=ROOT, env=environ).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    run(main)
