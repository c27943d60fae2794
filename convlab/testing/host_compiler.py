"""Compiles kernels and the simulator's runtime into programs, with g++ and without torch."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import simulator_flags

_PACKAGE = Path(__file__).parent.parent
# What csrc/ lies in: the package where it is installed, the source tree where it is used in place.
ROOT = _PACKAGE if (_PACKAGE / "csrc").is_dir() else _PACKAGE.parent
RUNTIME = sorted((ROOT / "csrc" / "simulator").glob("*.cpp"))


class CompilerFailed(Exception):
    """What the compiler said, command first."""

    def __init__(self, command: list[str], said: str):
        super().__init__(f"{' '.join(command)}\n{said}")
        self.said = said


def compiled(folder: Path, sources: list[Path], check: bool, cxx="g++", extra=(), said: list[str] | None = None):
    """Object files of kernels (.cu) and host code (.cpp), which may include anything of csrc/. Reports name sources
    relative to the root, where `extra` does not say otherwise. What the compiler says is appended to `said`."""

    def compile_one(source: Path) -> str:
        target = folder / (source.name + ".o")
        kind = (simulator_flags.kernel_flags if source.suffix == ".cu" else simulator_flags.runtime_flags)(check)
        heard = _run([cxx, *kind, f"-ffile-prefix-map={ROOT}=.", *extra, "-c", _name(source), "-o", str(target)])
        if said is not None:
            said.append(heard)
        return str(target)

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 4)) as pool:
        return list(pool.map(compile_one, sources))


def _name(source: Path) -> str:
    """As the object file has it: the same wherever the tree lies."""
    return str(source.relative_to(ROOT) if source.is_relative_to(ROOT) else source)


def linked(target: Path, objects: list[str], cxx="g++", extra=()) -> Path:
    _run([cxx, *objects, "-o", str(target), *simulator_flags.link_flags(str(ROOT / "csrc")), *extra])
    return target


def kept(sources: list[Path], check: bool, cxx="g++", extra=()) -> list[str]:
    """`compiled`, once for a machine: object files in the user's cache folder (XDG_CACHE_HOME), under a name that
    stands for all that went into them."""
    if not shutil.which(cxx):
        raise FileNotFoundError(f"convlab: {cxx} is not on PATH; kernels are checked with it: apt install g++")
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True).stdout
    state = hashlib.sha256(
        repr((version, simulator_flags.runtime_flags(check), extra, [_name(s) for s in sources])).encode()
    )
    for path in sorted(
        path for folder in ("simulator", "simulator/plain", "testing") for path in (ROOT / "csrc" / folder).glob("*.*")
    ):
        state.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convlab"
    folder = cache / f"simulator-{state.hexdigest()[:20]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
        try:
            compiled(fresh, sources, check, cxx, extra)
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return [str(folder / (source.name + ".o")) for source in sources]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise CompilerFailed(command, done.stderr + done.stdout)
    return done.stderr
