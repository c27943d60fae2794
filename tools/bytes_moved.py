"""What pooling, activations and blocks' endings cost beside the bytes that they move: schedulers' slots, sectors, launches.

    python -m tools.bytes_moved                 all, as convlab/_C.so has them
    python -m tools.bytes_moved --only max      those whose line begins so
    python -m tools.bytes_moved FILE ...        of other files with machine code: objects that nvcc made

For each GPU: instructions a byte, of the longest way through the machine code (a tensor is read or written once: bytes);
what issuing them takes of the time that memory takes for the bytes at the published rates; and how much of a copy's
speed a model expects, of issue, L1, L2 and memory together. sectors: of all requests, counted over a sample of the
blocks, against the least. A kernel that waits for its schedulers more than 0.7 of memory's time, or is expected to reach
less than 80 %, is marked, and the exit status is 1. Needs cuobjdump and nvdisasm, as tools.compiled_kernels.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

import convlab
from convlab import ops
from convlab.explain import prediction
from convlab.explain.compiled import LIBRARY, NoTools, names_of, nearest, resources, sass
from convlab.explain.prediction import Facts, Launched, asked_of, predict
from convlab.explain.sass import longest_way, without_loops
from convlab.gpus import GPUS, SUBPARTITIONS, WARP, Gpu
from convlab.simulator import Launch, TrafficTable, launches_of, traffic_of_a_sample
from tools import run

ON = ("A100", "H200")
MOST_ISSUE, LEAST_EXPECTED = 0.7, 0.8
COPY = 0.892  # of the published bandwidth, what a copy has: 4.28 of 4.8 TB/s on an H200
SAMPLE = 400  # of so many blocks one is counted
SHAPE = (64, 64, 112, 112)
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Case(NamedTuple):
    name: str
    layout: str
    dtype: torch.dtype
    call: Callable[[], object]
    tensors: tuple[torch.Tensor, ...]  # each is read or written once
    kernels: tuple[str, ...] = ("",)  # of the call's, those whose name begins so

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors)

    def __str__(self):
        return f"{self.name:26} {self.layout:13} {str(self.dtype).removeprefix('torch.'):8}"


def cases() -> Iterator[Case]:
    """Nothing is computed: their tensors are as they happen to be."""
    for dtype in DTYPES:
        for layout, memory_format in LAYOUTS.items():
            x = torch.empty(SHAPE, dtype=dtype).contiguous(memory_format=memory_format)
            last = layout == "channels_last"
            for size, pad in ((2, 0), (3, 1)):
                window, name = [size, size, 2, 2, pad, pad, 1, 1], f"{size}x{size}/2"
                y = torch.empty(*SHAPE[:2], 56, 56, dtype=dtype).contiguous(memory_format=memory_format)
                offsets = torch.empty(y.shape, dtype=torch.uint8).contiguous(memory_format=memory_format)

                def forward(x=x, window=window):
                    return ops.max_pool2d_forward(x, window, False, True)

                def backward(y=y, offsets=offsets, window=window, last=last):
                    return ops.max_pool2d_backward(y, offsets, SHAPE[2:], window, last)

                yield Case(f"max pooling {name} forward", layout, dtype, forward, (x, y, offsets))
                yield Case(f"max pooling {name} backward", layout, dtype, backward, (y, offsets, x))
                if size == 2:

                    def average(x=x, window=window):
                        return ops.avg_pool2d_forward(x, window, False, True, 0)

                    def average_backward(y=y, window=window, last=last):
                        return ops.avg_pool2d_backward(y, SHAPE[2:], window, True, 0, last)

                    yield Case(f"avg pooling {name} forward", layout, dtype, average, (x, y))
                    yield Case(f"avg pooling {name} backward", layout, dtype, average_backward, (y, x))
            if last:
                continue  # activations go over tensors as they lie
            kept = torch.empty(x.numel() // 8, dtype=torch.uint8)
            yield Case(
                "leaky_relu forward", "any", dtype, lambda x=x: ops.leaky_relu_forward(x, 0.1, True, True), (x, x, kept)
            )
            yield Case(
                "leaky_relu backward",
                "any",
                dtype,
                lambda x=x, k=kept: ops.leaky_relu_backward(x, k, 0.1),
                (x, kept, x),
            )
            yield from endings(dtype)
            yield Case("relu forward", "any", dtype, lambda x=x: ops.relu_forward(x), (x, x))
            yield Case("relu backward", "any", dtype, lambda x=x: ops.relu_backward(x, x), (x, x, x))


def endings(dtype: torch.dtype) -> Iterator[Case]:
    """What a block does beside its convolution, which here has a rung without an epilogue."""
    algo = next(a.number for a in convlab.algorithms() if a.name == "depthwise")
    x, w, geometry = (
        torch.empty(SHAPE, dtype=dtype),
        torch.empty(64, 1, 3, 3, dtype=dtype),
        (1, 1, 1, 1, 1, 1, 1, 1, 64),
    )
    for activation, size in (("leaky_relu", 2), ("relu", 2), ("leaky_relu", 1)):
        ending = (ops.ACTIVATIONS[activation], size, size)
        y = torch.empty(*SHAPE[:2], 112 // size, 112 // size, dtype=dtype)
        winners = torch.empty(y.shape, dtype=torch.uint8)

        def forward(ending=ending):
            return ops.conv2d_block_forward(x, w, None, geometry, ending, 0.1, True, algo)

        def backward(ending=ending, y=y, winners=winners):
            none = False, False, False
            return ops.conv2d_block_backward(
                y, winners, None, w, SHAPE[2:], (3, 3), geometry, ending, 0.1, *none, (algo, 0)
            )

        name = f"{activation} {size}x{size}"
        yield Case(f"block {name} forward", "NCHW", dtype, forward, (x, y, winners), ("finish", "unary"))
        if activation == "leaky_relu":  # relu differs in a launch's argument
            yield Case(f"block {name} backward", "NCHW", dtype, backward, (y, winners, x), ("spread", "binary"))


class Code:
    """Kernels' resources and lines, by architecture."""

    def __init__(self, used: dict[str, dict], lines: dict[str, dict[str, list[str]]]):
        self.resources = {arch: _plain(kernels) for arch, kernels in used.items()}
        self.sass = {arch: _plain(kernels) for arch, kernels in lines.items()}

    @classmethod
    def of_files(cls, files: list[Path]) -> "Code":
        used: dict[str, dict] = {}
        lines: dict[str, dict[str, list[str]]] = {}
        for file in files:
            found = resources(file)
            for arch, kernels in found.items():
                used.setdefault(arch, {}).update(kernels)
            for arch in {nearest(found, GPUS[name].capability) for name in ON} - {None}:
                lines.setdefault(arch, {}).update(sass(file, arch))
        return cls(used, lines)

    def of(self, launch: Launch, gpu: Gpu):
        """(lines, resources) for a GPU; None if these files have no such kernel."""
        arch = nearest(self.sass, gpu.capability)
        for name in names_of(launch.kernel, launch.source):
            name = _plain_name(name)
            if arch and name in self.sass[arch]:
                return self.sass[arch][name], self.resources[arch][name]
        return None


