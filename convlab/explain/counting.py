"""One pass of a convolution through one rung: planned (its launches, without running them) or run in the simulator and
counted."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .. import ops
from ..algorithms import Algorithm, Conv2dProblem
from ..simulator import Launch, TrafficTable, launches_of, simulate

MEMORIES = {
    "input": "x",
    "weight": "w",
    "grad_output": "dy",
    "output": "y",
    "grad_input": "dx",
    "grad_weight": "dw",
}  # the simulator's names
COUNTED_FLOPS = 30e6  # of a pass: what a second or two can count


def call_of(algorithm: Algorithm | None, problem: Conv2dProblem, pass_: str, make=torch.randn) -> Callable:
    """A function that runs the pass, by "auto" without an algorithm, on tensors that `make(shape, dtype=)` made;
    without a bias."""
    number = algorithm.number if algorithm else 0
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
    return launches_of(call_of(algorithm, problem, pass_, torch.empty))


@dataclass(frozen=True)
class Counted:
    """What the simulator counted while a pass ran.

    traffic: by source line; `print` shows it as a table. batch: of the convolution that ran, which may be smaller than
    that explained.
    """

    traffic: TrafficTable
    batch: int = 0

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


def count(algorithm: Algorithm, problem: Conv2dProblem, pass_: str) -> Counted:
    """Runs the pass in the simulator."""
    return count_call(call_of(algorithm, problem, pass_), problem.x[0])


def count_call(call: Callable, batch: int = 0) -> Counted:
    """Runs any of convlab's functions on CPU tensors in the simulator."""
    with simulate(count=True) as sim:
        call()
    return Counted(sim.traffic, batch)


def with_batch(problem: Conv2dProblem, N: int) -> Conv2dProblem:
    """The same convolution of N images."""
    return replace(problem, x=(N, *problem.x[1:]), y=(N, *problem.y[1:]))


def countable(problem: Conv2dProblem, flops: int) -> Conv2dProblem:
    """The problem with as much of its batch as is quickly counted; `flops` is what a pass of it takes. A power of two,
    or all."""
    N = problem.x[0]
    fit = max(int(COUNTED_FLOPS * N / max(flops, 1)), 1)
    return problem if fit >= N else with_batch(problem, 1 << (fit.bit_length() - 1))
