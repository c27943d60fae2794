"""The ladder as data: which algorithms there are, what each can do, and which one a call gets.

The table itself is csrc/algorithms.h, which the operators read too.
"""

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from ._load import lab as _lab
from ._near import did_you_mean
from .arguments import IntOrPair, in_words, is_channels_last, padding4, pair, remembered
from .gpus import H200
from .simulator import backend_of, capability_for, current, multiprocessors_for

if TYPE_CHECKING:
    from ._lab import Problem

Algo: TypeAlias = "str | dict[str, str] | Preferred"
Sizes = tuple[int, int, int, int]
Numbers = tuple[int, ...]  # of algorithms, by pass; 0: the operator chooses
PASSES = ("forward", "dgrad", "wgrad")
AUTO: Numbers = (0, 0, 0)
_AUTOMATIC = {"none": 0, "ieee": -1, "tf32": -2, "bf16": -3}  # Rounding of csrc/algorithms.h
WITH_TF32 = 1 << 16  # kWithTf32 there
WITH_BF16 = 2 << 16  # kWithBf16
WITH_TILE = 1 << 20  # kWithTile of csrc/tiles.h
_fp32_precision: Callable[[str, str], str] = torch._C._get_fp32_precision_getter


@dataclass(frozen=True)
class Conv2dProblem:
    """One convolution, without its data: what an algorithm may or may not be able to do.

    x [N, C, H, W], w [K, C/groups, R, S], y [N, K, P, Q]; `padding` is (top, left, bottom, right),
    `channels_last` the layout of y. multiprocessors, and capability, ten times the compute capability: of the GPU that it is
    planned for, an H200 unless it is known; tiles are chosen for so many, and what it has no instructions for is refused.
    """

    x: Sizes
    w: Sizes
    y: Sizes
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    dtype: torch.dtype
    channels_last: bool
    backend: str
    multiprocessors: int = H200.sms
    capability: int = H200.generation

    @classmethod
    def of(
        cls,
        input: torch.Tensor,
        weight: torch.Tensor,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
    ) -> "Conv2dProblem":
        """The problem that `convlab.functional.conv2d` would be given with these arguments.

        input [N, C, H, W] or [C, H, W], weight [K, C/groups, R, S]. Raises RuntimeError for arguments that do not fit
        together.
        """
        x = tuple(input.shape) if input.dim() == 4 else (1, *input.shape)
        stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
        padding = padding4(padding, stride, weight.shape[2:], dilation)
        channels_last = any(t.dim() == 4 and is_channels_last(t) for t in (input, weight))
        geometry = (*stride, *padding, *dilation, groups)
        sizes = x, tuple(weight.shape), geometry
        gpu = multiprocessors_for(input), capability_for(input)
        return cls._of_sizes(*sizes, input.dtype, channels_last, backend_of(input), *gpu)

    @classmethod
    def _of_sizes(
        cls,
        x: tuple[int, ...],
        w: tuple[int, ...],
        geometry: tuple[int, ...],
        dtype: torch.dtype,
        channels_last: bool,
        backend: str,
        multiprocessors: int = H200.sms,
        capability: int = H200.generation,
    ) -> "Conv2dProblem":
        """From sizes and the operators' geometry (csrc/ops.cpp)."""
        x, w = cast("Sizes", x), cast("Sizes", w)
        stride, padding, dilation = geometry[:2], cast("Sizes", geometry[2:6]), geometry[6:8]
        y = x[0], w[0], *_lab.conv2d_output_size(x, w, geometry)
        return cls(
            x,
            w,
            y,
            cast("tuple[int, int]", stride),
            padding,
            cast("tuple[int, int]", dilation),
            geometry[8],
            dtype,
            channels_last,
            backend,
            multiprocessors,
            capability,
        )

    def doing(self, pass_: str) -> "Problem":
        """The problem of a pass, as the table of algorithms takes it (csrc/algorithms.h)."""
        dtype = str(self.dtype).removeprefix("torch.")
        sizes = self.x, self.w, self.geometry
        return _lab.Problem(pass_, dtype, *sizes, self.channels_last, self.multiprocessors, self.capability)

    @property
    def geometry(self) -> tuple[int, ...]:
        """stride, padding, dilation and groups, as the operators take them (csrc/ops.cpp)."""
        return (*self.stride, *self.padding, *self.dilation, self.groups)


