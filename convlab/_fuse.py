"""Chains of layers as single calls: what `fuse` finds, and how a module runs them."""

import functools
import inspect
import itertools
import linecache
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx
from torch.nn import Module

from . import _chains, functional, modules
from ._convert import check_model, convert_layers, unfuse
from ._tracing import (
    MADE_OF,
    PLAN,
    UntraceableError,
    add_to,
    class_of,
    is_as_read,
    is_bare_sequential,
    settings_of,
    trace,
)

_Path = tuple[str, ...]
_Names = tuple[tuple[str, bool], ...]  # and whether there is nothing of this name


def fuse(model: Module, algo: str | dict[str, str] | None = None) -> Module:
    """Converts `model`, and makes one call of each convolution and what follows it: batch normalization, (leaky) ReLU
    or ReLU6, max pooling.

    Returns `model`.

    Finds chains in the forward of each module, as torch.fx sees it: layers and functions, conv + activation (+ pooling)
    and conv + pooling + activation. In place: layers, their names, parameters and hooks stay, and what calls them in a
    row is replaced. At each forward a chain whose layers are no longer as they were (a hook, a parametrization, another
    layer in its place) runs one by one. Batch normalization is folded in eval(), at each forward, from the parameters
    and statistics as they then are; in training, on the CPU, it and an activation behind it are one call. Pooling before a
    leaky ReLU of a positive slope is done after it; where two values of a window are one after rounding, the first has the
    gradient. A residual block's sum and activation are one pass on the CPU where no gradient is recorded.

    What is left, with the reason, stands in `summary(model, input).unfused`. `restore` undoes it, and what `convert`
    does.

    algo: as for `convert`; None: what its convolutions have, "auto" for new ones.
    """
    check_model("fuse", model)
    convert_layers(model, algo)
    for module in model.modules():
        unfuse(module)
        if _has_convolutions(module):
            _plan(module)
    return model


def unfused(model: Module) -> dict[str, str]:
    """The convolutions, and what stands behind them, that run as layers of their own in a model that `fuse` has seen:
    name -> why."""
    reasons: dict[str, str] = {}
    for prefix, module, plan in _plans(model):
        for name, reason in plan.left(module):
            reasons.setdefault(f"{prefix}.{name}" if prefix and name else prefix or name, reason)
    return reasons


def is_fused(model: Module) -> bool:
    """Whether `fuse` has seen it, or a part of it."""
    return any(True for _ in _plans(model))


def fuses(model: Module) -> bool:
    """Whether some layers of it, as it is now, are one call."""
    return any(plan.fuses(module) for _, module, plan in _plans(model))


def _plans(model: Module) -> Iterator[tuple[str, Module, "Plan"]]:
    """The modules that `fuse` has seen, by name, with their plans."""
    for name, module in model.named_modules():
        plan = module.__dict__.get(PLAN)
        if isinstance(plan, Plan):
            yield name, module, plan


def _has_convolutions(module: Module) -> bool:
    """Whether its own forward may call one: a child, also in a list of them, or in a plain Sequential below."""
    return any(
        isinstance(child, torch.nn.Conv2d) or (_is_transparent(child) and _has_convolutions(child))
        for child in module.children()
    )


def _is_transparent(module: Module) -> bool:
    return isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict)) or is_bare_sequential(module)


# ---- one module -----------------------------------------------------------------------------------------------------


class Chain(NamedTuple):
    """Arguments of `_chains.fused`, a layer by its path."""

    conv: str | None
    norm: str | None
    activation: str | tuple[str, float] | None
    pool: str | tuple[Any, ...] | None
    pool_first: bool

    def parts(self, module: Module) -> tuple[Any, ...]:
        """The same with layers for paths."""
        return tuple(module.get_submodule(part) if isinstance(part, str) else part for part in self)


