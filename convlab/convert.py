"""Swapping torch.nn's layers for convlab's in a model that exists."""

import torch

from . import modules

CONVERTED = {
    torch.nn.Conv2d: modules.Conv2d,
    torch.nn.MaxPool2d: modules.MaxPool2d,
    torch.nn.AvgPool2d: modules.AvgPool2d,
    torch.nn.LeakyReLU: modules.LeakyReLU,
    torch.nn.ReLU: modules.ReLU,
}


def convert(model: torch.nn.Module) -> torch.nn.Module:
    """Makes every layer of `model` that is exactly a torch.nn.Conv2d, MaxPool2d, AvgPool2d, LeakyReLU or ReLU one of convlab's, and returns `model`.

    In place, by the modules' class: parameters, buffers, hooks, and whoever holds a reference to a layer stay as they are.
    Subclasses, also those that parametrizations make, keep their own behaviour and are left alone.
    """
    for module in model.modules():
        replacement = CONVERTED.get(type(module))
        if replacement is not None:
            module.__class__ = replacement
    return model