@dataclass(frozen=True)
class Algorithm:
    """One rung of the ladder. `passes` and `backends` are what it has at all; `supports` says more. `techniques`: what
    it does, in a line for each backend."""

    name: str
    techniques: dict[str, str] = field(hash=False)
    passes_by_backend: dict[str, frozenset[str]] = field(repr=False, hash=False)
    number: int = field(repr=False)

    @property
    def technique(self) -> str:
        """What it does, in a line."""
        if len(set(self.techniques.values())) == 1:
            return next(iter(self.techniques.values()))
        return "; ".join(f"{backend}: {technique}" for backend, technique in self.techniques.items())

    @property
    def passes(self) -> frozenset[str]:
        """Subset of {"forward", "dgrad", "wgrad"}."""
        return frozenset().union(*self.passes_by_backend.values())

    @property
    def backends(self) -> frozenset[str]:
        """Subset of {"cpu", "cuda"}."""
        return frozenset(self.passes_by_backend)

    def supports(self, problem: Conv2dProblem, pass_: str) -> tuple[bool, str]:
        """Whether this algorithm can do `pass_` of `problem`, and if not, why: (True, "") or (False, reason)."""
        if pass_ not in PASSES:
            raise ValueError(f"pass_={pass_!r} must be one of {', '.join(map(repr, PASSES))}")
        if problem.backend not in ("cpu", "cuda"):
            return False, f"has no {pass_} for {problem.backend} tensors"
        dtype = str(problem.dtype).removeprefix("torch.")
        if dtype not in ("float32", "float64", "float16", "bfloat16"):
            return False, f"has no {pass_} for {dtype}"
        (number,) = as_switched((self.number,), problem.backend, problem.dtype)
        reason = _lab.refusal(number, problem.backend, problem.doing(pass_))
        return not reason, reason

    def plan(self, problem: Conv2dProblem, pass_: str) -> dict[str, Any]:
        """How this algorithm does `pass_` of `problem`. Raises ValueError, with the reason, where `supports` says no.

        On a GPU, or under `simulate()`, the keys are `product` (rows M, columns N and steps K of the matrix product the
        pass is made of; of its parts, the largest) and `tile` (M, N, K: a block makes M x N of its outputs, K steps at a
        time), both None where there are no tiles; `grid`, `threads` (a block), `slices` (of wgrad's sum), `images` (at
        a time; 0: all), `precision` (of products on tensor cores, "3xtf32" for instance, as torch's switches have it now;
        elsewhere None; then `gated` says whether "auto" waits for a gpu-report of it), `workspace` (bytes).

        On the CPU: `kernels` (of which instruction set), `strip` (images and rows that are computed at a time; 0: all),
        `pieces` of work that threads share, `slices` (of wgrad's sum), `workspace` and, for each thread, `scratch`
        (bytes).
        """
        (number,) = as_switched((self.number,), problem.backend, problem.dtype)
        return _lab.plan(number, problem.backend, problem.doing(pass_))


_TABLE = {
    name: Algorithm(
        name,
        {backend: technique for backend, (technique, _) in by_backend.items()},
        {backend: frozenset(passes) for backend, (_, passes) in by_backend.items()},
        number,
    )
    for number, name, by_backend in _lab.algorithms()
}


def algorithms() -> tuple[Algorithm, ...]:
    """All algorithms of convlab's convolution, the simplest first."""
    return tuple(_TABLE.values())


def with_each_tile(algorithm: Algorithm, problem: Conv2dProblem, pass_: str) -> dict[str, Algorithm]:
    """By name, "128x256" say, the tiles that an algorithm chooses among for a pass on a GPU, and the algorithm as it is with
    that tile; none where it has no choice. For instruments, which compare them: wherever an algorithm's number goes,
    theirs can."""
    found = {}
    (switched,) = as_switched((algorithm.number,), "cuda", problem.dtype)
    for tile in _lab.tiles(switched, problem.doing(pass_)):
        name = tile_name(_lab.plan(switched + tile * WITH_TILE, "cuda", problem.doing(pass_)))
        found[name] = replace(algorithm, name=f"{algorithm.name} {name}", number=algorithm.number + tile * WITH_TILE)
    return found


def tile_name(plan: dict[str, Any]) -> str:
    """Of the tile of a plan: 128x256."""
    return "{}x{}".format(*plan["tile"])


def automatic() -> int:
    """The number of "auto" on the CPU, as torch's switch for convolutions there has it,
    `torch.backends.mkldnn.conv.fp32_precision`: by default sums may be rounded on another way ("none": winograd_2x2),
    with "ieee" not, with "tf32" more coarsely (winograd_4x4), and with "bf16" what is multiplied may be rounded to bfloat16,
    too (amx). A compiled graph keeps what it found."""
    return _AUTOMATIC[_fp32_precision("mkldnn", "conv")]  # of torch.backends: the same, in a tenth of the time


def tf32_allowed() -> bool:
    """Whether tensor cores may round float32 to TF32 on a GPU, as torch's own convolutions there may:
    `torch.backends.cudnn.allow_tf32`, or `torch.backends.cudnn.conv.fp32_precision` with what it inherits. A compiled
    graph keeps what it found."""
    return _fp32_precision("cuda", "conv") == "tf32"


