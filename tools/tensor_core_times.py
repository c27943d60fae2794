"""How long the tensor_core rung will take, by the model of convlab/explain/prediction.py.

python -m tools.tensor_core_times                      every layer of the GPU benchmark, on an H200
python -m tools.tensor_core_times resnet-64@64         some
python -m tools.tensor_core_times --precision tf32 --layout nchw --gpu A100
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import torch

from convlab import ops
from convlab._algorithms import WITH_TF32, algorithms
from convlab.explain.compiled import resources_of
from convlab.explain.counting import countable
from convlab.explain.prediction import Launched, Prediction, asked_of, facts_of, predict
from convlab.gpus import GPUS, Gpu
from convlab.layers import GPU_CONVOLUTIONS, Conv, find
from convlab.simulator import launches_of, traffic_of_a_sample
from tools import run

RUNG = next(a for a in algorithms() if a.name == "tensor_core")
PASSES = ("forward", "dgrad", "wgrad")
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


class Kind(NamedTuple):
    """An element type, whether float32 may be rounded to TF32, and operations of the tensor cores for one of the
    convolution's, in the time of a float16 one."""

    dtype: torch.dtype
    tf32: bool
    cost: int


KINDS = {
    "float16": Kind(torch.float16, False, 1),
    "bfloat16": Kind(torch.bfloat16, False, 1),
    "tf32": Kind(torch.float32, True, 2),
    "3xtf32": Kind(torch.float32, False, 6),
}


class Time(NamedTuple):
    """tflops: of the definition. share: of what mma.sync can do in this precision."""

    prediction: Prediction
    tflops: float
    share: float


def predicted(layer: Conv, pass_: str, precision: str, layout: str, gpu: Gpu) -> Time:
    kind, geometry = KINDS[precision], layer.problem().geometry
    x, w, y = (torch.empty(s, dtype=kind.dtype).to(memory_format=LAYOUTS[layout]) for s in (layer.x, layer.w, layer.y))
    number, last = RUNG.number + (WITH_TF32 if kind.tf32 else 0), layout == "channels_last"

    def call():
        if pass_ == "forward":
            return ops.conv2d_forward(x, w, None, geometry, number)
        if pass_ == "dgrad":
            return ops.conv2d_dgrad(y, w, list(layer.x[2:]), geometry, last, number)
        return ops.conv2d_wgrad(y, x, list(layer.w[2:]), geometry, False, last, number)

    times = Counter((o.kernel, o.source, prod(o.grid), prod(o.block), o.shared_bytes) for o in launches_of(call))
    launches = []
    for (kernel, source, blocks, threads, dynamic), n in times.items():
        registers, static, _ = resources_of(kernel, source, gpu.capability)
        launches.append(Launched(kernel, source, blocks, threads, n, registers, static + dynamic))
    problem = layer.problem(kind.dtype)
    facts = facts_of(problem, pass_, RUNG.plan(problem, pass_)["workspace"])
    found = predict(launches, asked_of(traffic_of_a_sample(call, countable(layer.flops))), facts, gpu)
    tflops = 1e-6 * layer.flops / found.microseconds
    return Time(found, tflops, 1e12 * tflops * kind.cost / gpu.products)


def table(layers, precisions, layouts, gpu: Gpu) -> Iterator[str]:
    for layer in layers:
        for precision in precisions:
            for layout in layouts:
                for pass_ in PASSES:
                    if RUNG.supports(layer.problem(KINDS[precision].dtype), pass_)[0]:
                        time = predicted(layer, pass_, precision, layout, gpu)
                        others = sorted(time.prediction.by_resource.items(), key=lambda one: -one[1])[:3]
                        bounds = ", ".join(f"{name} {us:,.1f}" for name, us in others)
                        yield (
                            f"{layer.name:18} {precision:9} {layout:14} {pass_:8}{time.prediction.microseconds:10,.1f} us"
                            f"{time.tflops:8,.1f} TFLOP/s {time.share:5.0%} of mma.sync   {bounds}"
                        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", type=find)
    parser.add_argument("--precision", choices=KINDS, action="append")
    parser.add_argument("--layout", choices=LAYOUTS, action="append")
    parser.add_argument("--gpu", choices=[g.name for g in GPUS.values() if g.products], default="H200")
    args = parser.parse_args()
    for line in table(args.layers or GPU_CONVOLUTIONS, args.precision or KINDS, args.layout or LAYOUTS, GPUS[args.gpu]):
        print(line, flush=True)


if __name__ == "__main__":
    run(main)
