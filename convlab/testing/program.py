"""A kernel of one's own as a program: compiled for the checking simulator, run on a problem at a time.

It is a process of its own, so that whatever the kernel does, it ends nobody else's.
"""

import ctypes
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from ..simulator import ORDERS, Launch, Traffic, TrafficTable
from .compare import CheckError
from .contracts import CHECKABLE, PROGRAM, Contract, Question
from .host_compiler import ROOT, RUNTIME, CompilerFailed, compiled, kept, linked
from .plain_cuda import is_plain, translated

_MAIN = [ROOT / "csrc" / "testing" / "run_kernel.cpp", ROOT / "csrc" / "simulator" / "plain" / "runtime.cpp"]
TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "convlab::float16",
    torch.bfloat16: "convlab::bfloat16",
}
# The same in plain CUDA, and the header that has it.
PLAIN_TYPES = {
    torch.float32: ("float", ""),
    torch.float64: ("double", ""),
    torch.float16: ("__half", "cuda_fp16.h"),
    torch.bfloat16: ("__nv_bfloat16", "cuda_bf16.h"),
}
_ACCESS = ("read", "write", "atomic")
_TIME_LIMIT = 600  # seconds a problem; threads that hang are stopped by the simulator much earlier

# The user's file, and what run_kernel.cpp asks of it. Its functions are called by templates, so that a missing one is
# one error. A call stands for each form of the launcher's arguments; the first that compiles is taken. The file's macros
# end with it: `#define T 16` is not meant for what follows.
_GLUE = """\
#include <array>

#include "simulator/plain/cuda_runtime.h"
#include "{source}"
{undefined}

#include "{csrc}/{header}"
#include "{csrc}/testing/kernel_call.h"
{plain_header}

namespace convlab_kernel {{

using namespace convlab;
using T = {element};
using E = {plain_element};  // of T's bits, as plain CUDA has it

template <class P> constexpr int form_of() {{
{choose}
  return -1;
}}
template <class P> constexpr int kForm = form_of<P>();

static_assert(kForm<{problem}> >= 0, "{missing}");

template <class P> const char* why_not(const P& problem) {{
{refuse}
  return nullptr;
}}
template <class P> long long scratch_bytes(const P& problem) {{
  if constexpr (requires {{ workspace_bytes({arguments}); }}) return workspace_bytes({arguments});
  else return 0;
}}
template <class P>
void run(const P& problem, const void* const* inputs, void* output, [[maybe_unused]] void* workspace) {{
{calls}
}}

}}  // namespace convlab_kernel

namespace convlab::testing {{

const size_t kProblemBytes = sizeof({problem});
const char* form() {{ return std::array{{{forms}}}[convlab_kernel::kForm<{problem}>]; }}
const char* refusal(const void* problem) {{ return convlab_kernel::why_not(*static_cast<const {problem}*>(problem)); }}
long long workspace_bytes(const void* problem) {{ return convlab_kernel::scratch_bytes(*static_cast<const {problem}*>(problem)); }}
int run(const void* problem, const void* const* inputs, void* output, void* workspace) {{
  convlab_kernel::run(*static_cast<const {problem}*>(problem), inputs, output, workspace);
  return 0;
}}

}}  // namespace convlab::testing
"""