def _plain_name(kernel: str) -> str:
    return kernel.replace("> >", ">>")


def _plain(kernels):
    return {_plain_name(name): value for name, value in kernels.items()}


class Cost(NamedTuple):
    """On one GPU."""

    a_byte: float  # instructions of a thread
    issue: float  # the time that these take over the time that the bytes take
    expected: float  # of a copy's speed

    @property
    def holds(self) -> bool:
        return self.issue <= MOST_ISSUE and self.expected >= LEAST_EXPECTED


def cost_of(case: Case, launch: Launch, asked, code: Code, gpu: Gpu) -> Cost | None:
    found = code.of(launch, gpu)
    if found is None:
        return None
    lines, used = found
    blocks, threads = (x * y * z for x, y, z in (launch.grid, launch.block))
    instructions = blocks * -(-threads // WARP) * longest_way(lines)
    issue = instructions / (SUBPARTITIONS * gpu.cycles)
    constants = prediction.fitted()._replace(memory=COPY)
    memory = case.bytes / (1e9 * gpu.bandwidth)
    launched = Launched(launch.kernel, launch.source, blocks, threads, 1, used.registers, used.shared)
    by_resource = predict([launched], asked, Facts({}, 1), gpu, constants, lambda *_: without_loops(lines)).by_resource
    parts = {"issue": 1e6 * issue / constants.issue, "memory": 1e6 * memory / COPY}
    parts |= {name: by_resource[name] for name in ("l1", "l2", "latency")}
    together = sum(us**constants.sharpness for us in parts.values()) ** (1 / constants.sharpness)
    return Cost(instructions * WARP / case.bytes, issue / memory, parts["memory"] / together)


class Row(NamedTuple):
    case: Case
    launches: int
    sectors: float  # over the least
    costs: dict[str, Cost | None]  # by GPU

    @property
    def holds(self) -> bool:
        return self.launches == 1 and all(cost is None or cost.holds for cost in self.costs.values())

    def __str__(self):
        text = f"{self.case} {self.launches:4}  {self.sectors:7.2f} "
        for cost in self.costs.values():
            text += f"  {cost.a_byte:5.2f} {cost.issue:5.2f} {cost.expected:5.0%}" if cost else "      -     -     -"
        return text + ("" if self.holds else "   *")


def rows(code: Code, only: str = "") -> Iterator[Row]:
    for case in cases():
        if not case.name.startswith(only):
            continue
        launches = [launch for launch in launches_of(case.call) if launch.kernel.startswith(case.kernels)]
        traffic = traffic_of_a_sample(case.call, SAMPLE)
        traffic = TrafficTable(row for row in traffic if row.kernel.startswith(case.kernels))
        sectors = 32 * sum(row.sectors for row in traffic) / case.bytes
        asked = asked_of(traffic)
        costs = {name: cost_of(case, launches[0], asked, code, GPUS[name]) for name in ON}
        yield Row(case, len(launches), sectors, costs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[LIBRARY])
    parser.add_argument("--only", default="", help="those whose line begins so")
    args = parser.parse_args()
    try:
        code = Code.of_files(args.files)
    except NoTools as error:
        sys.exit(f"bytes_moved: {error}")
    print(f"{'':49} {'':14} " + "  ".join(f"{name + ':':17}" for name in ON))
    print(f"{'':49} launches sectors" + "   a byte issue speed" * len(ON))
    held = True
    for row in rows(code, args.only):
        print(row, flush=True)
        held &= row.holds
    sys.exit(not held)


if __name__ == "__main__":
    run(main)
