"""convlab under DistributedDataParallel: two processes on the CPU, half a batch each, the gradients of one process with
all of it.

torchrun --nproc-per-node 2 examples/ddp.py
"""

import gc

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import convlab

dist.init_process_group("gloo")  # "nccl" on GPUs, with model and data on cuda:LOCAL_RANK
rank, world = dist.get_rank(), dist.get_world_size()

torch.manual_seed(0)  # the same parameters and data in every process
model = torch.nn.Sequential(
    convlab.Conv2d(1, 6, 5),
    convlab.LeakyReLU(0.1),
    convlab.MaxPool2d(2),
    torch.nn.Flatten(),
    torch.nn.Linear(6 * 6 * 6, 10),
)
x, labels = torch.randn(8 * world, 1, 16, 16), torch.randint(10, (8 * world,))

torch.nn.functional.cross_entropy(model(x), labels).backward()
alone = [p.grad.clone() for p in model.parameters()]
model.zero_grad()

parallel = DistributedDataParallel(model)  # to be kept until backward is done
torch.nn.functional.cross_entropy(parallel(x[rank::world]), labels[rank::world]).backward()
difference = max((p.grad - g).abs().max().item() for p, g in zip(model.parameters(), alone))
assert difference < 1e-5, difference
if rank == 0:
    print(f"{world} processes: gradients as of one process with the whole batch, but for {difference:.0e}")

dist.barrier()  # who leaves first breaks the others' connections
del parallel
gc.collect()  # it holds itself, and the group's threads, which must end before the interpreter does
dist.destroy_process_group()
