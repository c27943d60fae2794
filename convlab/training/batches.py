"""The order of the training images and their random shifts."""

import torch
from torch.nn import functional as F


class Batches:
    """The images of a set in a new random order, newly shifted, each time it is iterated: one iteration is one epoch.

    Yields (images [B, C, H, W], labels [B]); the last batch of an epoch may be smaller. Order and shifts come from
    `seed` alone and are drawn on the CPU, so they are the same for every network and every device.
    """

    def __init__(self, data, batch_size, max_shift, seed):
        """`max_shift`: pixels each way, at most. The batches lie where `data` (an ImageSet) lies."""
        self.data, self.batch_size, self.max_shift = data, batch_size, max_shift
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        """Batches per epoch."""
        return -(-len(self.data.labels) // self.batch_size)

    def __iter__(self):
        images, labels = self.data
        # Both drawn before the first batch: an epoch takes the same from the generator even if it is left early.
        order = torch.randperm(len(labels), generator=self.generator)
        shifts = torch.randint(-self.max_shift, self.max_shift + 1, (len(labels), 2), generator=self.generator)
        for index, by in zip(order.to(labels.device).split(self.batch_size),
                             shifts.to(labels.device).split(self.batch_size)):
            yield shifted(images[index], by, self.max_shift), labels[index]


def shifted(images, shifts, max_shift):
    """Moves every image by its own whole number of pixels; what comes in at the edge is zero.

    images [N, C, H, W]; shifts [N, 2] int64, pixels (down, right), none beyond +-max_shift. Returns [N, C, H, W].
    """
    n, c, h, w = images.shape

    def along(size):
        return torch.arange(size, device=images.device)

    padded = F.pad(images, [max_shift] * 4)
    rows = along(h) + max_shift - shifts[:, :1]  # [N, H], into padded
    columns = along(w) + max_shift - shifts[:, 1:]  # [N, W]
    return padded[along(n)[:, None, None, None], along(c)[:, None, None], rows[:, None, :, None],
                  columns[:, None, None, :]]