# The same around a program, whose main() has another name by now. Its exit() comes back here.
_PROGRAM = """\
#include "simulator/plain/cuda_runtime.h"
#include "{source}"
{undefined}

#include <csetjmp>

#include "{csrc}/testing/kernel_call.h"

namespace convlab_program {{

std::jmp_buf end;
int status;

int status_of(int (*program)()) {{ return program(); }}
int status_of(int (*program)(int, char**)) {{
  char name[] = "program";
  char* arguments[] = {{name, nullptr}};
  return program(1, arguments);
}}

}}  // namespace convlab_program

extern "C" [[noreturn]] void __wrap_exit(int status) {{
  convlab_program::status = status;
  std::longjmp(convlab_program::end, 1);
}}

namespace convlab::testing {{

const size_t kProblemBytes = 0;
const char* form() {{ return ""; }}
const char* refusal(const void*) {{ return nullptr; }}
long long workspace_bytes(const void*) {{ return 0; }}
int run(const void*, const void* const*, void*, void*) {{
  using namespace convlab_program;
  if (!setjmp(end)) status = status_of(main_of_the_file);
  return status;
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
    printed: str = ""  # by kernels
    said: str = ""  # by the launcher


class Program:
    """`with Program(source, contract, dtype) as program: program.run(question)`. Raises CompileError.

    form: of the launcher's arguments, a key of contract.forms; with_bias: whether it takes one; warnings: the
    compiler's. Reports name the source by the path that is given."""

    def __init__(self, source: Path, contract: Contract, dtype=torch.float32, cxx="g++"):
        self.dtype = dtype
        self.warnings: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="convlab-")
        try:
            self._program = _build(Path(self._folder.name), source, contract, dtype, cxx, self.warnings)
            form = subprocess.run([self._program, "form"], capture_output=True, text=True, check=True).stdout.strip()
            self.form, self.with_bias = form.removesuffix(_NO_BIAS), not form.endswith(_NO_BIAS)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._folder.cleanup()

    def run(self, question: Question, order="random", seed=0, count=0) -> Answer:
        """Runs it once; threads and blocks take turns in the order that `convlab.simulate` describes. count: n counts
        one block in n, and for more than 1 the result means nothing."""
        output, shape = question.output
        size = torch.empty((), dtype=self.dtype).element_size()
        request = [_numbers(ORDERS.index(order), seed, count), _data(question.problem), _numbers(len(question.inputs))]
        for name, t in question.inputs.items():
            request += [_numbers(size), _data(name.encode()), _data(None if t is None else _bytes(t))]
        request += [_numbers(size), _data(output.encode()), _numbers(torch.Size(shape).numel() * size)]
        try:
            done = subprocess.run(
                [self._program],
                input=b"".join(request),
                capture_output=True,
                timeout=_TIME_LIMIT,
                env={"CONVLAB_SIMULATOR_TIME_LIMIT": "10", **os.environ},
            )
        except subprocess.TimeoutExpired:
            return Answer(report=f"the program has run for {_TIME_LIMIT} s: host code that does not end?")
        if done.returncode or len(done.stdout) < 8:
            said = done.stderr.decode(errors="replace").strip()
            if failed := re.search(r"^\S+: (\S+):(\d+): .*?: Assertion `(.*)' failed", said, re.M):
                return Answer(report=f"assertion failed: {failed[3]}\n  at {failed[1]}:{failed[2]}")
            status = f"{done.returncode}{_SIGNALS.get(-done.returncode, '')}"
            return Answer(
                report=f"the program ended with status {status}, outside of any kernel{': ' + said if said else ''}"
            )
        return _answer(done.stdout, shape, self.dtype)._replace(said=done.stderr.decode(errors="replace").strip())


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

    def text(data: bytes) -> str:
        return data.decode(errors="replace")

    if kind == 1:
        return Answer(refusal=take().decode(), printed=text(take()))
    if kind in (2, 3):
        what = text(take())
        return Answer(
            report=what.removeprefix("convlab simulator: ")
            if kind == 2
            else f"the launcher threw an exception: {what}",
            printed=text(take()),
        )
    data = bytearray(take())
    result = torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)
    launches = tuple(
        Launch(k, s, tuple(map(int, n[:3])), tuple(map(int, n[3:6])), int(n[6])) for k, s, *n in _rows(take())
    )
    traffic = TrafficTable()
    for kernel, kernel_source, file, line, memory, space, *numbers in _rows(take()):
        access, requests, size, cost, ideal, apart, missed = map(int, numbers)
        shared = space == "shared"
        costs = (0, cost) if shared else (cost, 0)
        traffic.append(
            Traffic(
                kernel,
                kernel_source,
                file,
                int(line),
                memory,
                space,
                _ACCESS[access],
                requests,
                size,
                *costs,
                ideal,
                apart,
                missed,
            )
        )
    return Answer(result, launches=launches, traffic=traffic, printed=text(take()))


