"""Running convlab's CUDA kernels without a GPU.

    with convlab.simulate() as sim:
        loss = model(x).sum()       # CPU tensors go through the CUDA kernels, thread by thread, checked
    loss.backward()                 # still: the backend is fixed at the forward call
    print(sim.launches)

Every CUDA thread is a fiber (csrc/simulator/). What a kernel does wrong is a RuntimeError that names the kernel's file
and line, the block and the thread.
"""

import itertools
import linecache
import os
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.utils._python_dispatch import TorchDispatchMode

from . import ops
from ._flops import count_flops, renew_counters
from ._load import lab as _lab
from ._when_imported import when_imported
from .gpus import H200, Gpu, gpu_of
from .libraries import FILES, fault, newer_sources

ORDERS = ("forward", "reverse", "random")
_PACKAGE = Path(__file__).parent
_is_compiling = torch.compiler.is_compiling


class Launch(NamedTuple):
    """One kernel launch. `source` is the kernel's file:line, `shared_bytes` what the block that used most had, static
    and dynamic (of launches_of(): dynamic only)."""

    kernel: str
    source: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int


class Traffic(NamedTuple):
    """What the accesses of one source line to one piece of memory ask for, over all launches.

    requests: of warps; bytes: that their threads asked for together. In global memory a request moves `sectors` of 32
    bytes, in shared memory it takes `wavefronts`, one if it is free of bank conflicts; the other of the two is 0.
    `ideal` is the least number of sectors or wavefronts that the same bytes could take. `apart`: how many bytes
    neighbouring threads are apart in most requests, where that was counted. `missed`: sectors read that an L1 cache which
    the block has to itself does not hold yet.
    """

    kernel: str
    kernel_source: str
    file: str
    line: int
    memory: str
    space: str
    access: str
    requests: int
    bytes: int
    sectors: int
    wavefronts: int
    ideal: int
    apart: int = 0
    missed: int = 0

    @property
    def source(self) -> str:
        """The text of the line; empty where the file is not at hand."""
        return source_line(self.file, self.line)


class TrafficTable(list[Traffic]):
    """Traffic rows that print as a table with the source lines quoted."""

    def __str__(self) -> str:
        return _table(self)

    __repr__ = __str__  # so that a Python shell shows it, too


class _Library:
    """A simulator library: operators torch.ops.convlab_sim.* or torch.ops.convlab_sim_check.*, and its controls."""

    def __init__(self, name: str):
        if reason := fault(name):
            raise RuntimeError(reason)
        if reason := newer_sources():
            warnings.warn(reason, stacklevel=2)
        path = _PACKAGE / FILES[name]
        torch.ops.load_library(path)
        self.controls = _lab.Simulator(str(path))
        namespace = getattr(torch.ops, f"convlab{name}")
        count_flops(namespace)
        self.twins = {op: getattr(namespace, op._schema.name.split("::")[1]).default for op in ops.ALL}


libraries: dict[str, _Library] = {}  # that this process has loaded; none as long as nothing was ever simulated
_loading = threading.Lock()
# a fork waits until no thread is loading one: its child would find the lock held for ever
os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)
_entered = (
    threading.local()
)  # .simulations: those whose blocks the thread is in, the innermost last; None where there is none again


def _library(check: bool) -> _Library:
    name = "_sim_check" if check else "_sim"
    with _loading:
        if name not in libraries:
            libraries[name] = _Library(name)
        return libraries[name]


