"""Runs a training that is killed at random moments and started again, for test_train_resume.py.

    python tests/killed_training.py FOLDER KILLS SEED

One import, then a forked process for each start. Trains FOLDER/whole without and FOLDER/killed with KILLS kills; after
each of them what lies in the folder must be whole. Prints the steps that each start found done.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from scripts import lenet

from convlab.training import checkpoint

OPTIONS = ["--images", 40, "--batch-size", 4, "--epochs", 4, "--save-every", 1, "--resume"]


def start(folder):
    """The id of a process that trains."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with open(os.devnull, "w") as sys.stdout:
                lenet(*OPTIONS, "--out", folder)
            code = 0
        finally:
            os._exit(code)
    return pid


def steps_done(folder):
    """Those of the checkpoint, which must be whole, as must the best one."""
    found = {name: checkpoint.load(folder / name) for name in ("last.pt", "best.pt") if (folder / name).exists()}
    return found["last.pt"]["steps_done"] if "last.pt" in found else 0


def last_save(folder):
    file = folder / "last.pt"
    return file.stat().st_mtime_ns if file.exists() else None


def main(folder, kills, seed):
    torch.set_num_threads(1)  # no threads, so that this process may fork
    lenet("--steps", 1, "--out", folder / "warm-up")
    begin = time.monotonic()
    lenet(*OPTIONS, "--out", folder / "whole")
    duration = time.monotonic() - begin
    rng, done = random.Random(seed), []
    for kill in range(kills):
        before = last_save(folder / "killed")
        pid = start(folder / "killed")
        if kill % 2:  # among the steps, however long a start takes
            until = time.monotonic() + duration
            while last_save(folder / "killed") == before and time.monotonic() < until:
                time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.2) * duration)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done.append(steps_done(folder / "killed"))
    assert os.waitpid(start(folder / "killed"), 0)[1] == 0
    print("steps done:", *done)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
