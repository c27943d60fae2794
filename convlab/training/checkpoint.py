"""Checkpoints that a crash cannot tear, and that nothing else is taken for."""

import zipfile

import torch

from . import files
from .errors import CheckpointError, one_line

FORMAT = "convlab training, 1"
_REMEDY = "It is left as it is: move it away, or name another folder with --out"


def save(contents, path):
    """Writes `contents` (tensors, numbers, strings, and dicts and lists of them) to `path`: the old file or the new
    one, never half."""
    files.replace(path, lambda file: torch.save({"format": FORMAT, **contents}, file))


def load(path):
    """What `save` wrote to `path`, its tensors on the CPU.

    Every byte is checked, and nothing in the file is executed. Raises CheckpointError for a damaged file and for one
    that is something else, FileNotFoundError where there is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load would not notice a changed weight
        contents = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # what torch.load raises depends on the byte the damage begins at
        raise CheckpointError(f"{path} is damaged, or no checkpoint at all ({one_line(error)}). {_REMEDY}") from error
    if damaged:
        raise CheckpointError(f"{path} is damaged (in {damaged}). {_REMEDY}")
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by this version of convlab's training scripts. {_REMEDY}")
    return contents
