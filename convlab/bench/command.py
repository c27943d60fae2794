"""Times convlab's kernels beside torch's, on this machine.

python -m convlab.bench cpu                              all of it, with one thread and with all
python -m convlab.bench cpu conv resnet-64 forward,dgrad nchw    the rows that have all of these words
python -m convlab.bench cpu conv bfloat16                convolutions in bfloat16; tf32 or bf16: in float32, with torch's
                                                         switch, torch.backends.mkldnn.conv.fp32_precision, at that
python -m convlab.bench cpu --shape 8,64,56,56 --filters 128,3,3 --padding 1      any convolution
python -m convlab.bench cpu --compare OLD.json           beside an older record
python -m convlab.bench overhead                         what a call costs
python -m convlab.bench survey --sample 100              some of what twenty of torchvision's models are made of, or all
python -m convlab.bench models                           six of those models whole: training steps and inference, compiled too
python -m convlab.bench gpu                              the CUDA kernels beside cuDNN, on an NVIDIA GPU
python -m convlab.bench gpu conv resnet-64@64 tf32,bfloat16      some of those rows: a layer, in two precisions

A word is a kind of row (conv, ladder, tiles, pool, activation, step, inference, compiled, overhead, or a function around these: conv1d,
conv_transpose2d, adaptive_avg_pool2d, prelu ...), a layer or a part of its name, a pass, a
layout or a precision; a,b is either of them.
"""

import argparse
import gc
import json
import math
import random
import re
import sys
import time
import warnings
from functools import partial

import torch

from .._algorithms import algorithms
from .._command_line import Parser, output_file, positive, whole_number
from .._near import did_you_mean
from ..layers import Conv
from . import cases, gpu, models, record, report, survey
from .case import CPU_PRECISIONS, HEAD
from .device import Cpu
from .measure import measure, set_floor

ONLY = {"threads": "cpu", "cold": "cpu", "budget": "gpu", "dry": "gpu"}
NO_GPU, INTERRUPTED = 3, 130  # exit statuses
WRITING = 50  # times as long as it took to write a record, it is not written again


def parse(argv=None):
    """The command line's choices; what makes no sense ends the program with a line that says why."""
    parser = Parser("python -m convlab.bench", description=__doc__)
    add = parser.add_argument
    add("words", nargs="*", metavar="WORD", help="cpu (default) or gpu, then what to measure")
    add("--shape", type=partial(_sizes, "N,C,H,W"), metavar="N,C,H,W", help="this convolution instead of the zoo's")
    add("--filters", type=partial(_sizes, "K,R,S"), metavar="K,R,S", help="its filters")
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
        add(f"--{name}", type=whole_number(least), default=least, metavar="INT", help=f"its {name} (default: {least})")
    add("--algo", default="auto", help="convlab's convolution algorithm (default: auto)")
    add("--threads", type=whole_number(1), help="CPU: default: a row with one and a row with all of torch's")
    add("--cold", action="store_true", help="CPU: go round more data than the last-level cache holds")
    add("--no-compile", action="store_true", help="leave torch.compile out of training steps and whole models")
    add("--rounds", type=whole_number(1), help="at most (default: 100, on a GPU 15)")
    add("--seconds", type=positive, help="about so long a row (default: 2, on a GPU 0.5)")
    add("--patience", type=positive, metavar="SECONDS", help="so long a row until a few rounds are undisturbed")
    add("--quick", action="store_true", help="a few rounds")
    add(
        "--sample", type=whole_number(1), metavar="ROWS", help="so many of the rows, drawn at random, of the survey say"
    )
    add("--seed", type=whole_number(0), default=0, help="of the draw (default: 0)")
    add("--budget", type=positive, metavar="SECONDS", help="GPU: begin no row after so long")
    add("--dry", action="store_true", help="GPU: without one, tiny layers on the host and in the simulator")
    add("--compare", metavar="OLD.json", help="each row beside that run's, or that of a gpu-report")
    add("--json", action="store_true", help="print the record, no tables; write no file without --output")
    add("--output", type=output_file, metavar="FILE", help=f"default: {record.FOLDER}/COMMAND-TIME.json")
    add("--no-save", action="store_true", help="write no file")
    args = parser.parse_intermixed_args(argv)
    args.command = args.words.pop(0) if args.words[:1] in (["cpu"], ["gpu"]) else "cpu"
    args.error = parser.error
    _complete(args)
    return args