class Version(NamedTuple):
    """What a module does for arguments of some kinds: `function` of it and them, while its attributes are as `read` and
    the modules below it as in `structure`."""

    function: Any
    read: dict[str, Any]
    structure: tuple[tuple[_Path, _Names], ...]
    inlined: tuple[str, ...]
    asked: dict[str, dict[str, Any]]
    chains: tuple[Chain, ...]
    left: dict[str, str]

    def holds(self, module: Module) -> bool:
        """Whether the module's own forward would do the same as `function`."""
        for path, names in self.structure:
            below: Any = module
            for name in path:
                below = below._modules.get(name)
                if below is None:
                    return False
            if _there(below) != names:
                return False
        if self.inlined and (
            _chains.hooked_everywhere()
            or not all(is_bare_sequential(module.get_submodule(path)) for path in self.inlined)
        ):
            return False
        if (
            self.asked
            and not torch.compiler.is_compiling()
            and any(settings_of(module._modules.get(name)) != was for name, was in self.asked.items())
        ):
            return False
        return not self.read or is_as_read(module, self.read)

    def reasons(self, module: Module) -> Iterator[tuple[Chain, str | None]]:
        """Its chains, each with why it is not one call now, None if it is. While it holds."""
        return ((chain, _chains.why_not(*chain.parts(module))) for chain in self.chains)


def _there(module: Module) -> _Names:
    """The names of its layers, parameters and buffers."""
    kinds: tuple[dict[str, Any], ...] = (module._modules, module._parameters, module._buffers)
    return tuple((name, value is None) for kind in kinds for name, value in kind.items())


class Plan:
    """What `fuse` keeps in a module: its class as it was, and a Version, or why there is none, for training and eval and
    each kind of arguments that came."""

    def __init__(self, original: type) -> None:
        self.original = original
        self.versions: dict[tuple[Any, ...], Version | str] = {}

    def __deepcopy__(self, memo: object) -> "Plan":
        return self  # it holds names, no modules

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.original,)  # versions are made where they are missing

    def version(self, module: Module, args: tuple[Any, ...]) -> Version | None:
        """What to run for these arguments; None: the module's own forward."""
        key = (module.training, *map(_kind_of, args))
        found = self.versions.get(key)
        if found is None:
            if torch.compiler.is_compiling() or None in key:
                return None
            found = self.make(module, key)
        return found if isinstance(found, Version) and found.holds(module) else None

    def make(self, module: Module, key: tuple[Any, ...]) -> Version | str:
        """The Version, or the reason, for this key."""
        training, *kinds = key
        turned = [m for m in module.modules() if m.training == module.training != training]
        fused = type(module)
        try:
            for m in turned:
                m.__dict__["training"] = training
            module.__class__ = self.original
            found: Version | str = _version(module, kinds)
        except UntraceableError as error:
            found = str(error)
        finally:
            module.__class__ = fused
            for m in turned:
                m.__dict__["training"] = not training
        self.versions[key] = found
        if isinstance(found, Version) and "training" not in found.read and not found.asked:
            other = (not training, *kinds)
            self.versions[other] = found
        return found

    def fuses(self, module: Module) -> bool:
        """Whether some layers of a chain of it are one call now."""
        return any(
            isinstance(found, Version)
            and found.holds(module)
            and any(_chains.gains(*chain.parts(module)) for chain in found.chains)
            for found in self._of_mode(module)
        )

    def left(self, module: Module) -> Iterator[tuple[str, str]]:
        """What is not fused in it now, and why."""
        for found in self._of_mode(module):
            if isinstance(found, str):
                yield "", found
                continue
            yield from found.left.items()
            if not found.holds(module):
                yield "", "it is not as it was when fuse() saw it"
            else:
                yield from ((chain.conv, reason) for chain, reason in found.reasons(module) if reason and chain.conv)

    def _of_mode(self, module: Module) -> Iterator[Version | str]:
        """What there is for training, or for eval."""
        return (found for key, found in self.versions.items() if key[0] == module.training)


def _kind_of(argument: object) -> type | None:
    """What a parameter is to a trace; None for what it cannot stand for."""
    if isinstance(argument, torch.Tensor):
        return torch.Tensor
    return type(argument) if type(argument) in (list, tuple) else None


