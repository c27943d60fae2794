"""What a network is trained to make small: functions of (outputs [N, classes] float32, labels [N] int64) that give a
loss an image, [N]."""

import torch
from torch.nn import functional as F


def cross_entropy(outputs, labels):
    """-log k[T]: k the softmax of the outputs, T the label."""
    return F.cross_entropy(outputs, labels, reduction="none")


def label_distance(outputs, labels):
    """sum_j k[j] (j - T)^2: the expected squared distance between the label T and one drawn from k, the softmax of the
    outputs.

    A wrong answer near the label costs less than one far from it, so it suits labels whose order means something.
    """
    j = torch.arange(outputs.shape[1], device=outputs.device)
    return (outputs.softmax(1) * (j - labels[:, None]) ** 2).sum(1)


LOSSES = {"cross-entropy": cross_entropy, "label-distance": label_distance}
