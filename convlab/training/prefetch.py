"""Batches that are on their way to a GPU while it trains on the one before."""

import itertools

import torch


def one_ahead(items):
    """The items; the one after it is made before each is handed out, so that what its making starts has begun by then."""
    for item, _ in itertools.pairwise(itertools.chain(items, (None,))):
        yield item


def prefetched(batches, device, memory_format):
    """Batches (images [B, C, H, W], labels [B], n) of the CPU's memory, on a GPU: copied in a stream of their own,
    beside the kernels of the step before.

    A copy runs beside kernels only out of pinned memory, which the host's operating system does not move.
    """
    side = torch.cuda.Stream(device)

    def begun(images, labels, n):
        with torch.cuda.stream(side):
            images, labels = (t.pin_memory().to(device, non_blocking=True) for t in (images, labels))
            return images.contiguous(memory_format=memory_format), labels, n, side.record_event()

    for images, labels, n, arrived in one_ahead(itertools.starmap(begun, batches)):
        training = torch.cuda.current_stream(device)
        training.wait_event(arrived)  # of this batch: the stream has gone on to the next one
        for tensor in (images, labels):  # memory of the side stream, not to be used again before the step is done
            tensor.record_stream(training)
        yield images, labels, n
