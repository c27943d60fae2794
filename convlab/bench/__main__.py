"""Times convlab's kernels beside torch's, on this machine.

    python -m convlab.bench cpu                              all of it
    python -m convlab.bench cpu conv --layers resnet-64 --passes forward dgrad --layout nchw
    python -m convlab.bench cpu step --threads 1
    python -m convlab.bench cpu --compare benchmarks/results/OLD.json
    python -m convlab.bench overhead                         what a call costs
"""

import argparse
import sys

import torch

from ..algorithms import PASSES, algorithms
from ..training.arguments import output_file, positive, whole_number
from . import activations, convolutions, overhead, pooling, record, steps
from .case import LAYOUTS
from .ceilings import Ceilings
from .measure import Options, measure

KINDS = ("conv", "pool", "activation", "step")
QUICK = {"rounds": 10, "seconds": 0.3}


def parse(argv=None):
    """The command line's choices; what makes no sense ends the program with a line that says why."""
    parser = argparse.ArgumentParser("python -m convlab.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cpu = commands.add_parser("cpu", help="convolutions, pooling, activations and training steps on the CPU")
    cpu.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    cpu.add_argument("--layers", nargs="+", metavar="NAME", help="these layers only, by name")
    cpu.add_argument("--passes", nargs="+", choices=[*PASSES, "backward", "step"], help="these passes only")
    cpu.add_argument("--layout", choices=LAYOUTS, help="this layout only (default: both)")
    cpu.add_argument("--algo", default="auto", help="convlab's convolution algorithm (default: auto)")
    cpu.add_argument("--cold", action="store_true", help="go round more data than the last-level cache holds")
    cpu.add_argument("--no-compile", action="store_true", help="leave torch.compile out of the training steps")
    for command in (cpu, commands.add_parser("overhead", help="a call that has next to nothing to do")):
        add = command.add_argument
        add("--filter", default="", metavar="TEXT", help="rows that have TEXT in KIND LAYER PASS LAYOUT only")
        add("--rounds", type=whole_number(1), help=f"at most (default: {Options().rounds})")
        add("--seconds", type=positive, help=f"about so long a row (default: {Options().seconds})")
        add("--quick", action="store_true", help=f"{QUICK['rounds']} rounds, {QUICK['seconds']} s a row")
        add("--threads", type=whole_number(1), help="default: torch's")
        add("--compare", metavar="OLD.json", help="show what changed since that run")
        add("--output", type=output_file, metavar="FILE", help=f"default: {record.FOLDER}/COMMAND-TIME.json")
        add("--no-save", action="store_true", help="write no file")
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _check(parser, args):
    if args.command == "cpu":
        names = ["auto", *(a.name for a in algorithms() if "cpu" in a.backends)]
        if args.algo not in names:
            parser.error(f"argument --algo: {args.algo!r} is no algorithm for the CPU, choose from: {', '.join(names)}")
        for kind in args.kinds:
            if kind not in KINDS:
                parser.error(f"argument KIND: {kind!r} is not measured, choose from: {', '.join(KINDS)}")
    args.cases = list(_cases(args))
    layers = list(dict.fromkeys(case.layer for case in args.cases))
    for name in getattr(args, "layers", None) or ():
        if name not in layers:
            parser.error(f"argument --layers: {name!r} is none of: {', '.join(layers)}")
    args.cases = [case for case in args.cases if _wanted(case, args)]
    if not args.cases:
        parser.error("nothing to measure: no row has all of what --layers, --passes, --layout and --filter ask for")
    if args.no_save and args.output:
        parser.error("argument --output: a run with --no-save is not written")
    args.old = None
    if args.compare:
        try:
            args.old = record.load(args.compare)
        except record.BadRecord as error:
            parser.error(f"argument --compare: {error}")


def _cases(args):
    if args.command == "overhead":
        return overhead.cases()
    made = {
        "conv": lambda: convolutions.cases(args.algo),
        "pool": pooling.cases,
        "activation": activations.cases,
        "step": lambda: steps.cases(not args.no_compile),
    }
    return [case for kind in args.kinds or KINDS for case in made[kind]()]


def _wanted(case, args):
    if args.filter not in case.id:
        return False
    if args.command == "overhead":
        return True
    return all(
        choice is None or value in choice
        for choice, value in ((args.layers, case.layer), (args.passes, case.pass_), (args.layout and [args.layout], case.layout))
    )


def run(args, progress):
    """The record of a run. An interrupt ends it early, with the rows there are."""
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = {key: value for key in ("rounds", "seconds") if (value := getattr(args, key) or (args.quick and QUICK[key]))}
    options = Options(**chosen, cold=getattr(args, "cold", False))
    kept = {"version": record.VERSION, "command": args.command, "when": record.now(), "complete": False, "machine": record.machine()}
    kept["options"] = options._asdict() | {key: getattr(args, key, None) for key in ("algo", "filter", "layers", "passes", "layout", "kinds")}
    kept["rows"] = []
    ceilings = Ceilings() if args.command == "cpu" else None
    task = progress.add_task("", total=len(args.cases))
    try:
        for case in args.cases:
            progress.update(task, description=case.id)
            kept["rows"].append(measure(case, options, ceilings))
            progress.advance(task)
        kept["complete"] = True
    except KeyboardInterrupt:
        pass
    kept["ceilings"] = ceilings and ceilings.record()
    return record.rounded(kept)


def main(argv=None):
    args = parse(argv)
    try:
        from . import report
    except ImportError:
        sys.exit("convlab.bench needs rich for its tables: pip install rich")
    with report.progress() as progress:
        kept = run(args, progress)
    out = report.console()
    report.print_machine(out, kept["machine"], kept["ceilings"], kept["options"])
    report.print_rows(out, kept["rows"])
    report.print_figures(out, kept["rows"])
    if args.old:
        report.print_comparison(out, args.old, kept)
    if not args.no_save:
        path = args.output or record.default_path(args.command, kept["when"])
        record.save(kept, path)
        print(f"wrote {path}")
    if not kept["complete"]:
        sys.exit(130)
    sys.exit(any("refused" in row for row in kept["rows"]))


if __name__ == "__main__":
    main()
