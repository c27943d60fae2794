"""Grades a CUDA kernel of one's own without a GPU: races, bounds, uninitialised reads, wrong results, memory traffic, and,
of a convolution in float32, how long it would take on an H200. Needs g++, and for the last nvcc.

    python -m convlab.check --new my_kernel.cu --like conv2d_forward    a file to start from
    python -m convlab.check my_kernel.cu --like conv2d_forward
    python -m convlab.check my_kernel.cu --assignment 2                 of a course: docs/course.md
    python -m convlab.check my_program.cu                               one with a main(), whatever its kernels compute

It is written in plain CUDA C++ (--new FILE.cu), or over convlab's csrc/device/device.h (--new FILE.cuh).

Ends with 0 if nothing is wrong, with 1 if something is, or if the kernel does not compile, with 2 if there is no such file or no g++.
"""

import os
import sys
from pathlib import Path

import torch

from ._command_line import Parser, one_of
from ._pipe import run
from .explain.page import page_file
from .testing import traffic
from .testing.assignments import ASSIGNMENTS, Assignment, graded
from .testing.compare import CheckError
from .testing.contracts import CHECKABLE, CONTRACTS, PROGRAM
from .testing.kernel import check_kernel, template
from .testing.page import page_of
from .testing.probe import DTYPES
from .testing.program import PLAIN_TYPES, dtype_option, like_of, nvcc_says


def main(arguments=None) -> int:
    dtypes = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
    parser = Parser("python -m convlab.check", description=__doc__)
    parser.add_argument("source", nargs="?", metavar="FILE", help="the kernel and its launcher")
    parser.add_argument(
        "--like",
        type=one_of(CHECKABLE),
        metavar="NAME",
        help=f"what it computes: {', '.join(CONTRACTS)}; or main, for a program of your own (default: the one that FILE defines; of a new file, conv2d_forward)",
    )
    parser.add_argument(
        "--dtype", default="float32", choices=dtypes, help="the tensors' element type (default: float32)"
    )
    parser.add_argument(
        "--new", metavar="FILE", help="write a correct kernel to start from, and stop; FILE.cu: in plain CUDA"
    )
    parser.add_argument(
        "--assignment",
        type=int,
        choices=ASSIGNMENTS,
        metavar="N",
        help=f"grade it as an assignment of a course, 1 to {len(ASSIGNMENTS)}; with --new, write the file to start from",
    )
    parser.add_argument("--forms", action="store_true", help="list what the launcher may take, and stop")
    parser.add_argument(
        "--random", type=int, default=8, metavar="N", help="random problems after the awkward ones (default: 8)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random problems and of all data (default: 0)")
    parser.add_argument("--no-count", action="store_true", help="leave the memory traffic and the predicted time out")
    parser.add_argument("--lines", action="store_true", help="show the memory traffic by source line too")
    parser.add_argument(
        "--html",
        type=page_file,
        metavar="FILE",
        help="write the report as a page as well, that needs no network: the source with what its lines ask of memory, findings at their lines, pictures",
    )
    parser.add_argument("--nvcc", action="store_true", help="say whether nvcc compiles the file as it is, too")
    parser.add_argument("--columns", action="store_true", help="say how to read the table of memory traffic, and stop")
    args = parser.parse_args(arguments)
    if args.columns:
        print(traffic.__doc__.split("\n\n")[1].strip())
        return 0
    if not args.like:
        args.like = like_of(Path(args.source)) if args.source else "conv2d_forward"
    if args.like == PROGRAM.like and (args.forms or args.new):
        parser.error("--like main is for a program that is there: FILE")
    if args.forms:
        contract, element = CONTRACTS[args.like], PLAIN_TYPES[dtypes[args.dtype]][0]
        print("in plain CUDA, with or without a cudaStream_t at the end and with or without the bias:")
        print(*("  " + signature for signature in contract.plain_signatures(element)), sep="\n")
        print(f"over device/device.h, where T is {args.dtype}:\n  {contract.signature}")
        return 0
    assignment = ASSIGNMENTS.get(args.assignment)
    if assignment:
        args.like, args.dtype = assignment.like, str(assignment.dtype).removeprefix("torch.")
        if args.no_count:
            parser.error("--assignment judges by counts: leave --no-count away")
    if args.new:
        return _write_template(Path(args.new), args.like, dtypes[args.dtype], assignment)
    if not args.source:
        parser.error("which kernel? FILE, or --new FILE for one to start from")
    if sys.stderr.isatty():
        print(f"compiling {args.source}", end="", file=sys.stderr, flush=True)
    try:
        report = check_kernel(
            args.source,
            args.like,
            dtype=dtypes[args.dtype],
            random_cases=args.random,
            seed=args.seed,
            count=not args.no_count,
            predicted=not args.no_count,
            cxx=os.environ.get("CXX", "g++"),
            progress=_show if sys.stderr.isatty() else None,
        )
    except (CheckError, FileNotFoundError, IsADirectoryError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, CheckError) else 2
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
    print(report)
    if args.nvcc:
        print(f"\n{nvcc_says(Path(args.source))}")
    for layer, rows in report.traffic.items() if args.lines and report.numbers else ():
        print(f"\n{layer}, by source line", rows, sep="\n")
    if args.html:
        args.html.write_text(page_of(report, args.source))
        print(f"\nwrote {args.html}", file=sys.stderr)
    if assignment:
        passed, why = graded(assignment, report, args.source)
        print(f"\n{why}")
        return 0 if passed else 1
    return 0 if report.ok else 1


def _show(done: int, problem: str):
    """In one line of a terminal."""
    print(f"\r\033[K{done} problems done; {problem}"[:100], end="", file=sys.stderr, flush=True)


def _write_template(path: Path, like: str, dtype, assignment: Assignment | None) -> int:
    text = assignment.text if assignment else template(like, dtype, plain=path.suffix == ".cu")
    how = f"--assignment {assignment.number}" if assignment else f"--like {like}{dtype_option(dtype)}"
    try:
        with path.open("x") as file:
            file.write(text.replace("FILE", str(path)))
    except OSError as error:
        print(f"--new {path}: {error.strerror}; name a new file", file=sys.stderr)
        return 1
    print(f"wrote {path}; check it with   python -m convlab.check {path} {how}")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(main)
