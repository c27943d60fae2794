"""A graph of a module's forward that may run instead of it.

torch.fx runs a forward once, on proxies, and assumes that it always reads the same attributes and takes the same
branches. Here the attributes that it read are recorded, to be compared at each forward. A forward that does what a
graph cannot hold (switches gradients, draws random numbers, sets attributes) gets no graph.
"""

import copy
import operator
import os
import random
import sys
import traceback
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.nn import Module

PLAN = "_convlab_chains"  # where `fuse` keeps what it found in a module
MADE_OF = "_convlab_made_of"  # in a class that `fuse` made: the module's original class

_OF_ALL_MODULES = frozenset(Module().__dict__) - {"training"}
_PLAIN = (bool, int, float, str, type(None), type, torch.dtype, FunctionType, BuiltinFunctionType)
_MISSING = object()
_FAILURES = (
    fx.proxy.TraceError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class UntraceableError(Exception):
    """Its text is the reason."""


class Traced(NamedTuple):
    """graph: its placeholders are the forward's parameters that have no default; its modules are the module's children,
    but in place of a plain Sequential, which `inlined` names, its children. read: the module's attributes that its
    forward read, on which the graph depends. asked: by name, what is set in the children that it took without calling
    them, to ask for `self.dropout.p` for instance.
    """

    graph: fx.Graph
    read: dict[str, Any]
    inlined: tuple[str, ...]
    asked: dict[str, dict[str, Any]]


def trace(module: Module, arguments: dict[str, type], inline: bool) -> Traced:
    """arguments: torch.Tensor, list or tuple for each parameter without a default; inline: look into plain Sequentials.

    Raises UntraceableError. Leaves the module as it was.
    """
    original: Any = type(module)
    read: dict[str, Any] = {}
    written: list[str] = []

    class Watched(original):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name not in _OF_ALL_MODULES and name in super().__getattribute__("__dict__"):
                read.setdefault(name, value)
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            written.append(name)
            super().__setattr__(name, value)

    before = {name: _copied(value) for name, value in module.__dict__.items()}
    randomness = random.getstate(), torch.get_rng_state()
    tracer = _Tracer(arguments, inline)
    module.__class__ = Watched
    try:
        graph = tracer.trace(module)
    except _FAILURES as error:
        raise UntraceableError(f"torch.fx cannot trace it{_told(error)}") from None
    finally:
        object.__setattr__(module, "__class__", original)
        for name, value in before.items():
            kept: Any = module.__dict__.get(name)
            if type(value) in (dict, list, set) and type(kept) is type(value):
                if len(kept) != len(value) or (_is_plain(list(kept)) and kept != value):
                    written.append(name)
                kept.clear()
                kept.extend(value) if isinstance(value, list) else kept.update(value)
                before[name] = kept
        module.__dict__.clear()
        module.__dict__.update(before)
        same = random.getstate() == randomness[0] and torch.equal(torch.get_rng_state(), randomness[1])
        if not same:
            random.setstate(randomness[0])
            torch.set_rng_state(randomness[1])
    if not same:
        raise UntraceableError("its forward draws random numbers")
    if written:
        raise UntraceableError(f"its forward sets self.{written[0]}")
    if tracer.reason:
        raise UntraceableError(tracer.reason)
    for name, value in read.items():
        if not _is_plain(value):
            raise UntraceableError(f"its forward reads self.{name}, {type(value).__name__}, which may change")
    for node in graph.nodes:
        node.type = None
    read = {name: copy.deepcopy(value) for name, value in read.items()}
    asked = {name: settings_of(module._modules[name]) for name, times in tracer.taken.items() if times > 0}
    return Traced(graph, read, tuple(tracer.inlined), asked)


def _told(error: Exception) -> str:
    """What stopped torch.fx, and the last line of the forward that it came to."""
    frames = traceback.walk_tb(error.__traceback__)
    own = ("torch", __name__.partition(".")[0])
    lines = [
        (f.f_code.co_filename, n) for f, n in frames if f.f_globals.get("__name__", "").partition(".")[0] not in own
    ]
    where = f" in {os.path.basename(lines[-1][0])}:{lines[-1][1]}" if lines else ""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "control flow" in said:
        return f" past an `if`, or the like, on a tensor or its shape{where}"
    return f"{where and ' past what stands'}{where} ({said})"


def is_as_read(module: Module, read: dict[str, Any]) -> bool:
    """Whether these attributes are what they were."""
    return all(getattr(module, name, _MISSING) == value for name, value in read.items())


def settings_of(module: Module | None) -> dict[str, Any]:
    """What is set in a module: its class, and its attributes that are no parameters, buffers, modules or hooks."""
    if module is None:
        return {}
    own = {name: value for name, value in module.__dict__.items() if name not in _OF_ALL_MODULES and name != PLAN}
    own = {name: copy.deepcopy(value) if _is_plain(value) else id(value) for name, value in own.items()}
    return own | {"class": class_of(module)}


def class_of(module: Module) -> Any:
    """The module's class, before `fuse`."""
    return type(module).__dict__.get(MADE_OF, type(module))


def is_bare_sequential(module: Module) -> bool:
    """Whether a call of it calls its children in turn, and does nothing else."""
    return class_of(module).forward is torch.nn.Sequential.forward and not (
        "forward" in module.__dict__
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if type(value) in (list, tuple) else isinstance(value, _PLAIN)


def _copied(value: Any) -> Any:
    return value.copy() if type(value) in (dict, list, set) else value


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, arguments: dict[str, type], inline: bool) -> None:
        super().__init__()
        self.arguments, self.inline, self.reason = arguments, inline, ""
        self.inlined: list[str] = []
        self.taken: dict[str, int] = {}  # children, and how many times more they were taken than called
        self.modes = _modes()

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Proxies for parameters that have no default; the others have theirs."""
        proxies: list[Any] = [self.create_proxy("placeholder", name, (), {}) for name in self.arguments]
        for proxy, kind in zip(proxies, self.arguments.values()):
            proxy.node.meta["kind"] = kind
        return root_fn, [self.root, *proxies]

    def proxy(self, node: fx.Node) -> "_Value":
        return _Value(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self.modes:
            self.reason = "its forward switches gradients, autocast or checkpoints"
        return super().create_node(*args, **kwargs)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, fx.Proxy):
            return a.node
        if isinstance(a, torch.Tensor) and not isinstance(a, torch.nn.Parameter):
            raise fx.proxy.TraceError("a tensor that is neither a parameter nor made of the input")
        return super().create_arg(a)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if isinstance(attr_val, Module) and self.root._modules.get(attr) is attr_val:
            self.taken[attr] = self.taken.get(attr, 0) + 1
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: Module, forward: Any, args: Any, kwargs: Any) -> Any:
        name = self.path_of_module(m)
        if name in self.taken:
            self.taken[name] -= 1
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        if not self.inline or not is_bare_sequential(m):
            return True
        self.inlined.append(module_qualified_name)
        return False


class _Value(fx.Proxy):
    """A proxy that, when the forward asks with isinstance, is of the type that its parameter takes. The type of what
    the forward computes is not known."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        asks = sys._getframe(1).f_globals.get("__name__", "")
        if asks.partition(".")[0] in ("torch", __name__.partition(".")[0]):
            return _Value
        kind = self.node.meta.get("kind")
        if kind is None:
            vars(self.tracer)["reason"] = "its forward asks what kind of thing it computed"
        return kind or _Value


def _written(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`x += value`, or another such statement, as a call in a graph."""

    def write(x: Any, value: Any) -> Any:
        return operation(x, value)

    write.__name__ = write.__qualname__ = f"write_{operation.__name__}"

    def record(self: _Value, value: Any) -> Any:
        return self.tracer.create_proxy("call_function", write, (self, value), {})

    setattr(_Value, f"__{operation.__name__}__", record)
    return write


# torch.fx makes `x = x + value` of `x += value`: what else is x would not change. Its own code for operator.iadd would
# bind the name x anew, and so change other numbers that are x.
add_to = _written(operator.iadd)
for _name in ("sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"):
    _written(getattr(operator, f"i{_name}"))


def _modes() -> tuple[Any, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")),
        torch._C._autograd._top_saved_tensors_default_hooks(False) is None,
    )
