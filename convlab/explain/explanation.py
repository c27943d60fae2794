"""What a convolution's kernels will do, as data: explain() puts it together, text.py and plot.py show it."""

import dataclasses
import functools
import math
from dataclasses import dataclass

import torch

from .._algorithms import PASSES, Algorithm, Conv2dProblem, algorithms, names_of
from .._near import did_you_mean
from ..gpus import H200, SUBPARTITIONS, WARP, Gpu, Waves, gpu_of, waves_of
from ..layers import TRANSPOSED, Conv, find
from .compiled import resources_of
from .counting import Counted, countable, planned_launches
from .counting import count as count_pass
from .multiplied import Multiplied, multiplied
from .picture import Picture, picture_of
from .prediction import Launched, Prediction, asked_of, facts_of, measured_us, predict
from .work import Work, work_of

# Bytes that the L1 caches move for a sector of global memory, and for a wavefront of shared memory.
SECTOR, WAVEFRONT = 32, 128
# Of the simulator's wavefronts, what an H200 counts at least: nvcc makes one load of several where it can, which the
# simulator cannot know; and of the kernels for tensor cores, whose tiles come by asynchronous copies.
SURE_OF_WAVEFRONTS, SURE_OF_COPIES = 0.89, 0.74

DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # whose sums the kernels make with float32's multiply-adds


