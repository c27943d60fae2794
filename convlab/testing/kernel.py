"""Grading a CUDA kernel of one's own, without a GPU: races, bounds, uninitialised reads, wrong results, and what it
asks of memory."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from .._algorithms import algorithms
from ..explain import Work
from ..simulator import ORDERS, Launch, TrafficTable
from .compare import CheckError
from .contracts import CHECKABLE, CONTRACTS, PROGRAM
from .predicted import KernelPrediction, prediction_of
from .probe import expect_same_bits
from .program import PLAIN_TYPES, TYPES, CompileError, Program, dtype_option
from .suggestions import suggestion
from .traffic import advice, digits, noted, numbers_of, table

_MOST_WARNINGS, _MOST_LINES = 8, 12
ENDLESS = "has run for"  # in the simulator's words

__all__ = ["CompileError", "Finding", "KernelReport", "check_kernel", "template"]

# What is looked for, and the words that mark it in the simulator's reports.
SUBJECTS = {
    "races": ("race (",),
    "uninitialised reads": ("uninitialised", "has not been waited for", "never waited for"),
    "bounds": (
        "out of bounds",
        "outside an array",
        "illegal memory access",
        "is null",
        "write to an input",
        "neither shared",
        "stack",
    ),
    "barriers": ("barrier", "deadlock", "warp", "thread has run for"),
    "arithmetic": ("division", "overflow", "shift", "misaligned"),
    "results": ("differs", "are wrong", "other bits", "shape (", "assertion failed"),
    "host code": ("host code", "cudaM", "cudaF", "the launcher threw", "the program ended"),
    "launches": ("",),
}


@dataclass
class Finding:
    """One thing that is wrong. `where`: file:line in the kernel, if that is known. `problem`: the first problem that
    showed it."""

    subject: str
    where: str
    problem: str
    message: str
    problems: int = 1  # how many problems showed it

    def __str__(self):
        often = f"; and {self.problems - 1} more" if self.problems > 1 else ""
        return f"{self.subject}: {self.problem}{often}\n  " + self.message.replace("\n", "\n  ")


@dataclass
class KernelReport:
    """What `check_kernel` found. `ok`: whether it found nothing wrong. `str()` of it is the whole report."""

    source: str
    like: str
    dtype: torch.dtype
    problems: int = 0
    compared: int = 0  # problems whose results were compared; the others broke off before
    refused: dict[str, str] = field(default_factory=dict)  # problem -> the kernel's own reason
    findings: list[Finding] = field(default_factory=list)
    stopped: str = ""  # why it ended early; empty if it did not
    warnings: list[str] = field(default_factory=list)  # the compiler's, about the file
    printed: str = ""  # by the kernel and its launcher, on the first problem where they print
    launches: list[Launch] = field(default_factory=list)  # of the first problem
    traffic: dict[str, TrafficTable] = field(default_factory=dict)  # layer -> by source line
    numbers: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # layer -> column of convlab.testing.traffic -> number
    work: dict[str, Work] = field(default_factory=dict)  # layer -> the operations and bytes that it takes at least
    prediction: KernelPrediction | None = None  # if asked for

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def what(self) -> str:
        """What it was checked as, and on how much."""
        if self.like == PROGRAM.like:
            return "a program, its main() run"
        return f"{self.like}, {str(self.dtype).removeprefix('torch.')}: {self.problems} problems"

    def __str__(self):
        lines = [f"{self.source} as {self.what} in {len(ORDERS)} orders of threads and blocks"]
        reasons = dict.fromkeys(self.refused.values())
        lines += [f"  {len(self.refused)} more refused: {'; '.join(reasons)}"] if self.refused else []
        lines += [f"  {subject:21}{self.verdict(subject)}" for subject in SUBJECTS]
        lines += [f"\n{finding}" for finding in self.findings]
        lines += [f"\n{self.stopped}"] if self.stopped else []
        lines += ["\nthe compiler warns", *("  " + warning for warning in self.warnings)] if self.warnings else []
        lines += [f"\n{self.printed}"] if self.printed else []
        for layer in self.numbers:
            lines += [
                f"\nwhat it asks of memory for {layer}, beside convlab's kernels (python -m convlab.check --columns says how to read it)"
            ]
            lines += ["  " + line for line in (*self.beside_others(layer), *advice(self.traffic[layer]))]
        if self.like == PROGRAM.like:
            for rows in self.traffic.values():
                lines += ["\nwhat it asks of memory, by source line", str(rows), *advice(rows)]
        lines += [f"\n{self.prediction}"] if self.prediction else []
        return "\n".join(lines)

    __repr__ = __str__  # so that a Python shell shows it, too

    def verdict(self, subject: str) -> str:
        """The verdict on one of SUBJECTS, in words."""
        found = sum(f.subject == subject for f in self.findings)
        if found:
            return f"{found} found"
        if subject == "results":
            return self._right()
        if self.compared:
            some = self.like != PROGRAM.like and self.compared < self.problems
            where = f" in {self.compared} of {self.problems} problems, the others broke off" if some else ""
            return f"none found{where}"
        where = "the run ended" if self.like == PROGRAM.like else "every problem broke off"
        return f"not looked for further: {where} at the first fault"

    def beside_others(self, layer: str) -> list[str]:
        """What it asks of memory for a layer, and what convlab's kernels ask: lines of a table."""
        own = {column: digits(number) for column, number in self.numbers[layer].items()}
        rows = {self.source: own, **_ladder(self.like, layer)}
        return table(rows, max(map(len, rows)) + 1)

    def _right(self) -> str:
        """The verdict on results when none was wrong."""
        if self.like == PROGRAM.like:
            return "not compared: that is left to the program"
        if not self.compared:
            return "not compared: every problem broke off before"
        if self.compared < self.problems:
            return f"right where they were compared: {self.compared} of {self.problems} problems, the others broke off"
        return "right"


