"""What convlab does in a model, layer by layer: which algorithms run, how long they take, how far they are from
torch."""

import copy
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_leaves

from . import _chains, functional, modules, simulator
from ._algorithms import Conv2dProblem, names_of
from ._convert import ORIGINAL, kind_of, left_alone, others, restore
from ._fuse import fuse, fuses, is_fused, unfused
from ._left_functions import UNKNOWN, left_functions
from ._measure import Limits, Timing, best, by_turns, error_of, outputs_of
from ._modules_around import Conv1d, Parametrized, PReLU

_LIMITS = Limits(rounds=10, seconds=0.02, patience=0.1)  # of a pass of a layer
_STEPS = Limits(rounds=10, seconds=1.0)  # of a whole model's steps
_ONCE = Limits(rounds=1, seconds=0.0, patience=0.0)  # under simulate(), where time means nothing
_HEADINGS = ("layer", "kind", "input", "output", "pass", "algorithm", "calls", "ms", "share", "error")
_COMPARED = ("torch's ms", "times as fast")
_IF_DISTURBED = (
    "other programs took the processor, so this tells nothing of which is faster; run again on an idle machine"
)
_PASSIVE = ", or beside other programs with OMP_WAIT_POLICY=PASSIVE set before Python starts"
_FEWER = ", or with a thread less: torch.set_num_threads"  # where OpenMP's threads wait passively already
_MARK = "*"  # of a row that other programs disturbed
_TEXTS = 6  # of these columns, the first ones are text, the others figures


@dataclass(frozen=True)
class LayerPass:
    """One pass of one layer on inputs of one shape.

    algorithm: of a convolution, else None. seconds: of all `calls` together. share: of the time of all rows. error: the
    largest difference from torch's result for the same input, relative to torch's largest element. torch_seconds: of as
    many calls of torch's layer, where `compare` asked for it. disturbed: whether other programs took the processor at
    every try.
    """

    layer: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    pass_: str
    algorithm: str | None
    calls: int
    seconds: float
    share: float
    error: float
    torch_seconds: float | None = None
    disturbed: bool = False

    @property
    def times_faster(self) -> float | None:
        """torch's time by convlab's; None without `compare`, and where `disturbed`."""
        return None if self.torch_seconds is None or self.disturbed else self.torch_seconds / self.seconds


Rows = dict[tuple[Any, ...], LayerPass]


