"""One process, or the several that torchrun started: who this one is, and what they do together."""

import gc
import os

import torch
import torch.distributed as dist


class World:
    """`rank` of `size` processes, and the `device` of this one. Process 0, `leads`, writes files and prints.

    A context manager: under torchrun the processes join at its beginning (gloo between CPUs, nccl between GPUs) and
    part at its end.
    """

    def __init__(self, device=torch.device("cpu")):
        self.rank, self.local_rank, self.size = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
        )
        gpu = device.type == "cuda" and self.size > 1
        self.device = torch.device("cuda", self.local_rank) if gpu else device

    @property
    def leads(self):
        return self.rank == 0

    def __enter__(self):
        if self.size > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, kind, *exception):
        if self.size > 1:
            if kind is None:
                dist.barrier()  # one that leaves while another still works breaks that one's connection
            gc.collect()  # DistributedDataParallel holds itself, and the group's threads, which must end before the interpreter does
            dist.destroy_process_group()

    def wrapped(self, model):
        """`model`, with gradients added up over the processes by its backward."""
        if self.size > 1:
            model = torch.nn.parallel.DistributedDataParallel(model)
            model.register_comm_hook(None, _added_up)
        return model

    def sum(self, tensor):
        """The sum over the processes, in each of them."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag):
        """Whether `flag` is true in one of the processes."""
        return bool(self.sum(torch.tensor(bool(flag), dtype=torch.int)))

    def copy_from_the_first(self, tensors):
        """Makes `tensors` what they are in process 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def first_one_then_the_others(self, work):
        """work(), in the first process of each machine before the others: what it downloads, they find."""
        try:
            if self.local_rank == 0:
                return work()
        finally:  # also where that fails: the others must not wait for ever
            if self.size > 1:
                dist.barrier()
        return work()


def _added_up(_, bucket):
    """Of a bucket of gradients the sum over the processes; DistributedDataParallel's own is the mean."""
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])
