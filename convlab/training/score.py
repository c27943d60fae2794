"""How well a network does."""

from typing import NamedTuple

import torch
from torch import nn

from .choices import LOSSES


class Score(NamedTuple):
    """Over all images: the mean loss; the counts [label, answer]; for each activation layer the share of dead units, 0
    to 1.

    A unit, a feature map or an output of a linear layer, is dead if no image makes it positive anywhere: then, but for
    the leak, nothing flows back through it.
    """

    loss: float
    confusion: torch.Tensor
    dead: dict[str, float]

    @property
    def accuracy(self):
        """The share of images, 0 to 1, whose largest output is the right class."""
        return (self.confusion.diagonal().sum() / self.confusion.sum()).item()


@torch.no_grad()
def evaluate(
    model, data, loss_of=LOSSES["cross-entropy"], outputs_of=nn.Module.__call__, total=torch.clone, at_once=512
):
    """The Score of `model` on an ImageSet; images `at_once` bound the memory it takes.

    outputs_of(model, images) gives the outputs [N, classes]; total(tensor) adds up what several processes have.
    """
    device = next((p.device for p in model.parameters()), data.images.device)
    activations = {name: m for name, m in model.named_modules() if isinstance(m, (nn.ReLU, nn.LeakyReLU))}
    alive = {name: torch.zeros(1, device=device) for name in activations}  # [units], how many batches saw each

    def watch(name):
        def hook(module, inputs, output):
            alive[name] = alive[name] + (output > 0).transpose(0, 1).flatten(1).any(1)

        return activations[name].register_forward_hook(hook)

    hooks, training = [watch(name) for name in activations], model.training
    model.eval()
    sum_of_losses, counts = torch.zeros((), dtype=torch.float64, device=device), 0
    try:
        for images, labels in zip(data.images.split(at_once), data.labels.split(at_once)):
            outputs, labels = outputs_of(model, images.to(device)), labels.to(device)
            classes = outputs.shape[1]
            sum_of_losses += loss_of(outputs, labels).double().sum()
            counts += torch.bincount(labels * classes + outputs.argmax(1), minlength=classes**2)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    counts = total(counts).cpu()
    dead = {name: 1 - (total(units) > 0).double().mean().item() for name, units in alive.items()}
    return Score(total(sum_of_losses).item() / counts.sum().item(), counts.reshape(classes, classes), dead)