@dataclass(frozen=True)
class Summary:
    """What `summary()` returns; prints as a table.

    passes: a LayerPass for each pass of each of convlab's layers, in the order of their first calls; layers that `fuse`
    made one call of are one row.
    left: name -> reason for the layers that are torch's still.
    others: kind -> number of torch.nn's layers that convlab does not have, but for those that are in a row of `passes`.
    functions: name of a module -> which of torch's functions its forward calls that convlab has, or why that is not known.
    unfused: name -> reason for convolutions, and layers in a row, that are calls of their own in a model that `fuse` has
    seen.
    model_seconds: of a step of the whole model, forward and gradients, with convlab's layers and with torch's, where
    `compare` asked for it. disturbed: whether other programs took the processor at every try of one of them.
    fused_seconds: of one after `fuse(model)`, where that makes one call of some layers. fused_disturbed: as `disturbed`.
    fuses_in_eval: whether it does so only in `eval()`.
    """

    passes: tuple[LayerPass, ...]
    left: dict[str, str]
    unfused: dict[str, str]
    functions: dict[str, str] = field(default_factory=dict)
    model_seconds: tuple[float, float] | None = None
    disturbed: bool = False
    others: dict[str, int] = field(default_factory=dict)
    fused_seconds: float | None = None
    fused_disturbed: bool = False
    fuses_in_eval: bool = False

    @property
    def seconds(self) -> float:
        """Of all passes together."""
        return sum(row.seconds for row in self.passes)

    @property
    def times_faster(self) -> float | None:
        """torch's time for a step of the model by convlab's, which tells nothing where `disturbed`; None without
        `compare`."""
        return self.model_seconds[1] / self.model_seconds[0] if self.model_seconds else None

    @property
    def torch_seconds(self) -> float | None:
        """torch's time for all these passes; None without `compare`."""
        theirs = [row.torch_seconds for row in self.passes if row.torch_seconds is not None]
        return sum(theirs) if theirs else None

    def __str__(self) -> str:
        lines = [_table([_cells(row) for row in self.passes])] if self.passes else ["no layer of convlab's ran"]
        lines += [f"left as it is: {line}" for line in (*_grouped(self.left), *_grouped(self.functions))]
        lines += [f"not fused: {line}" for line in _grouped(self.unfused)]
        if self.others:
            kinds = (f"{count} {kind}" for kind, count in self.others.items())
            lines.append(f"of kinds that convlab does not have: {', '.join(kinds)}")
        rows = sum(row.disturbed for row in self.passes)
        mark = _MARK if rows else ""
        if disturbed := rows + self.disturbed + self.fused_disturbed:
            sign = _MARK + " " if rows or self.fused_disturbed else ""
            lines.append(f"{sign}other programs took the processor in {disturbed} of these times")
        if self.passes:
            layers = len({row.layer for row in self.passes})
            torchs = "" if self.torch_seconds is None else f", by torch {mark}{1e3 * self.torch_seconds:.3f} ms"
            left = str(len(self.left))
            if any(reason.startswith(UNKNOWN) for reason in self.functions.values()):
                left = f"at least {left}" if self.left else "not known"
            lines.append(
                f"layers that ran as convlab's: {layers}, left as torch's: {left}; "
                f"{len(self.passes)} passes, {mark}{1e3 * self.seconds:.3f} ms{torchs}"
            )
        if self.model_seconds:
            what = "a step" if any(row.pass_ != "forward" for row in self.passes) else "a forward"
            ours, torchs_step = (1e3 * seconds for seconds in self.model_seconds)
            if self.fused_seconds:
                unsure = self.disturbed or self.fused_disturbed
                faster = "" if unsure else f", {self.model_seconds[1] / self.fused_seconds:.2f} times as fast"
                fused = f"{_MARK * self.fused_disturbed}{1e3 * self.fused_seconds:.3f} ms"
                lines.append(f"{what} after convlab.fuse(model): {fused}{faster}")
            if self.fuses_in_eval:
                lines.append(
                    "in eval(), convlab.fuse(model) makes one call of some layers: it folds batch normalization there"
                )
            passive = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
            disturbed_by = _IF_DISTURBED + (_FEWER if passive else _PASSIVE)
            answer = disturbed_by if self.disturbed else f"{self.times_faster:.2f} times as fast"
            lines.append(
                f"{what} of the whole model: {ours:.3f} ms, with torch's layers {torchs_step:.3f} ms: {answer}"
            )
        return "\n".join(lines)

    __repr__ = __str__  # so that a Python shell shows it, too


