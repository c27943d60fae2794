"""What each kernel asks of memory, counted by the simulator: convlab/testing/kernel_counts.json, and the same numbers in the
notes on top of csrc/kernels/*.cu.

make kernel-notes                   prints them
make kernel-notes ARGS=--write      renews both

python -m convlab.check --columns   says how to read them
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

import convlab
from convlab import layers, ops
from convlab.arguments import pooling_window
from convlab.explain.counting import call_of, count_call
from convlab.simulator import TrafficTable
from convlab.testing import contracts, traffic
from tools import run

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "csrc" / "kernels"
PASSES = ("forward", "dgrad", "wgrad")
# A note: this line, and what follows of the comment on top of the file.
NOTE = "// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it"


# ---- what is counted
# --------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A row of a note."""

    source: str  # the file whose note it belongs to
    layer: str
    what: str  # the pass
    run: Callable[[], object]  # calls the operator
    sizes: dict[str, int]  # bytes of the tensors that it reads and writes, by the simulator's names
    multiply_adds: int = 0
    kernel: str | tuple[str, ...] = ""  # of the call's, those whose name begins so


def sizes_of(**tensors) -> dict[str, int]:
    return {name: t.numel() * t.element_size() for name, t in tensors.items()}


def problem_of(rung, layer: layers.Conv):
    """In float32, or in float16 where the rung has no float32."""
    problems = layer.problem(), layer.problem(torch.float16)
    return next((p for p in problems if any(rung.supports(p, pass_)[0] for pass_ in PASSES)), problems[0])


def passes_of(rung, layer: layers.Conv) -> list[str]:
    """Those that the rung can do."""
    problem = problem_of(rung, layer)
    return [pass_ for pass_ in PASSES if rung.supports(problem, pass_)[0]]


def case_of(rung, layer: layers.Conv, pass_: str) -> Case:
    """One pass of a convolution through a rung."""
    problem, tensors = problem_of(rung, layer), {"input": layer.x, "weight": layer.w, "grad_output": layer.y}
    return Case(
        f"conv2d_{rung.name}.cu",
        layer.name,
        pass_,
        call_of(rung, problem, pass_),
        {name: problem.dtype.itemsize * math.prod(shape) for name, shape in tensors.items()},
        math.prod(layer.y) * math.prod(layer.w[1:]),
    )


def convolution_cases(noted=layers.noted) -> Iterator[Case]:
    """noted: a rung's layers, as layers.noted picks them."""
    for rung in convlab.algorithms():
        for layer in noted(partial(passes_of, rung)):
            yield from (case_of(rung, layer, pass_) for pass_ in passes_of(rung, layer))
    for layer in noted():
        dy = torch.randn(layer.y)
        run = partial(ops.conv2d_bias_grad, dy)
        yield Case("conv2d_bias_grad.cu", layer.name, "bias", run, sizes_of(grad_output=dy))


def pooling_cases() -> Iterator[Case]:
    torch.manual_seed(0)  # max pooling's backward goes where the largest are
    for name, p in contracts.MAX_LAYERS.items():
        x, window = torch.randn(p.shape), pooling_window("", p.kernel_size, p.stride, p.padding)
        with convlab.simulate(check=False):
            y, offsets = ops.max_pool2d_forward(x, window, False, True)
        dy, sizes = torch.randn_like(y), sizes_of(input=x, grad_output=y, offsets=offsets)
        runs = {
            "forward": partial(ops.max_pool2d_forward, x, window, False, True),
            "backward": partial(ops.max_pool2d_backward, dy, offsets, x.shape[2:], window, False),
        }
        yield from (Case("max_pool2d.cu", name, pass_, run, sizes) for pass_, run in runs.items())
    for name, p in contracts.AVG_LAYERS.items():
        x, window = torch.randn(p.shape), pooling_window("", p.kernel_size, p.stride, p.padding)
        with convlab.simulate(check=False):
            y = ops.avg_pool2d_forward(x, window, False, True, 0)
        dy, sizes = torch.randn_like(y), sizes_of(input=x, grad_output=y)
        runs = {
            "forward": partial(ops.avg_pool2d_forward, x, window, False, True, 0),
            "backward": partial(ops.avg_pool2d_backward, dy, x.shape[2:], window, True, 0, False),
        }
        yield from (Case("avg_pool2d.cu", name, pass_, run, sizes) for pass_, run in runs.items())


def block_cases() -> Iterator[Case]:
    """Whole blocks, whose convolutions are the layers; by the rung that "auto" takes."""
    for layer in layers.noted():
        x, w, geometry = torch.randn(layer.x), torch.randn(layer.w), layer.problem().geometry
        arguments = (geometry, (2, 2, 2), 0.1)
        with convlab.simulate(check=False):
            y, winners = ops.conv2d_block_forward(x, w, None, *arguments, True, 0)
        dy, sizes = torch.randn_like(y), sizes_of(input=x, weight=w, grad_output=y)
        flags = (False, False, False, (0, 0))
        runs = {
            "forward": partial(ops.conv2d_block_forward, x, w, None, *arguments, True, 0),
            "backward": partial(
                ops.conv2d_block_backward, dy, winners, x, w, x.shape[2:], w.shape[2:], *arguments, *flags
            ),
        }
        yield from (Case("conv2d_block.cu", layer.name, pass_, run, sizes) for pass_, run in runs.items())


