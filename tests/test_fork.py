"""A forked child simulates as its parent does, whatever the parent and its other threads were doing: nothing hangs."""

import subprocess
import sys

import pytest

# Every program here begins with this. A child that hangs is killed by its alarm, and its exit status says so.
PRELUDE = """
import multiprocessing, os, signal, sys, threading
import torch
from torch.utils.data import DataLoader, Dataset
import convlab
import convlab.functional as CF

torch.set_num_threads(1)
x = torch.randint(-3, 4, (2, 2, 9, 9)).float()  # small integers: sums of them are exact
w = torch.randint(-3, 4, (4, 2, 3, 3)).float().requires_grad_()


def step():
    (dw,) = torch.autograd.grad(CF.conv2d(x, w).sum(), w)
    assert torch.equal(dw, torch.autograd.grad(torch.nn.functional.conv2d(x, w).sum(), w)[0])


def simulate(check) -> int:
    with convlab.simulate(check=check) as sim:
        step()
    return len(sim.launches)


def forked(child) -> int:
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            child()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_forked_children():
    program = """
def child(check=False):
    torch.set_num_threads(1)
    with convlab.simulate(check=check):
        step(), step()

# ---- inside a simulation and after it, several launches, nested forks; a child's launches are not its parent's
for check in (False, True):
    with convlab.simulate(check=check) as sim:
        step()
        seen = len(sim.launches)

        def within():
            step()
            assert len(sim.launches) == 2 * seen
            assert forked(step) == 0 and len(sim.launches) == 2 * seen

        assert forked(within) == 0 and len(sim.launches) == seen
        step()
    assert forked(lambda: child(check)) == 0 and forked(lambda: child(not check)) == 0

# ---- children that exit normally, through all of Python's and C++'s cleanup
for check in (False, True):
    with convlab.simulate(check=check):
        if (pid := os.fork()) == 0:
            signal.alarm(60)
            step()
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

# ---- while other threads launch, whatever locks they hold at that moment; unchecked launches run on several OS threads
def launch_on_and_on(check):
    torch.set_num_threads(3)
    with convlab.simulate(check=check) as sim:
        while not stop.is_set():
            CF.relu(big), CF.max_pool2d(big, 2), sim.launches

big = torch.randn(8, 8, 40, 40)
for check in (False, True):
    stop = threading.Event()
    threads = [threading.Thread(target=launch_on_and_on, args=(check,)) for _ in range(2)]
    for t in threads: t.start()
    statuses = [forked(lambda: child(check)) for _ in range(6)]
    stop.set()
    for t in threads: t.join()
    assert statuses == [0] * 6, statuses

# ---- workers of multiprocessing and of a DataLoader
class Simulated(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        signal.alarm(100)  # ends a worker that hangs
        with convlab.simulate(check=bool(i % 2)) as sim:
            y = CF.relu(torch.full((2, 3), i - 2.0))
        assert sim.launches
        return y

launches = simulate(True)
with multiprocessing.get_context("fork").Pool(2, signal.alarm, (100,)) as pool:
    assert pool.map(simulate, [True, False] * 2) == [launches] * 4
with convlab.simulate():
    step()
    batches = list(DataLoader(Simulated(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=90))
assert torch.equal(torch.cat(batches)[:, 0, 0], torch.tensor([0.0, 0, 0, 1, 2, 3]))
"""
    done = subprocess.run([sys.executable, "-c", PRELUDE + program], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_spawned_workers(tmp_path):
    program = """
if __name__ == "__main__":
    launches = simulate(True)
    with multiprocessing.get_context("spawn").Pool(1, signal.alarm, (200,)) as pool:
        assert pool.map(simulate, [True, False]) == [launches] * 2
"""
    (tmp_path / "workers.py").write_text(PRELUDE + program)
    done = subprocess.run([sys.executable, "workers.py"], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
