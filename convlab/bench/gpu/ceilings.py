"""What this GPU reaches: bytes a second of a copy, multiply-adds a second, and cuBLAS's products in each precision."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from .precision import dtype_of, multiplying_in

SOURCE = Path(__file__).with_name("ffma.cu")
COPY_BYTES = 2**31  # read; as many are written
PRODUCT = 8192  # rows, columns and steps
TRIES = 10


def measured(device) -> dict:
    """copy (bytes a second, read and written), ffma, matmul_float32, matmul_tf32, matmul_bfloat16 (operations a
    second); None with a reason in "failed" where something stood against it."""
    found, failed = {}, {}
    ways = {"copy": _copy, "ffma": _ffma} | {
        f"matmul_{p}": lambda d, p=p: _matmul(d, p) for p in ("float32", "tf32", "bfloat16")
    }
    for name, way in ways.items():
        try:
            found[name] = way(device)
        except Exception as error:  # noqa: BLE001  (one ceiling may be missing; the others still tell something)
            found[name] = None
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        device.clean()
    return found | {"failed": failed}


def floor_us(ceilings: dict, flops: int, bytes: int, precision: str) -> float | None:
    """The least microseconds that so much arithmetic and traffic can take; None where a ceiling is missing."""
    arithmetic = ceilings["ffma" if precision == "float32" else f"matmul_{precision}"]
    if not arithmetic or not ceilings["copy"]:
        return None
    return 1e6 * max(flops / arithmetic, bytes / ceilings["copy"])


def _copy(device):
    size = 2**22 if device.dry else min(COPY_BYTES, device.free_bytes() // 4)
    source = torch.randint(0, 127, (size,), dtype=torch.int8, device=device.type)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * size / min(device.seconds(lambda: target.copy_(source)) for _ in range(TRIES))


def _matmul(device, precision):
    n = 128 if device.dry else PRODUCT
    a, b = (
        torch.randn(n, n, device=device.type, dtype=dtype_of(precision)) for _ in range(2)
    )  # random: zeros run faster
    with multiplying_in(precision):
        for _ in range(3):
            a @ b
        device.synchronize()
        return 2 * n**3 / min(device.seconds(lambda: a @ b) for _ in range(TRIES))


def _ffma(device):
    if device.dry:
        raise RuntimeError("a dry run has no GPU to run ffma.cu on")
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        library = ctypes.CDLL(str(compile_ffma(Path(folder), f"{major}{minor}")))
        library.convlab_ffma_peak.restype = ctypes.c_double
        rate = library.convlab_ffma_peak(TRIES)
    if rate <= 0:
        raise RuntimeError(f"ffma.cu: CUDA error {-rate:.0f}")
    return rate


def compile_ffma(folder: Path, arch: str) -> Path:
    """The library that ffma.cu makes for an architecture such as "90". Raises RuntimeError without nvcc, or with what
    nvcc said."""
    homes = [Path(root, "bin", "nvcc") for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")) if root]
    found = (
        [str(path) for path in homes if path.exists()]
        + [path for path in [shutil.which("nvcc")] if path]
        + ["/usr/local/cuda/bin/nvcc"]
    )
    if not Path(found[0]).exists():
        raise RuntimeError("ffma.cu needs nvcc, which is not on PATH")
    target = folder / "ffma.so"
    command = [
        found[0],
        "-O3",
        "-shared",
        "-Xcompiler",
        "-fPIC",
        f"-gencode=arch=compute_{arch},code=sm_{arch}",
        str(SOURCE),
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc does not compile ffma.cu: {done.stderr.strip()[-500:]}")
    return target