def _rows(text: bytes) -> list[list[str]]:
    return [line.split("\t") for line in text.decode().splitlines()]


# ---- compiling
# --------------------------------------------------------------------------------------------------------

# What is missing, and what to write.
_HINTS = {
    r"__half|half2|\bhalf\b": "#include <cuda_fp16.h> has __half",
    r"bfloat16": "#include <cuda_bf16.h> has __nv_bfloat16",
    r"nvcuda|wmma": "#include <mma.h> has nvcuda::wmma",
    r"cooperative_groups": "cooperative groups are not simulated: write __syncthreads() and __shfl_down_sync(0xffffffff, value, 1)",
    r"__(shfl|any|all|ballot)(_(up|down|xor))?\b": "GPUs of today have them with a mask of the lanes: __shfl_down_sync(0xffffffff, value, 1)",
    r"No such file": "headers beside the file are found, and cuda_runtime.h, cuda_fp16.h, cuda_bf16.h and mma.h",
    r"(cub|thrust|cublas|cudnn|cufft|cutlass)[\w/]*[./]": "libraries are not simulated: check the kernel without them",
    r"\bcuda[A-Z]\w*": "of CUDA's host functions there are those that launchers use: cudaMalloc, cudaMallocManaged, cudaMemset, cudaMemcpy, cudaFree, cudaMemcpyToSymbol, cudaGetLastError",
}
_SIGNALS = {  # that end a program
    signal.SIGSEGV: " (SIGSEGV: host code reads or writes where there is no memory)",
    signal.SIGFPE: " (SIGFPE: host code divides an integer by zero)",
    signal.SIGABRT: " (SIGABRT: abort(), or an exception that nobody catches)",
}
_SHOWN = 5  # errors
_MISSING = "the file defines no such launcher"
_NO_BIAS = ", no bias"
_FLAGS = (
    "-Icsrc/simulator/plain",  # <cuda_runtime.h> and its kind
    "-Wno-unused",
    "-fmax-errors=10",
    # A static in a launcher needs no lock here: the instrumentation would make atomic operations of it, for which there
    # is no hook.
    "-fno-threadsafe-statics",
    "-fno-builtin-printf",  # stays what it is, so that the linker can give it to the simulator
    "-U_FORTIFY_SOURCE",
)
_LINK_FLAGS = ("-Wl,--wrap=printf", "-Wl,--wrap=__assert_fail")
_POISONED_LOCALS = "-ftrivial-auto-var-init=pattern"  # what was never written, is not by chance 0


@lru_cache
def _knows(cxx: str, flag: str) -> bool:
    return not subprocess.run([cxx, flag, "-fsyntax-only", "-x", "c++", os.devnull], capture_output=True).returncode


def _forms(contract: Contract) -> list[tuple[str, str, str, str]]:
    """What the launcher may take, four texts each: a name; the arguments as `requires` declares them, and as a run has
    them; and those of its refusal()."""

    def tensors(type_: str, declared: str, out: str, left_out: int = 0) -> tuple[str, str]:
        n = len(contract.inputs) - left_out
        return (
            ", ".join([declared] * n + [out]),
            ", ".join(
                [*(f"static_cast<const {type_}*>(inputs[{i}])" for i in range(n)), f"static_cast<{type_}*>(output)"]
            ),
        )

    own = contract.arguments
    forms = []
    for workspace in ("", ", workspace"):
        declared, given = tensors("T", "in", "out")
        forms.append(("", f"{own}, {declared}{workspace}, stream", f"{own}, {given}{workspace}, nullptr", own))
    for name, form in contract.forms.items():
        for without_bias in range(1 + ("bias" in contract.inputs)):
            declared, given = tensors("E", "plain_in", "plain_out", without_bias)
            for stream in (", stream", ""):
                numbers = f", {form.arguments}"
                forms.append(
                    (
                        name + _NO_BIAS * without_bias,
                        declared + numbers + stream,
                        given + numbers + stream.replace("stream", "nullptr"),
                        form.arguments,
                    )
                )
    return forms


