"""The end of a command whose reader may be gone: `... | head`."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def quiet_end() -> Iterator[None]:
    """What is printed inside ends the program, without a traceback, where nobody reads it any more."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        sys.exit(128 + signal.SIGPIPE)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Ends the program with what main() returns; without a traceback where nobody reads its output any more."""
    status: int | str | None
    with quiet_end():
        try:
            status = main()
        except SystemExit as end:
            status = end.code
    sys.exit(status)
