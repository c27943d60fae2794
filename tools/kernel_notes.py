"""What each rung of the ladder asks of memory, counted by the simulator: the numbers behind the notes on top of csrc/kernels.

    make kernel-notes

reads of x, w, y   bytes that threads ask for, over the tensor's own: how often each element is requested (y stands for dy, too)
workspace          bytes read and written there, over those of x, w and y together
sectors            of 32 bytes, moved by a request of a warp to global memory; behind it the least that the same bytes could take
conflicts          wavefronts of shared memory over the least that the same bytes could take: 1 is free of bank conflicts
shared             bytes of shared memory read for each multiply-add
"""
import argparse
import math
import sys
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
import torch  # noqa: E402

import convlab  # noqa: E402
from convlab import ops  # noqa: E402

PASSES = ("forward", "dgrad", "wgrad")


class Layer(NamedTuple):
    """x [N, C, H, W], w [K, C, R, S], stride 1"""
    x: tuple
    w: tuple
    padding: int = 0

    def tensors(self):
        x, w = torch.randn(self.x), torch.randn(self.w)
        return x, w, torch.randn_like(torch.nn.functional.conv2d(x, w, padding=self.padding))

    @property
    def multiply_adds(self):
        (N, _, H, W), (K, C, R, S) = self.x, self.w
        return N * K * (H + 2 * self.padding - R + 1) * (W + 2 * self.padding - S + 1) * C * R * S


# Batches whose pixels are a multiple of 128: tiles at the edge, which load some elements once more, would blur the counts.
LAYERS = {
    "LeNet C3": Layer((32, 6, 14, 14), (16, 6, 5, 5)),
    "ResNet-20, second stage": Layer((1, 32, 16, 16), (32, 32, 3, 3), padding=1),
}


def problem_of(layer: Layer) -> convlab.Conv2dProblem:
    x, w, _ = layer.tensors()
    with convlab.simulate(check=False):  # as a problem of the CUDA backend
        return convlab.Conv2dProblem.of(x, w, padding=layer.padding)


def run_counted(rung, layer: Layer, pass_: str):
    """The traffic of one pass through a rung."""
    x, w, dy = layer.tensors()
    arguments = ((1, 1), (layer.padding,) * 4, (1, 1), 1, rung.number)
    with convlab.simulate(count=True) as sim:
        if pass_ == "forward":
            ops.conv2d_forward(x, w, None, *arguments)
        elif pass_ == "dgrad":
            ops.conv2d_dgrad(dy, w, x.shape[2:], *arguments)
        else:
            ops.conv2d_wgrad(dy, x, w.shape[2:], *arguments[:-1], False, rung.number)
    return sim.traffic


def supported(layer: Layer):
    """(rung, pass) that can do the layer."""
    problem = problem_of(layer)
    for rung in convlab.algorithms():
        for pass_ in PASSES:
            if rung.supports(problem, pass_)[0]:
                yield rung, pass_


def requested(traffic, memory: str) -> int:
    """Bytes that reads of a tensor ask for."""
    return sum(row.bytes for row in traffic if row.memory == memory and row.access == "read")


def row_of(traffic, layer: Layer):
    x, w, dy = (t.numel() * 4 for t in layer.tensors())
    in_global = [r for r in traffic if r.space == "global"]
    in_shared = [r for r in traffic if r.space == "shared"]
    total = lambda rows, field: sum(getattr(r, field) for r in rows)  # noqa: E731
    requests, ideal = total(in_global, "requests"), total(in_shared, "ideal")
    return [
        requested(traffic, "input") / x,
        requested(traffic, "weight") / w,
        requested(traffic, "grad_output") / dy,
        total([r for r in in_global if r.memory == "workspace"], "bytes") / (x + w + dy),
        total(in_global, "sectors") / requests,
        total(in_global, "ideal") / requests,
        total(in_shared, "wavefronts") / ideal if ideal else math.nan,
        total([r for r in in_shared if r.access == "read"], "bytes") / layer.multiply_adds,
    ]


HEADER = ("reads of x", "of w", "of y", "workspace", "sectors", "ideal", "conflicts", "shared")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rung", help="only this algorithm")
    args = parser.parse_args()
    print(__doc__.split("make kernel-notes")[1].strip())
    for name, layer in LAYERS.items():
        print(f"\n{name}: x {list(layer.x)}, w {list(layer.w)}, {layer.multiply_adds:,} multiply-adds")
        print(f"{'':24}" + "".join(f"{title:>11}" for title in HEADER))
        for rung, pass_ in supported(layer):
            if args.rung in (None, rung.name):
                cells = row_of(run_counted(rung, layer, pass_), layer)
                texts = ["" if math.isnan(cell) or not cell else f"{cell:.2f}" for cell in cells]
                print(f"{rung.name:15}{pass_:9}" + "".join(f"{text:>11}" for text in texts), flush=True)


if __name__ == "__main__":
    main()
