"""Pictures of a trained network: how it learned, what it looks for, what it sees, where it errs."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import nn

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
    files.replace(path, lambda file: figure.savefig(file, format="png", dpi=DPI))
    plt.close(figure)
    return path


def _figure(width, height):
    return plt.figure(figsize=(width, height), layout="constrained")


def _curves(loss, accuracy, history):
    epochs = [line["epoch"] for line in history]
    at, steps = [], []
    for line in history:
        n = len(line["losses"])
        at += [line["epoch"] - 1 + (i + 0.5) / n for i in range(n)]
        steps += line["losses"].tolist()
    loss.plot(at, steps, color="C0", alpha=0.2, linewidth=0.7, label="each step")
    loss.plot(epochs, [line["train_loss"] for line in history], "C0.-", label="training images")
    loss.plot(epochs, [line["test_loss"] for line in history], "C1.-", label="test images")
    loss.set(
        xlabel="epoch", ylabel="loss", xlim=(0, None), ylim=(0, 1.05 * max(line["train_loss"] for line in history))
    )
    accuracy.plot(epochs, [100 * line["train_accuracy"] for line in history], "C0.-", label="training images")
    accuracy.plot(epochs, [100 * line["test_accuracy"] for line in history], "C1.-", label="test images")
    accuracy.set(xlabel="epoch", ylabel="accuracy, %", xlim=(0, None), ylim=(None, 100))
    for axes in (loss, accuracy):
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
    if C == 3:
        axes.imshow(_mosaic((weight.permute(0, 2, 3, 1) + 1) / 2, columns))
    else:
        axes.imshow(_mosaic(weight.mean(1), columns), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_title(f"the {K} filters of {layer}, {R} x {S}", fontsize=10)
    axes.axis("off")


def _mosaic(tiles, columns):
    """[n, h, w] or [n, h, w, 3] as one array, in rows of `columns`, a pixel of white between."""
    n, h, w = tiles.shape[:3]
    rows = -(-n // columns)
    colours = tiles.shape[3:]
    out = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, *colours), 1.0 if colours else np.nan, dtype=np.float32)
    for i, tile in enumerate(tiles.numpy()):
        y, x = i // columns * (h + 1), i % columns * (w + 1)
        out[y : y + h, x : x + w] = tile
    return out


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
    shown = (image[0] - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
    _row(rows[0], "image", shown.permute(1, 2, 0)[None] if len(shown) == 3 else shown)
    for axes, (name, (module, y)) in zip(rows[1:], outputs.items()):
        maps = y[:MAPS] if y.dim() == 3 and y[0].numel() > 1 else y.flatten()[None, None]
        _row(axes, f"{name}, {type(module).__name__}\n{' x '.join(map(str, y.shape))}", maps)
    best = int(answer.argmax())
    figure.suptitle(
        f"{test_set.names[label]}, answered {test_set.names[best]} with {100 * answer[best].item():.0f} %; the first {MAPS} maps of each layer"
    )
    return figure


def _row(axes, label, tiles):
    """A row of tiles from the left edge, `label` beside it; of vectors, a strip of cells."""
    strip = tiles.shape[1] == 1
    if (
        label != "image"
    ):  # a weak map is made brighter, up to FAINT times: its own greatest value is white, or the layer's
        greatest = tiles.abs().amax((1, 2), keepdim=True)
        tiles = tiles / torch.maximum(greatest, greatest.amax() / FAINT).clamp(min=1e-12)
    picture = tiles[0].numpy() if strip else _mosaic(tiles, len(tiles))
    width = 1.0 if strip else len(tiles) / MAPS
    axes.imshow(
        picture,
        cmap="gray" if label == "image" else "magma",
        aspect="auto",
        interpolation="nearest",
        extent=(0, width, 0.3, 0.7) if strip else (0, width, 0, 1),
    )
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
        axes.text(
            answer,
            label,
            counts[label, answer],
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share[label, answer] > 0.5 else "black",
        )
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
    for (name, values), style in zip(
        losses.items(), ({"linewidth": 3, "alpha": 0.45}, {"linewidth": 1, "color": "black"})
    ):
        window = max(1, len(values) // 200)
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        curves.plot((np.arange(len(smooth)) + window) / per_epoch, smooth, label=name, **style)
    curves.set(
        xlabel="epoch", ylabel="training loss" + (f", mean of {window} steps" if window > 1 else ""), ylim=(0, None)
    )
    curves.grid(alpha=0.3)
    curves.legend()
    drawn = bars.bar(rates.keys(), rates.values(), color=["C0", "black"], width=0.6)
    bars.bar_label(drawn, [f"{rate:,.0f}" for rate in rates.values()])
    bars.set(ylabel="images/s in training steps", ylim=(0, 1.1 * max(rates.values())))
    figure.suptitle(title)
    return save(figure, Path(folder) / "compare.png")
