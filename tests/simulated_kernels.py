"""Compiles kernels and the simulator's runtime into a program of their own, without torch."""

import os
import runpy
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
flags = runpy.run_path(str(ROOT / "convlab" / "simulator_flags.py"))


RUNTIME = sorted((ROOT / "csrc" / "simulator").glob("*.cpp"))


def compiled(folder: Path, sources: list[Path], check: bool, cxx="g++", extra=()) -> list[str]:
    """Object files of kernels (.cu) and host code (.cpp), which may include anything of csrc/. Sources are named relative to the root."""

    def compile_one(source: Path) -> str:
        target = folder / (source.name + ".o")
        kind = flags["kernel_flags" if source.suffix == ".cu" else "runtime_flags"](check)
        run([cxx, *kind, *extra, f"-ffile-prefix-map={ROOT}=.", "-c", str(source.relative_to(ROOT)), "-o", str(target)])
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, sources))


def linked(target: Path, objects: list[str], cxx="g++", extra=()) -> Path:
    run([cxx, *objects, "-o", str(target), *flags["link_flags"](), *extra])
    return target


def run(command, timeout=300, **environment) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment})
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