def _complete(args):
    """Adds the cases and the run to compare with; ends the program where there are none."""
    for option, command in ONLY.items():
        if getattr(args, option) and args.command != command:
            args.error(f"argument --{option}: goes with {command} only")
    if args.no_save and args.output:
        args.error("argument --output: a run with --no-save is not written; leave one of them out")
    backend = "cuda" if args.command == "gpu" else "cpu"
    names = ["auto", *(a.name for a in algorithms() if backend in a.backends)]
    if args.algo not in names:
        near = did_you_mean(args.algo, names)
        args.error(
            f"argument --algo: {args.algo!r} is no algorithm for {backend}: {near}choose one of {', '.join(names)}"
        )
    try:
        args.old = record.load(args.compare) if args.compare else None
    except record.BadRecord as error:
        args.error(f"argument --compare: {error}")
    args.of = args.words.pop(0) if args.command == "cpu" and args.words[:1] in (["survey"], ["models"]) else ""
    if args.of == "models":
        found = _models(args)
    else:
        problems = _one_convolution(args) if args.shape or args.filters else None
        problems = problems or (survey.problems() if args.of else cases.zoo(backend))
        if args.dry:
            problems = cases.Problems(*(tuple(map(gpu.small, layers)) for layers in problems))
        words = {word for either in args.words for word in either.split(",")}
        asked_for = [precision for precision in CPU_PRECISIONS[1:] if precision in words]
        found = cases.cases_of(problems, backend, args.algo, not (args.no_compile or args.dry), asked_for)
    ceilings_alone = args.command == "gpu" and args.words == ["ceilings"]
    args.cases = [] if ceilings_alone else chosen(found, args.words, args.error)
    if args.sample and args.sample < len(args.cases):
        places = sorted(random.Random(args.seed).sample(range(len(args.cases)), args.sample))
        args.cases = [args.cases[place] for place in places]


def _models(args):
    try:
        return models.models(args.algo, not args.no_compile)
    except ImportError as error:
        args.error(f"models are torchvision's, and {error}: pip install torchvision")


def _one_convolution(args):
    if not (args.shape and args.filters):
        args.error("arguments --shape and --filters: one goes with the other")
    pairs = [(value, value) for value in (args.stride, args.padding, args.dilation)]
    layer = Conv(*args.shape, *args.filters, *pairs, args.groups)
    try:
        layer.problem()
    except (RuntimeError, ValueError) as error:
        args.error(f"arguments --shape and --filters: {error}")
    ladder, tiles = ((layer,) * any(kind in word for word in args.words) for kind in ("ladder", "tiles"))
    return cases.Problems((layer,), ladder, swept=tiles if args.command == "gpu" else (), float16=(layer,))


def _sizes(names, text):
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text) or text.count(",") != names.count(","):
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers from 1 up, {names}")
    return [int(size) for size in text.split(",")]


def chosen(found, words, error):
    """The cases that have all of `words`; ends the program where there are none."""
    values = {key: list(dict.fromkeys(case.head[key] for case in found)) for key in HEAD}

    def has(case, word):
        """A part of a layer's name will do where no layer is called that."""
        return word in case.head.values() or (word in case.layer and word not in values["layer"])

    left = [case for case in found if all(any(has(case, word) for word in either.split(",")) for either in words)]
    if not left:
        choices = "; ".join(f"{key}: {_listed(values[key])}" for key in HEAD)
        error(f"nothing to measure: no row has all of {' '.join(words)!r}; there are {choices}")
    return left


def _listed(values, most=60):
    more = len(values) - most
    return ", ".join(values[:most]) + f" and {more} more" * (more > 0)


def devices_of(args):
    """Where the cases are measured. Raises NoGpu."""
    kind = (gpu.Rehearsal if args.dry else gpu.Gpu) if args.command == "gpu" else Cpu
    limits = kind.quick if args.quick else kind.limits
    limits = limits._replace(**{key: value for key in limits._fields if (value := getattr(args, key))})
    if args.command == "gpu":
        return [kind(limits)]
    threads = [args.threads] if args.threads else sorted({1, torch.get_num_threads()})
    return [Cpu(count, args.cold, limits) for count in threads]