def _plan(module: Module) -> None:
    """Gives a module its plan, and where there is a chain in it, a class that follows it."""
    plan = Plan(type(module))
    module.__dict__[PLAN] = plan
    if reason := _reason_to_leave(module):
        plan.versions[(module.training,)] = reason
        return
    tensors = (torch.Tensor,) * len(parameters_of(plan.original) or ())
    for training in (True, False):
        if (training, *tensors) not in plan.versions:
            plan.make(module, (training, *tensors))
    if any(isinstance(found, Version) and found.chains for found in plan.versions.values()):
        module.__class__ = _fused_class(plan.original)


def _reason_to_leave(module: Module) -> str | None:
    if isinstance(module, (fx.GraphModule, torch.jit.ScriptModule)):
        return f"{type(module).__name__} is a graph already: fuse the model before"
    if "forward" in module.__dict__:
        return "its forward was replaced"
    if type(module).__dict__.get("parametrizations") or hasattr(module, "parametrizations"):
        return "it is parametrized"
    if parameters_of(class_of(module)) is None:
        return "its forward takes *args, **kwargs or no tensor"
    return None


@functools.cache
def parameters_of(kind: Any) -> tuple[str, ...] | None:
    """Names of forward's parameters that have no default; None for a forward that has others than named ones."""
    parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
    names = tuple(p.name for p in parameters if p.default is p.empty)
    plain = all(p.kind is p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters)
    return names if plain and names else None


@functools.cache
def _fused_class(original: Any) -> type:
    """A class like `original`, with its name, whose forward follows the module's plan."""
    own: Any = original.forward

    @functools.wraps(own)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        plan = getattr(self, PLAN, None)  # a slice of a Sequential has none
        version = None if plan is None or kwargs else plan.version(self, args)
        return own(self, *args, **kwargs) if version is None else version.function(self, *args)

    members = {
        "forward": forward,
        MADE_OF: original,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__reduce_ex__": _reduced,
    }
    return type(original.__name__, (original,), members)


def _reduced(self: Any, protocol: int) -> Any:
    """For pickle and copy: the class is made again, of the one that can be found by its name."""
    original = type(self).__dict__[MADE_OF]
    state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__.copy()
    return _new, (original,), state


def _new(original: type) -> Any:
    kind: Any = _fused_class(original)
    return kind.__new__(kind)


# ---- chains in a graph ----------------------------------------------------------------------------------------------


def _version(module: Module, kinds: list[type]) -> Version:
    arguments = dict(zip(parameters_of(class_of(module)) or (), kinds))
    if len(arguments) != len(kinds):
        raise UntraceableError("its forward is called with more than its parameters without a default")
    traced = trace(module, arguments, inline=any(map(is_bare_sequential, module.children())))
    with torch.set_grad_enabled(not torch.is_grad_enabled()):
        if str(trace(module, arguments, inline=bool(traced.inlined)).graph) != str(traced.graph):
            raise UntraceableError("its forward asks whether gradients are recorded")
    chains, left = rewritten(module, traced.graph)
    if traced.inlined and not any(_crosses(chain) for chain in chains):
        traced = trace(module, arguments, inline=False)  # what is below does its own
        chains, left = rewritten(module, traced.graph)
    below = [
        (name, m)
        for name, m in module.named_modules()
        if not name or isinstance(m, (torch.nn.ModuleList, torch.nn.ModuleDict)) or name in traced.inlined
    ]
    structure = tuple((tuple(name.split(".")) if name else (), _there(m)) for name, m in below)
    function: Any = _compiled(traced.graph) if chains else class_of(module).forward
    return Version(function, traced.read, structure, traced.inlined, traced.asked, tuple(chains), left)


def _crosses(chain: Chain) -> bool:
    """Whether its layers are children of several modules."""
    paths = [part for part in (chain.conv, chain.norm, chain.activation, chain.pool) if isinstance(part, str)]
    return len({path.rpartition(".")[0] for path in paths}) > 1


