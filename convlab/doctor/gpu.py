"""The driver and the GPUs, against what torch and convlab were compiled for."""

import shutil
import subprocess
from typing import NamedTuple

from .. import libraries, toolchain
from .finding import Finding, fault, note, ok
from .packages import Torch


class Gpu(NamedTuple):
    name: str
    capability: str  # 8.9


def driver() -> tuple[Finding, list[Gpu]]:
    """And the GPUs that the driver knows."""
    if shutil.which("nvidia-smi") is None:
        return note(
            "driver",
            "no nvidia-smi: no NVIDIA driver; without a GPU, convlab.simulate() runs the CUDA kernels on the host",
        ), []
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return fault("driver", f"nvidia-smi does not answer: {error}", "reinstall the NVIDIA driver, or reboot"), []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 2]
    if done.returncode or not rows:
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        return fault("driver", f"nvidia-smi says: {said[0]}", "reinstall the NVIDIA driver, or reboot"), []
    gpus = [Gpu(name, capability) for name, capability, _ in rows]
    return ok("driver", f"{rows[0][2]}, {', '.join(f'{gpu.name} ({gpu.capability})' for gpu in gpus)}"), gpus


def architectures(gpus: list[Gpu], torch: Torch | None, build: dict | None) -> Finding:
    """Whether CUDA tensors will work on each of the GPUs."""
    name = "GPU architecture"
    if build is None:
        return note(name, "not tried without convlab")
    if not gpus:
        return note(
            name,
            f"no GPU; compiled for {' '.join(build['cuda_archs'])}"
            if build["cuda"]
            else "no GPU; not compiled for any",
        )
    archs = ";".join(sorted({gpu.capability for gpu in gpus}))
    rebuild = libraries.rebuild(f"TORCH_CUDA_ARCH_LIST='{archs}' CONVLAB_CUDA=1")
    if torch and not torch.cuda:
        return fault(
            name,
            f"torch {torch.version} is for the CPU alone",
            "pip install --force-reinstall torch  (one with CUDA: https://pytorch.org/get-started)",
        )
    if torch and not torch.gpu:
        return fault(
            name,
            f"torch {torch.version} sees no GPU: {torch.complaint or 'CUDA_VISIBLE_DEVICES may hide it'}",
            f"install a driver for CUDA {torch.cuda}, or a torch for the driver's",
        )
    if not build["cuda"]:
        return fault(name, "convlab was built without CUDA, because there was no nvcc", rebuild)
    missing = [gpu for gpu in gpus if not toolchain.runs_on(build["cuda_archs"], gpu.capability)]
    if missing:
        named = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in missing)
        return fault(
            name, f"convlab was compiled for {' '.join(build['cuda_archs'])}, which {named} does not run", rebuild
        )
    return ok(name, f"{archs.replace(';', ' ')}, of {' '.join(build['cuda_archs'])}")
