"""What each kernel asks of memory, counted by the simulator: the numbers in the notes on top of csrc/kernels/*.cu.

make kernel-notes                   prints them
make kernel-notes ARGS=--write      renews the notes

python -m convlab.check --columns   says how to read them
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

import convlab
from convlab import ops
from convlab.explain.counting import call_of, count_call
from convlab.testing import contracts, traffic
from convlab.testing.traffic import NAME_WIDTH, NOTE, digits

ROOT = Path(__file__).resolve().parent.parent

KERNELS = ROOT / "csrc" / "kernels"
PASSES = ("forward", "dgrad", "wgrad")


# ---- what is counted
# --------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """x [N, C, H, W], w [K, C/groups, R, S], stride 1"""

    x: tuple
    w: tuple
    padding: int = 0
    groups: int = 1

    def tensors(self):
        x, w = torch.randn(self.x), torch.randn(self.w)
        return x, w, torch.randn_like(torch.nn.functional.conv2d(x, w, padding=self.padding, groups=self.groups))

    @property
    def multiply_adds(self):
        (N, _, H, W), (K, C, R, S) = self.x, self.w
        return N * K * (H + 2 * self.padding - R + 1) * (W + 2 * self.padding - S + 1) * C * R * S


class Pooling(NamedTuple):
    """x [N, C, H, W]"""

    x: tuple
    kernel: int
    stride: int
    padding: int = 0


# Batches whose pixels are a multiple of 128: tiles at the edge, which load some elements once more, would blur the
# counts.
LAYERS = {
    "LeNet C3": Layer((32, 6, 14, 14), (16, 6, 5, 5)),
    "ResNet-20": Layer((1, 32, 16, 16), (32, 32, 3, 3), padding=1),  # its second stage
}
DEPTHWISE_LAYERS = {
    name: Layer((c.N, c.C, c.H, c.W), (c.K, c.C // c.groups, c.R, c.S), c.padding[0], c.groups)
    for name, c in contracts.DEPTHWISE_LAYERS.items()
}
MAX_POOLINGS = {
    "LeNet S2": Pooling((32, 6, 28, 28), 2, 2),
    "ResNet-50": Pooling((1, 8, 112, 112), 3, 2, 1),  # behind its first layer; 8 of the 64 planes
}
AVG_POOLINGS = {
    "LeNet S2": Pooling((32, 6, 28, 28), 2, 2),
    "ResNet-20": Pooling((32, 64, 8, 8), 8, 8),  # its last, over whole planes
}


class Case(NamedTuple):
    """A row of a note."""

    source: str  # the file whose note it belongs to
    layer: str
    what: str  # the pass
    run: Callable[[], object]  # calls the operator
    sizes: dict[str, int]  # bytes of the tensors that it reads and writes, by the simulator's names
    multiply_adds: int = 0


def problem_of(layer: Layer) -> convlab.Conv2dProblem:
    x, w, _ = layer.tensors()
    with convlab.simulate(check=False):  # as a problem of the CUDA backend
        return convlab.Conv2dProblem.of(x, w, padding=layer.padding, groups=layer.groups)


def sizes_of(**tensors) -> dict[str, int]:
    return {name: t.numel() * t.element_size() for name, t in tensors.items()}


def case_of(rung, name: str, layer: Layer, pass_: str) -> Case:
    """One pass of a convolution through a rung."""
    x, w, dy = layer.tensors()
    run = call_of(rung, problem_of(layer), pass_)
    return Case(
        f"conv2d_{rung.name}.cu",
        name,
        pass_,
        run,
        sizes_of(input=x, weight=w, grad_output=dy),
        layer.multiply_adds,
    )


def convolution_cases(layers) -> Iterator[Case]:
    for rung in convlab.algorithms():
        taken = {
            name: layer
            for name, layer in layers.items()
            if any(rung.supports(problem_of(layer), pass_)[0] for pass_ in PASSES)
        }
        for name, layer in (taken or DEPTHWISE_LAYERS).items():
            problem = problem_of(layer)
            yield from (case_of(rung, name, layer, pass_) for pass_ in PASSES if rung.supports(problem, pass_)[0])
    for name, layer in layers.items():
        dy = layer.tensors()[2]
        yield Case("conv2d_bias_grad.cu", name, "bias", partial(ops.conv2d_bias_grad, dy), sizes_of(grad_output=dy))


def pooling_cases() -> Iterator[Case]:
    for name, p in MAX_POOLINGS.items():
        x, window = torch.randn(p.x), ((p.kernel,) * 2, (p.stride,) * 2, (p.padding,) * 2, (1, 1))
        with convlab.simulate(check=False):
            y, offsets = ops.max_pool2d_forward(x, *window, False, True)
        dy, sizes = torch.randn_like(y), sizes_of(input=x, grad_output=y, offsets=offsets)
        yield Case("max_pool2d.cu", name, "forward", partial(ops.max_pool2d_forward, x, *window, False, True), sizes)
        yield Case(
            "max_pool2d.cu",
            name,
            "backward",
            partial(ops.max_pool2d_backward, dy, offsets, x.shape[2:], *window, False),
            sizes,
        )
    for name, p in AVG_POOLINGS.items():
        x, window = torch.randn(p.x), ((p.kernel,) * 2, (p.stride,) * 2, (p.padding,) * 2)
        with convlab.simulate(check=False):
            y = ops.avg_pool2d_forward(x, *window, False, True, 0)
        dy, sizes = torch.randn_like(y), sizes_of(input=x, grad_output=y)
        yield Case("avg_pool2d.cu", name, "forward", partial(ops.avg_pool2d_forward, x, *window, False, True, 0), sizes)
        yield Case(
            "avg_pool2d.cu",
            name,
            "backward",
            partial(ops.avg_pool2d_backward, dy, x.shape[2:], *window, True, 0, False),
            sizes,
        )


def activation_cases(layers) -> Iterator[Case]:
    for name, layer in layers.items():
        x = layer.tensors()[2]  # what the layer makes
        dy, sizes = torch.randn_like(x), sizes_of(input=x, grad_output=x, positive=x > 0)
        yield Case("leaky_relu.cu", name, "forward", partial(ops.leaky_relu_forward, x, 0.1, True), sizes)
        yield Case("leaky_relu.cu", name, "backward", partial(ops.leaky_relu_backward, dy, x > 0, 0.1), sizes)


def all_cases() -> list[Case]:
    torch.manual_seed(0)
    return [*convolution_cases(LAYERS), *pooling_cases(), *activation_cases(LAYERS)]


# ---- the numbers
# ------------------------------------------------------------------------------------------------------


def numbers_of(case: Case) -> dict[str, float]:
    """By column; those that have none, are left out."""
    return traffic.numbers_of(count_call(case.run).traffic, case.sizes, case.multiply_adds)


def table_of(cases: list[Case]) -> list[str]:
    """Lines of text: the columns that have numbers, a row for each case."""
    return traffic.table(
        {f"{case.layer:12}{case.what}": {c: digits(n) for c, n in numbers_of(case).items()} for case in cases},
        NAME_WIDTH,
    )


# ---- the notes
# --------------------------------------------------------------------------------------------------------


def split(source: str):
    """A kernel file's lines before the note, in it, and behind it."""
    lines = (KERNELS / source).read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("//"))
    begin = next((i for i in range(end) if lines[i].startswith(NOTE)), end)
    return lines[:begin], lines[begin:end], lines[end:]


def write(source: str, cases: list[Case]):
    before, _, behind = split(source)
    note = [NOTE, *("//   " + line for line in table_of(cases))]
    (KERNELS / source).write_text("\n".join([*before, *note, *behind]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only the files whose name contains this")
    parser.add_argument("--write", action="store_true", help="renew the notes in csrc/kernels")
    args = parser.parse_args()
    if not args.write:
        print(traffic.__doc__.split("\n\n")[1].strip())
    by_source: dict[str, list[Case]] = {}
    for case in all_cases():
        by_source.setdefault(case.source, []).append(case)
    for source, cases in by_source.items():
        if args.only in source and args.write:
            write(source, cases)
        elif args.only in source:
            print("\n" + source, *table_of(cases), sep="\n", flush=True)


if __name__ == "__main__":
    main()
