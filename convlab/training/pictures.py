"""Pictures of a trained network: how it learned, what it looks for, what it sees, where it errs."""

from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import files

matplotlib.use("Agg")  # before pyplot: no window, no display needed
import matplotlib.pyplot as plt

LAYERS = (nn.Conv2d, nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear)  # what features.png has a row for
MAPS = 16  # of a layer, in features.png
FILTERS = 64
FAINT = 4
DPI = 90


def draw(folder, name, model, history, score, test_set):
    """Draws training.png, features.png and confusion.png into `folder`; returns their paths."""
    training = _figure(11, 3.4)
    loss, accuracy, filters = training.subplots(1, 3, width_ratios=[1, 1, 0.9])
    _curves(loss, accuracy, history)
    _filters(filters, model)
    training.suptitle(f"{name}: {100 * score.accuracy:.2f} % of the test images")
    figures = {
        "training.png": training,
        "features.png": _features(model, test_set),
        "confusion.png": _confusion(score, test_set.names),
    }
    return [save(figure, Path(folder) / name) for name, figure in figures.items()]


def save(figure, path):
    """Writes a PNG, closes the figure, returns the path."""
    files.replace(path, partial(figure.savefig, format="png", dpi=DPI))
    plt.close(figure)
    return path


def _figure(width, height):
    return plt.figure(figsize=(width, height), layout="constrained")


def _curves(loss, accuracy, history):
    epochs = [line["epoch"] for line in history]
    steps = [line["losses"] for line in history]
    at = torch.cat([epoch - 1 + (torch.arange(len(of)) + 0.5) / len(of) for epoch, of in zip(epochs, steps)])
    loss.plot(at, torch.cat(steps), color="C0", alpha=0.2, linewidth=0.7, label="each step")
    for part, name, style in (("train", "training images", "C0.-"), ("test", "test images", "C1.-")):
        loss.plot(epochs, [line[f"{part}_loss"] for line in history], style, label=name)
        accuracy.plot(epochs, [100 * line[f"{part}_accuracy"] for line in history], style, label=name)
    loss.set(ylabel="loss", ylim=(0, 1.05 * max(line["train_loss"] for line in history)))
    accuracy.set(ylabel="accuracy, %", ylim=(None, 100))
    for axes in (loss, accuracy):
        axes.set(xlabel="epoch", xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()


def _filters(axes, model):
    """The first layer's filters: in colour where they see colours, else red where they want ink, blue where they want
    none."""
    layer, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    weight = conv.weight.detach().float().cpu()[:FILTERS]
    weight = weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    K, C, R, S = weight.shape
    columns = max(c for c in range(1, 9) if K % c == 0 and c * c <= 2 * K)
    tiles = (weight + 1) / 2 if C == 3 else weight.mean(1, keepdim=True)
    axes.imshow(_mosaic(tiles, columns), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_title(f"the {K} filters of {layer}, {R} x {S}", fontsize=10)
    axes.axis("off")


def _mosaic(tiles, columns):
    """Tiles [n, 1 or 3, h, w], a multiple of `columns`, as imshow wants a picture of them, a pixel of white between."""
    c = tiles.shape[1]
    tiles = F.pad(tiles, (0, 1, 0, 1), value=1.0 if c == 3 else torch.nan)
    rows = tiles.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)  # [rows, h + 1, columns, w + 1, c]
    return rows.flatten(2, 3).flatten(0, 1)[:-1, :-1].squeeze(2).numpy()


@torch.no_grad()
def _features(model, test_set):
    """What every layer makes of the first test image."""
    image, label = test_set.images[:1], int(test_set.labels[0])
    outputs = {}
    hooks = [
        module.register_forward_hook(lambda m, x, y, name=name: outputs.update({name: (m, y[0].float().cpu())}))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    model.eval()
    answer = model(image.to(next(model.parameters()).device))[0].softmax(0)
    for hook in hooks:
        hook.remove()
    figure = _figure(9, 0.62 * (len(outputs) + 1) + 0.5)
    rows = figure.subplots(len(outputs) + 1, 1)
    _row(rows[0], "image", (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6))
    for axes, (name, (module, y)) in zip(rows[1:], outputs.items()):
        maps = y[:MAPS, None] if y.dim() == 3 and y[0].numel() > 1 else y.flatten()[None, None, None]
        _row(axes, f"{name}, {type(module).__name__}\n{' x '.join(map(str, y.shape))}", maps)
    best = int(answer.argmax())
    figure.suptitle(
        f"{test_set.names[label]}, answered {test_set.names[best]} with {100 * answer[best].item():.0f} %; the first {MAPS} maps of each layer"
    )
    return figure


def _row(axes, label, tiles):
    """A row of tiles [n, 1 or 3, h, w] from the left edge, `label` beside it; of vectors, a strip of cells."""
    strip, cmap = tiles.shape[2] == 1, "gray" if label == "image" else "magma"
    if label != "image":  # a weak map is made brighter, up to FAINT times: white is its greatest value, or the layer's
        greatest = tiles.abs().amax((1, 2, 3), keepdim=True)
        tiles = tiles / torch.maximum(greatest, greatest.amax() / FAINT).clamp(min=1e-12)
    extent = (0, 1, 0.3, 0.7) if strip else (0, len(tiles) / MAPS, 0, 1)
    picture = tiles[0, 0].numpy() if strip else _mosaic(tiles, len(tiles))
    axes.imshow(picture, cmap=cmap, aspect="auto", interpolation="nearest", extent=extent)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)


def _confusion(score, names):
    figure = _figure(5.4, 4.8)
    axes = figure.subplots()
    counts = score.confusion.numpy()
    share = counts / counts.sum(1, keepdims=True).clip(min=1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for label, answer in np.argwhere(counts):
        colour = "white" if share[label, answer] > 0.5 else "black"
        axes.text(answer, label, counts[label, answer], ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names)
    if max(map(len, names)) > 2:
        plt.setp(axes.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="label", title=f"test images, {100 * score.accuracy:.2f} % right")
    return figure


def draw_comparison(folder, title, losses, rates, per_epoch):
    """Draws compare.png into `folder`; returns its path.

    losses: every step's, for each kind of layers; rates: images/s of each; per_epoch: steps.
    """
    figure = _figure(9, 3.6)
    curves, bars = figure.subplots(1, 2, width_ratios=[2, 1])
    styles = {"linewidth": 3, "alpha": 0.45}, {"linewidth": 1, "color": "black"}
    for (name, values), style in zip(losses.items(), styles):
        window = max(1, len(values) // 200)
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        curves.plot((np.arange(len(smooth)) + window) / per_epoch, smooth, label=name, **style)
    what = "training loss" + f", mean of {window} steps" * (window > 1)
    curves.set(xlabel="epoch", ylabel=what, ylim=(0, None))
    curves.grid(alpha=0.3)
    curves.legend()
    drawn = bars.bar(rates.keys(), rates.values(), color=["C0", "black"], width=0.6)
    bars.bar_label(drawn, [f"{rate:,.0f}" for rate in rates.values()])
    bars.set(ylabel="images/s in training steps", ylim=(0, 1.1 * max(rates.values())))
    figure.suptitle(title)
    return save(figure, Path(folder) / "compare.png")