def summary(model: Module, input: Tensor | tuple[Any, ...] | dict[str, Any], compare: bool = False) -> Summary:
    """Runs `model` once, and each pass of convlab's layers in it some more times beside torch's.

    input: what the model is called with: a tensor, or a tuple or dict of arguments. Passes are those that a step of
    training takes: no gradient to a layer's input where that needs none, forward alone under torch.no_grad(). Inside
    `simulate()` the algorithms are the GPU's, and times those of the simulator.

    compare: time torch's layer beside convlab's, pass by pass, too, and a step of the whole model beside those of a copy with
    torch's layers, and of one that `fuse` has seen if it can do something: how many times as fast the model is stands in
    the last line.

    The model is left as it was, also its buffers, and the random numbers that come next are the same. Raises what the
    model raises, and TypeError if it is none, or input none of these.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"summary: model must be a torch.nn.Module, got {type(model).__name__}")
    shape = isinstance(input, tuple) and input and all(type(n) is int for n in input)
    if isinstance(compare, Tensor) or shape or not isinstance(input, (Tensor, tuple, dict)):
        got = "" if isinstance(input, Tensor) else f", got {'a shape' if shape else type(input).__name__}"
        raise TypeError(
            "summary: input is what the model is called with: a tensor (of a shape, torch.randn(shape)), or a tuple or "
            f"dict of arguments{got}"
        )
    rows: Rows = {}
    handles = []
    names = {module: name for name, module in model.named_modules()}
    observe_chain = partial(_count_chain, rows, names, compare)
    try:
        _chains.observers.append(observe_chain)
        for name, module in model.named_modules():
            if kind_of(module) in ORIGINAL:
                observer = _chains.Observer(partial(_count, rows, name, compare=compare))
                handles.append(module.register_forward_pre_hook(observer, with_kwargs=True))
        with _unchanged(model), torch.compiler.set_stance("force_eager"):
            _called(model, input)
    finally:
        _chains.observers.remove(observe_chain)
        for handle in handles:
            handle.remove()
    total = sum(row.seconds for row in rows.values())
    passes = tuple(replace(row, share=row.seconds / total) for row in rows.values())
    timed = compare and passes and not simulator.current()
    steps, fuses_in_eval = _steps(model, input) if timed else ([], False)
    seconds = (steps[0].seconds, steps[1].seconds) if steps else None
    return Summary(
        passes,
        left_alone(model),
        unfused(model),
        left_functions(model),
        seconds,
        disturbed=any(timing.disturbed for timing in steps[:2]),
        others=others(model, {name for row in passes for name in row.layer.split(" + ")}),
        fused_seconds=steps[2].seconds if steps[2:] else None,
        fused_disturbed=any(timing.disturbed for timing in steps[2:]),
        fuses_in_eval=fuses_in_eval,
    )


def _called(model: Module, input: Any) -> Any:
    if isinstance(input, dict):
        return model(**input)
    return model(*input) if isinstance(input, tuple) else model(input)


def _steps(model: Module, input: Any) -> tuple[list[Timing], bool]:
    """A step of the model as it is, with torch's layers, and fused if there is something to fuse, by turns; the least of
    each, of undisturbed ones if any. And whether there is something to fuse only in eval()."""
    fuses_in_eval = False
    with _unchanged(model):
        models = [model, restore(copy.deepcopy(model))]
        if not is_fused(model):
            fused = fuse(copy.deepcopy(model))
            _step(fused, input)
            if fuses(fused):
                models.append(fused)
            else:
                fuses_in_eval = fuses(fused.eval())
        timings: list[list[Timing]] = [[] for _ in models]
        start = time.perf_counter()
        for turn in range(_STEPS.rounds + 1):  # the first is not counted
            for one, of in zip(models, timings):
                timing = best(partial(_step, one, input), _ONCE, _clock(next(model.parameters(), None)))
                of += [timing] if turn else []
            if turn and time.perf_counter() - start > _STEPS.seconds:
                break
    return [min(of, key=lambda timing: (timing.disturbed, timing.seconds)) for of in timings], fuses_in_eval


def _step(model: Module, input: Any) -> None:
    """Forward, and the gradients of all outputs to the parameters, as far as anybody may want them."""
    outputs = [t for t in tree_leaves(_called(model, input)) if isinstance(t, Tensor) and t.requires_grad]
    wanted = [p for p in model.parameters() if p.requires_grad]
    if outputs and wanted:
        torch.autograd.grad(outputs, wanted, [torch.ones_like(y) for y in outputs], allow_unused=True)


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Buffers and the state of the random generators are put back after the block."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


# ---- one layer ------------------------------------------------------------------------------------------------------


def _count(
    rows: Rows, name: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], compare: bool = False
) -> None:
    """Adds a call of a layer to `rows`, just before it; measures it if it is the first on such an input."""
    input = args[0] if args else kwargs["input"]
    for pass_, wanted in _passes(module, input):
        key = (name, pass_, input.shape, input.stride(), input.dtype)
        row = rows.get(key)
        calls = row.calls + 1 if row else 1
        row = row or _measured(name, module, input, args[1:], pass_, wanted, compare)
        torchs = row.torch_seconds and row.torch_seconds / row.calls * calls
        rows[key] = replace(row, calls=calls, seconds=row.seconds / row.calls * calls, torch_seconds=torchs)


def _count_chain(
    rows: Rows,
    names: dict[Module, str],
    compare: bool,
    block: modules.ConvBlock2d,
    layers: tuple[Any, ...],
    input: Tensor,
) -> None:
    """The same for layers that run as one: `block` does what they do, functions among them."""

    def name_of(part: Any) -> str:
        if isinstance(part, Module):
            return names.get(part, "")
        return part[0] if isinstance(part[0], str) else "max_pool2d"

    _count(rows, " + ".join(name_of(part) for part in layers if part is not None), block, (input,), {}, compare)


def _passes(module: Any, input: Tensor) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The passes that autograd will run, each with what it is the gradient to: the input is 0, parameters 1 and 2."""
    yield "forward", ()
    if not torch.is_grad_enabled():
        return
    if input.requires_grad:
        yield "dgrad" if _parameters(module) else "backward", (0,)
    trained = tuple(i for i, p in enumerate(_parameters(module), start=1) if p is not None and p.requires_grad)
    if trained:
        yield "wgrad", trained


