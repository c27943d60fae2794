"""Swapping torch.nn's layers for convlab's in a model that exists."""

import torch

from . import modules
from .algorithms import Preferred

CONVERTED = {
    torch.nn.Conv2d: modules.Conv2d,
    torch.nn.MaxPool2d: modules.MaxPool2d,
    torch.nn.AvgPool2d: modules.AvgPool2d,
    torch.nn.LeakyReLU: modules.LeakyReLU,
    torch.nn.ReLU: modules.ReLU,
}


def convert(model: torch.nn.Module, algo="auto") -> torch.nn.Module:
    """Makes every layer of `model` that is exactly a torch.nn.Conv2d, MaxPool2d, AvgPool2d, LeakyReLU or ReLU one of convlab's, and returns `model`.

    In place, by the modules' class: parameters, buffers, hooks, and whoever holds a reference to a layer stay as they are.
    Subclasses, also those that parametrizations make, keep their own behaviour and are left alone.

    algo: what its convolutions run, also those that are convlab's already: "auto", a name, or a dict from passes to names. Where the
    algorithm cannot do a layer's problem, that pass of that layer runs "auto", and a warning says so, once, from the first forward
    that meets it. Raises ValueError for an unknown name.
    """
    for name, module in model.named_modules():
        replacement = CONVERTED.get(type(module))
        if replacement is not None:
            module.__class__ = replacement
        if type(module) is modules.Conv2d:
            module.algo = algo if isinstance(algo, str) and algo == "auto" else Preferred(algo, f"layer {name!r}" if name else "the layer")
    return model
