"""How long a kernel of one's own would take on a GPU that is not here: a sample of its blocks counted by the simulator,
the machine code that nvcc makes of it, and the model of time of convlab's own kernels (docs/predict.md)."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import toolchain
from ..explain.compiled import RESERVED, NoTools, Resources, names_of, resources, sass
from ..explain.counting import countable
from ..explain.prediction import (
    MEASURED_ON,
    Launched,
    Prediction,
    asked_of,
    facts_of,
    predict,
    ready,
    rows,
)
from ..explain.sass import Profile, profile
from ..explain.text import RESOURCES
from ..gpus import GPUS
from ..layers import find
from .contracts import TIMED, Contract
from .host_compiler import ROOT
from .plain_cuda import is_plain
from .program import Program


@dataclass(frozen=True)
class Code:
    """What nvcc made of a kernel."""

    resources: Resources
    profile: Profile

    def __str__(self):
        r, loop = self.resources, self.profile.main.body
        spilled = f"{r.stack} bytes a thread in memory: spills, or arrays" if r.stack else "nothing spilled"
        where = "a trip of its loop" if self.profile.once.instructions else "all of it, which has no loop that loads"
        return (
            f"{r.registers} registers, {r.shared:,} bytes of static shared memory, {spilled}; {where}: "
            f"{loop.instructions} instructions, of them {loop.multiply_adds + loop.tensor} multiply-adds, "
            f"{loop.global_loads} loads of global and {loop.shared_loads} of shared memory"
        )


@dataclass(frozen=True)
class KernelPrediction:
    """Of TIMED. prediction: of the kernel, None where why_not says why there is none. code: by kernel, what nvcc made of
    it. rungs: of convlab's, microseconds predicted and measured."""

    prediction: Prediction | None
    why_not: str
    code: dict[str, Code]
    rungs: dict[str, tuple[float, float]]

    def __str__(self):
        lines = [f"how long {TIMED} would take on an {MEASURED_ON}  [modelled]"]
        if own := self.prediction:
            lines.append(
                f"  {own.microseconds:,.4g} us, most of it {RESOURCES[own.bound_by]}; {own.without:,.4g} us without that"
            )
        else:
            lines.append(f"  not known: {self.why_not}")
        lines += [f"  {name}: {code}  [compiled]" for name, code in self.code.items()]
        lines.append("convlab's kernels: microseconds  [modelled], and of the record  [measured]")
        lines += [f"  {name:15}{us:10,.4g}{measured:10,.4g}" for name, (us, measured) in self.rungs.items()]
        return "\n".join(lines)


class NoCode(RuntimeError):
    """There is no machine code, and why."""


def prediction_of(program: Program, source: Path, contract: Contract, cxx: str = "g++") -> KernelPrediction | None:
    """Of a kernel that was found right. None for what the record has no times of: it has convolutions in float32."""
    if contract.timed is None or program.dtype != torch.float32:
        return None
    pass_, code = contract.like.rpartition("_")[2], {}
    try:
        code = code_of(source, cxx)
        prediction, why_not = _predicted(program, contract, pass_, code), ""
    except NoCode as error:
        prediction, why_not = None, str(error)
    return KernelPrediction(prediction, why_not, code, _rungs(pass_))


def _predicted(program, contract, pass_, code) -> Prediction:
    gpu, layer = GPUS[MEASURED_ON], find(TIMED)
    question = contract.timed(program.dtype, program.form, program.with_bias)
    answer = program.run(question, count=max(countable(layer.flops), 2))
    if answer.result is None:
        raise NoCode(f"of {TIMED} it says: {answer.refusal or answer.report}")

    def found(kernel: str, source: str, capability: str = "") -> Code | None:
        return next((code[name] for name in names_of(kernel, source) if name in code), None)

    launches = []
    for one in answer.launches:
        kernel = found(one.kernel, one.source)
        if kernel is None:
            raise NoCode(f"nvcc's code has no {one.kernel}; it has {', '.join(code) or 'no kernel'}")
        blocks = one.grid[0] * one.grid[1] * one.grid[2]
        threads = one.block[0] * one.block[1] * one.block[2]
        shared = max(one.shared_bytes, kernel.resources.shared)
        launches.append(Launched(one.kernel, one.source, blocks, threads, 1, kernel.resources.registers, shared))
    tensors = {*question.inputs, question.output[0]}
    asked = [
        row if row.space == "shared" or row.memory in tensors else row._replace(memory="workspace")
        for row in asked_of(answer.traffic)
    ]
    scratch = sum(row.bytes for row in asked if row.memory == "workspace" and row.access != "read")
    facts = facts_of(layer.problem(program.dtype), pass_, scratch)
    return predict(launches, asked, facts, gpu, code_of=lambda *of: found(*of).profile)


def _rungs(pass_: str) -> dict[str, tuple[float, float]]:
    gpu, found = GPUS[MEASURED_ON], {}
    for row in rows():
        if row[:3] == (TIMED, "float32", pass_):
            launches, facts = ready(row)
            if prediction := predict(launches, row.asked, facts, gpu):
                found[row.rung] = prediction.microseconds, row.measured
    return dict(sorted(found.items(), key=lambda one: -one[1][1]))


def code_of(source: Path, cxx: str = "g++") -> dict[str, Code]:
    """By kernel, what nvcc makes of a file for MEASURED_ON. Raises NoCode."""
    wanted = "0" if os.environ.get("CONVLAB_CUDA") == "0" else "auto"
    nvcc, why = toolchain.choose_nvcc({**os.environ, "CONVLAB_CUDA": wanted}, cxx)
    if nvcc is None:
        packages = " ".join(toolchain.nvcc_packages(torch.version.cuda))
        how = f"pip install {packages}, or install the CUDA toolkit" if packages else "install the CUDA toolkit"
        raise NoCode(f"it takes the kernel's machine code, from nvcc ({why}); {how}")
    arch = GPUS[MEASURED_ON].capability
    over_device_h = [] if is_plain(source.read_text(errors="replace")) else ["-I", str(ROOT / "csrc")]
    with tempfile.TemporaryDirectory(prefix="convlab-") as folder:
        fatbin = f"{folder}/kernel.fatbin"
        flags = ["-std=c++20", "-fatbin", f"-arch=sm_{arch.replace('.', '')}", "--extended-lambda", "-ccbin", cxx]
        command = [nvcc.path, *flags, *over_device_h, "-x", "cu", str(source), "-o", fatbin]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            error = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
            raise NoCode(f"nvcc does not compile {source.name}: {error}")
        try:
            used, lines = resources(fatbin).get(arch, {}), sass(fatbin, arch)
        except NoTools as error:
            raise NoCode(str(error)) from None
    return {
        name: Code(one._replace(shared=max(one.shared - RESERVED, 0)), profile(lines[name]))
        for name, one in used.items()
    }
