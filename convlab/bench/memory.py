"""How much memory a call takes beside the tensors it is given: by convlab and by torch, each in a fresh process.

What the system lends the process is counted, not what an allocator hands out, so that scratch memory of C++ libraries
is in it. The peak is the sum of two: what the second call adds at its highest moment, outputs among it, and what the
first call leaves behind, such as scratch memory and compiled code that are kept for the next one. Linux only.
"""

import ctypes
import gc
import multiprocessing
import os

import torch
from torch.nn import functional as F

from .._measure import outputs_of
from .case import in_layout
from .cases import cases_of


class Memory:
    """Starts the processes; use as a context manager."""

    def __init__(self, algo="auto"):
        """Raises RuntimeError where the system does not tell a process's memory."""
        if not os.access("/proc/self/clear_refs", os.W_OK):
            raise RuntimeError("memory is counted on Linux only, by /proc/self/clear_refs; leave out --memory")
        self.algo = algo

    def __enter__(self):
        context = multiprocessing.get_context(
            "forkserver"
        )  # of a server that has imported torch but has no threads yet
        context.set_forkserver_preload([__name__])
        self.pool = context.Pool(1, maxtasksperchild=1)
        return self

    def __exit__(self, *exception):
        self.pool.terminate()

    def of(self, case):
        """{contestant: {"peak": bytes beside the given tensors, "outputs": bytes of it that are outputs}},
        torch.compile left out."""
        names = [name for name in case.contestants if not name.startswith("torch.compile")]
        threads = torch.get_num_threads()
        return {name: self.pool.apply(_count, (case.kind, case.id, self.algo, name, threads)) for name in names}


def _count(kind, id, algo, name, threads):
    """In a process of its own."""
    torch.set_num_threads(threads)
    case = next(case for case in cases_of(kind, algo, compiled=False) if case.id == id)
    with torch.set_grad_enabled(case.grad):
        F.relu(F.conv2d(torch.ones(1, 16, 64, 64), torch.ones(16, 16, 1, 1)))  # starts threads and libraries
        contestant = case.contestants[name]
        call = contestant.bind(in_layout(case.draw(), contestant.layout))
        before = _resident()
        call()
        kept = max(0, _resident() - before)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the high-water mark begins anew
        low = _status("VmRSS")
        outputs = outputs_of(call())
        peak = _status("VmHWM") - low
    return {"peak": peak + kept, "outputs": sum(t.nbytes for t in outputs)}


def _resident():
    """Bytes that are neither free nor the contents of files."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")


def _status(key):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(key + ":"))
