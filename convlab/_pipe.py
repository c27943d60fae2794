"""The end of a command whose reader may be gone: `... | head`."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int | None]) -> NoReturn:
    """Ends the program with what main() returns; without a traceback where nobody reads its output any more."""
    try:
        try:
            status: int | str | None = main()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        status = 128 + signal.SIGPIPE
    sys.exit(status)