# What torch.compiler.assume_constant_result does, which imports Dynamo for it: a second, and files of its cache.
automatic.__dict__["_dynamo_marked_constant"] = True
tf32_allowed.__dict__["_dynamo_marked_constant"] = True


def as_switched(numbers: Numbers, backend: str, dtype: torch.dtype) -> Numbers:
    """Algorithms' numbers as the operators take them, with what torch's switches say about float32 at this moment."""
    if backend == "cpu":
        auto = automatic()
        named = WITH_BF16 if auto == _AUTOMATIC["bf16"] and dtype is torch.float32 else 0
        return tuple(number + named if number > 0 else auto for number in numbers) if auto else numbers
    if backend == "cuda" and dtype is torch.float32 and tf32_allowed():
        return tuple(number + WITH_TF32 if number > 0 else _AUTOMATIC["tf32"] for number in numbers)
    return numbers


def numbers_of(algo: Algo, backend: str, problem: Conv2dProblem | None) -> Numbers:
    """The algorithm numbers (forward, dgrad, wgrad) that `algo` stands for on `backend`.

    `algo` is "auto", a name (for the passes that algorithm has; the others are "auto"), or a dict from passes to names
    (strict for what it names). problem: None while a graph is compiled, when shapes are symbols; then nobody asks what
    an algorithm can do, and the operator refuses what it cannot.

    Raises ValueError for an unknown name, and for a pass that the algorithm cannot do, with the reason and the names
    that can.
    """
    return AUTO if algo == "auto" else _numbers_of(_as_key(algo), backend, problem)


def numbers_for(algo: Algo, input: torch.Tensor, weight: torch.Tensor, geometry: tuple[int, ...]) -> Numbers:
    """`numbers_of` for a call of conv2d with input [N, C, H, W] and weight [K, C/groups, R, S]: what a name means for
    a problem is remembered. geometry: as in csrc/ops.cpp."""
    return numbers_for_sizes(algo, input.shape, input, weight, geometry)


def numbers_for_sizes(
    algo: Algo, x: tuple[int, ...], like: torch.Tensor, weight: torch.Tensor, geometry: tuple[int, ...]
) -> Numbers:
    """`numbers_for`, of an input of sizes x [N, C, H, W] that has the dtype, layout and device of `like`."""
    backend = backend_of(like)
    if torch.compiler.is_compiling():
        return numbers_of(algo, backend, None)
    channels_last = is_channels_last(like) or is_channels_last(weight)
    return _numbers_for(_as_key(algo), x, weight.shape, geometry, like.dtype, channels_last, backend)


@remembered
def _numbers_for(algo: "_Key", *problem: Any) -> Numbers:
    return _numbers_of(algo, problem[-1], Conv2dProblem._of_sizes(*problem))


def _numbers_of(algo: "_Key", backend: str, problem: Conv2dProblem | None) -> Numbers:
    if isinstance(algo, Preferred):
        return algo.numbers(backend, problem)
    numbers = _numbers_by_name(algo, backend)
    if problem:
        _insist(numbers, problem)
    return numbers


def names_of(algo: Algo, problem: Conv2dProblem) -> dict[str, str]:
    """The algorithm that runs each pass of `problem`: "auto" resolved to what the operators take. Raises as
    `numbers_of`, and ValueError for a pass that no algorithm can do, with the simplest one's reason."""
    names = {}
    for pass_, number in zip(PASSES, numbers_of(algo, problem.backend, problem)):
        chosen = next((a.name for a in algorithms() if a.number == number), None)
        (auto,) = as_switched((0,), problem.backend, problem.dtype)
        names[pass_] = chosen or _lab.choice(problem.backend, problem.doing(pass_), auto)
    return names


