"""The order of the training images, their random shifts and reflections, and which process trains on which."""

import gc
import random
import signal

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from .errors import TrainingError


class Batches:
    """The images of a set, epoch by epoch in a new random order and newly shifted.

    Order, shifts and reflections come from the seed and the number of the epoch alone and are drawn on the CPU: they
    are the same for every network, device, number of workers and number of processes, and for a run that was stopped in
    between.
    """

    def __init__(self, data, batch_size, seed, max_shift=0, flip=False, world=None, workers=0):
        """data: an ImageSet, the batches lie where it lies; batch_size: of all processes together, the last of an epoch
        may be smaller.

        max_shift: pixels each way, at most; flip: reflect every other image, left to right; world: the processes, each
        of which gets every `size`-th image of a batch; workers: processes that prepare the batches, none: this one
        does.
        """
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.max_shift, self.flip, self.workers = max_shift, flip, workers
        self.rank, self.processes = (world.rank, world.size) if world else (0, 1)
        left = len(data.labels) % batch_size or batch_size
        if min(left, len(data.labels)) < self.processes:
            raise TrainingError(
                f"--batch-size {batch_size}: the last of {len(data.labels)} images make a batch of {left}, "
                f"too few for {self.processes} processes; choose another size"
            )

    def __len__(self):
        """Batches per epoch."""
        return -(-len(self.data.labels) // self.batch_size)

    def epoch(self, number, first=0):
        """Yields (images [B, C, H, W], labels [B], n) from batch `first` on; n is B of all processes together."""
        images = len(self.data.labels)
        generator = torch.Generator().manual_seed(random.Random(f"{self.seed}, epoch {number}").getrandbits(32))
        order = torch.randperm(images, generator=generator)
        shifts = torch.randint(-self.max_shift, self.max_shift + 1, (images, 2), generator=generator)
        flips = torch.rand(images, generator=generator) < (0.5 if self.flip else 0)
        parts = list(zip(*(drawn.split(self.batch_size) for drawn in (order, shifts, flips))))[first:]
        if not self.workers:  # a DataLoader without any costs 60 us a batch
            yield from map(self._batch, parts)
            return
        yield from DataLoader(
            parts,
            batch_size=None,
            collate_fn=self._batch,
            num_workers=self.workers,
            generator=torch.Generator(),  # not the one that weights and dropout come from
            worker_init_fn=_leave_to_the_trainer,
        )

    def _batch(self, drawn):
        """This process's part of the batch with that (order [B], shifts [B, 2], flips [B])."""
        labels = self.data.labels
        index, shifts, flips = (d[self.rank :: self.processes].to(labels.device) for d in drawn)
        batch = shifted(self.data.images[index], shifts, self.max_shift)
        if self.flip:
            batch = torch.where(flips[:, None, None, None], batch.flip(3), batch)
        return batch, labels[index], len(drawn[0])


def _leave_to_the_trainer(worker):
    """Signals, for Ctrl-C reaches every process of a terminal, and a worker that died of it would take the step in
    progress along; and the trainer's garbage, which may hold a CUDA graph, that a forked process cannot free."""
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def shifted(images, shifts, max_shift):
    """Moves every image by its own whole number of pixels; what comes in at the edge is zero.

    images [N, C, H, W]; shifts [N, 2] int64, pixels (down, right), none beyond +-max_shift. Returns [N, C, H, W].
    """
    n, c, h, w = (torch.arange(size, device=images.device) for size in images.shape)
    rows = h + max_shift - shifts[:, :1]  # [N, H], into the padded images
    columns = w + max_shift - shifts[:, 1:]  # [N, W]
    padded = F.pad(images, [max_shift] * 4)
    return padded[n[:, None, None, None], c[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