def _measured(
    name: str,
    module: Any,
    input: Tensor,
    others: tuple[Any, ...],
    pass_: str,
    wanted: tuple[int, ...],
    compare: bool,
) -> LayerPass:
    """others: what the layer is called with beside its input; of those with parameters, no more than that."""
    ours, torchs = _forwards(module)
    if others and not _parameters(module):
        ours, torchs = ((lambda x, f=f: f(x, *others)) for f in (ours, torchs))
    with torch.no_grad():
        x = input.detach()
        y = outputs_of(ours(x.clone(), *_parameters(module)))[0]
    dy = torch.randn_like(y) if wanted else None
    call, reference = (_call(forward, module, x, wanted, dy) for forward in (ours, torchs))
    error = error_of(outputs_of(call()), [t.double() for t in outputs_of(reference())])
    calls = [call, reference] if compare and not simulator.current() else [call]
    timings = by_turns(calls, _ONCE if simulator.current() else _LIMITS, _clock(x))
    return LayerPass(
        name,
        kind_of(module).__name__,
        tuple(x.shape),
        tuple(y.shape),
        pass_,
        _algorithm(module, x, y.dtype, pass_),
        calls=1,
        seconds=timings[0].seconds,
        share=0.0,
        error=error,
        torch_seconds=timings[1].seconds if len(timings) > 1 else None,
        disturbed=not simulator.current() and any(timing.disturbed for timing in timings),
    )


def _parameters(module: Any) -> tuple[Tensor | None, ...]:
    if isinstance(module, PReLU):
        return (module.weight,)
    return (module.weight, module.bias) if hasattr(module, "algo") else ()