class Preferred:
    """An algo that gives way: what it names runs where it can, "auto" elsewhere, with one warning for each place and
    reason.

    `algo` is a name or a dict as in conv2d; `where` is what the warning calls the place, a layer's name say. Raises
    ValueError for an unknown name.
    """

    def __init__(self, algo: str | dict[str, str], where: str) -> None:
        check_names(algo)
        if not isinstance(algo, str):
            self.names = {pass_: name for pass_, name in algo.items() if name != "auto"}
        else:
            self.names = {pass_: algo for pass_ in PASSES if algo != "auto" and pass_ in _find(algo).passes}
        self.algo, self.where = algo, where
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return repr(self.algo)

    def numbers(self, backend: str, problem: Conv2dProblem | None) -> Numbers:
        """The algorithm numbers by pass, 0 where "auto" has to do; `problem` as for `numbers_of`."""
        if problem is None:
            return tuple(
                _find(n).number if (n := self.names.get(p)) and p in _find(n).passes_by_backend.get(backend, ()) else 0
                for p in PASSES
            )
        numbers, reasons = dict.fromkeys(PASSES, 0), defaultdict(list)
        for pass_, name in self.names.items():
            algorithm = _find(name)
            ok, reason = algorithm.supports(problem, pass_)
            if ok:
                numbers[pass_] = algorithm.number
            else:
                reasons[name, reason.replace(f"has no {pass_}", "has none of them")].append((pass_, reason))
        for (name, of_several), refused in reasons.items():
            run, reason = ("run", of_several) if len(refused) > 1 else ("runs", refused[0][1])
            passes = in_words([pass_ for pass_, _ in refused])
            self._say(f"convlab: {self.where}: its {passes} {run} 'auto', because algo {name!r} {reason}")
        return tuple(numbers[pass_] for pass_ in PASSES)

    def _say(self, warning: str) -> None:
        if warning not in self._said:
            self._said.add(warning)
            warnings.warn(warning, stacklevel=_callers_level())


def _callers_level() -> int:
    """The stacklevel with which a warning of the function that asks points at the first line around it that is neither
    torch's nor convlab's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", __package__):
        level, frame = level + 1, frame.f_back
    return level


_Key = str | tuple[tuple[str, str], ...] | Preferred


def _as_key(algo: Algo) -> _Key:
    return algo if isinstance(algo, (str, Preferred)) else tuple(sorted(_checked_dict(algo).items()))


def check_names(algo: Algo) -> None:
    """Raises as `numbers_of` for names of passes or algorithms that there are not."""
    if isinstance(algo, Preferred):
        return
    for name in (algo,) if isinstance(algo, str) else _checked_dict(algo).values():
        if name != "auto":
            _find(name)


def _checked_dict(algo: object) -> dict[str, str]:
    if not isinstance(algo, dict):
        raise TypeError(f"algo must be a name or a dict from passes to names, got {type(algo).__name__}")
    for pass_ in algo:
        if pass_ not in PASSES:
            raise ValueError(f"algo={algo!r}: {pass_!r} is not a pass; the passes are {', '.join(map(repr, PASSES))}")
    return algo


def _numbers_by_name(algo: str | tuple[tuple[str, str], ...], backend: str) -> Numbers:
    if isinstance(algo, str):
        chosen = _find(algo)
        passes = chosen.passes_by_backend.get(backend, frozenset())
        if not passes:
            raise ValueError(
                f"algo={algo!r} exists for {_listed(chosen.backends)} tensors only{_simulated(chosen, PASSES[0], backend)}; "
                f"for {backend}: {_working(backend, PASSES[0])}"
            )
        return tuple(chosen.number if pass_ in passes else 0 for pass_ in PASSES)
    wanted = {pass_: name for pass_, name in algo if name != "auto"}
    for pass_, name in wanted.items():
        if pass_ not in _find(name).passes_by_backend.get(backend, ()):
            raise ValueError(
                f"algo={name!r} has no {pass_} for {backend} tensors{_simulated(_find(name), pass_, backend)}; "
                f"these have: {_working(backend, pass_)}"
            )
    return tuple(_find(wanted[pass_]).number if pass_ in wanted else 0 for pass_ in PASSES)


def _find(name: str) -> Algorithm:
    if name not in _TABLE:
        near = did_you_mean(name, ("auto", *_TABLE))
        raise ValueError(f"algo={name!r} is unknown: {near}choose 'auto' or one of {_listed(_TABLE)}")
    return _TABLE[name]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _simulated(algorithm: Algorithm, pass_: str, backend: str) -> str:
    """What simulate() has to do with an algorithm that has no such pass on this backend."""
    if backend == "cpu" and pass_ in algorithm.passes_by_backend.get("cuda", ()):
        return " (inside convlab.simulate() CPU tensors take it)"
    return " (inside convlab.simulate() CPU tensors run the CUDA kernels)" if backend == "cuda" and current() else ""


def _working(backend: str, pass_: str) -> str:
    return _listed(["auto", *(a.name for a in algorithms() if pass_ in a.passes_by_backend.get(backend, ()))])


def _insist(numbers: Numbers, problem: Conv2dProblem) -> None:
    for pass_, number in zip(PASSES, numbers):
        for algorithm in algorithms():
            if algorithm.number == number:
                ok, reason = algorithm.supports(problem, pass_)
                if not ok:
                    working = [a.name for a in algorithms() if a.supports(problem, pass_)[0]]
                    raise ValueError(
                        f"algo={algorithm.name!r} {reason}; these work for its {pass_}: {_listed(['auto', *working])}"
                    )
