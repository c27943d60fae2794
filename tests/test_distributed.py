"""Two processes on one machine, over gloo: the losses of one process with the same global batch."""

import gc
import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import convlab

STEPS, BATCH, PROCESSES = 20, 8, 2

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo"
)


def network():
    torch.manual_seed(0)
    return convlab.convert(
        nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.LeakyReLU(0.1),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, groups=2),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 4),
        )
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield torch.randn(BATCH, 1, 14, 14, generator=generator), torch.randint(4, (BATCH,), generator=generator)


def train(model, share=slice(None)):
    """The losses of SGD on `share` of each batch."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for x, labels in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[share]), labels[share])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def distributed(model):
    return DistributedDataParallel(model)


def sharded(model):
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh("cpu", (PROCESSES,))
    for layer in model:
        if isinstance(layer, convlab.Conv2d):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def process(rank, folder, wraps):
    """One of the processes: trains each wrapping of the network on its part of the batches, and writes the mean losses
    down."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    each = BATCH // PROCESSES
    for wrap in wraps:
        losses = train(wrap(network()), slice(rank * each, (rank + 1) * each))
        dist.all_reduce(losses)
        if rank == 0:
            torch.save(losses / PROCESSES, os.path.join(folder, wrap.__name__))
    dist.barrier()  # who goes first would close the other's connections
    gc.collect()  # what holds the group's threads, which must end before the interpreter does
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """Of the processes, by name of the wrapping."""
    folder = str(tmp_path_factory.mktemp("distributed"))
    wraps = (distributed, sharded)
    torch.multiprocessing.spawn(process, (folder, wraps), PROCESSES)
    return {wrap.__name__: torch.load(os.path.join(folder, wrap.__name__)) for wrap in wraps}


@pytest.mark.works_with("`DistributedDataParallel`")
def test_distributed_data_parallel(losses):
    torch.testing.assert_close(losses["distributed"], train(network()), rtol=1e-5, atol=0)


@pytest.mark.works_with("FSDP2: `fully_shard`")
def test_fully_shard(losses):
    torch.testing.assert_close(losses["sharded"], train(network()), rtol=1e-5, atol=0)
