"""Files that are whole at every moment, and a folder that one process writes to."""

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path

from .errors import TrainingError


def replace(path, write):
    """Puts what write(file) writes, bytes, in the place of `path`.

    At every moment `path` is the old file or the new one, whole: the new one is written beside it, reaches the disk,
    and then takes its place. An error on the way leaves the old file, and nothing beside it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")  # one name: the next time takes away what a kill left
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder):
    """Makes the renaming last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def sole_use_of(folder):
    """Inside the block no other process that asks gets `folder`. Raises TrainingError where another has it; ends with
    the process."""
    with open(Path(folder) / ".lock", "w") as file:
        try:
            fcntl.lockf(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # not inherited: a worker that outlives its trainer holds nothing
        except OSError as error:
            raise TrainingError(
                f"another training run is writing to {folder}: name another folder with --out"
            ) from error
        yield
