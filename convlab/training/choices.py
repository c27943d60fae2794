"""What --loss and --init choose among."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


def label_distance(outputs, labels):
    """sum_j k[j] (j - T)^2: the expected squared distance between the label T and one drawn from k, the softmax of the
    outputs.

    A wrong answer near the label costs less than one far from it, so it suits labels whose order means something.
    """
    j = torch.arange(outputs.shape[1], device=outputs.device)
    return (outputs.softmax(1) * (j - labels[:, None]) ** 2).sum(1)


# Functions of (outputs [N, classes] float32, labels [N] int64) that give each image's loss, [N].
LOSSES = {"cross-entropy": partial(F.cross_entropy, reduction="none"), "label-distance": label_distance}

# He et al. (2015): a variance of 2 / fan_in keeps the size of what goes forward through (leaky) ReLUs, here with
# torch's slope for negative inputs. Glorot and Bengio (2010): 2 / (fan_in + fan_out), between what forward and what
# backward would have.
INITIALISERS = {
    "default": None,
    "he": partial(nn.init.kaiming_normal_, a=0.01, nonlinearity="leaky_relu"),
    "xavier": nn.init.xavier_normal_,
}


def initialise(model, how):
    """`model` with its filters and matrices drawn anew, in the order of its layers, and their biases zero; "default"
    leaves all."""
    if draw := INITIALISERS[how]:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                draw(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model
