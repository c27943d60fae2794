"""A kernel of one's own as a program: compiled for the checking simulator, run on a problem at a time.

It is a process of its own, so that whatever the kernel does, it ends nobody else's.
"""

import ctypes
import os
import re
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from ..simulator import ORDERS, Launch, Traffic, TrafficTable
from .compare import CheckError
from .contracts import Contract, Question
from .host_compiler import ROOT, RUNTIME, CompilerFailed, compiled, kept, linked

_MAIN = ROOT / "csrc" / "testing" / "run_kernel.cpp"
TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "convlab::float16",
    torch.bfloat16: "convlab::bfloat16",
}
_ACCESS = ("read", "write", "atomic")
_TIME_LIMIT = 600  # seconds a problem; threads that hang are stopped by the simulator much earlier

# The user's file, and what run_kernel.cpp asks of it. Its functions are called by a template, so that a missing one is
# one error.
_GLUE = """\
#include "{source}"

#include "{csrc}/{header}"
#include "{csrc}/testing/kernel_call.h"

namespace convlab_kernel {{

using namespace convlab;
using T = {element};

template <class P> concept has_refusal = requires(const P& problem) {{ refusal({arguments}); }};
template <class P> concept has_workspace = requires(const P& problem) {{ workspace_bytes({arguments}); }};
template <class P> concept launches = requires(const P& problem, const T* in, T* out, cudaStream_t stream) {{ {name}({arguments}, {ins}, out, stream); }};
template <class P> concept launches_with_workspace = requires(const P& problem, const T* in, T* out, void* workspace, cudaStream_t stream) {{
  {name}({arguments}, {ins}, out, workspace, stream);
}};

static_assert(launches<{problem}> || launches_with_workspace<{problem}>, "{missing}");

template <class P> const char* why_not(const P& problem) {{
  if constexpr (has_refusal<P>) return refusal({arguments});
  else return nullptr;
}}
template <class P> long long scratch_bytes(const P& problem) {{
  if constexpr (has_workspace<P>) return workspace_bytes({arguments});
  else return 0;
}}
template <class P> void run(const P& problem, const void* const* inputs, T* out, [[maybe_unused]] void* workspace) {{
  if constexpr (launches<P>) {name}({arguments}, {inputs}, out, nullptr);
  else if constexpr (launches_with_workspace<P>) {name}({arguments}, {inputs}, out, workspace, nullptr);
}}

}}  // namespace convlab_kernel

namespace convlab::testing {{

const size_t kProblemBytes = sizeof({problem});
const char* refusal(const void* problem) {{ return convlab_kernel::why_not(*static_cast<const {problem}*>(problem)); }}
long long workspace_bytes(const void* problem) {{ return convlab_kernel::scratch_bytes(*static_cast<const {problem}*>(problem)); }}
void run(const void* problem, const void* const* inputs, void* output, void* workspace) {{
  convlab_kernel::run(*static_cast<const {problem}*>(problem), inputs, static_cast<convlab_kernel::T*>(output), workspace);
}}

}}  // namespace convlab::testing
"""


class CompileError(CheckError):
    """The kernel's source does not compile; the message has the first errors, at the lines of the source."""


class Answer(NamedTuple):
    """What came of a problem. `report` is what the simulator found, `refusal` why the kernel does not do it; empty if
    neither."""

    result: torch.Tensor | None = None
    refusal: str = ""
    report: str = ""
    launches: tuple[Launch, ...] = ()
    traffic: TrafficTable = TrafficTable()


