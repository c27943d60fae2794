"""Loads convlab's operators into torch (`torch.ops.convlab`, schemas in csrc/ops.cpp), or says why that cannot be."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from . import libraries

OLDEST_TORCH = (2, 11)


def _operators() -> tuple[Path, ModuleType]:
    """Their library, and the module _lab. Raises ImportError, with the command that helps, where the libraries or a torch to load them into are missing."""
    for name in ("_C", "_lab"):
        libraries.path_of(name)  # raises, where they are not there or not whole, before torch takes its time
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: where torch does not find a library of its own
        raise ImportError(
            f"convlab needs torch >= 2.11, and importing torch fails ({error}): pip install 'torch>=2.11'"
        ) from error
    running = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if running < OLDEST_TORCH:
        raise ImportError(
            f"convlab needs torch >= 2.11, this is torch {torch.__version__}: pip install --upgrade torch"
        )
    library = libraries.path_of("_C")
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise ImportError(
            f"convlab: {library}{_built_with()} does not load beside torch {torch.__version__} "
            f"({error.__cause__ or error}): {libraries.rebuild()}"
        ) from error
    try:
        return library, import_module("._lab", __package__)  # after torch, and what it says of one that is too old
    except ImportError as error:
        raise ImportError(f"convlab: its module _lab does not load ({error}): {libraries.rebuild()}") from error


def _built_with() -> str:
    try:
        from . import _lab
    except ImportError:
        return ""
    return f", built with torch {_lab.build_info()['torch']},"


library, lab = _operators()
