"""Shows what a convolution's CUDA kernels will do: launches, occupancy, work, the roofline. No GPU is needed.

python -m convlab.explain lenet.c3                          every algorithm, every pass, on an H200
python -m convlab.explain lenet.c3 --algo register_tiled --count        run in the simulator, too, and counted by line
python -m convlab.explain resnet-64@256 --gpu A100 --pass forward
python -m convlab.explain lenet.c3@1024 --gpu all           predicted times on every GPU whose limits are known
python -m convlab.explain resnet-64 --algo winograd_2x2                 multiplications saved, on this machine's CPU
python -m convlab.explain resnet-64 --stride 2 --dtype float16          that layer, but for what is said
python -m convlab.explain --shape 8,3,32,32 --filters 16,5,5 --padding same --plot roofline.png
python -m convlab.explain lenet.c3 --algo register_tiled --html page.html
python -m convlab.explain --shape 16,1,8000 --filters 32,80 --stride 4  one dimension
python -m convlab.explain --shape 32,128,16,16 --filters 64,4,4 --stride 2 --padding 1 --transposed
"""

import argparse
import dataclasses
import json
import sys

import torch

from .._algorithms import PASSES, Conv2dProblem
from .._command_line import Parser, output_file
from .._pipe import run
from ..gpus import GPUS
from ..layers import NAMED, TRANSPOSED, find
from .explanation import DTYPES, explain
from .page import page_file, page_of


def parse(argv=None):
    """The command line's choices; what makes no sense ends the program with a line that says why."""
    parser = Parser("python -m convlab.explain", description=__doc__)
    add = parser.add_argument
    add("layer", nargs="?", metavar="LAYER", help=f"{', '.join(NAMED)}; NAME@N for a batch of N")
    add("--shape", type=_numbers(4, 3), metavar="N,C[,H],W", help="of x, instead of LAYER")
    add("--filters", type=_numbers(3, 2), metavar="K[,R],S", help="with --shape")
    add("--transposed", action="store_true", help="with --shape: of a transposed convolution")
    add("--stride", type=_numbers(1, 2), metavar="N[,N]", help="default: LAYER's, or 1")
    add("--padding", type=_padding, metavar="N[,N]|same|valid", help="default: LAYER's, or 0")
    add("--dilation", type=_numbers(1, 2), metavar="N[,N]", help="default: LAYER's, or 1")
    add("--groups", type=int, help="default: LAYER's, or 1")
    add("--dtype", choices=[str(dtype).removeprefix("torch.") for dtype in DTYPES], help="default: float32")
    add("--algo", default="all", metavar="NAME|all", help="default: all")
    add("--pass", dest="passes", choices=PASSES, action="append", help="default: all three")
    add("--gpu", default="H200", help=f"{', '.join(GPUS)} (default: H200); all: predicted times on each")
    add(
        "--count",
        action="store_true",
        help="run the kernels in the simulator and count their memory traffic, line by line",
    )
    add(
        "--plot",
        type=output_file,
        metavar="FILE",
        help="draw the roofline with the rungs on it; counts as well, and needs matplotlib",
    )
    add(
        "--html",
        type=page_file,
        metavar="FILE",
        help="write a page as well, that needs no network: pictures, and the kernels' sources with what their lines ask of memory; counts, too",
    )
    add("--json", action="store_true", help="print the explanation as JSON")
    args = parser.parse_args(argv)
    if bool(args.layer) == bool(args.shape) or bool(args.shape) != bool(args.filters):
        parser.error("expected LAYER, or --shape and --filters")
    if args.shape and len(args.shape) != len(args.filters) + 1:
        parser.error("arguments --shape and --filters: expected N,C,H,W and K,R,S, or N,C,W and K,S")
    if args.transposed and not args.shape:
        parser.error(
            f"argument --transposed: goes with --shape; of the layers, these are: {', '.join(sorted(TRANSPOSED))}"
        )
    if args.transposed and isinstance(args.padding, str):
        parser.error(f"argument --padding: {args.padding!r} is for convolutions that are not transposed")
    try:
        args.title, args.problem = _problem(args)
        args.transposed |= (args.layer or "").replace(".", "-", 1).lower().partition("@")[0] in TRANSPOSED
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    return parser, args


