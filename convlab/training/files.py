"""Files that are whole at every moment, and a folder that one process writes to."""

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path

from .errors import TrainingError


def replace(path, content):
    """Puts `content`, bytes or a function that writes them to a file, in the place of `path`.

    At every moment `path` is the old file or the new one, whole: the new one is written beside it, reaches the disk,
    and then takes its place. An error on the way leaves the old file, and nothing beside it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")  # one name: the next time takes away what a kill left
    try:
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the renaming lasts through a power cut
    finally:
        os.close(folder)


@contextmanager
def sole_use_of(folder):
    """Inside the block no other process that asks gets `folder`. Raises TrainingError where another has it; ends with
    the process."""
    with open(Path(folder) / ".lock", "w") as file:
        try:
            # Not inherited: a worker that outlives its trainer holds nothing.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"another training run is writing to {folder}: name another folder with --out"
            raise TrainingError(message) from error
        yield
