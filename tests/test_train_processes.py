"""Several processes train as one does: torchrun, gloo between CPUs."""

import os
import re
import subprocess
import sys

import pytest
import torch

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

from scripts import LENET, ROOT, lenet, log, losses

from convlab.training import checkpoint
from convlab.training.batches import Batches
from convlab.training.data import ImageSet
from convlab.training.errors import TrainingError
from convlab.training.processes import World

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def torchrun(processes, *argv):
    command = [*TORCHRUN, "--nproc-per-node", str(processes), LENET, *map(str, argv)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def test_two_processes_are_one(tmp_path, capsys):
    """Losses, right answers, scores and weights; the last batch of an epoch, 11 images, does not halve."""
    options = ["--images", 155, "--batch-size", 16, "--steps", 20, "--seed", 5]
    lenet(*options, "--out", tmp_path / "one")
    two = torchrun(2, *options, "--out", tmp_path / "two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("test accuracy") == 1 and "on cpu, 2 processes" in two.stdout  # one of them speaks
    alone, together = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(together) == 20 and together == pytest.approx(alone, rel=1e-5, abs=0)
    for a, b in zip(log(tmp_path / "one")[1], log(tmp_path / "two")[1], strict=True):
        assert (
            a["train_accuracy"] == b["train_accuracy"]
            and a["test_accuracy"] == b["test_accuracy"]
            and a["dead"] == b["dead"]
        )
        assert b["test_loss"] == pytest.approx(a["test_loss"], rel=1e-5)
    states = [checkpoint.load(tmp_path / run / "last.pt") for run in ("one", "two")]
    torch.testing.assert_close(states[0]["model"], states[1]["model"], rtol=1e-4, atol=1e-6)
    capsys.readouterr()
    lenet(*options, "--out", tmp_path / "two", "--resume")  # by one process, what two have done
    assert "after 20 of 20 steps" in capsys.readouterr().out


def test_the_parts_of_a_batch_are_the_batch():
    data = ImageSet(torch.rand(23, 1, 8, 8), torch.arange(23))

    def world(rank, size):
        world = World()
        world.rank, world.size = rank, size
        return world

    for number in (0, 1):
        whole = list(Batches(data, 10, seed=1, max_shift=2, flip=True).epoch(number))
        parts = [
            list(Batches(data, 10, seed=1, max_shift=2, flip=True, world=world(r, 3)).epoch(number)) for r in range(3)
        ]
        for i, (images, labels, n) in enumerate(whole):
            order = torch.cat([part[i][1] for part in parts])
            assert sorted(order) == sorted(labels) and n == len(labels) and all(part[i][2] == n for part in parts)
            for r, part in enumerate(parts):
                assert torch.equal(part[i][0], images[r::3]) and torch.equal(part[i][1], labels[r::3])
    with pytest.raises(
        TrainingError, match="--batch-size 11: the last of 23 images make a batch of 1, too few for 3 processes"
    ):
        Batches(data, 11, seed=1, world=world(0, 3))


@pytest.mark.long
def test_two_processes_refuse_with_one_line(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    run = torchrun(2, "--out", tmp_path, "--resume")
    assert run.returncode != 0 and len(re.findall("is damaged, or no checkpoint at all", run.stderr)) == 1
    assert (tmp_path / "last.pt").read_bytes() == b"not a checkpoint"


@pytest.mark.long
def test_ctrl_c_of_torchrun_saves(tmp_path):
    import signal
    import time

    options = ["--batch-size", "16", "--save-every", "10", "--out", str(tmp_path)]
    run = subprocess.Popen(
        [*TORCHRUN, "--nproc-per-node", "2", LENET, *options],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 200
    while not (tmp_path / "last.pt").exists() or not checkpoint.load(tmp_path / "last.pt")["steps_done"]:
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=100)
    stopped = re.search(r"stopped after (\d+) of 2275 steps", out)
    assert stopped and checkpoint.load(tmp_path / "last.pt")["steps_done"] == int(stopped[1])
