"""One pass of a convolution through one rung: planned (its launches, without running them) or run in the simulator and
counted."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .. import ops
from .._algorithms import Algorithm, Conv2dProblem, as_switched
from ..simulator import Launch, TrafficTable, launches_of, simulate, traffic_of_a_sample

MEMORIES = {
    "input": "x",
    "weight": "w",
    "grad_output": "dy",
    "output": "y",
    "grad_input": "dx",
    "grad_weight": "dw",
}  # the simulator's names
COUNTED_FLOPS = 6e6  # of a pass: what a second or two can count


def call_of(algorithm: Algorithm | None, problem: Conv2dProblem, pass_: str, make=torch.randn) -> Callable:
    """A function that runs the pass, by "auto" without an algorithm, on tensors that `make(shape, dtype=)` made;
    without a bias."""
    (number,) = as_switched((algorithm.number if algorithm else 0,), "cuda", problem.dtype)
    make_ = {
        name: make(shape, dtype=problem.dtype) for name, shape in (("x", problem.x), ("w", problem.w), ("y", problem.y))
    }
    x, w, dy = make_["x"], make_["w"], make_["y"]
    return {
        "forward": lambda: ops.conv2d_forward(x, w, None, problem.geometry, number),
        "dgrad": lambda: ops.conv2d_dgrad(dy, w, list(problem.x[2:]), problem.geometry, False, number),
        "wgrad": lambda: ops.conv2d_wgrad(dy, x, list(problem.w[2:]), problem.geometry, False, False, number),
    }[pass_]


def planned_launches(algorithm: Algorithm | None, problem: Conv2dProblem, pass_: str) -> list[Launch]:
    """The launches of a pass in their order. Nothing runs, so `shared_bytes` is what a launch asks for, without what is
    static."""
    call = call_of(algorithm, problem, pass_, torch.empty)
    return launches_of(call, problem.multiprocessors, problem.capability)


@dataclass(frozen=True)
class Counted:
    """What the simulator counted while a pass ran.

    traffic: by source line, of all blocks; `print` shows it as a table. one_block_in: of so many blocks of a kernel one
    ran, and stands for the others.
    """

    traffic: TrafficTable
    one_block_in: int = 1

    def requested(self, memory: str, access: str = "read") -> int:
        """Bytes that threads ask for, in a tensor by the simulator's name for it (MEMORIES) or in the workspace."""
        return sum(row.bytes for row in self.traffic if row.memory == memory and row.access == access)

    @property
    def requested_by_tensor(self) -> dict[str, int]:
        """Bytes read or written in global memory, by tensor (x, w, y, dy ...) and "workspace"."""
        sums: dict[str, int] = {}
        for row in self._in("global"):
            name = MEMORIES.get(row.memory, row.memory)
            sums[name] = sums.get(name, 0) + row.bytes
        return sums

    @property
    def global_bytes(self) -> int:
        """Bytes that threads ask for in global memory, read and written."""
        return sum(row.bytes for row in self._in("global"))

    @property
    def sectors(self) -> int:
        """Sectors of 32 bytes that these take."""
        return sum(row.sectors for row in self._in("global"))

    @property
    def sectors_a_request(self) -> float:
        """Of a warp's access to global memory."""
        return self.sectors / max(sum(row.requests for row in self._in("global")), 1)

    @property
    def least_sectors_a_request(self) -> float:
        """What the same bytes could do with."""
        return sum(row.ideal for row in self._in("global")) / max(sum(row.requests for row in self._in("global")), 1)

    @property
    def wavefronts(self) -> int:
        """Of shared memory."""
        return sum(row.wavefronts for row in self._in("shared"))

    @property
    def shared_bytes_read(self) -> int:
        """That threads ask for, of shared memory."""
        return sum(row.bytes for row in self._in("shared") if row.access == "read")

    @property
    def conflicts(self) -> float | None:
        """Wavefronts of shared memory over the least that the same bytes could take: 1 is free of bank conflicts. None
        without shared memory."""
        ideal = sum(row.ideal for row in self._in("shared"))
        return self.wavefronts / ideal if ideal else None

    def _in(self, space):
        return (row for row in self.traffic if row.space == space)


def count(algorithm: Algorithm, problem: Conv2dProblem, pass_: str, one_block_in: int = 1) -> Counted:
    """Runs the pass in the simulator, or as many blocks of each of its launches."""
    make = torch.randn if one_block_in == 1 else torch.empty
    call = call_of(algorithm, problem, pass_, make)
    gpu = {"multiprocessors": problem.multiprocessors, "capability": problem.capability}
    traffic = traffic_of_a_sample(call, one_block_in, **gpu)
    return Counted(traffic, one_block_in)


def count_call(call: Callable) -> Counted:
    """Runs any of convlab's functions on CPU tensors in the simulator."""
    with simulate(count=True) as sim:
        call()
    return Counted(sim.traffic)


def countable(flops: int) -> int:
    """One block in how many is quickly counted of a pass that takes so many operations."""
    return max(math.ceil(flops / COUNTED_FLOPS), 1)