def _forwards(module: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """convlab's and torch's functions of (input, *parameters)."""
    if isinstance(module, Parametrized):
        return module._of(functional), module._of(torch.nn.functional)
    kind: Any = kind_of(module)
    if isinstance(module, modules.Conv2d):
        return module._conv_forward, partial(ORIGINAL[kind]._conv_forward, module)
    return partial(kind.forward, module), partial(ORIGINAL[kind].forward, module)


def _call(
    forward: Callable[..., Any], module: Any, x: Tensor, wanted: tuple[int, ...], dy: Tensor | None
) -> Callable[[], Any]:
    """A function that does the pass once: forward, or the gradient to the `wanted` of input and parameters."""
    tensors: list[Any] = [
        t if t is None else t.detach().requires_grad_(i in wanted) for i, t in enumerate((x, *_parameters(module)))
    ]
    if getattr(module, "inplace", False):
        tensors[0] = tensors[0].clone()
    if not wanted:
        return torch.no_grad()(lambda: forward(*tensors))
    with torch.enable_grad():
        y = outputs_of(forward(*tensors))[0]
    return lambda: torch.autograd.grad(y, [tensors[i] for i in wanted], dy, retain_graph=True)


def _algorithm(module: Any, x: Tensor, dtype: torch.dtype, pass_: str) -> str | None:
    """dtype: what autocast, if it is on, makes of x's."""
    if not hasattr(module, "algo") or not dtype.is_floating_point:
        return None  # there is but one
    if not isinstance(module, modules.Conv2d):
        return _algorithm_around(module, x, dtype, pass_)
    padding: Any = module.padding
    if module.padding_mode != "zeros":
        x = torch.nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = 0
    problem = Conv2dProblem.of(x, module.weight, module.stride, padding, module.dilation, module.groups)
    return names_of(module.algo, replace(problem, dtype=dtype))[pass_]


def _algorithm_around(module: Any, x: Tensor, dtype: torch.dtype, pass_: str) -> str:
    """The same for a convolution of one dimension, or a transposed one, which runs dgrad as its forward."""
    weight, one = module.weight, module.weight.dim() == 3
    if isinstance(module, Conv1d):
        padding: Any = module.padding
        if module.padding_mode != "zeros":
            x = torch.nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
            padding = 0
        if padding == "same":  # an odd zero goes to the right
            total = module.dilation[0] * (module.kernel_size[0] - 1)
            x, padding = torch.nn.functional.pad(x, (total // 2, total - total // 2)), 0
        padding = 0 if padding == "valid" else padding
    else:
        passes = {"forward": "dgrad", "dgrad": "forward"}
        x, padding, pass_ = module._of(torch.nn.functional)(x, weight, None), module.padding, passes.get(pass_, pass_)
    stride, dilation, padding = (
        (before, *n) if one and isinstance(n, tuple) else n
        for before, n in ((1, module.stride), (1, module.dilation), (0, padding))
    )
    x, weight = (t.unsqueeze(-2) if one else t for t in (x, weight))
    problem = Conv2dProblem.of(x, weight, stride, padding, dilation, module.groups)
    return names_of(module.algo, replace(problem, dtype=dtype))[pass_]


def _clock(x: Tensor | None) -> Callable[[], float]:
    """One that waits for a GPU on which x is."""
    if x is None or not x.is_cuda:
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(x.device)
        return time.perf_counter()

    return clock


# ---- as text --------------------------------------------------------------------------------------------------------


def _cells(row: LayerPass) -> tuple[str, ...]:
    sizes = (" x ".join(map(str, shape)) for shape in (row.input, row.output))
    mark = _MARK * row.disturbed
    figures: tuple[str, ...] = str(row.calls), f"{mark}{1e3 * row.seconds:.3f}", f"{row.share:.1%}", f"{row.error:.1e}"
    if row.torch_seconds is not None:
        ratio = f"{row.times_faster:.2f}" if row.times_faster else "-"
        figures = *figures, f"{1e3 * row.torch_seconds:.3f}", ratio
    return (row.layer or "the model", row.kind, *sizes, row.pass_, row.algorithm or "", *figures)


def _grouped(reasons: dict[str, str]) -> Iterator[str]:
    """A line for each reason, with the names that have it."""
    for reason in dict.fromkeys(reasons.values()):
        names = (name or "the model" for name, its in reasons.items() if its == reason)
        yield f"{', '.join(names)}: {reason}"


def _headings(rows: list[tuple[str, ...]]) -> tuple[str, ...]:
    return (*_HEADINGS, *_COMPARED)[: len(rows[0])]


def _table(rows: list[tuple[str, ...]]) -> str:
    """Drawn by rich where it is installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return _plain_table(rows)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, heading in enumerate(_headings(rows)):
        table.add_column(heading, justify="left" if i < _TEXTS else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=sum(_widths(rows)) + 3 * len(rows[0]), color_system=None).print(table, markup=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def _plain_table(rows: list[tuple[str, ...]]) -> str:
    widths = _widths(rows)

    def line(cells: tuple[str, ...]) -> str:
        return "  ".join(c.ljust(w) if i < _TEXTS else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths)))

    return "\n".join(line(cells) for cells in (_headings(rows), *rows))


def _widths(rows: list[tuple[str, ...]]) -> list[int]:
    return [max(map(len, column)) for column in zip(_headings(rows), *rows)]
