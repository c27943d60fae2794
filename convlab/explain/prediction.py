"""How long a launch will take: a model of time, made of what the simulator counted, what nvcc compiled and what a GPU's
maker publishes, with thirteen constants fitted to an H200's times (tools/prediction.py, docs/predict.md).

Each resource by itself would take so many cycles of the busiest multiprocessor:

issue    instructions, one a cycle and scheduler: trips of the loop in the machine code, as many as the counted requests
         of its loads and stores tell
fma      multiply-adds, on as many lanes as the multiprocessor has
tensor   instructions of the tensor cores, as fast as mma.sync is known to be, or as wgmma is published to be
l1       wavefronts of shared memory, and requests and sectors of global memory
l2       sectors that L1 misses, and all that are written
memory   the tensors once, and workspace that the L2 cache does not hold
latency  the blocks of a position one behind another, each as long as its warps take alone

They overlap, but not quite: together they take the p-norm of these, with another p in kernels on tensor cores, whose
blocks multiply a tile and bring the next between the same barriers.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from .._algorithms import Conv2dProblem
from ..gpus import GPUS, SUBPARTITIONS, WARP, Gpu
from ..layers import find
from ..simulator import TrafficTable
from .compiled import names_of, nearest, resources_of
from .sass import COPIES, LATENCIES, SHARED_LATENCY, Nest, Part, Profile

HERE = Path(__file__).parent
MEASURED_ON = "H200"
SECTOR = 32
STRAIGHT = 0.56  # of a kernel without loops, what a warp runs: the rest is for numbers of 64 bits, and edges
DEPENDENT = 3  # cycles of an instruction for indices, in a warp that is alone
LEFT_OVER = 1.15  # a copy for what is left over, against one of four
ANSWER = 25  # cycles from a load's answer to the next load, in such a copy
COPY, STORE = 9, 10  # instructions of an asynchronous copy by tables of positions, and of a store of sums
PAST_L1 = 128  # bytes: a warp's copies of more are of 16 a lane, past L1
MMA = 4096  # operations of an mma.sync of 16 bits; of tf32 half, in the same time
WGMMA = 512  # and a warp's of a wgmma, for each column of its tile
ROW = 128  # bytes of a row of a tile that a trip of such a loop multiplies
KEPT = 0.6  # of the L2 cache: a workspace of so much stays there; of a larger one, half


class Constants(NamedTuple):
    """Fitted: launch (microseconds before and behind all kernels of a pass); following (from one kernel's end to the next
    one's start); block (cycles until a block's loop
    runs); issue (of the schedulers' slots, what is used at best); request (cycles of L1 for a request to global memory)
    and wavefront (for one of shared memory); l2 (bytes a cycle and multiprocessor); memory (of the published bandwidth,
    what is had); outside (of the code outside of loops, what a warp runs); waits (a lone warp's cycles, against those
    that published latencies make); sharpness (p of the norm); tensor (of the tensor cores' rate, what is had) and together
    (p of the norm) in kernels on these."""

    launch: float
    following: float
    block: float
    issue: float
    request: float
    wavefront: float
    l2: float
    memory: float
    outside: float
    waits: float
    sharpness: float
    tensor: float
    together: float


class Asked(NamedTuple):
    """Of one piece of memory, by all launches of a kernel in a pass. cost: sectors, or wavefronts of shared memory."""

    kernel: str
    memory: str
    space: str
    access: str
    requests: int
    bytes: int
    cost: int
    missed: int


class Launched(NamedTuple):
    """As KernelLaunch, what of it takes time. shared: bytes a block in all."""

    kernel: str
    source: str
    blocks: int
    threads: int
    times: int
    registers: int
    shared: int


class Facts(NamedTuple):
    """Of a pass: bytes of its tensors by the simulator's names, and trips of the innermost loop of a kernel that goes
    tap by tap."""

    sizes: dict[str, int]
    trips: float


@dataclass(frozen=True)
class Prediction:
    """Modelled. by_resource: microseconds that each would take alone; without: what the pass would take if the longest
    of them took nothing."""

    microseconds: float
    by_resource: dict[str, float]
    without: float

    @property
    def bound_by(self) -> str:
        return max(self.by_resource, key=self.by_resource.get)


def asked_of(traffic: TrafficTable) -> list[Asked]:
    """The simulator's rows without the lines they come from."""
    sums: dict[tuple[str, str, str, str], list[int]] = {}
    for row in traffic:
        numbers = (row.requests, row.bytes, row.sectors + row.wavefronts, row.missed)
        key = (row.kernel, row.memory, row.space, row.access)
        sums[key] = [a + b for a, b in zip(sums.get(key, (0, 0, 0, 0)), numbers)]
    return [Asked(*key, *values) for key, values in sums.items()]


def facts_of(problem: Conv2dProblem, pass_: str, workspace: int) -> Facts:
    size = torch.empty((), dtype=problem.dtype).element_size()
    x, w, y = (size * math.prod(shape) for shape in (problem.x, problem.w, problem.y))
    sizes = {"input": x, "grad_input": x, "weight": w, "grad_weight": w, "output": y, "grad_output": y}
    trips = {
        "forward": problem.w[3],
        "dgrad": -(-problem.w[3] // problem.stride[1]),
        "wgrad": max(problem.y[2] * problem.y[3] / 256, 1),  # threads of direct's blocks
    }
    return Facts(sizes | {"workspace": workspace}, trips[pass_])


def predict(
    launches: Iterable[Launched],
    asked: Iterable[Asked],
    facts: Facts,
    gpu: Gpu,
    constants: Constants | None = None,
    code_of: Callable[[str, str, str], Profile | None] | None = None,
) -> Prediction | None:
    """Of a pass. code_of: machine code by kernel, source and compute capability, `profile_of` unless given. None where a
    kernel's is not known, or the GPU's rate of its products."""
    constants, code_of = constants or fitted(), code_of or profile_of
    by_kernel: dict[str, list[Launched]] = {}
    for launch in launches:
        by_kernel.setdefault(launch.kernel, []).append(launch)
    asked = list(asked)
    resources: dict[str, float] = {}
    kernels = []
    for kernel, group in by_kernel.items():
        machine_code = code_of(kernel, group[0].source, gpu.capability)
        tile = tile_of_products(kernel)
        if machine_code is None or (tile and not tile.rate(gpu)):
            return None
        rows = [row for row in asked if row.kernel == kernel]
        kernels += _times(machine_code, group, rows, facts, gpu, constants)
    resources["launches"] = constants.launch + constants.following * (sum(times for times, _ in kernels) - 1)
    for times, parts in kernels:
        for name, us in parts.items():
            resources[name] = resources.get(name, 0) + times * us
    longest = max(resources, key=resources.__getitem__)

    def total(without: str = "") -> float:
        working = sum(times * _together(parts | {without: 0}, constants) for times, parts in kernels)
        return working + resources["launches"] * (without != "launches")

    return Prediction(total(), resources, total(longest))


def _together(parts: dict[str, float], c: Constants) -> float:
    p = c.together if "tensor" in parts else c.sharpness
    return sum(us**p for us in parts.values()) ** (1 / p)


class ProductTile(NamedTuple):
    """Of a kernel on the tensor cores: M x N sums a block. `warps` together read so many rows of a tile a trip;
    operations: of an instruction of a warp."""

    M: int
    N: int
    warps: int
    rows: float
    operations: int
    wgmma: bool

    def rate(self, gpu: Gpu) -> float:
        return gpu.rate("float16") if self.wgmma else gpu.products


def tile_of_products(kernel: str) -> ProductTile | None:
    """None of another kernel."""
    if match := re.match(r"tensor_core_kernel<.*?WarpTile<(\d+), (\d+), \d+, (\d+), (\d+),", kernel):
        M, N, rows, columns = map(int, match.groups())
        return ProductTile(M, N, 1, rows + columns, MMA, False)
    form = r"warpgroup_(?:filter_(?:tf32_)?)?kernel<(?:\w+, )?(\w*)Tile<(\d+), (\d+),(?: \d+,){3} \d+(, true)?"
    if match := re.match(form, kernel):
        M, N = map(int, match.groups()[1:3])
        # A tile of B that is split in two is read by a third product, and to be split once by all warpgroups
        columns = N * (3 + 64 / M) if match.group(1) == "Split" or match.group(4) else N
        return ProductTile(M, N, 4, 64 + columns, WGMMA * N, True)
    return None


class _Sums(NamedTuple):
    """Of a kernel, over its launches."""

    warps: int
    reads: int  # requests
    sectors: int
    missed: int
    writes: int
    written: int  # sectors
    shared_bytes: int
    wavefronts: int
    shared_writes: int
    from_memory: float  # bytes
    to_memory: float
    past_l1: int  # requests of copies
    past_l1_sectors: int


def _sums(group, rows, facts: Facts, gpu: Gpu) -> _Sums:
    def total(space, reads, field):
        return sum(getattr(r, field) for r in rows if r.space == space and (r.access == "read") == reads)

    memory = {True: 0.0, False: 0.0}
    for row in rows:
        if row.space == "global":
            reads = row.access == "read"
            moved, size = SECTOR * (row.missed if reads else row.cost), facts.sizes.get(row.memory, 0)
            if row.memory == "workspace" and size:
                moved *= 0 if size < KEPT * gpu.l2 * 1e6 else 0.5
            memory[reads] += min(moved, size) if size and row.memory != "workspace" else moved
    copies = bool(tile_of_products(group[0].kernel))
    past = [r for r in rows if copies and r.space == "global" and r.access == "read" and r.bytes > PAST_L1 * r.requests]
    return _Sums(
        sum(one.blocks * one.times * -(-one.threads // WARP) for one in group),
        total("global", True, "requests"),
        total("global", True, "cost"),
        total("global", True, "missed"),
        total("global", False, "requests"),
        total("global", False, "cost"),
        total("shared", True, "bytes"),
        total("shared", True, "cost") + total("shared", False, "cost"),
        total("shared", False, "requests"),
        memory[True],
        memory[False],
        sum(r.requests for r in past),
        sum(r.cost for r in past),
    )


class _Run(NamedTuple):
    """Of all warps: instructions, multiply-adds, and cycles that they would take one by one for each of LATENCIES;
    loads a trip."""

    instructions: float
    multiply_adds: float
    cycles: tuple[float, ...]
    loads: int
    products: float = 0.0  # of the tensor cores


def _run_of_products(code: Profile, tile: ProductTile, blocks: int, rows: list[Asked], s: _Sums) -> _Run:
    """Of a kernel whose warps, or warpgroups, read their parts of a tile of A and B from dynamic shared memory each trip,
    and in the end the sums. Its loop has copies of 16 bytes and loops of single ones, of which each operand takes one."""
    body = code.main.body
    read = sum(r.bytes for r in rows if r.space == "shared" and r.access == "read" and "dynamic" in r.memory)
    times = tile.warps * (read - 4 * blocks * tile.M * tile.N) / (tile.rows * ROW)
    more = COPY * (s.past_l1 - times * body.global_loads) + STORE * s.writes
    single, one_by_one = code.fill.body if code.fill else Part(), 0.0
    if code.fill:
        one_by_one = (s.reads - s.past_l1) / single.global_loads
    return _Run(
        times * body.instructions + more + one_by_one * single.instructions,
        times * body.multiply_adds,
        tuple(times * c + more + one_by_one * each for c, each in zip(body.cycles, single.cycles)),
        0,  # loads that a warp waits for: two tiles are on their way
        times * body.tensor,
    )


def _run(nest: Nest, s: _Sums, trips: float) -> _Run:
    body = nest.body
    if body.shared_stores and body.shared_loads and nest.copies == 1:
        times = s.shared_writes / body.shared_stores
    elif body.shared_load_bytes:
        times = s.shared_bytes / (WARP * body.shared_load_bytes)
    elif body.global_loads:
        times = s.reads / body.global_loads
    else:
        times = s.warps
    if nest.copies == 1:
        cycles = tuple(times * c for c in body.cycles)
        return _Run(times * body.instructions, times * body.multiply_adds, cycles, body.global_loads)
    runs, fours, rest = times * COPIES / max(trips, 1), trips // COPIES, max(trips, 1) % COPIES
    each = body.instructions / COPIES * LEFT_OVER
    waits = [latency if body.global_loads else SHARED_LATENCY for latency in LATENCIES]
    cycles = tuple(
        runs * (DEPENDENT * nest.around + fours * c + rest * (wait + ANSWER)) for c, wait in zip(body.cycles, waits)
    )
    instructions = runs * (nest.around + fours * body.instructions + rest * each)
    return _Run(instructions, times * body.multiply_adds, cycles, body.global_loads)


def _times(code: Profile, group, rows, facts, gpu, c: Constants) -> list[tuple[int, dict[str, float]]]:
    """(times, microseconds by resource) of each launch of a kernel."""
    s = _sums(group, rows, facts, gpu)
    tile = tile_of_products(group[0].kernel)
    if tile:
        main = _run_of_products(code, tile, sum(one.blocks * one.times for one in group), rows, s)
    else:
        main = _run(code.main, s, facts.trips)
    instructions, multiply_adds, cycles, loads, products = main
    if not code.once.instructions and not code.fill:
        instructions, cycles = STRAIGHT * instructions, tuple(STRAIGHT * one for one in cycles)
    if code.fill and not tile:
        fill = _run(code.fill, s, 2)  # a block's threads go over a row of its tile in a step or two
        instructions, multiply_adds = instructions + fill.instructions, multiply_adds + fill.multiply_adds
        cycles, loads = tuple(map(sum, zip(cycles, fill.cycles))), fill.loads
    once = c.outside * code.once.instructions
    instructions += s.warps * once

    missed = min(s.missed / max(s.sectors, 1), 1)
    far = missed * min(s.from_memory / max(SECTOR * s.missed, 1), 1)
    some_missed, some_far = (1 - (1 - share) ** max(loads, 1) for share in (missed, far))  # of a trip's loads
    alone = cycles[0] + some_missed * (cycles[1] - cycles[0]) + some_far * (cycles[2] - cycles[1])
    block = c.waits * (alone / s.warps + DEPENDENT * once) + c.block

    all_blocks, found = sum(one.blocks * one.times for one in group), []
    for one in group:
        at_once = gpu.blocks_at_once(one.threads, one.registers, one.shared) or 1
        most = -(-one.blocks // gpu.sms)  # of the busiest multiprocessor
        schedulers = min(SUBPARTITIONS, min(at_once, most) * -(-one.threads // WARP))
        busiest, share = most / all_blocks, one.blocks / all_blocks
        # Copies past L1 only ask: their data passes its banks once, into shared memory, as wavefronts that are counted
        requests = max(s.reads + s.writes - s.past_l1, (s.sectors + s.written - s.past_l1_sectors) / 4)
        parts = {
            "issue": instructions * busiest / schedulers / c.issue,
            "fma": multiply_adds * busiest * WARP / gpu.lanes,
            "l1": busiest * (s.wavefronts * c.wavefront + c.request * requests) * 128 / gpu.l1,
            "l2": SECTOR * (s.missed + s.written) * share / gpu.sms / c.l2,
            "memory": (s.from_memory + s.to_memory) * share / (gpu.bandwidth * c.memory) * gpu.clock,
            "latency": max(1, most / at_once) * block,
        }
        if tile:
            parts["tensor"] = tile.operations * products * busiest * gpu.cycles / tile.rate(gpu) / c.tensor
        found.append((one.times, {name: value / (1e3 * gpu.clock) for name, value in parts.items()}))
    return found


# ---- what is kept in files ------------------------------------------------------------------------------------------


@functools.cache
def fitted() -> Constants:
    return Constants(**json.loads((HERE / "prediction.json").read_text())["constants"])


@functools.cache
def fitted_on() -> tuple[str, ...]:
    """Names of layers, without their batches."""
    return tuple(json.loads((HERE / "prediction.json").read_text())["fitted_on"])


class Row(NamedTuple):
    """Of the records: a pass through a rung, what it took on an H200 and what the simulator counted of it."""

    layer: str
    precision: str
    pass_: str
    rung: str  # with a tile's name, if it was not to choose one
    ladder: float | None  # microseconds, beside the other rungs
    auto: float | None  # and as the rung that "auto" takes, or with that tile
    workspace: int  # bytes
    one_block_in: int
    launches: tuple[tuple, ...]  # kernel, source, blocks, threads, dynamic shared bytes, times
    asked: tuple[Asked, ...]

    @property
    def measured(self) -> float:
        """Microseconds, the median, of inputs that no cache holds."""
        return self.ladder or self.auto


@functools.cache
def rows() -> list[Row]:
    loaded = json.loads((HERE / "measured-h200.json").read_text())
    return [Row(*row[:8], tuple(map(tuple, row[8])), tuple(Asked(*one) for one in row[9])) for row in loaded]


def ready(row: Row, gpu: Gpu = GPUS[MEASURED_ON]) -> tuple[list[Launched], Facts]:
    """What `predict` takes beside row.asked, on the GPU that was measured."""
    launches = []
    for kernel, source, blocks, threads, dynamic, times in row.launches:
        found = resources_of(kernel, source, gpu.capability)
        if found is None:
            raise LookupError(f"{kernel} of {source} is in no table of compiled kernels")
        launches.append(Launched(kernel, source, blocks, threads, times, found[0], found[1] + dynamic))
    return launches, facts_of(_problem(row), row.pass_, row.workspace)


def _problem(row: Row) -> Conv2dProblem:
    return find(row.layer).problem(torch.float32 if row.precision == "tf32" else getattr(torch, row.precision))


@functools.cache
def _measured() -> dict[tuple[Conv2dProblem, str, str, bool], float]:
    return {(_problem(row), row.pass_, row.rung, row.precision == "tf32"): row.measured for row in rows()}


def measured_us(problem: Conv2dProblem, pass_: str, rung: str, precision: str | None, gpu: Gpu) -> float | None:
    """Of the records, where they have it. precision: of products on tensor cores."""
    return _measured().get((problem, pass_, rung, precision == "tf32")) if gpu.name == MEASURED_ON else None


@functools.cache
def _profiles() -> dict[str, dict[str, Profile]]:
    def part(numbers):
        return Part(*numbers[:-1], tuple(numbers[-1]))

    def nest(numbers):
        return Nest(part(numbers[0]), *numbers[1:]) if numbers else None

    newest = max(HERE.glob("sass-*.json"), key=lambda path: tuple(map(int, re.findall(r"\d+", path.stem))))
    return {
        kernel: {arch: Profile(nest(p[0]), nest(p[1]), part(p[2])) for arch, p in by_arch.items()}
        for kernel, by_arch in json.loads(newest.read_text()).items()
    }


def profile_of(kernel: str, source: str, capability: str) -> Profile | None:
    """kernel, source: as the simulator names them. Of a GPU that nvcc was not asked to build for: what was built for
    the newest one before it, or the oldest there is."""
    for name in names_of(kernel, source):
        by_arch = _profiles().get(name.replace("> >", ">>"), {})
        if arch := nearest(by_arch, capability):
            return by_arch[arch]
    return None
