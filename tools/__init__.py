"""What works on the project itself, run from its root: python -m tools.NAME."""

import runpy
import sys
from pathlib import Path

_run = runpy.run_path(str(Path(__file__).parents[1] / "convlab" / "_pipe.py"))["run"]


def run(main):
    """How each of them ends: quietly where nobody reads on. By its file, because some run before convlab is built. One
    that takes no options says what it does to --help, instead of doing it."""
    if {"-h", "--help"} & set(sys.argv[1:]) and "argparse" not in main.__globals__:
        return _run(lambda: print(main.__globals__["__doc__"]))
    return _run(main)
