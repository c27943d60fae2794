"""Six of torchvision's models, whole: training steps and inference, through convert()'s layers and as they are."""

import dataclasses
from functools import partial
from typing import NamedTuple

import torch

from .._convert import convert
from .case import LAYOUTS, OURS, Case, Way
from .networks import model_of, step

NAMES = "resnet18", "vgg11", "squeezenet1_1", "mobilenet_v2", "densenet121", "resnext50_32x4d"
BATCH, SIZE = 8, 112  # images of a batch, and their height and width
SLACK = 1e-2  # where rounding decides the sign of what a ReLU gets, gradients differ; wrong is wronger


class Model(NamedTuple):
    """What step() asks of a network. Nobody counts its operations."""

    name: str
    batch: int = BATCH
    x: tuple[int, ...] = (BATCH, 3, SIZE, SIZE)
    flops: int = 0

    def make(self):
        """Without dropout, so that every call of everybody's answers the same question."""
        import torchvision

        model = torchvision.models.get_model(self.name)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model


def models(algo="auto") -> list[Case]:
    """Raises ImportError where there is no torchvision."""
    import torchvision  # noqa: F401

    found = [(Model(name), layout) for name in NAMES for layout in LAYOUTS]
    return [
        case
        for model, layout in found
        for case in (
            dataclasses.replace(step(model, layout, "float32", "cpu", algo, compiled=False), slack=SLACK),
            inference(model, layout, algo),
        )
    ]


def inference(model, layout, algo="auto") -> Case:
    """The model in eval mode, where nobody wants gradients."""

    def bind(layout, change, t):
        network = change(model_of(model, layout, t["images"].dtype)).eval()
        return lambda: network(t["images"])

    ways = {OURS: Way(layout, partial(bind, layout, partial(convert, algo=algo)))}
    ways |= {f"torch {name}": Way(name, partial(bind, name, lambda network: network)) for name in LAYOUTS}
    head = "inference", model.name, "inference", layout, "float32"

    def draw():
        return {"images": torch.randn(model.x)}

    return Case(*head, 0, 0, draw, ways, partial(bind, "nchw", lambda network: network), slack=SLACK)
