"""Times every tile of the warpgroup rung on a GPU, bfloat16 in channels_last, and whether it is right there.

python -m tools.warpgroup_tiles [resnet-128@64 ...]
"""

import sys

import torch

from convlab import ops
from convlab._algorithms import WITH_TILE, algorithms
from convlab._load import lab
from convlab.layers import find
from tools import run


def microseconds(call, times=50):
    for _ in range(5):
        call()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    best = 1e9
    for _ in range(5):
        start.record()
        for _ in range(times):
            call()
        stop.record()
        torch.cuda.synchronize()
        best = min(best, 1000 * start.elapsed_time(stop) / times)
    return best


def main():
    rungs = {a.name: a for a in algorithms()}
    names = sys.argv[1:] or ["resnet-128@64", "resnet-64@64", "resnet-512@64", "resnet-1x1@64"]
    for layer in map(find, names):
        geometry = layer.problem().geometry
        shapes = (layer.x, layer.w, layer.y)
        x, w, dy = (torch.randn(s).bfloat16().cuda().to(memory_format=torch.channels_last) for s in shapes)
        w /= w[0].numel() ** 0.5
        problem = layer.problem(torch.bfloat16)
        for pass_ in ("forward", "dgrad"):

            def ours(number, pass_=pass_):
                if pass_ == "forward":
                    return ops.conv2d_forward(x, w, None, geometry, number)
                return ops.conv2d_dgrad(dy, w, list(layer.x[2:]), geometry, True, number)

            numbers = {"tensor_core": rungs["tensor_core"].number, "warpgroup": rungs["warpgroup"].number}
            for tile in lab.tiles(rungs["warpgroup"].number, problem.doing(pass_)):
                numbers[f"warpgroup {tile}"] = rungs["warpgroup"].number + tile * WITH_TILE
            expected = ours(rungs["register_tiled"].number).float()
            for name, number in numbers.items():
                error = ((ours(number).float() - expected).abs().max() / expected.abs().max()).item()
                us = microseconds(lambda number=number: ours(number))
                print(
                    f"{layer.name:16} {pass_:8} {name:14} {us:8.1f} us {1e-6 * layer.flops / us:7.1f} TFLOP/s  "
                    f"error {error:.1e} {'' if error < 0.02 else 'WRONG'}",
                    flush=True,
                )
        if layer.problem().stride == (1, 1):
            conv = torch.nn.functional.conv2d
            us = microseconds(lambda: conv(x, w, None, layer.problem().stride, layer.problem().padding[:2]))
            print(f"{layer.name:16} forward  torch          {us:8.1f} us {1e-6 * layer.flops / us:7.1f} TFLOP/s")


if __name__ == "__main__":
    run(main)
