"""Times convlab's kernels beside torch's, on this machine.

python -m convlab.bench cpu                              all of it
python -m convlab.bench cpu conv --layers resnet-64 --passes forward dgrad --layout nchw
python -m convlab.bench cpu step --threads 1
python -m convlab.bench cpu --compare benchmarks/results/OLD.json
python -m convlab.bench overhead                         what a call costs
python -m convlab.bench gpu                              the CUDA kernels beside cuDNN, on an NVIDIA GPU
python -m convlab.bench readme benchmarks/results/RUN.json    its figures into README.md
"""

import argparse
import contextlib
import sys
from pathlib import Path

import torch

from .._algorithms import PASSES, algorithms
from .._command_line import output_file, positive, whole_number
from .._measure import Limits
from . import readme, record
from .case import LAYOUTS
from .cases import KINDS, cases_of
from .ceilings import Ceilings
from .gpu import run as gpu
from .measure import Options, measure, set_beside
from .memory import Memory

QUICK = Limits(rounds=10, seconds=0.3, patience=1)


def parse(argv=None):
    """The command line's choices; what makes no sense ends the program with a line that says why."""
    parser = argparse.ArgumentParser(
        "python -m convlab.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    cpu = commands.add_parser("cpu", help="convolutions, pooling, activations and training steps on the CPU")
    cpu.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    cpu.add_argument("--layers", nargs="+", metavar="NAME", help="these layers only, by name")
    cpu.add_argument("--passes", nargs="+", choices=[*PASSES, "backward", "step"], help="these passes only")
    cpu.add_argument("--layout", choices=LAYOUTS, help="this layout only (default: both)")
    cpu.add_argument("--algo", default="auto", help="convlab's convolution algorithm (default: auto)")
    cpu.add_argument("--cold", action="store_true", help="go round more data than the last-level cache holds")
    cpu.add_argument(
        "--memory", action="store_true", help="what memory a call takes, too, counted in a process of its own"
    )
    cpu.add_argument("--no-compile", action="store_true", help="leave torch.compile out of the training steps")
    _add_timing(cpu)
    _add_timing(commands.add_parser("overhead", help="a call that has next to nothing to do"))
    gpu.add_arguments(
        commands.add_parser("gpu", help="convolutions, pooling, leaky ReLU and training steps on an NVIDIA GPU")
    )
    table = commands.add_parser("readme", help="write the tables of README.md from the JSON of a run")
    table.add_argument(
        "json", nargs="?", help="of a run, or of make gpu-report (default: the run on a CPU that README.md names)"
    )
    args = parser.parse_args(argv)
    if args.command in ("cpu", "overhead"):
        _check(parser, args)
    args.error = parser.error
    return args


def _add_timing(parser):
    add, usual = parser.add_argument, Limits()
    add("--filter", default="", metavar="TEXT", help="rows that have TEXT in KIND LAYER PASS LAYOUT only")
    add("--rounds", type=whole_number(1), help=f"at most (default: {usual.rounds})")
    add("--seconds", type=positive, help=f"about so long a row (default: {usual.seconds:g})")
    add(
        "--patience",
        type=positive,
        metavar="SECONDS",
        help=f"so long a row until a few rounds are undisturbed by other programs (default: {usual.patience:g})",
    )
    add(
        "--quick",
        action="store_true",
        help=f"{QUICK.rounds} rounds, {QUICK.seconds:g} s a row, {QUICK.patience:g} s of patience",
    )
    add("--threads", type=whole_number(1), help="default: torch's")
    add("--compare", metavar="OLD.json", help="show what changed since that run")
    add("--output", type=output_file, metavar="FILE", help=f"default: {record.FOLDER}/COMMAND-TIME.json")
    add("--no-save", action="store_true", help="write no file")


def _check(parser, args):
    """Completes `args` with the cases and the run to compare with; ends the program where there are none."""
    if args.no_save and args.output:
        parser.error("argument --output: a run with --no-save is not written; leave one of them out")
    try:
        args.old = record.load(args.compare) if args.compare else None
    except record.BadRecord as error:
        parser.error(f"argument --compare: {error}")
    args.cases = _cpu_cases(parser, args) if args.command == "cpu" else cases_of("overhead")
    args.cases = [case for case in args.cases if args.filter in case.id]
    if not args.cases:
        parser.error("nothing to measure: no row has all of what --layers, --passes, --layout and --filter ask for")


def _cpu_cases(parser, args):
    names = ["auto", *(a.name for a in algorithms() if "cpu" in a.backends)]
    if args.algo not in names:
        parser.error(f"argument --algo: {args.algo!r} is no algorithm for the CPU, choose from: {', '.join(names)}")
    for kind in args.kinds:
        if kind not in KINDS:
            parser.error(f"argument KIND: {kind!r} is not measured, choose from: {', '.join(KINDS)}")
    cases = [case for kind in args.kinds or KINDS for case in cases_of(kind, args.algo, not args.no_compile)]
    layers = list(dict.fromkeys(case.layer for case in cases))
    for name in args.layers or ():
        if name not in layers:
            parser.error(f"argument --layers: {name!r} is none of: {', '.join(layers)}")
    return [
        case
        for case in cases
        if case.layer in (args.layers or layers)
        and case.pass_ in (args.passes or [case.pass_])
        and case.layout == (args.layout or case.layout)
    ]


def run(args, progress):
    """The record of a run. An interrupt ends it early, with the rows there are."""
    if args.threads:
        torch.set_num_threads(args.threads)
    limits = (QUICK if args.quick else Limits())._replace(
        **{key: value for key in Limits._fields if (value := getattr(args, key))}
    )
    options = Options(limits, getattr(args, "cold", False))
    chosen = {
        key: getattr(args, key, None) for key in ("algo", "filter", "layers", "passes", "layout", "kinds", "memory")
    }
    kept = {
        "version": record.VERSION,
        "command": args.command,
        "when": record.now(),
        "complete": False,
        "machine": record.machine(),
        "options": limits._asdict() | {"cold": options.cold} | chosen,
        "ceilings": None,
        "rows": [],
    }
    ceilings = Ceilings(limits) if args.command == "cpu" else None
    rows = {}  # by the case's place, so that they stay in order
    with (
        contextlib.suppress(KeyboardInterrupt),
        Memory(args.algo) if chosen["memory"] else contextlib.nullcontext() as memory,
    ):
        for place, case in _again_if_disturbed(args.cases, rows, progress):
            row = measure(case, options)
            if memory and "refused" not in row:
                row["memory"] = memory.of(case)
            if ceilings:
                set_beside(row, ceilings)
            rows[place] = row
        kept["complete"] = True
    kept["rows"] = [row for _, row in sorted(rows.items())]
    if ceilings:  # once more: those that were disturbed may be known better by now
        for row in kept["rows"]:
            set_beside(row, ceilings)
        kept["ceilings"] = ceilings.record()
    return record.rounded(kept)


def _again_if_disturbed(cases, rows, progress):
    """All cases with their places, then once more those whose rows were disturbed: with luck, the other program has
    ended."""
    task = progress.add_task("", total=len(cases))
    for again in (False, True):
        turn = [(place, case) for place, case in enumerate(cases) if not again or rows[place].get("disturbed")]
        progress.update(task, total=len(cases) + again * len(turn))
        for place, case in turn:
            progress.update(task, description=case.id + " again" * again)
            yield place, case
            progress.advance(task)


def write_readme(name):
    """Writes README.md's tables from the JSON called `name`, or from that of a CPU that it names itself."""
    path = readme.ROOT / "README.md"
    try:
        text = path.read_text()
        name = name or readme.source_of(text)
        if name is None:
            raise record.BadRecord("README.md names no run yet: give the JSON of one")
        source = Path(name).resolve()
        if not source.is_relative_to(readme.ROOT):
            raise record.BadRecord(f"{name} lies outside of {readme.ROOT}: README.md can only name what is in it")
        path.write_text(readme.updated(text, readme.load(source), source.relative_to(readme.ROOT).as_posix()))
    except (OSError, record.BadRecord) as error:
        sys.exit(f"python -m convlab.bench readme: {error}")
    print(f"wrote the tables of {path} from {name}")


def main(argv=None):
    args = parse(argv)
    if args.command == "readme":
        return write_readme(args.json)
    if args.command == "gpu":
        sys.exit(gpu.main(args))
    try:
        from . import report
    except ImportError:
        sys.exit("python -m convlab.bench needs rich for its tables: pip install rich")
    with report.progress() as progress:
        kept = run(args, progress)
    report.print_run(report.console(), kept, args.old)
    if not args.no_save:
        path = args.output or record.default_path(args.command, kept["when"])
        record.save(kept, path)
        print(f"wrote {path}")
    if not kept["complete"]:
        sys.exit(130)
    sys.exit(int(any("refused" in row for row in kept["rows"])))


if __name__ == "__main__":
    main()
