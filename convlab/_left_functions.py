"""The calls of torch's functions in a model's own forwards, of those that convlab has: `convert` swaps layers, and sees
no calls."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.nn import Module

from . import _fuse, functional
from ._tracing import PLAN, UntraceableError, class_of, trace
from .arguments import in_words

_NAMES = frozenset(name for name in vars(functional) if callable(getattr(torch.nn.functional, name, None)))


UNKNOWN = "which functions its forward calls is not known"  # what such a sentence begins with


def left_functions(model: Module) -> dict[str, str]:
    """What forwards call, or why that is not known: name of the module -> a sentence, as torch.fx sees it. Of a module that
    `fuse` has seen, what is in no chain."""
    found = {}
    for name, module in model.named_modules():
        if not _has_own_forward(module):
            continue
        try:
            calls = list(dict.fromkeys(_calls(_graph(module))))
        except UntraceableError as error:
            found[name] = f"{UNKNOWN}, because {error}; look there for calls that convlab.functional has, too"
            continue
        if calls:
            said = f"its forward calls torch's {in_words(calls)}: convlab.functional has the same"
            advice = ", and convlab.fuse takes those that follow a convolution"
            found[name] = f"outside of blocks {said}" if _is_fused(module) else said + advice
    return found


def _has_own_forward(module: Module) -> bool:
    forward: Any = class_of(module).forward
    home = str(getattr(forward, "__module__", ""))
    written = isinstance(module, fx.GraphModule) or home.partition(".")[0] not in ("torch", "convlab")
    return written and not isinstance(module, torch.jit.ScriptModule)


def _is_fused(module: Module) -> bool:
    return isinstance(module.__dict__.get(PLAN), _fuse.Plan)


def _graph(module: Module) -> fx.Graph:
    if isinstance(module, fx.GraphModule):
        return module.graph
    parameters = _fuse.parameters_of(class_of(module))
    if parameters is None:
        raise UntraceableError("its forward takes *args, **kwargs or no tensor")
    is_fused, kind = _is_fused(module), type(module)
    try:
        module.__class__ = class_of(module)
        graph = trace(module, dict.fromkeys(parameters, torch.Tensor), inline=is_fused).graph
        if is_fused:
            _fuse.rewritten(module, graph)
        return graph
    finally:
        module.__class__ = kind


def _calls(graph: fx.Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op not in ("call_function", "call_method"):
            continue
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        name = name.strip("_").removesuffix("_with_indices")  # in place, and behind F.max_pool2d
        if name in _NAMES and not str(getattr(target, "__module__", "")).startswith("convlab"):
            yield name
