"""Writes convlab/bench/survey.csv: every distinct convolution, pooling and activation of torchvision's models, an image each.

    python -m tools.survey_problems

Needs torchvision, and nothing of its weights: the models run on the meta device. `python -m convlab.bench survey` times them.
"""

import csv
from pathlib import Path

import torch
import torchvision

from tools import run

FILE = Path(__file__).resolve().parent.parent / "convlab" / "bench" / "survey.csv"
COLUMNS = ("operation", "C", "H", "W", "K", "R", "S", "stride", "padding", "dilation", "groups", "model")
MODELS = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "mnasnet1_0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "vgg11",
    "vit_b_16",
    "wide_resnet50_2",
)
LAYERS = torch.nn.Conv2d, torch.nn.MaxPool2d, torch.nn.AvgPool2d, torch.nn.AdaptiveAvgPool2d, torch.nn.ReLU
Row = tuple[object, ...]


def pair(value) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def text(value) -> str:
    """3, or 3x1 where height and width differ"""
    height, width = pair(value)
    return str(height) if height == width else f"{height}x{width}"


def row_of(module, x: torch.Tensor) -> Row | None:
    """A row of the table without its model; None for a layer that convlab has nothing for."""
    nn, shape = torch.nn, tuple(x.shape[1:])
    if isinstance(module, nn.Conv2d):
        window = pair(module.kernel_size)
        geometry = text(module.stride), text(module.padding), text(module.dilation), module.groups
        return "conv", *shape, module.out_channels, *window, *geometry
    if isinstance(module, nn.MaxPool2d):
        geometry = text(module.stride), text(module.padding), text(module.dilation), ""
        return "max_ceil" if module.ceil_mode else "max", *shape, "", *pair(module.kernel_size), *geometry
    if isinstance(module, nn.AvgPool2d):
        return "average", *shape, "", *pair(module.kernel_size), text(module.stride), text(module.padding), "1", ""
    if isinstance(module, nn.AdaptiveAvgPool2d) and pair(module.output_size) == (1, 1):
        return "average", *shape, "", *shape[1:], text(shape[1:]), "0", "1", ""
    if isinstance(module, nn.ReLU) and x.dim() == 4:
        return "relu", *shape, *[""] * 7
    return None


def rows() -> dict[Row, str]:
    """Row -> the first model that has it"""
    found: dict[Row, str] = {}
    for name in MODELS:
        plain = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # theirs take minutes
        model = torchvision.models.get_model(name, **plain).eval().to("meta")
        for module in filter(lambda module: isinstance(module, LAYERS), model.modules()):

            def note(module, inputs, name=name):
                row = row_of(module, inputs[0])
                if row:
                    found.setdefault(row, name)

            module.register_forward_pre_hook(note)
        size = 299 if name == "inception_v3" else 224
        model(torch.empty(1, 3, size, size, device="meta"))
    return found


def main() -> None:
    found = rows()
    with FILE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *((*row, model) for row, model in found.items())])
    print(f"{FILE}: {len(found)} problems")


if __name__ == "__main__":
    run(main)