class Program:
    """`with Program(source, contract, dtype) as program: program.run(question)`. Raises CompileError."""

    def __init__(self, source: Path, contract: Contract, dtype=torch.float32, cxx="g++"):
        self.dtype = dtype
        self._folder = tempfile.TemporaryDirectory(prefix="convlab-")
        try:
            self._program = _build(Path(self._folder.name), source, contract, dtype, cxx)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._folder.cleanup()

    def run(self, question: Question, order="random", seed=0, count=False) -> Answer:
        """Runs it once; threads and blocks take turns in the order that `convlab.simulate` describes."""
        output, shape = question.output
        size = torch.empty((), dtype=self.dtype).element_size()
        request = [_numbers(ORDERS.index(order), seed, count), _data(question.problem), _numbers(len(question.inputs))]
        for name, t in question.inputs.items():
            request += [_numbers(size), _data(name.encode()), _data(None if t is None else _bytes(t))]
        request += [_numbers(size), _data(output.encode()), _numbers(torch.Size(shape).numel() * size)]
        done = subprocess.run(
            [self._program],
            input=b"".join(request),
            capture_output=True,
            timeout=_TIME_LIMIT,
            env={"CONVLAB_SIMULATOR_TIME_LIMIT": "10", **os.environ},
        )
        if done.returncode or len(done.stdout) < 8:
            said = done.stderr.decode(errors="replace").strip()
            if failed := re.search(r"^\S+: (\S+):(\d+): .*?: Assertion `(.*)' failed", said, re.M):
                return Answer(report=f"assertion failed: {failed[3]}\n  at {failed[1]}:{failed[2]}")
            return Answer(
                report=f"the program ended with status {done.returncode}, outside of any kernel{': ' + said if said else ''}"
            )
        return _answer(done.stdout, shape, self.dtype)


def _numbers(*values) -> bytes:
    return struct.pack(f"{len(values)}q", *values)


def _data(data: bytes | None) -> bytes:
    return _numbers(-1) if data is None else _numbers(len(data)) + data


def _bytes(t: torch.Tensor) -> bytes:
    t = t.contiguous()
    return ctypes.string_at(
        t.data_ptr(), t.nbytes
    )  # torch's own ways are slow, or need NumPy, which torch does not bring


def _answer(stdout: bytes, shape, dtype) -> Answer:
    (kind,), rest = struct.unpack_from("q", stdout), stdout[8:]

    def take():
        nonlocal rest
        (length,) = struct.unpack_from("q", rest)
        data, rest = rest[8 : 8 + length], rest[8 + length :]
        return data

    if kind == 1:
        return Answer(refusal=take().decode())
    if kind in (2, 3):
        text = take().decode(errors="replace")
        return Answer(
            report=text.removeprefix("convlab simulator: ") if kind == 2 else f"the launcher threw an exception: {text}"
        )
    result = torch.frombuffer(bytearray(take()), dtype=dtype).view(shape)
    launches = tuple(
        Launch(k, s, tuple(map(int, n[:3])), tuple(map(int, n[3:6])), int(n[6])) for k, s, *n in _rows(take())
    )
    traffic = TrafficTable()
    for kernel, kernel_source, file, line, memory, space, *numbers in _rows(take()):
        access, requests, size, cost, ideal = map(int, numbers)
        shared = space == "shared"
        costs = (0, cost) if shared else (cost, 0)
        traffic.append(
            Traffic(
                kernel, kernel_source, file, int(line), memory, space, _ACCESS[access], requests, size, *costs, ideal
            )
        )
    return Answer(result, launches=launches, traffic=traffic)


def _rows(text: bytes) -> list[list[str]]:
    return [line.split("\t") for line in text.decode().splitlines()]


# ---- compiling
# --------------------------------------------------------------------------------------------------------

# What is not of the device language, and what to write instead.
_HINTS = {
    r"__shared__": "shared memory is declared with SHARED(float, name, [16][16]); or DYNAMIC_SHARED(float, name);",
    r"<<<|>>>|expected primary-expression before '<'": "kernels are launched with launch(kernel, grid, block, shared_bytes, stream, arguments...)",
    r"cuda_runtime|cooperative_groups|cuda_fp16": 'include "device/device.h" instead: it has the device language, for nvcc and for the simulator',
    r"__activemask": "a mask of the lanes that are left is __ballot_sync(0xffffffff, 1); __activemask() names those that happen to run together",
    r"__half|__nv_bfloat16|cuda_fp16|cuda_bf16": 'include "dtype.h" and write float16 or bfloat16; compute in float: float(x[i]), and float16(sum) to store',
    r"cuda(Malloc|Memcpy|Free|DeviceSynchronize)\w*": "the launcher gets device pointers and allocates nothing; for scratch memory define long long workspace_bytes(...)",
    r"cudaMemcpyToSymbol": "constant memory is filled with COPY_TO_SYMBOL(symbol, source, bytes, stream)",
}
_SHOWN = 5  # errors
_MISSING = "the file defines no such launcher"
# A static in a launcher needs no lock here: the instrumentation would make atomic operations of it, for which there is
# no hook.
_HOST = ("-fno-threadsafe-statics",)