def layout_cases() -> Iterator[Case]:
    """What adaptive pooling, which takes NCHW, needs in channels_last: there and back."""
    for layer in layers.noted():
        x = torch.randn(layer.x).contiguous(memory_format=torch.channels_last)
        run = partial(ops.adaptive_avg_pool2d_forward, x, layer.x[2:])
        yield Case(
            "layout.cu",
            layer.name,
            "both ways",
            run,
            sizes_of(input=x),
            kernel=("change_layout_kernel", "transpose_kernel"),
        )


def activation_cases() -> Iterator[Case]:
    for layer in layers.noted():
        x = torch.randn(layer.y)
        forward, dy = partial(ops.leaky_relu_forward, x, 0.1, True, True), torch.randn_like(x)
        with convlab.simulate(check=False):
            _, positive = forward()
        sizes = sizes_of(input=x, grad_output=x, positive=positive)
        yield Case("leaky_relu.cu", layer.name, "forward", forward, sizes)
        yield Case("leaky_relu.cu", layer.name, "backward", partial(ops.leaky_relu_backward, dy, positive, 0.1), sizes)
        y, indices = ops.adaptive_max_pool2d_forward(x, [3, 3])
        dy_small, sizes = torch.randn_like(y), sizes_of(input=x, grad_output=y, indices=indices)
        adaptive = {
            "average": partial(ops.adaptive_avg_pool2d_forward, x, [3, 3]),
            "average, backward": partial(ops.adaptive_avg_pool2d_backward, dy_small, x.shape[2:], False),
            "maximum": partial(ops.adaptive_max_pool2d_forward, x, [3, 3]),
            "maximum, backward": partial(ops.adaptive_max_pool2d_backward, dy_small, indices, x.shape[2:], False),
        }
        yield from (Case("adaptive_pool2d.cu", layer.name, pass_, run, sizes) for pass_, run in adaptive.items())
        unpool = partial(ops.max_unpool2d_forward, y, indices, x.shape[2:], False)
        yield Case("max_unpool2d.cu", layer.name, "forward", unpool, sizes_of(input=y, indices=indices))
        gather = partial(ops.planes_gather, x, indices, False)
        yield Case("max_unpool2d.cu", layer.name, "gather", gather, sizes)
        slopes, sizes = torch.full((layer.K,), 0.1), sizes_of(input=x, grad_output=x, t=x)
        yield Case("prelu.cu", layer.name, "dgrad", partial(ops.prelu_scale, dy, x, slopes, True), sizes)
        yield Case("prelu.cu", layer.name, "wgrad", partial(ops.prelu_wgrad, dy, x, x, layer.K), sizes)


def all_cases() -> list[Case]:
    cases: list[Case] = []
    for some in (convolution_cases, block_cases, pooling_cases, layout_cases, activation_cases):
        torch.manual_seed(0)  # some kernels read more or less as the values are
        cases += some()
    return cases


def counted(case: Case) -> dict[str, float]:
    """By column, with as many digits as are shown; those that have none, are left out."""
    rows = TrafficTable(row for row in count_call(case.run).traffic if row.kernel.startswith(case.kernel))
    numbers = traffic.numbers_of(rows, case.sizes, case.multiply_adds)
    return {column: float(traffic.digits(number)) for column, number in numbers.items()}


# ---- where it is kept
# -------------------------------------------------------------------------------------------------


def split(source: str):
    """A kernel file's lines before the note, in it, and behind it."""
    lines = (KERNELS / source).read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("//"))
    begin = next((i for i in range(end) if lines[i].startswith(NOTE)), end)
    return lines[:begin], lines[begin:end], lines[end:]


def note_of(rows) -> list[str]:
    return [NOTE, *("//   " + line for line in traffic.lines_of(rows))]


def write(source: str, rows):
    """Into the table, which is what programs read, and on top of the kernel, for people."""
    table = json.loads(traffic.COUNTS.read_text()) if traffic.COUNTS.exists() else {}
    table[source] = [{"layer": layer, "pass": pass_, **row} for (layer, pass_), row in rows.items()]
    table = {name: table[name] for name in sorted(table) if (KERNELS / name).exists()}
    files = ['"{}": [\n  {}\n ]'.format(name, ",\n  ".join(map(json.dumps, table[name]))) for name in table]
    traffic.COUNTS.write_text("{\n " + ",\n ".join(files) + "\n}\n")
    before, _, behind = split(source)
    (KERNELS / source).write_text("\n".join([*before, *note_of(rows), *behind]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only the files whose name contains this")
    parser.add_argument("--write", action="store_true", help="renew the table and the notes in csrc/kernels")
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    if not args.write:
        print(traffic.__doc__.split("\n\n")[1].strip())
    by_source: dict[str, list[Case]] = {}
    for case in all_cases():
        by_source.setdefault(case.source, []).append(case)
    for source, cases in by_source.items():
        if args.only not in source:
            continue
        rows = {(case.layer, case.what): counted(case) for case in cases}
        if args.write:
            write(source, rows)
        else:
            print("\n" + source, *traffic.lines_of(rows), sep="\n", flush=True)


if __name__ == "__main__":
    run(main)
