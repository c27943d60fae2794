import sys

try:
    from .. import _load  # noqa: F401  (says in a sentence what an installation lacks)
except ImportError as error:
    sys.exit(str(error))
from .._pipe import run
from .command import main

if __name__ == "__main__":
    run(main)
