"""Does the library that is built here run under other versions of torch? One line for each.

    python -m tools.smoke_torch_versions              # the oldest supported torch and the newest
    python -m tools.smoke_torch_versions 2.12.1 2.14.1

Each version is installed into an environment of its own, with this Python, and thrown away again; convlab/ is taken
from the checkout as it was built by `python setup.py build_ext --inplace`, not rebuilt.
"""

import os
import subprocess
import sys
import tempfile
import venv
from functools import partial

from convlab import toolchain

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def smoke():
    """Run under each torch: the operators, forward and backward, against torch's own."""
    import torch
    import torch.nn.functional as F

    import convlab
    import convlab.functional as CF

    torch.manual_seed(0)
    x, w, b = torch.randn(2, 4, 13, 11), torch.randn(6, 2, 3, 3), torch.randn(6)
    cases = {
        "conv2d": lambda f: lambda x, w, b: f.conv2d(x, w, b, stride=(2, 1), padding=1, dilation=(1, 2), groups=2),
        "max_pool2d": lambda f: lambda x, w, b: f.max_pool2d(x, 3, 2, 1),
        "leaky_relu": lambda f: lambda x, w, b: f.leaky_relu(x, 0.1),
    }
    for name, case in cases.items():
        results = []
        for f in (F, CF):
            arguments = [t.clone().requires_grad_() for t in (x, w, b)]
            y = case(f)(*arguments)
            y.square().sum().backward()
            results.append([y.detach()] + [t.grad for t in arguments])
        for expected, actual in zip(*results):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4, msg=partial("{}: {}".format, name))
    print(
        f"torch {torch.__version__}: {', '.join(cases)} agree; built with torch {convlab.build_info()['torch_built']}"
    )


def run_under(version):
    with tempfile.TemporaryDirectory(prefix="convlab-smoke-") as folder:
        venv.create(folder, with_pip=True)
        python = os.path.join(folder, "bin", "python")
        wanted = "torch" if version == "newest" else "torch==" + version
        install = subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], capture_output=True, text=True)
        if install.returncode:
            print(f"torch {version}: not installed: {install.stderr.strip().splitlines()[-1]}", flush=True)
            return False
        done = subprocess.run(
            [python, "-W", "ignore", "-m", "tools.smoke_torch_versions", "--here"],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        print(
            done.stdout.strip() if done.returncode == 0 else f"torch {version}: FAILED\n{done.stderr.strip()}",
            flush=True,
        )
        return done.returncode == 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--here"]:
        smoke()
    else:
        passed = [run_under(version) for version in sys.argv[1:] or [toolchain.OLDEST_TORCH + ".*", "newest"]]
        sys.exit(0 if all(passed) else 1)