def rewritten(module: Module, graph: fx.Graph) -> tuple[list[Chain], dict[str, str]]:
    """Makes one call of each chain of `graph`. Returns them, and why convolutions and what follows them are left."""
    chains: list[Chain] = []
    left: dict[str, str] = {}
    made: dict[fx.Node, Chain] = {}  # by convolutions, and what follows them without a pooling
    for node in list(graph.nodes):
        if _part(module, node)[0] == "conv":
            nodes, chain, reasons = _chain_from(module, node)
            left |= reasons
            if len(nodes) > 1:
                node = _replace(graph, nodes, _chains.fused, nodes[0].all_input_nodes, chain)
                chains.append(chain)
            if chain.pool is None and type(module.get_submodule(str(chain.conv))) is modules.Conv2d:
                made[node] = chain
    for node in list(graph.nodes):  # what no convolution has before it
        role, norm = _part(module, node)
        if role == "norm" and (behind := _activation_behind(module, node)):
            user, activation = behind
            chain = Chain(None, norm, activation, None, False)
            chains.append(chain)
            (input,) = node.all_input_nodes
            if _joins_channels(input, node):
                _replace(graph, [input, node, user], _chains.joined, input.args[:1], (norm, activation))
            else:
                _replace(graph, [node, user], _chains.fused, (input,), chain)
    for node in list(graph.nodes):  # the ends of residual blocks
        for place, y, other in _sums(node):
            if y in made and len(y.users) == 1:
                chain = made[y]
                if y.op == "call_module":
                    chains.append(chain)
                    left.pop(str(chain.conv), None)
                behind = _activation_behind(module, node)
                nodes, then = ([node, behind[0]], behind[1]) if behind else ([node], None)
                _replace(graph, nodes, _chains.added, (y, other, place), (*chain[:3], then))
                break
    return chains, left


