"""Swapping torch.nn's layers for convlab's in a model that exists, and back."""

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch.nn import Module
from torch.nn.utils import parametrize

from . import _fusion as _fusion  # tells torch
from . import modules
from ._algorithms import Preferred
from ._modules_around import AROUND
from ._tracing import PLAN, class_of

CONVERTED = {
    torch.nn.Conv2d: modules.Conv2d,
    torch.nn.MaxPool2d: modules.MaxPool2d,
    torch.nn.AvgPool2d: modules.AvgPool2d,
    torch.nn.LeakyReLU: modules.LeakyReLU,
    torch.nn.ReLU: modules.ReLU,
    modules.TorchConvBlock2d: modules.ConvBlock2d,
    **AROUND,
}
_CONVOLUTIONS = (modules.Conv2d, modules.ConvBlock2d, *(kind for kind in AROUND.values() if hasattr(kind, "algo")))
ORIGINAL: dict[type, Any] = {ours: torchs for torchs, ours in CONVERTED.items()}


def convert(model: Module, algo: str | dict[str, str] = "auto") -> Module:
    """Makes every layer of `model` that is exactly one of torch.nn that convlab has, by the same name (Conv2d, ReLU,
    ConvTranspose2d, ...), convlab's.

    Returns `model`.

    In place, by the modules' class: parameters, buffers, hooks, the training flag, and whoever holds a reference to a
    layer stay as they are; a shared layer stays shared. What is left alone, subclasses and parametrized or quantized
    layers among it, stands in `summary(model, input).left` with the reason. `restore` undoes it.

    algo: what its convolutions run, also those that are convlab's already: "auto", a name, or a dict from passes to
    names. Where the algorithm cannot do a layer's problem, that pass of that layer runs "auto", and a warning says so,
    once, from the first forward that meets it. Raises ValueError for an unknown name, before anything is changed.
    """
    check_model("convert", model)
    convert_layers(model, algo)
    return model


def convert_layers(model: Module, algo: str | dict[str, str] | None) -> None:
    """What `convert` does; with None, convolutions that are convlab's already keep their algo."""
    automatic = isinstance(algo, str) and algo == "auto"
    if algo is not None and not automatic:
        Preferred(algo, "")
    for name, module, reason in _layers(model):
        if type(module) in CONVERTED and not reason:
            module.__class__ = CONVERTED[type(module)]
        if kind_of(module) in _CONVOLUTIONS and algo is not None:
            module.algo = algo if automatic else Preferred(algo, f"layer {name!r}" if name else "the layer")


def restore(model: Module) -> Module:
    """Makes every layer of `model` that is exactly one of convlab's the torch.nn layer it stands for, and returns
    `model`.

    In place, as `convert`; also layers that were made as convlab's, but not parametrized ones. Their `algo` is
    forgotten, and what `fuse` made of the model. A ConvBlock2d stays one layer, which computes with torch's functions.
    """
    check_model("restore", model)
    for module in model.modules():
        unfuse(module)
        if type(module) in ORIGINAL:
            module.__class__ = ORIGINAL[type(module)]
            module.__dict__.pop("algo", None)
    return model


def unfuse(module: Module) -> None:
    """Takes back what `fuse` did to this module."""
    if module.__dict__.pop(PLAN, None) is not None:
        module.__class__ = class_of(module)


def kind_of(module: Module) -> type:
    """The module's class, below what parametrizations make of it: a layer of convlab's stays one."""
    return parametrize.type_before_parametrizations(module)


def left_alone(model: Module) -> dict[str, str]:
    """The layers of a kind that convlab has which are torch's still: name -> why."""
    return {
        name: reason or "call convlab.convert(model) to make it convlab's"
        for name, module, reason in _layers(model)
        if reason or type(module) in CONVERTED
    }


def others(model: Module, taken: Container[str] = ()) -> dict[str, int]:
    """The kinds of torch.nn's layers in it that convlab does not have, with how many there are of each; not those that
    compute nothing, nor those of the names `taken`."""
    known = {module for _, module, _ in _layers(model)}
    return Counter(
        type(module).__name__
        for name, module in model.named_modules()
        if name not in taken
        and module not in known
        and type(module).__module__.startswith("torch.nn.modules.")
        and not isinstance(module, (torch.nn.Identity, torch.nn.Flatten, torch.nn.Unflatten))
        and not any(True for _ in module.children())
    )


def _layers(model: Module) -> Iterator[tuple[str, Any, str | None]]:
    """The layers of a kind that convlab has: name, module, and why it cannot be converted; None if it can, or is
    convlab's."""
    quantized = any(map(_is_quantized, model.modules()))
    for name, module in model.named_modules():
        if isinstance(module, tuple(CONVERTED)) or _is_scripted(module) or _is_quantized(module):
            yield name, module, None if kind_of(module) in ORIGINAL else _reason_to_leave(module, quantized)


def _reason_to_leave(module: Any, quantized: bool) -> str | None:
    if _is_scripted(module):
        return "scripted: convert before, and use torch.jit.trace instead of torch.jit.script"
    if quantized:
        return "quantized" if _is_quantized(module) else "its model is quantized, and so may its input be"
    if parametrize.is_parametrized(module):
        return f"parametrized ({', '.join(module.parametrizations)}): convert before parametrizing, or remove the parametrization first"
    if type(module) not in CONVERTED:
        kind = next(kind for kind in (*ORIGINAL, *CONVERTED) if isinstance(module, kind))
        return f"{type(module).__name__}, a subclass of {kind.__module__.split('.')[0]}'s {kind.__name__}, may do something else"
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return "its forward was replaced"
    if getattr(module, "qconfig", None) is not None:
        return "prepared for quantization, which looks for torch.nn's types"
    return None


def _is_scripted(module: Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) and module.original_name in {kind.__name__ for kind in CONVERTED}


def _is_quantized(module: Module) -> bool:
    """A convolution, pooling or activation of integers, or one that imitates them in training. Those called dynamic
    take floats."""
    home, name = type(module).__module__, type(module).__name__
    imitates = home.startswith(("torch.ao.nn.quantized", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.q"))
    return imitates and ".dynamic." not in home and ("1d" in name or "2d" in name or "ReLU" in name)


def check_model(function: str, model: object) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"{function}: model must be a torch.nn.Module, got {type(model).__name__}")
