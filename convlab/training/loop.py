"""Training and scoring a classifier."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .batches import Batches


@dataclass
class Training:
    """Everything that changes while a network trains."""

    model: torch.nn.Module
    batches: Batches
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    def epoch(self):
        """One pass over the batches: yields after every step its loss (cross-entropy before the step, a scalar tensor).

        The loss stays on the model's device: reading every one of them would make a GPU wait for Python.
        """
        self.model.train()
        for images, labels in self.batches:
            loss = F.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            yield loss.detach()


class Score(NamedTuple):
    """Mean cross-entropy, and the share of images (0 to 1) whose largest output is the right class."""

    loss: float
    accuracy: float


@torch.no_grad()
def evaluate(model, data, batch_size=512):
    """The Score of `model` on an ImageSet that lies on the model's device; `batch_size` bounds the memory it takes."""
    model.eval()
    loss = correct = 0
    for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size)):
        outputs = model(images)
        loss += F.cross_entropy(outputs, labels, reduction="sum").item()
        correct += (outputs.argmax(1) == labels).sum().item()
    return Score(loss / len(data.labels), correct / len(data.labels))