def run(args, devices, path=None):
    """The record of a run, which is also written to `path`: at the end, and after rows as long as writing, which takes
    longer the more there are, takes little of the time. An interrupt ends it early, with the rows there are."""
    chosen_ = ("of", "words", "shape", "filters", "algo", "cold", "no_compile", "sample", "seed", "budget")
    kept = {"version": record.VERSION, "command": args.command, "when": record.now(), "complete": False}
    kept |= {"left_out": 0, "why_left_out": "interrupted", "dry": args.dry}
    kept["machine"] = record.machine() | devices[0].facts()
    kept["options"] = devices[0].limits._asdict() | {key: getattr(args, key) for key in chosen_}
    rows = {}  # by the places of case and device, so that they stay in order
    due = 0.0

    def keep(last=False):
        nonlocal due
        kept["left_out"] = len(args.cases) * len(devices) - len(rows)
        kept["rows"] = [row for _, row in sorted(rows.items())]
        kept["ceilings"] = [device.ceilings() for device in devices]
        start = time.monotonic()
        if path and (last or start >= due):
            record.save(kept, path)
            due = time.monotonic() + WRITING * (time.monotonic() - start)

    warnings.simplefilter("ignore")  # of peers: what matters is recorded
    try:
        kept["why_left_out"] = _measure_all(args, devices, rows, keep)
        kept["complete"] = not kept["why_left_out"]
    except KeyboardInterrupt:
        pass
    finally:
        gc.unfreeze()
    for place, device in enumerate(devices):  # once more: a ceiling that was disturbed may be known better by now
        device.use()
        for row in [row for (_, of), row in rows.items() if of == place]:
            set_floor(row, device)
    keep(last=True)
    return kept


def _measure_all(args, devices, rows, keep) -> str:
    """Fills `rows`; returns why some are missing. Rows that other programs disturbed are measured once more: with luck,
    those have ended."""
    start, todo = time.monotonic(), list(enumerate(args.cases))
    if args.command == "gpu":
        todo.sort(key=lambda of: cases.rank(of[1]))
    for device_place, device in enumerate(devices):
        device.use()
        keep()
        for again in (False, True) if not args.dry else (False,):
            for case_place, case in todo:
                place = case_place, device_place
                if again and not rows[place].get("disturbed"):
                    continue
                if args.budget and time.monotonic() - start > args.budget:
                    return "ran out of time"
                gc.freeze()  # what there is stays: to look for garbage among all of torch takes tenths of a second
                rows[place] = measure(case, device)
                print(report.line_of(rows[place]) + " (again)" * again, file=sys.stderr, flush=True)
                keep()
                if "refused" in rows[place] and device.lost():
                    return "the GPU took no more calls of the process"
    return ""


def _announced(rows, seconds) -> str:
    """How long it will take: each row about `seconds`, more where it compiles or is disturbed."""
    minutes = math.ceil(rows * seconds / 60)
    return f"timing {rows} rows, about {seconds:g} s each: {minutes} min or more; WORDs choose some of them (--help)"


def main(argv=None):
    args = parse(argv)
    try:
        devices = devices_of(args)
    except gpu.NoGpu as error:
        print(f"python -m convlab.bench gpu: {error}", file=sys.stderr)
        sys.exit(NO_GPU)
    usual = (
        None
        if args.no_save or args.json
        else record.FOLDER / f"{args.command}-{record.now()[:19]}.json".replace(":", "")
    )
    path = args.output or usual
    print(_announced(len(args.cases) * len(devices), devices[0].limits.seconds), file=sys.stderr, flush=True)
    kept = run(args, devices, path)
    if args.json:
        print(json.dumps(record.rounded(kept)))
    else:
        report.print_run(kept, args.old)
    if path:
        print(f"wrote {path}", file=sys.stderr if args.json else sys.stdout)
    if not kept["complete"] and kept["why_left_out"] == "interrupted":
        sys.exit(INTERRUPTED)
    sys.exit(int(any("refused" in row for row in kept["rows"])))