def _glue(source: Path, contract: Contract, dtype) -> str:
    undefined = "\n".join(f"#undef {name}" for name in _macros(source))
    if contract is PROGRAM:
        return _PROGRAM.format(source=source, undefined=undefined, csrc=ROOT / "csrc")
    forms, name = _forms(contract), contract.like
    declared = (
        "const P& problem, const T* in, T* out, const E* plain_in, E* plain_out, void* workspace, cudaStream_t stream"
    )
    plain_element, plain_header = PLAIN_TYPES[dtype]
    refuse = {arguments: i for i, (_, _, _, arguments) in enumerate(forms)}
    return _GLUE.format(
        source=source,
        undefined=undefined,
        csrc=ROOT / "csrc",
        header=contract.header,
        problem=contract.problem,
        element=TYPES[dtype],
        plain_element=plain_element,
        plain_header=plain_header and f'#include "{ROOT}/csrc/simulator/plain/{plain_header}"',
        arguments=contract.arguments,
        missing=_MISSING,
        choose="\n".join(
            f"  if constexpr (requires({declared}) {{ {name}({call}); }}) return {i};"
            for i, (_, call, _, _) in enumerate(forms)
        ),
        calls="\n".join(
            f"  if constexpr (kForm<P> == {i}) static_cast<void>({name}({call}));"
            for i, (_, _, call, _) in enumerate(forms)
        ),
        refuse="\n".join(
            f"  if constexpr (requires {{ refusal({arguments}); }}) return refusal({arguments});"
            for arguments in refuse
        ),
        forms=", ".join(f'"{form}"' for form, *_ in forms),
    )


def _macros(source: Path) -> list[str]:
    return re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", source.read_text(errors="replace"), re.M)


def _build(folder: Path, source: Path, contract: Contract, dtype, cxx, warnings: list[str]) -> str:
    if not source.is_file():
        if source.is_dir():
            raise IsADirectoryError(f"{source} is a folder: name the kernel's file in it")
        new = "python -m convlab.check --new my_kernel.cu"
        raise FileNotFoundError(f"{source}: there is no such file; {new} writes one to start from")
    if rung := re.search(r"^const ConvKernels conv2d_(\w+)\(", source.read_text(errors="replace"), re.M):
        raise CheckError(_is_a_rung(source, rung[1]))
    glue, said = folder / "kernel.cu", []
    text, unsupported = translated(source, contract.like, folder)
    glue.write_text(_glue(text, contract, dtype))
    runtime = kept(RUNTIME, True, cxx) + kept(_MAIN, True, cxx)
    try:
        kernel = compiled(
            folder,
            [glue],
            True,
            cxx,
            [f"-ffile-prefix-map={source}={source}", *_FLAGS, *[_POISONED_LOCALS] * _knows(cxx, _POISONED_LOCALS)],
            said,
        )
        warnings += dict.fromkeys(
            f"{m[1]}:{m[2]}: {m[3]}"
            for m in re.finditer(r"^(.+?):(\d+):\d+: warning: (.*)", "".join(said), re.M)
            if m[1] == str(source)
        )
        wrapped = ["-Wl,--wrap=exit"] if contract is PROGRAM else []
        return str(linked(folder / "program", kernel + runtime, cxx, [*_LINK_FLAGS, *wrapped]))
    except CompilerFailed as error:
        what = [_readable(error.said, source, contract, dtype)] if " error: " in error.said or not unsupported else []
        if unsupported:
            what.append("\n".join([f"{source.name} has what is not simulated:", *map(str, unsupported)]))
        raise CompileError("\n\n".join(what)) from None


