"""What works on the project itself, run from its root: python -m tools.NAME."""

import runpy
from pathlib import Path

# How each of them ends: quietly where nobody reads on. By its file, because some run before convlab is built.
run = runpy.run_path(str(Path(__file__).parents[1] / "convlab" / "_pipe.py"))["run"]