def check_kernel(
    source,
    like: str = "conv2d_forward",
    *,
    dtype=torch.float32,
    random_cases: int = 8,
    seed: int = 0,
    count: bool = True,
    predicted: bool = False,
    most_findings: int = 5,
    cxx: str = "g++",
    progress: Callable[[int, str], None] | None = None,
) -> KernelReport:
    """Compiles a CUDA kernel for the checking simulator and grades it. Needs g++ and no GPU.

    source: a file, in plain CUDA or over csrc/device/device.h, that defines the launcher which `like` names;
        `template(like)` is one to start from. It may also define `const char* refusal(...)`, which takes the launcher's
        struct or numbers and returns why the kernel cannot do a problem, or nullptr. Over device.h it may define
        `long long workspace_bytes(const Conv2d& g)` too: the launcher then takes that much scratch memory as a `void*`
        before its stream.
    like: a key of `convlab.testing.CONTRACTS`: conv2d_forward, conv2d_dgrad, conv2d_wgrad, max_pool2d_forward, and so
        on; or "main", for a program in plain CUDA that launches kernels of any kind: everything is looked for but wrong
        results, up to the first fault.
    random_cases, seed: how many random problems follow the awkward ones.
    count: whether to count the memory traffic of two layers, if nothing is wrong. predicted: whether to say how long a
    convolution in float32 would take on an H200, too; that takes nvcc.
    most_findings: how many different ones are collected before it stops; an endless loop stops it at once.
    progress: called before each problem with how many have been done, and which is next.

    Every problem runs with threads and blocks in three orders, which must give the same bits. Returns a KernelReport.
    Raises CompileError, with the first errors and their lines in the source; FileNotFoundError or IsADirectoryError where
    there is no such file; ValueError for a `like` or `dtype` that
    is not supported.
    """
    if like not in CHECKABLE:
        raise ValueError(f"check_kernel: like={like!r} must be one of {', '.join(map(repr, CHECKABLE))}")
    if dtype not in TYPES:
        raise ValueError(f"check_kernel: dtype={dtype} must be torch.float32, float64, float16 or bfloat16")
    contract, report = CHECKABLE[like], KernelReport(Path(source).name, like, dtype)
    with Program(Path(source), contract, dtype, cxx) as program, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        report.warnings = program.warnings[:_MOST_WARNINGS]
        form = (program.form, program.with_bias)
        for question in contract.questions(dtype, random_cases, seed, *form):
            if progress:
                progress(report.problems + len(report.refused), question.what)
            _ask(program, question, report)
            if report.findings and ENDLESS in report.findings[-1].message:
                report.stopped = (
                    f"stopped after {question.what}: a kernel that does not end would time out on every problem"
                )
            if report.stopped or len(report.findings) >= most_findings:
                return report
        if not report.problems:
            raise CheckError(f"{report.source} refuses every problem: {next(iter(report.refused.values()))}")
        for layer, question in contract.layers(dtype, *form).items() if count and report.ok else ():
            if progress:
                progress(report.problems + len(report.refused), layer)
            answer = program.run(question, count=1)
            if answer.result is not None:
                report.traffic[layer] = answer.traffic
                if contract is PROGRAM:
                    continue
                report.numbers[layer] = numbers_of(answer.traffic, question.sizes, question.multiply_adds)
                report.work[layer] = question.work
        if predicted and report.ok and contract is not PROGRAM:
            report.prediction = prediction_of(program, Path(source).resolve(), contract, cxx)
    return report


