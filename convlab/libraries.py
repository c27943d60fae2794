"""The compiled libraries that lie beside this file: whether they are there, and whole. Torch-free."""

import struct
import sysconfig
from pathlib import Path

REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps ."
FOLDER = Path(__file__).parent
FILES: dict[str, str] = {
    "_C": "_C.so",
    "_lab": "_lab" + sysconfig.get_config_var("EXT_SUFFIX"),
    "_sim": "_sim.so",
    "_sim_check": "_sim_check.so",
}


def fault(name: str) -> str | None:
    """What is wrong with the file of the library `name`, and the command that mends it; None if it is there and
    whole."""
    path = FOLDER / FILES[name]
    if not path.exists():
        others = ", ".join(sorted(p.name for p in FOLDER.glob(f"{name}.*so")))
        why = f"convlab was built for another Python ({others})" if others else "convlab was not built, or not whole"
        return f"convlab: {path} is missing, so {why}: {REBUILD}"
    if not _is_whole(path):
        return f"convlab: {path} is damaged or cut short: {REBUILD}"
    return None


def path_of(name: str) -> Path:
    """The file of the library `name`. Raises ImportError, with what mends it, where that is missing or not whole."""
    if reason := fault(name):
        raise ImportError(reason)
    return FOLDER / FILES[name]


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
