"""Training and scoring a classifier."""

from typing import NamedTuple

import torch
from torch import nn

from .batches import Batches
from .losses import LOSSES
from .options import AMP

MOMENTUM = 0.9
WEIGHT_DECAY = {"sgd": 1e-3, "adamw": 5e-2}


class Training:
    """Everything that changes while a network trains: its weights, the optimizer, the schedule, and how far they are.

    `epoch` counts the epochs done, `step` the steps done in the one after them; `done` counts all steps, `of` are to be
    done.
    """

    def __init__(self, model, batches: Batches, args, world):
        """model: on the world's device; args: what options.parse returned."""
        self.model, self.batches, self.world = model, batches, world
        self.loss, self.amp = LOSSES[args.loss], AMP.get(args.amp)
        self.memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
        model.to(memory_format=self.memory_format)
        self.network = world.wrapped(model)  # what is called; `model` is what is saved, scored and drawn
        if args.compile:
            self.network = torch.compile(self.network, backend=args.compile)
        self.of = args.epochs * len(batches)
        self.of = min(self.of, args.steps or self.of)
        self.epoch = self.step = 0
        if args.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(
                model.parameters(), args.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY["sgd"]
            )
        else:
            self.optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=WEIGHT_DECAY["adamw"])
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, args.lr, total_steps=self.of)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.amp is torch.float16)

    @property
    def done(self):
        return self.epoch * len(self.batches) + self.step

    def steps(self):
        """Trains to the end of the epoch: yields after every step [mean loss before it, right answers], float64 [2].

        They are this process's part: the world's sum is the batch's. They stay on the device: reading every one of them
        would make a GPU wait for Python.
        """
        self.model.train()
        for images, labels, n in self.batches.epoch(self.epoch, first=self.step):
            if self.done == self.of:
                break
            yield self.train_on(images, labels, n)
        self.epoch, self.step = self.epoch + 1, 0

    def train_on(self, images, labels, n):
        """One step on this process's part of a batch of `n` images."""
        images = images.to(self.world.device).contiguous(memory_format=self.memory_format)
        labels = labels.to(self.world.device)
        outputs = self._outputs(self.network, images)
        loss = self.loss(outputs, labels).sum() / n
        self.optimizer.zero_grad()
        # The processes' gradients are averaged: times their number, that is the gradient of the whole batch's mean,
        # also where the parts are not of one size.
        self.scaler.scale(loss * self.world.size).backward()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else float16 overflowed, and no step was made
            self.schedule.step()
        self.step += 1
        return torch.stack([loss.detach().double(), (outputs.argmax(1) == labels).sum().double()])

    def _outputs(self, network, images):
        with torch.autocast(self.world.device.type, self.amp, enabled=self.amp is not None):
            return network(images).float()

    def score(self, data):
        """The Score of the network on an ImageSet."""
        self.world.copy_from_the_first(self.model.buffers())  # batch norm's averages are each process's own
        return evaluate(
            self.model,
            data.part(slice(self.world.rank, None, self.world.size)),
            self.loss,
            self._outputs,
            self.world.sum,
        )


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


def _plainly(model, images):
    return model(images)


@torch.no_grad()
def evaluate(model, data, loss=LOSSES["cross-entropy"], outputs_of=_plainly, total=lambda part: part, batch_size=512):
    """The Score of `model` on an ImageSet; `batch_size` bounds the memory it takes.

    outputs_of(model, images) gives the outputs [N, classes]; total(tensor) adds up what several processes have.
    """
    device = next((p.device for p in model.parameters()), data.images.device)
    alive = {
        name: torch.zeros(1, device=device)
        for name, module in model.named_modules()
        if isinstance(module, (nn.ReLU, nn.LeakyReLU))
    }

    def watch(name):
        def hook(module, inputs, output):
            positive = output.transpose(0, 1).flatten(1) > 0  # [units, N * H * W]
            alive[name] = alive[name] + positive.any(1)

        return model.get_submodule(name).register_forward_hook(hook)

    hooks = [watch(name) for name in alive]
    model.eval()
    sum_of_losses = torch.zeros((), dtype=torch.float64, device=device)
    counts = None
    try:
        for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size)):
            labels = labels.to(device)
            outputs = outputs_of(model, images.to(device))
            classes = outputs.shape[1]
            sum_of_losses += loss(outputs, labels).double().sum()
            cells = torch.bincount(labels * classes + outputs.argmax(1), minlength=classes**2)
            counts = cells if counts is None else counts + cells
    finally:
        for hook in hooks:
            hook.remove()
    counts = total(counts).cpu()
    dead = {name: 1 - (total(units) > 0).double().mean().item() for name, units in alive.items()}
    return Score(total(sum_of_losses).item() / counts.sum().item(), counts.reshape(classes, classes), dead)