def template(like: str, dtype=torch.float32, plain: bool = False) -> str:
    """The text of a file to start from: a correct kernel with one thread per output element, in plain CUDA or over
    csrc/device/device.h."""
    if like not in CONTRACTS:
        raise ValueError(f"template: like={like!r} must be one of {', '.join(map(repr, CONTRACTS))}")
    if dtype not in TYPES:
        raise ValueError(f"template: dtype={dtype} must be torch.float32, float64, float16 or bfloat16")
    text = (Path(__file__).parent / "templates" / f"{like}{'.cu' if plain else '.cuh'}").read_text()
    element, header = PLAIN_TYPES[dtype] if plain else (TYPES[dtype].removeprefix("convlab::"), "")
    if element == "double":
        text = re.sub(r"\bfloat\b", "double", text).replace("0.0f", "0.0")
    elif element != "float":  # float16 and bfloat16: computed in float
        text = "".join(map(partial(_stored_as, element), text.splitlines(keepends=True)))
        text = text.replace('#include "device/device.h"\n', '#include "device/device.h"\n#include "dtype.h"\n')
        text = text.replace("#include <cuda_runtime.h>\n", f"#include <{header}>\n#include <cuda_runtime.h>\n")
    return text.replace(f"--like {like}", f"--like {like}{dtype_option(dtype)}")


def _stored_as(element: str, line: str) -> str:
    """A line of a template, for tensors of `element`: loads are converted to float, and stores to `element`."""
    if line.startswith("//"):
        return line
    line = re.sub(r"\bfloat\*", f"{element}*", line)
    line = re.sub(r"\b(y|dx|dw)\[i\] = (.*);", rf"\1[i] = {element}(\2);", line)
    names = r"\b(?:x|w|dy|bias|plane)\["
    done, rest = "", line
    while load := re.search(names, rest):
        end, depth = load.end(), 1
        while depth:
            depth += {"[": 1, "]": -1}.get(rest[end], 0)
            end += 1
        done += f"{rest[: load.start()]}float({rest[load.start() : end]})"
        rest = rest[end:]
    return done + rest


def _ask(program: Program, question, report: KernelReport):
    """Runs a problem in every order, and notes what is wrong, once for each line of the source."""
    results = []
    for order in ORDERS:
        answer = program.run(question, order, seed=7)
        if answer.refusal:
            report.refused[question.what] = answer.refusal
            return
        report.problems += order == ORDERS[0]
        message = answer.report
        report.printed = report.printed or _printed(report.like, question.what, answer)
        if not message:
            report.launches = report.launches or list(answer.launches)
            results.append(answer.result)
            message = _wrong(question, results, order)
            message += "".join(
                f"\n  suggests: {warning}" for warning in report.warnings if message and "uninitialized" in warning
            )
            report.compared += bool(message) or order == ORDERS[-1]
        else:
            message += suggestion(message)
        if message:
            _note(report, question.what, message)
            return


def _printed(like: str, problem: str, answer) -> str:
    """What the kernel and its launcher printed."""
    said = [("the kernel", answer.printed), ("the program" if like == PROGRAM.like else "the launcher", answer.said)]
    return "\n".join(
        "\n  ".join([f"{who} printed, in {problem}", *text.splitlines()[:_MOST_LINES]])
        for who, text in said
        if text.strip()
    )


def _wrong(question, results, order) -> str:
    try:
        question.compare(results[-1], f"order {order}")
        expect_same_bits(results[:1], results[-1:], f"order {order} against {ORDERS[0]}")
    except CheckError as error:
        return str(error)
    return ""


def _note(report: KernelReport, problem: str, message: str):
    place = re.search(r"^ *at (.+?:\d+)|(?:at |\()(\S+?:\d+)", message.split("\n", 1)[-1], re.M)
    where = place[1] or place[2] if place and not message.startswith("order") else ""
    first_line = message.split("\n")[0]
    subject = next(s for s, words in SUBJECTS.items() if any(word in first_line for word in words))
    for finding in report.findings:
        if (finding.subject, finding.where) == (subject, where):
            finding.problems += 1
            return
    report.findings.append(Finding(subject, where, problem, message))


def _ladder(like: str, layer: str) -> dict[str, dict[str, str]]:
    """What the simulator counted for convlab's own kernels: name -> column -> digits."""
    kind, _, pass_ = like.rpartition("_")
    if kind != "conv2d":
        rows = {f"{kind}.cu": noted(f"{kind}.cu").get((layer, pass_), {})}
    else:
        rows = {
            a.name: noted(f"conv2d_{a.name}.cu").get((layer, pass_), {})
            for a in algorithms()
            if pass_ in a.passes_by_backend.get("cuda", ())
        }
    return {name: {column: digits(n) for column, n in row.items()} for name, row in rows.items() if row}