@dataclass(frozen=True)
class KernelLaunch:
    """A kernel as a pass launches it, `times` in a row.

    grid and block are decided from the shapes. registers (a thread) and shared (bytes a block) are the compiler's;
    `compiled` says where they come from, and all three are None where that is not known. waves is a model of the GPU,
    None without registers or where no block fits.
    """

    kernel: str
    source: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    times: int
    registers: int | None
    shared: int | None
    compiled: str | None
    waves: Waves | None

    @property
    def blocks(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.block[0] * self.block[1] * self.block[2]


@dataclass(frozen=True)
class Bound:
    """Microseconds that each resource takes at its published rate, by name; the longest is the roof.

    "memory": the least bytes; "arithmetic": the products of a convolution done tap by tap (Winograd's needs fewer), on
    the tensor cores in this precision (Algorithm.plan), or, where it is None, as float32's multiply-adds; of a rung
    besides "caches": what was counted, sectors of global memory and wavefronts of shared memory, through the
    multiprocessors' L1 caches.
    """

    by_resource: dict[str, float]
    precision: str | None = None

    @property
    def roof(self) -> str:
        return max(self.by_resource, key=self.by_resource.get)

    @property
    def microseconds(self) -> float:
        return max(self.by_resource.values())


@dataclass(frozen=True)
class Rung:
    """One algorithm for one pass. refused: why it cannot do it, else "".

    Modelled: plan (Algorithm.plan), picture, launches, wasted (the share of threads, or of places in tiles, that falls
    over edges; None where the plan does not say). Counted, if asked for: counted. Modelled from the counts:
    through_caches, bytes that go at least through the multiprocessors' L1 caches or shared memory; bound (bound_us), a
    time that this rung cannot beat on the GPU; prediction (predicted_us and bound_by, the resource that takes longest), None where
    nvcc's table does not have a kernel. floor_us: what nobody can beat who does it tap by tap and multiplies in the
    rung's precision. measured_us: what the record has of an H200, for a layer with a name there.
    """

    algorithm: str
    technique: str
    refused: str
    plan: dict | None = None
    picture: Picture | None = None
    launches: tuple[KernelLaunch, ...] = ()
    wasted: float | None = None
    counted: Counted | None = None
    through_caches: float | None = None
    bound: Bound | None = None
    prediction: Prediction | None = None
    floor_us: float | None = None
    measured_us: float | None = None

    @property
    def predicted_us(self) -> float | None:
        return self.prediction.microseconds if self.prediction else None

    @property
    def bound_us(self) -> float | None:
        return self.bound.microseconds if self.bound else None

    @property
    def bound_by(self) -> str | None:
        return self.prediction.bound_by if self.prediction else None


@dataclass(frozen=True)
class CpuRung:
    """One algorithm of this machine's CPU for one pass. refused: why it cannot do it, else ""; plan: Algorithm.plan;
    multiplied: of Winograd's, what it saves."""

    algorithm: str
    technique: str
    refused: str
    plan: dict | None = None
    multiplied: Multiplied | None = None


@dataclass(frozen=True)
class Pass:
    """forward, dgrad or wgrad. work and bound: what it takes tap by tap, whichever rung, in the precision that is the
    fastest of those that rungs have for it; chosen: the one "auto" takes;
    cpu and chosen_on_cpu: the same on this machine's CPU, of all algorithms if all were asked for, else of those that
    have no CUDA kernels."""

    name: str
    work: Work
    bound: Bound
    chosen: str
    rungs: tuple[Rung, ...]
    cpu: tuple[CpuRung, ...] = ()
    chosen_on_cpu: str = ""


@dataclass(frozen=True)
class Explanation:
    """explain()'s answer. `print` shows it as text. transposed: asked about a transposed convolution, which runs the dgrad
    of `problem` forward."""

    layer: str
    problem: Conv2dProblem
    gpu: Gpu
    passes: tuple[Pass, ...]
    transposed: bool = False

    def __str__(self):
        from .text import rendered

        return rendered(self)

    __repr__ = __str__  # so that a Python shell shows it, too

    def as_dict(self) -> dict:
        """Everything in dicts, lists, strings and numbers: ready for JSON."""
        return _plain(self)


def explain(layer, algo="all", *, passes=PASSES, gpu="H200", count=False) -> Explanation:
    """What a convolution's CUDA kernels will do, without a GPU: launches, occupancy, work, the roofline, and what they
    ask of memory.

    layer: a name of convlab.layers ("lenet.c3", "resnet-64@256": with that batch), one of its Conv, or a
    Conv2dProblem. algo: an algorithm's name, several, or "all"; of one that is the CPU's alone, its plan there. passes: of "forward", "dgrad", "wgrad". gpu: a name in
    convlab.gpus, or a Gpu. count: run the kernels in the simulator, too, as many blocks of each launch as that
    takes seconds for, and count their memory traffic.

    Raises ValueError for an unknown layer, algorithm, pass or GPU, for an empty problem, and for a dtype other than
    float32, float16 and bfloat16.
    """
    gpu = gpu_of(gpu)
    name, problem = _problem(layer, gpu)
    chosen = _algorithms(algo)
    for pass_ in [passes] if isinstance(passes, str) else passes:
        if pass_ not in PASSES:
            raise ValueError(f"explain: passes has {pass_!r}, expected some of {', '.join(map(repr, PASSES))}")
    wanted = [pass_ for pass_ in PASSES if pass_ in passes]
    found = tuple(_pass(problem, pass_, chosen, gpu, count, algo == "all") for pass_ in wanted)
    return Explanation(name, problem, gpu, found, name.partition("@")[0] in TRANSPOSED)


def _problem(layer, gpu) -> tuple[str, Conv2dProblem]:
    """Its name, "" for one that has none, and the problem as the CUDA backend would get it on the GPU."""
    name = ""
    if isinstance(layer, str):
        layer = find(layer)
    if isinstance(layer, Conv):
        name, layer = layer.name, layer.problem()
    if not isinstance(layer, Conv2dProblem):
        raise ValueError(
            f"explain: layer must be a name, a convlab.layers.Conv or a convlab.Conv2dProblem, got {type(layer).__name__}"
        )
    if layer.dtype not in DTYPES:
        raise ValueError(f"explain: the problem is {layer.dtype}, expected one of {', '.join(map(str, DTYPES))}")
    if 0 in layer.x + layer.w + layer.y:
        raise ValueError(f"explain: the problem is empty: x {layer.x}, w {layer.w}, y {layer.y}")
    on = {"multiprocessors": gpu.sms, "capability": gpu.generation}
    return name, dataclasses.replace(layer, backend="cuda", channels_last=False, **on)


def _algorithms(algo) -> list[Algorithm]:
    ladder = {a.name: a for a in algorithms()}
    names = list(ladder) if algo == "all" else [algo] if isinstance(algo, str) else list(algo)
    for name in names:
        if name not in ladder:
            raise ValueError(
                f"explain: algo={name!r} is no algorithm: {did_you_mean(name, ('all', *ladder))}choose 'all' or one of {', '.join(map(repr, ladder))}"
            )
    return [ladder[name] for name in names]


def _pass(problem, pass_, chosen, gpu, count, all_of_cpu) -> Pass:
    work = work_of(problem, pass_)
    rungs = tuple(explain_rung(a, problem, pass_, gpu, count) for a in chosen if "cuda" in a.backends)
    on_cpu = dataclasses.replace(problem, backend="cpu")
    wanted = [a for a in chosen if "cpu" in a.backends and (all_of_cpu or "cuda" not in a.backends)]
    cpu = tuple(_on_cpu(a, on_cpu, pass_, work) for a in wanted)
    chosen_on_cpu = names_of("auto", on_cpu)[pass_] if cpu else ""
    bound = bound_of(work, gpu, fastest_precision(problem, pass_, gpu))
    return Pass(pass_, work, bound, chosen_of(problem, pass_), rungs, cpu, chosen_on_cpu)


def _on_cpu(algorithm, problem, pass_, work) -> CpuRung:
    technique = algorithm.techniques["cpu"]
    ok, reason = algorithm.supports(problem, pass_)
    if not ok:
        return CpuRung(algorithm.name, technique, reason)
    plan = algorithm.plan(problem, pass_)
    return CpuRung(algorithm.name, technique, "", plan, multiplied(algorithm.name, problem, pass_, work))


def bound_of(work: Work, gpu: Gpu, precision: str | None = None) -> Bound:
    """Of whichever rung does it with products in this precision."""
    arithmetic = 1e6 * work.flops / gpu.rate(precision)
    return Bound({"memory": 1e-3 * work.bytes / gpu.bandwidth, "arithmetic": arithmetic}, precision)


def fastest_precision(problem: Conv2dProblem, pass_: str, gpu: Gpu) -> str | None:
    """Of all rungs that can do it, as torch's switches are now."""
    able = (a.plan(problem, pass_)["precision"] for a in algorithms() if a.supports(problem, pass_)[0])
    return max(able, key=gpu.rate, default=None)


def chosen_of(problem, pass_) -> str:
    """The rung that "auto" takes: the one whose launches it makes."""
    launched = planned_launches(None, problem, pass_)
    able = [a for a in algorithms() if a.supports(problem, pass_)[0]]
    return next((a.name for a in able if planned_launches(a, problem, pass_) == launched), "")


def explain_rung(algorithm: Algorithm, problem: Conv2dProblem, pass_: str, gpu: Gpu, count=True) -> Rung:
    """Of one algorithm, or of one with a tile of its own (with_each_tile). problem: as the CUDA backend gets it. count:
    as explain() has it."""
    ok, reason = algorithm.supports(problem, pass_)
    if not ok:
        return Rung(algorithm.name, algorithm.techniques["cuda"], reason)
    plan, work = algorithm.plan(problem, pass_), work_of(problem, pass_)
    planned = planned_launches(algorithm, problem, pass_)
    launches = _launches(planned, gpu)
    wasted = None if plan["useful"] is None else max(0.0, 1 - plan["useful"])
    rung = Rung(
        algorithm.name,
        algorithm.techniques["cuda"],
        "",
        plan,
        picture_of(plan, problem, pass_),
        launches,
        wasted,
        floor_us=bound_of(work, gpu, plan["precision"]).microseconds,
        measured_us=measured_us(problem, pass_, algorithm.name, plan["precision"], gpu),
    )
    if not count:
        return rung
    usual = dataclasses.replace(problem, multiprocessors=H200.sms)
    same = planned_launches(algorithm, usual, pass_) == planned
    counted = _counted(algorithm, usual if same else problem, pass_, countable(work.flops), plan["precision"])
    through_caches, bound = _bound(rung, counted, work, gpu)
    facts = facts_of(problem, pass_, plan["workspace"])
    prediction = predict(_launched(launches), asked_of(counted.traffic), facts, gpu) if _known(launches) else None
    return dataclasses.replace(rung, counted=counted, through_caches=through_caches, bound=bound, prediction=prediction)


@functools.lru_cache(maxsize=64)
def _counted(algorithm, problem, pass_, one_block_in, _precision) -> Counted:
    """The same for every GPU that has these launches, with torch's switches as they are."""
    return count_pass(algorithm, problem, pass_, one_block_in)


def _known(launches) -> bool:
    return all(one.compiled for one in launches)


def _launched(launches) -> list[Launched]:
    return [
        Launched(one.kernel, one.source, one.blocks, one.threads, one.times, one.registers, one.shared)
        for one in launches
    ]


def _launches(planned, gpu) -> tuple[KernelLaunch, ...]:
    """Like ones together, in the order of their first."""
    times = {}
    for launch in planned:
        times[launch] = times.get(launch, 0) + 1
    found = []
    for launch, n in times.items():
        registers = shared = who = waves = None
        if resources := resources_of(launch.kernel, launch.source, gpu.capability):
            registers, static, who = resources
            shared = static + launch.shared_bytes
            waves = waves_of(gpu, math.prod(launch.grid), math.prod(launch.block), registers, shared)
        found.append(
            KernelLaunch(launch.kernel, launch.source, launch.grid, launch.block, n, registers, shared, who, waves)
        )
    return tuple(found)


def main_launch(rung: Rung) -> KernelLaunch:
    """The one that the rung's plan describes: it does the arithmetic."""
    described = [one for one in rung.launches if one.grid == rung.plan["grid"] and one.threads == rung.plan["threads"]]
    return (described or rung.launches)[0]


def _bound(rung, counted, work, gpu) -> tuple[float, Bound]:
    """(bytes through the caches, bound)."""
    precision, sure = rung.plan["precision"], {}
    for row in counted.traffic:
        sectors, wavefronts = SECTOR * row.sectors, WAVEFRONT * row.wavefronts
        if precision:  # what is copied into shared memory passes the banks once
            certain = sectors * (row.access != "read") + SURE_OF_COPIES * wavefronts
        else:
            certain = sectors + SURE_OF_WAVEFRONTS * wavefronts
        sure[row.kernel] = sure.get(row.kernel, 0) + certain
    share = {launch.kernel: _share_of_gpu(launch, gpu) for launch in rung.launches}
    main = _share_of_gpu(main_launch(rung), gpu)
    cycles = sum(size / share.get(kernel, main) / gpu.l1 for kernel, size in sure.items())
    useful = (1 - (rung.wasted or 0)) * main
    bound = bound_of(work, gpu, precision)
    of_rung = {"arithmetic": bound.by_resource["arithmetic"] / useful, "caches": 1e6 * cycles / gpu.cycles}
    return sum(sure.values()), Bound(bound.by_resource | of_rung, precision)


def _share_of_gpu(launch, gpu) -> float:
    """How much of a GPU a launch can use at best: multiprocessors that run out of blocks idle, and so do schedulers
    without a warp."""
    most = -(-launch.blocks // gpu.sms)  # blocks of the busiest multiprocessor
    warps = min(most, launch.waves.blocks_at_once if launch.waves else most) * -(-launch.threads // WARP)
    return launch.blocks / (most * gpu.sms) * min(1, warps / SUBPARTITIONS)


def _plain(value):
    """The same without classes; computed properties of records are in it, too."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        computed = {n: getattr(value, n) for n, kind in vars(type(value)).items() if isinstance(kind, property)}
        return {key: _plain(item) for key, item in (fields | computed).items()}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict() | ({"source_line": value.source} if hasattr(value, "wavefronts") else {}))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