def _readable(said: str, source: Path, contract: Contract, dtype) -> str:
    """The errors in the user's file: where, what, the line; with what to write instead where that is known."""
    lines, shown, hints = source.read_text(errors="replace").splitlines(), [], []
    errors = re.findall(r"^(.+?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)", said, re.M)
    others = [error for error in errors if _MISSING not in error[2]]
    if errors and not others:
        return _no_launcher(source, contract, dtype)
    own = [error for error in others if error[0] == str(source)]  # those elsewhere follow from them
    for file, number, what in own or others:
        text = lines[int(number) - 1].strip() if file == str(source) else ""
        file = file if text else Path(file).name
        hints += [advice for pattern, advice in _HINTS.items() if re.search(pattern, what + "\n" + text)]
        shown.append(f"  {file}:{number}: {what}" + (f"\n      {text}" if text else ""))
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


def without_comments(text: str) -> str:
    """Blanks in their place."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)


def _functions(source: Path) -> list[tuple[str, int, str]]:
    """Of the host that the file defines: name, line, and the declaration."""
    text = without_comments(source.read_text(errors="replace"))
    return [
        (m[2], text.count("\n", 0, m.start(1)) + 1, " ".join(m[1].split()))
        for m in re.finditer(
            r"^[ \t]*((?:[\w:<>*&,]+\s+)+?[*&]*(\w+)\s*\([^(){};]*\))\s*(?:noexcept\s*)?\{", text, re.M
        )
        if "__global__" not in m[1] and "__device__" not in m[1]
    ]


def like_of(source: Path) -> str:
    """What the file can be checked as: the launcher that it defines, or "main"."""
    names = {name for name, _, _ in _functions(source)} if source.is_file() else set()
    return next((like for like in CHECKABLE if like in names), "conv2d_forward")


def _no_launcher(source: Path, contract: Contract, dtype) -> str:
    """What is asked for, and what the file has instead: the function of that name, or every launcher that it has."""
    functions = [(name, f"  {source}:{line}: {declared}") for name, line, declared in _functions(source)]
    named = [line for name, line in functions if name == contract.like]
    has = named or [line for _, line in functions if "*" in line.split("(", 1)[1]]
    element = TYPES[dtype].removeprefix("convlab::")
    if any(name == PROGRAM.like for name, _ in functions):
        program = "but has a main(): leave --like out, and it is checked as a program, whatever it computes"
    else:
        program = "nor a main(), with which it would be a program and checked as that, whatever it computes"
    return "\n".join(
        [
            f"{source.name} does not define the launcher that is checked, {program}. In plain CUDA one of these, with or without a "
            "cudaStream_t at the end:\n",
            *(f"  {signature}" for signature in contract.plain_signatures(PLAIN_TYPES[dtype][0])),
            f"\nor over device/device.h, where T is {element}:\n\n  {contract.signature}\n",
            *(["It cannot be called as that:" if named else "It defines:", *has, ""] if has else []),
            f"A file to start from: python -m convlab.check --new {_new_name(source)} --like {contract.like}{dtype_option(dtype)}",
        ]
    )


def _is_a_rung(source: Path, name: str) -> str:
    return "\n".join(
        [
            f"{source.name} is a rung of convlab. These check it, and count what it asks of memory, once the checkout is built:\n",
            f'  make test ARGS="tests/test_ladder.py -k {name}"',
            f"  python -m convlab.explain lenet.c3 --algo {name} --count\n",
            "What is checked here is a launcher of your own, or a program with a main().",
        ]
    )


def nvcc_says(source: Path) -> str:
    """Whether nvcc compiles the file, and its first error where it does not."""
    if not shutil.which("nvcc"):
        return "nvcc is not on PATH"
    over_device_h = (
        [] if is_plain(source.read_text(errors="replace")) else ["-I", str(ROOT / "csrc"), "--extended-lambda"]
    )
    command = ["nvcc", "-std=c++20", "-arch=sm_80", "-c", str(source), "-x", "cu", *over_device_h, "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.returncode:
        return f"nvcc compiles {source.name} as it is"
    error = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
    return f"nvcc does not compile {source.name}: {error}"


def _new_name(source: Path) -> str:
    return f"{source.stem}_new{source.suffix}"


def dtype_option(dtype) -> str:
    """Of the command, with a blank in front; nothing for what it takes without it."""
    return "" if dtype == torch.float32 else f" --dtype {str(dtype).removeprefix('torch.')}"