def _problem(args):
    """Its name, with what of the layer was changed; "" for a shape of one's own."""
    given = {n: getattr(args, n) for n in ("stride", "padding", "dilation", "groups", "dtype")}
    changed = {name: value for name, value in given.items() if value is not None}
    usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "dtype": "float32"}
    if args.layer:
        layer = find(args.layer)
        (N, C, H, W), (K, _, R, S), title = layer.x, layer.w, layer.name
        usual |= dict(zip(("stride", "padding", "dilation", "groups"), layer.arguments))
        if changed:
            title += " with " + ", ".join(f"{name} {_text(value)}" for name, value in changed.items())
    else:
        (N, C, *image), (K, *kernel), title = args.shape, args.filters, ""
        (H, W), (R, S) = (tuple(sizes if len(sizes) == 2 else (1, *sizes)) for sizes in (image, kernel))
    if H == R == 1:  # of one dimension: what is one number is that of the columns
        edges = {"stride": 1, "padding": 0, "dilation": 1}
        changed |= {n: (edges[n], v[1]) for n, v in changed.items() if n in edges and isinstance(v, tuple)}
    wanted = usual | changed
    groups, dtype = wanted["groups"], getattr(torch, wanted["dtype"])
    if groups < 1 or C % groups:
        raise ValueError(
            f"--groups {groups} does not divide the {C} channels of {'LAYER' if args.layer else '--shape'}"
        )
    w_shape = (K, C // groups, R, S)
    if args.transposed:
        if K % groups:
            raise ValueError(f"--groups {groups} does not divide the {K} channels that --filters make")
        stride, padding, dilation = (_pair(wanted[name]) for name in ("stride", "padding", "dilation"))
        sizes = zip((H, W), stride, padding, dilation, (R, S))
        H, W = ((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in sizes)
        C, w_shape = K, (C, K // groups, R, S)
        if min(H, W) < 1:
            raise ValueError(f"such a transposed convolution would make outputs of {H} x {W}")
    x, w = (torch.empty(shape, dtype=dtype, device="meta") for shape in ((N, C, H, W), w_shape))
    return title, Conv2dProblem.of(x, w, wanted["stride"], wanted["padding"], wanted["dilation"], groups)


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _text(value):
    return ",".join(map(str, dict.fromkeys(value))) if isinstance(value, tuple) else value


def _numbers(*counts):
    """A type for so many whole numbers, with commas between; one for two stands for both."""

    def parse(text):
        parts = text.split(",")
        if len(parts) not in counts or not all(part.strip().isdecimal() for part in parts):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {' or '.join(map(str, counts))} whole number(s) with commas between"
            )
        numbers = tuple(map(int, parts))
        return numbers * 2 if counts == (1, 2) and len(numbers) == 1 else numbers

    return parse


def _padding(text):
    return text if text in ("same", "valid") else _numbers(1, 2)(text)


def _on_every_gpu(args) -> str:
    """A table of predicted times, or the explanations as JSON."""
    passes = args.passes or PASSES
    found = {gpu: explain(args.problem, args.algo, passes=passes, gpu=gpu, count=True) for gpu in GPUS}
    found = {gpu: dataclasses.replace(one, layer=args.title, transposed=args.transposed) for gpu, one in found.items()}
    if args.json:
        return json.dumps({gpu: one.as_dict() for gpu, one in found.items()}, indent=1)
    lines = [f"{args.title}: microseconds  [modelled]".lstrip(": "), f"{'':24}" + "".join(f"{gpu:>10}" for gpu in GPUS)]
    for columns in zip(*(one.passes for one in found.values())):
        for rungs in zip(*(p.rungs for p in columns)):
            if not rungs[0].refused:
                cells = (f"{r.predicted_us:10,.4g}" if r.predicted_us else f"{'?':>10}" for r in rungs)
                lines.append(f"{columns[0].name:9}{rungs[0].algorithm:15}" + "".join(cells))
    return "\n".join(lines)


def main(argv=None):
    parser, args = parse(argv)
    torch.manual_seed(0)
    try:
        if args.gpu == "all":
            return print(_on_every_gpu(args))
        explanation = explain(
            args.problem,
            args.algo,
            passes=args.passes or PASSES,
            gpu=args.gpu,
            count=args.count or bool(args.plot or args.html),
        )
        explanation = dataclasses.replace(explanation, layer=args.title, transposed=args.transposed)
        print(json.dumps(explanation.as_dict(), indent=1) if args.json else explanation)
        if args.plot:
            from .plot import draw

            draw(explanation, args.plot)
            print(f"wrote {args.plot}", file=sys.stderr)
        if args.html:
            args.html.write_text(page_of(explanation))
            print(f"wrote {args.html}", file=sys.stderr)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    run(main)
