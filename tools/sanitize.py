"""The CPU kernels under AddressSanitizer and UBSan: compiles them apart from the others, in build/sanitize, and runs
the tests of operators, layers and gradients there, once for each instruction set of this machine or for the one that
CONVLAB_CPU names. Arguments go to pytest.
"""

import glob
import importlib.util
import os
import subprocess
import sys

from convlab import toolchain
from tools import run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

BUILD = os.path.join(ROOT, "build", "sanitize")
TESTS = ["sanitize", "operators", "conv2d", "conv2d_block", "cpu_kernels", "max_pool2d", "avg_pool2d", "leaky_relu"]
TESTS += ["amx", "batch_norm", "gradients", "winograd", "models_around"]
# Compilers, and times that nobody measures here; the samples of test_opcheck are those of another test
NOT_HERE = "not compiled and not opcheck and not summary"
LINES = 40  # of a report


def runtime(cxx):
    """What has to be in the process before Python: AddressSanitizer, and the library whose exceptions it watches."""
    paths = [toolchain.output(cxx, "-print-file-name=" + name).strip() for name in ("libasan.so", "libstdc++.so.6")]
    if not all(map(os.path.isabs, paths)):
        raise toolchain.Refusal(
            f"sanitize needs AddressSanitizer's library, and {cxx} has none: install g++'s libasan, or name a g++ in CXX"
        )
    return " ".join(paths)


def instruction_sets(environ):
    """Those that CONVLAB_CPU may name here: the message about a wrong one lists them."""
    said = subprocess.run(
        [sys.executable, "-c", "from convlab import cpu; cpu.kernels()"],
        cwd=os.path.join(BUILD, "lib"),
        env={**environ, "CONVLAB_CPU": "none"},
        stderr=subprocess.PIPE,
        text=True,
    ).stderr
    if "this machine runs " not in said:
        raise toolchain.Refusal("the sanitized build does not load:\n" + said)
    return said.rsplit("this machine runs ", 1)[1].strip().split(", ")


def main():
    # Before anything else, so that a Python or a compiler that will not do is said at once
    preloaded = runtime(toolchain.find_cxx(os.environ).path)
    build = [sys.executable, "setup.py", "-q", "build", "--build-lib", os.path.join(BUILD, "lib")]
    environ = {**os.environ, "CONVLAB_CUDA": "0", "CONVLAB_SANITIZE": "1", "OMP_NUM_THREADS": "1"}
    code = subprocess.run(build, cwd=ROOT, env=environ).returncode
    if code:
        sys.exit(code)

    # pytest keeps what is written to stderr: reports go to files. Python and torch leave memory to the end of the
    # process.
    reports = os.path.join(BUILD, "report")
    options = f"log_path={reports}:detect_leaks=0:malloc_context_size=5:print_stacktrace=1"
    environ.update(LD_PRELOAD=preloaded, ASAN_OPTIONS=options, UBSAN_OPTIONS=options)
    known = instruction_sets(environ)
    asked = [environ["CONVLAB_CPU"]] if environ.get("CONVLAB_CPU") else known
    if not set(asked) <= set(known):
        raise toolchain.Refusal(f"CONVLAB_CPU is {asked[0]!r}; this machine runs {', '.join(known)}")
    workers = ["-n", "auto", "--maxprocesses", "4"] if importlib.util.find_spec("xdist") else []
    tests = [os.path.join(ROOT, "tests", f"test_{name}.py") for name in TESTS]
    failed = False
    for name in asked:
        for path in glob.glob(reports + ".*"):
            os.remove(path)
        print(f"convlab: {name} under AddressSanitizer and UBSan", flush=True)
        # The package in the working directory is the one that is imported.
        options = ["-q", "-p", "no:cacheprovider", "-k", NOT_HERE, *workers]
        command = [sys.executable, "-m", "pytest", *options, *tests, *sys.argv[1:]]
        failed |= (
            subprocess.run(command, cwd=os.path.join(BUILD, "lib"), env={**environ, "CONVLAB_CPU": name}).returncode
            != 0
        )
        for path in sorted(glob.glob(reports + ".*")):
            with open(path, errors="replace") as f:
                print("".join(f.readlines()[:LINES]))
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    run(main)