def _activation_behind(module: Module, node: fx.Node) -> tuple[fx.Node, Any] | None:
    """The activation that alone uses a node, if a block has it, and what `Chain` says of it."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    role, activation = _part(module, user)
    fits = role == "activation" and not _chains.misfit(*Chain(None, None, activation, None, False).parts(module)[2:])
    return (user, activation) if fits else None


def _joins_channels(node: fx.Node, user: fx.Node) -> bool:
    """Whether it is torch.cat(its first argument, 1), which `user` alone uses, and nothing is done between the two."""
    if node.op != "call_function" or node.target not in (torch.cat, torch.concat) or list(node.users) != [user]:
        return False
    return not any(_between(node, user)) and (len(node.args), *node.args[1:], node.kwargs) in (
        (2, 1, {}),
        (1, {"dim": 1}),
    )


def _between(first: fx.Node, last: fx.Node) -> Iterator[fx.Node]:
    """What is done after the one and before the other."""
    node = first.next
    while node is not last:
        if node.op != "get_attr":
            yield node
        node = node.next


def _sums(node: fx.Node) -> Iterator[tuple[str, fx.Node, fx.Node]]:
    """The summands of a sum of two tensors, either of them before the other, with its place as `_chains.added` has it."""
    if node.op not in ("call_function", "call_method") or node.kwargs or len(node.all_input_nodes) != 2:
        return
    first, second = node.all_input_nodes
    if node.args != (first, second):
        return
    if node.target in (add_to, "add_"):
        yield "written", first, second
    elif node.target in (operator.add, torch.add, "add"):
        yield "first", first, second
        yield "second", second, first


_FOLLOWED_BY = {
    "conv": ("norm", "activation", "pool"),
    "norm": ("activation", "pool"),
    "activation": ("pool",),
    "pool": ("activation",),
}


def _chain_from(module: Module, conv: fx.Node) -> tuple[list[fx.Node], Chain, dict[str, str]]:
    """The nodes of the longest chain, the Chain, and why a convolution begins none, or what follows it is in none."""
    nodes, role = [conv], "conv"
    name = str(conv.target)
    chain = Chain(name, None, None, None, False)
    if type(layer := module.get_submodule(name)) is not modules.Conv2d:
        return nodes, chain, {name: f"{type(layer).__name__} is not exactly convlab.Conv2d"}
    while True:
        users = list(nodes[-1].users)
        if len(users) != 1:
            return nodes, chain, {name: f"its output is used {len(users)} times"} if len(nodes) == 1 else {}
        (user,) = users
        previous, (role, part) = role, _part(module, user)
        if role == "norm" and any(node.target == user.target for node in _between(nodes[-1], user)):
            return nodes, chain, {name: f"{part} is called for another output before its own"}
        if role not in _FOLLOWED_BY[previous] or getattr(chain, role) is not None:
            return nodes, chain, {name: _stranger(module, user)} if len(nodes) == 1 else {}
        pool_first = previous == "pool" or chain.pool_first
        longer = chain._replace(**{role: part, "pool_first": pool_first})
        if reason := _chains.misfit(*longer.parts(module)[2:]):
            return nodes, chain, {str(user.target) if user.op == "call_module" else user.name: reason}
        nodes.append(user)
        chain = longer


def _stranger(module: Module, node: fx.Node) -> str:
    if node.op == "output":
        return f"{type(module).__name__} returns what it makes"
    if node.op == "call_module":
        return f"{type(module.get_submodule(str(node.target))).__name__} follows it"
    return f"{node.name} follows it"


_LAYERS = {
    torch.nn.Conv2d: "conv",
    torch.nn.BatchNorm2d: "norm",
    torch.nn.ReLU: "activation",
    torch.nn.LeakyReLU: "activation",
    torch.nn.ReLU6: "activation",
    torch.nn.MaxPool2d: "pool",
}
_RELU, _LEAKY_RELU = inspect.signature(functional.relu), inspect.signature(functional.leaky_relu)
_RELU6, _MAX_POOL = inspect.signature(functional.relu6), inspect.signature(functional.max_pool2d)
_FUNCTIONS: dict[Any, inspect.Signature] = {
    **dict.fromkeys((F.relu, functional.relu, torch.relu, torch.relu_, "relu", "relu_"), _RELU),
    **dict.fromkeys((F.leaky_relu, functional.leaky_relu, F.leaky_relu_), _LEAKY_RELU),
    **dict.fromkeys((F.relu6, functional.relu6), _RELU6),
    **dict.fromkeys((F.max_pool2d, functional.max_pool2d, torch.max_pool2d), _MAX_POOL),
}


def _part(module: Module, node: fx.Node) -> tuple[str, Any]:
    """What a node is in a chain, and what `Chain` says of it; "" for what is none."""
    if node.op == "call_module" and len(node.args) + len(node.kwargs) == 1:
        layer = module.get_submodule(str(node.target))
        kind = next((role for kind, role in _LAYERS.items() if isinstance(layer, kind)), "")
        if kind == "conv" and isinstance(layer, modules.ConvBlock2d | modules.TorchConvBlock2d):
            return "", None
        return kind, node.target
    signature = _FUNCTIONS.get(node.target) if node.op in ("call_function", "call_method") else None
    if signature is None or len(node.all_input_nodes) != 1:
        return "", None
    try:
        call = signature.bind(*node.args, **node.kwargs)
    except TypeError:
        return "", None
    call.apply_defaults()
    _, *rest = call.arguments.values()
    if signature is _MAX_POOL:
        return "pool", tuple(map(_immutable, rest))
    if signature is not _LEAKY_RELU:
        return "activation", ("relu6" if signature is _RELU6 else "relu", 1.0)
    return ("activation", ("leaky_relu", rest[0])) if isinstance(rest[0], (int, float)) else ("", None)


def _immutable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _replace(graph: fx.Graph, nodes: list[fx.Node], function: Any, inputs: Any, parts: Any) -> fx.Node:
    """Puts one call, of inputs and of the parts of a Chain, where `nodes` begin: nobody else has them."""
    with graph.inserting_before(nodes[0]):
        layers = [graph.get_attr(part) if isinstance(part, str) else part for part in parts]
        call = graph.call_function(function, (*inputs, *layers))
    nodes[-1].replace_all_uses_with(call)
    for node in reversed(nodes):
        graph.erase_node(node)
    return call


def _compiled(graph: fx.Graph) -> Any:
    """The graph as a function of the module and its arguments."""
    code = graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)
    source = f"<convlab's chains {next(_numbers)}>"
    linecache.cache[source] = (len(code.src), None, code.src.splitlines(keepends=True), source)  # for tracebacks
    exec(compile(code.src, source, "exec"), names)
    return names["forward"]


_numbers = itertools.count()