def _build(folder: Path, source: Path, contract: Contract, dtype, cxx) -> str:
    source = source.resolve()
    if not source.is_file():
        raise CompileError(f"{source}: there is no such file")
    glue = folder / "kernel.cu"
    inputs = [f"static_cast<const T*>(inputs[{i}])" for i in range(len(contract.inputs))]
    glue.write_text(
        _GLUE.format(
            source=source,
            csrc=ROOT / "csrc",
            header=contract.header,
            problem=contract.problem,
            element=TYPES[dtype],
            name=contract.like,
            arguments=contract.arguments,
            ins=", ".join(["in"] * len(inputs)),
            inputs=", ".join(inputs),
            missing=_MISSING,
        )
    )
    runtime = kept(RUNTIME, True, cxx) + kept([_MAIN], True, cxx)
    try:
        kernel = compiled(
            folder,
            [glue],
            True,
            cxx,
            [f"-ffile-prefix-map={source.parent}/=", "-Wno-unused", "-fmax-errors=10", *_HOST],
        )
        return str(linked(folder / "program", kernel + runtime, cxx))
    except CompilerFailed as error:
        raise CompileError(_readable(error.said, source, contract, dtype)) from None


def _readable(said: str, source: Path, contract: Contract, dtype) -> str:
    """The errors in the user's file: where, what, the line; with what to write instead where that is known."""
    lines, shown, hints = source.read_text(errors="replace").splitlines(), [], []
    errors = re.findall(r"^(.+?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)", said, re.M)
    others = [error for error in errors if _MISSING not in error[2]]
    if errors and not others:
        return _no_launcher(source, contract, dtype)
    own = [error for error in others if Path(error[0]).name == source.name]  # those elsewhere follow from them
    for file, number, what in own or others:
        text = lines[int(number) - 1].strip() if Path(file).name == source.name else ""
        hints += [advice for pattern, advice in _HINTS.items() if re.search(pattern, what + "\n" + text)]
        shown.append(f"  {Path(file).name}:{number}: {what}" + (f"\n      {text}" if text else ""))
    shown += [
        f"  {name} is declared, but defined nowhere"
        for name in dict.fromkeys(re.findall(r"undefined reference to `(.+)'", said))
    ]
    if not shown:
        return f"{source.name} does not compile:\n{said}"
    shown = list(dict.fromkeys(shown))
    more = [f"  and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return "\n".join(
        [
            f"{source.name} does not compile:",
            *shown[:_SHOWN],
            *more,
            *(f"  hint: {advice}" for advice in dict.fromkeys(hints)),
        ]
    )


def _no_launcher(source: Path, contract: Contract, dtype) -> str:
    """What is asked for, and what the file has instead: the function of that name, or every launcher that it has."""
    text = re.sub(
        r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), source.read_text(errors="replace"), flags=re.S
    )
    functions = [
        (m[2], f"  {source.name}:{text.count(chr(10), 0, m.start(1)) + 1}: {' '.join(m[1].split())}")
        for m in re.finditer(
            r"^[ \t]*((?:[\w:<>*&,]+\s+)+?[*&]*(\w+)\s*\([^(){};]*\))\s*(?:noexcept\s*)?\{", text, re.M
        )
        if "__global__" not in m[1] and "__device__" not in m[1]
    ]
    named = [line for name, line in functions if name == contract.like]
    has = named or [line for _, line in functions if "cudaStream_t" in line]
    element = TYPES[dtype].removeprefix("convlab::")
    return "\n".join(
        [
            f"{source.name} does not define the launcher that is checked, where T is {element}:\n\n  {contract.signature}\n",
            *(["It cannot be called as that:" if named else "It defines:", *has, ""] if has else []),
            f"A file to start from: python -m convlab.check --new {_new_name(source)} --like {contract.like}{dtype_option(dtype)}",
        ]
    )


def _new_name(source: Path) -> str:
    return f"{source.stem}_new{source.suffix}"


def dtype_option(dtype) -> str:
    """Of the command, with a blank in front; nothing for what it takes without it."""
    return "" if dtype == torch.float32 else f" --dtype {str(dtype).removeprefix('torch.')}"
