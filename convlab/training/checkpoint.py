"""Checkpoints that a crash cannot tear."""

import os
from pathlib import Path

import torch


def save(contents, path):
    """Writes `contents` (tensors, numbers, strings, and dicts and lists of them) to `path` for torch.load.

    At every moment `path` is the old file or the new one, whole: the new one is written beside it, reaches the disk,
    and then takes its place. An error on the way leaves the old file, and nothing beside it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder):
    """Makes the renaming last through a power cut; where a folder cannot be opened (Windows) there is no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