def _redirected(
    mode: TorchDispatchMode, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> Any:
    """Hands convlab's operators on CPU tensors to the current simulation, if there is one; everything else goes its
    way."""
    simulation = current()
    twin = simulation and simulation._library.twins.get(func)
    if simulation is None or not twin:
        return func(*args, **(kwargs or {}))
    if any(not issubclass(kind, (FakeTensor, FunctionalTensor)) for kind in types):
        return NotImplemented  # tensors that hold others: their own __torch_dispatch__ comes back here with those
    if types or any(a.device.type != "cpu" for a in args if isinstance(a, torch.Tensor)):
        return func(*args, **(kwargs or {}))
    return simulation._run(twin, args, kwargs or {})


class _Redirect(TorchDispatchMode):
    __torch_dispatch__: Callable[..., Any] = _redirected

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # so says torch's compiler itself, below: torch would import it here, which takes three seconds


def _keep_compiler_out(dynamo: ModuleType) -> None:
    _Redirect.__torch_dispatch__ = dynamo.disable(_redirected)


when_imported("torch._dynamo", _keep_compiler_out)


class Simulation:
    """What `simulate()` yields: how it runs, and what it has seen. It stays readable after the block."""

    def __init__(
        self,
        order: str,
        seed: int,
        check: bool,
        count: bool,
        only_plan: bool = False,
        one_block_in: int = 1,
        multiprocessors: int = H200.sms,
        capability: int = H200.generation,
    ):
        self.order, self.seed, self.check, self.count = order, seed, check, count
        self.multiprocessors, self.capability = multiprocessors, capability  # of the GPU that launches are planned for
        self._library = _library(check)
        controls, number = self._library.controls, ORDERS.index(order)
        self._session = controls.open_session(number, seed, count, only_plan, one_block_in, multiprocessors, capability)
        weakref.finalize(self, controls.close_session, self._session)

    def __repr__(self) -> str:
        return f"<convlab simulation: order={self.order!r}, seed={self.seed}, check={self.check}, count={self.count}, {len(self.launches)} launches>"

    @property
    def launches(self) -> list[Launch]:
        """The launches so far, in their order."""
        return [Launch(*row) for row in self._library.controls.launches(self._session)]

    @property
    def traffic(self) -> TrafficTable:
        """The memory traffic so far, by source line. Raises RuntimeError unless the simulation counts."""
        if not self.count:
            raise RuntimeError("sim.traffic: this simulation does not count; use convlab.simulate(count=True)")
        rows = TrafficTable()
        for row in self._library.controls.traffic(self._session):
            *what, cost, ideal, missed = row
            sectors, wavefronts = (0, cost) if row[5] == "shared" else (cost, 0)
            rows.append(Traffic._make((*what, sectors, wavefronts, ideal, 0, missed)))
        return rows

    def _run(self, op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        controls = self._library.controls
        controls.set_os_threads(torch.get_num_threads())
        interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # or: somebody knows better
        before = controls.enter_session(self._session, interruptible)
        try:
            return op(*args, **kwargs)
        except RuntimeError:
            controls.raise_if_interrupted()
            raise
        finally:
            controls.enter_session(before, False)


def current() -> Simulation | None:
    """The simulation that convlab's functions called now, by this thread, go through."""
    simulations = getattr(_entered, "simulations", None)
    return simulations[-1] if simulations else None


def backend_of(t: torch.Tensor) -> str:
    """Whose kernels and algorithms convlab's functions use for a tensor: "cpu" or "cuda", or another device's type."""
    if t.is_cpu:
        return "cuda" if not _is_compiling() and libraries and current() else "cpu"
    return t.device.type


def multiprocessors_for(t: torch.Tensor) -> int:
    """Of the GPU that a tensor is on or is simulated for, an H200's elsewhere."""
    if t.device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(t.device).multi_processor_count
    simulation = current()
    return simulation.multiprocessors if simulation else H200.sms


def capability_for(t: torch.Tensor) -> int:
    """Ten times the compute capability of the GPU that a tensor is on or is simulated for, an H200's elsewhere."""
    if t.device.type == "cuda" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(t.device)
        return 10 * major + minor
    simulation = current()
    return simulation.capability if simulation else H200.generation


@contextmanager
def resumed(simulation: Simulation | None) -> Iterator[Simulation | None]:
    """Goes through `simulation` (None: through none) for the length of the block, as a backward does with what its
    forward had."""
    if not hasattr(_entered, "simulations"):
        _entered.simulations = []
    redirect = nullcontext() if _entered.simulations else _Redirect()  # one in a thread is enough
    _entered.simulations.append(simulation)
    try:
        with redirect:
            yield simulation
    finally:
        _entered.simulations.pop()


@contextmanager
def simulate(
    order: str = "random", seed: int = 0, check: bool = True, count: bool = False, gpu: "str | Gpu" = "H200"
) -> Iterator[Simulation]:
    """Inside the block, convlab's functions and modules on CPU tensors run the CUDA kernels, on the host, forward and
    backward.

    order: in which order the blocks of a grid run, and the threads of a block between two barriers: "forward",
    "reverse", or
        "random", which `seed` makes repeatable. A correct kernel gives the same result in each.
    check: report races, uninitialised reads, accesses out of bounds and undefined behaviour exactly, at a half to a
    sixth of
        the speed. Without it only what goes visibly wrong is reported: barrier divergence, deadlock, faults, wrong
        launches.
    count: collect `sim.traffic`. Counting needs the instrumented kernels, so it checks as well, whatever `check` says.
    gpu: whose launches these are, a name in convlab.gpus: tiles are chosen for its multiprocessors, and what is not for
        its compute capability is refused. Results have the same bits on all of them.

    Yields a Simulation with `.launches` and `.traffic`. What a kernel does wrong is a RuntimeError from the call that
    ran it.

    The backend is fixed at the forward call: a backward that runs after the block, or on another thread, is simulated
    too, and one inside the block of a forward outside it is not. Blocks nest, and the innermost counts. A block holds
    for the thread that entered it; several threads may simulate at once (checked launches take turns). A forked child
    goes on with a simulation of its own, which begins with what this one has seen; a fork waits for launches that run on
    other threads. CUDA tensors are not concerned. Functions compiled by torch.compile run eagerly inside the block.

    Tensor subclasses keep their types: those that hold other tensors are simulated where they call convlab with them.
    What runs no kernel of convlab's on a GPU makes no launch here: relu of integers, conv2d of an empty input, FakeTensor;
    and what a GPU has no kernels for raises NotImplementedError: integers elsewhere. Activation checkpointing computes
    again where the backward runs, inside the block or not. Ctrl-C ends a launch with KeyboardInterrupt, unless the
    program handles SIGINT itself.
    """
    if order not in ORDERS:
        raise ValueError(f"simulate: order={order!r} must be one of {', '.join(map(repr, ORDERS))}")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"simulate: seed={seed!r} must be an int in [0, 2^64)")
    of = gpu_of(gpu)
    simulation = Simulation(
        order, seed, bool(check or count), bool(count), multiprocessors=of.sms, capability=of.generation
    )
    renew_counters()
    with resumed(simulation):
        yield simulation


def launches_of(
    call: Callable[[], object], multiprocessors: int = H200.sms, capability: int = H200.generation
) -> list[Launch]:
    """The launches that `call()`, convlab's functions on CPU tensors, would make on a GPU with so many multiprocessors
    and ten times this compute capability: none runs, tensors are not looked at, outputs are left as they happen to be."""
    simulation = Simulation(
        "forward",
        0,
        check=False,
        count=False,
        only_plan=True,
        multiprocessors=multiprocessors,
        capability=capability,
    )
    with resumed(simulation):
        call()
    return simulation.launches


def traffic_of_a_sample(
    call: Callable[[], object],
    one_block_in: int,
    seed: int = 0,
    multiprocessors: int = H200.sms,
    capability: int = H200.generation,
) -> TrafficTable:
    """The memory traffic of `call()`, convlab's functions on CPU tensors, from a sample of the blocks that it launches: of
    so many of a kernel one runs, two at least, and they count for all. `seed` draws them.

    Tensors are not looked at, outputs are left as they happen to be, and neither need be in memory. Accesses are checked for
    bounds, not for races.
    """
    simulation = Simulation(
        "forward",
        seed,
        check=True,
        count=True,
        one_block_in=one_block_in,
        multiprocessors=multiprocessors,
        capability=capability,
    )
    with resumed(simulation):
        call()
    return simulation.traffic


# ---- tables ---------------------------------------------------------------------------------------------------------


def source_line(file: str, line: int) -> str:
    """A line of the sources that come with convlab, or of a file elsewhere; empty if it cannot be read."""
    for root in (_PACKAGE, _PACKAGE.parent, Path()):
        if text := linecache.getline(str(root / file), line):
            return text.strip()
    return ""


def _table(rows: Iterable[Traffic]) -> str:
    """A block of lines for each kernel: where, what, requests, bytes, the cost of a request against the ideal, the
    source."""
    lines = []
    for (source, kernel), of_kernel in itertools.groupby(rows, key=lambda r: (r.kernel_source, r.kernel)):
        group = list(of_kernel)
        places = [f"{Path(r.file).name}:{r.line}" for r in group]
        what = [f"{r.access} {r.space} {r.memory}" for r in group]
        place_width, what_width = max(map(len, places)), max(map(len, what))
        lines.append(f"{kernel}  ({source})")
        lines.append(
            f"  {'':{place_width}}  {'':{what_width}}  {'requests':>10}  {'bytes':>12}  {'each takes':>15}  {'ideal':>5}"
        )
        for r, place, access in zip(group, places, what):
            cost, unit = (r.wavefronts, "wavefronts") if r.space == "shared" else (r.sectors, "sectors")
            each = f"{cost / r.requests:.2f} {unit}"
            lines.append(
                f"  {place:{place_width}}  {access:{what_width}}  {r.requests:>10,}  {r.bytes:>12,}  {each:>15}  {r.ideal / r.requests:>5.2f}  {r.source}"
            )
        lines.append("")
    return "\n".join(lines[:-1]) or "no traffic"
