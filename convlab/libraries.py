"""The compiled libraries that lie beside this file: whether they are there, and whole. Torch-free."""

import os
import struct
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
FILES: dict[str, str] = {
    "_C": "_C.so",
    "_lab": "_lab" + sysconfig.get_config_var("EXT_SUFFIX"),
    "_sim": "_sim.so",
    "_sim_check": "_sim_check.so",
}


def rebuild(settings: str = "") -> str:
    """The command that builds the libraries again. settings: environment variables for it, as in "CONVLAB_CUDA=1"."""
    words = [settings] if settings else []
    if not _in_source_tree():
        return " ".join([*words, "pip install --no-build-isolation --force-reinstall --no-deps ."])
    missing = [package for package in ("setuptools", "ninja", "pybind11") if find_spec(package) is None]
    first = ["pip", "install", *missing, "&&"] if missing else []
    return " ".join([*first, *words, "python", str(FOLDER.parent / "setup.py"), "build_ext", "--inplace"])


def fault(name: str) -> str | None:
    """What is wrong with the file of the library `name`, and the command that fixes it; None if it is there and
    whole."""
    path = FOLDER / FILES[name]
    if not path.exists():
        if _in_source_tree() and (installed := _shadowed()):
            return (
                f"convlab: {FOLDER} is not built, and Python finds it before the convlab that is installed in "
                f"{installed}: {_out_of_the_way()}, or build it with {rebuild()}"
            )
        others = ", ".join(sorted(p.name for p in FOLDER.glob(f"{name}.*so")))
        why = f"convlab was built for another Python ({others})" if others else "convlab was not built, or not whole"
        return f"convlab: {path} is missing, so {why}: {rebuild()}"
    if not _is_whole(path):
        return f"convlab: {path} is damaged or cut short: {rebuild()}"
    return None


SIMULATED = ("kernels", "device", "geometry", "cuda", "simulator")  # folders of csrc/, of which simulators are built


def newer_sources() -> str | None:
    """That sources of the simulators were changed after they were built, whose reports then name lines of files that
    are gone; None if none was, or where convlab is installed and its sources lie still."""
    built = [path.stat().st_mtime for name in ("_sim", "_sim_check") if (path := FOLDER / FILES[name]).exists()]
    if not (built and _in_source_tree()):
        return None
    csrc = FOLDER.parent / "csrc"
    sources = (path for folder in SIMULATED for path in (csrc / folder).rglob("*.*") if path.suffix != ".md")
    newest = max(sources, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None or newest.stat().st_mtime <= min(built):
        return None
    return (
        f"convlab: {newest.relative_to(FOLDER.parent)} was changed after the simulator was built, so reports quote "
        f"lines that may have moved: {rebuild()}"
    )


def path_of(name: str) -> Path:
    """The file of the library `name`. Raises ImportError, with what fixes it, where that is missing or not whole."""
    if reason := fault(name):
        raise ImportError(reason)
    return FOLDER / FILES[name]


def _in_source_tree() -> bool:
    return (FOLDER.parent / "setup.py").exists()


def _shadowed() -> Path | None:
    """Another convlab, with libraries for this Python, that would be imported if this folder were not found first."""
    folders = (Path(entry or os.curdir).resolve() / FOLDER.name for entry in sys.path)
    others = (folder for folder in folders if folder != FOLDER.resolve())
    return next((folder for folder in others if all((folder / file).exists() for file in FILES.values())), None)


def _out_of_the_way() -> str:
    """What to do for Python not to find this folder."""
    root = FOLDER.parent.resolve()
    if any(entry and Path(entry).resolve() == root for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        return f"take {root} out of PYTHONPATH"
    if sys.version_info >= (3, 11):
        return "leave it out with python -P"
    return "run outside of it, scripts as copies"


def _is_whole(path: Path) -> bool:
    """Whether the file is ELF and reaches to its table of sections, which stands last. Loading one that does not may
    crash."""
    with open(path, "rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", header, 40)
    size, count = struct.unpack_from("<HH", header, 58)
    return path.stat().st_size >= offset + size * count
