"""Nothing of a training run is lost: resumed runs, kills, Ctrl-C, damaged and foreign checkpoints."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

from scripts import LENET, ROOT, cifar, lenet, log, losses, train_lenet

from convlab.training import checkpoint
from convlab.training.run import Run

TINY = ["--images", 40, "--batch-size", 8, "--epochs", 3]  # 5 steps an epoch
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def interrupt_after(monkeypatch, steps, number=signal.SIGINT):
    """Sends the signal to this process during step number `steps` + 1."""
    epochs = Run.epochs

    def counted(self, batches):
        for epoch in epochs(self, batches):
            yield (interrupted(batch) if self.done == steps + 1 else batch for batch in epoch)

    def interrupted(batch):
        os.kill(os.getpid(), number)
        return batch

    monkeypatch.setattr(Run, "epochs", counted)


def stopped_and_resumed(monkeypatch, script, folder, options, steps, number=signal.SIGINT):
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps, number)
        with pytest.raises(SystemExit) as exit:
            script(*options, "--out", folder)
    assert exit.value.code == 128 + number
    torch.manual_seed(99)  # nothing may depend on what this process did before
    script(*options, "--out", folder, "--resume")


def without_times(epochs):
    return [{name: value for name, value in epoch.items() if name != "images_per_second"} for epoch in epochs]


@pytest.mark.parametrize("steps", [0, 3, 4, 5, 13])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, capsys, steps):
    """Losses, scores, weights: every bit."""
    lenet(*TINY, "--out", tmp_path / "whole")
    stopped_and_resumed(monkeypatch, lenet, tmp_path / "stopped", TINY, steps)
    whole, stopped = (log(tmp_path / name) for name in ("whole", "stopped"))
    assert len(losses(tmp_path / "whole")) == 15 and len(set(losses(tmp_path / "whole"))) == 15
    assert without_times(whole[1]) == without_times(stopped[1])
    for name in ("last.pt", "best.pt"):
        a, b = (checkpoint.load(tmp_path / run / name) for run in ("whole", "stopped"))
        for part in ("model", "optimizer", "random"):
            torch.testing.assert_close(a[part], b[part], rtol=0, atol=0)
        assert a["schedule"] == b["schedule"] and a["best_accuracy"] == b["best_accuracy"]
    assert "continue with --resume" in capsys.readouterr().out


def test_resumed_equals_uninterrupted_with_everything(tmp_path, monkeypatch):
    """Batch norm's averages, AdamW's moments, workers, two kinds of stops."""
    options = [
        "--data",
        "builtin",
        "--model",
        "resnet",
        "--images",
        24,
        "--batch-size",
        8,
        "--epochs",
        2,
        "--workers",
        1,
        "--save-every",
        2,
    ]
    cifar(*options, "--out", tmp_path / "whole")
    stopped_and_resumed(monkeypatch, cifar, tmp_path / "stopped", options, 4, signal.SIGTERM)
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    a, b = (checkpoint.load(tmp_path / run / "last.pt") for run in ("whole", "stopped"))
    torch.testing.assert_close(a["model"], b["model"], rtol=0, atol=0)


def test_ctrl_c_before_there_is_anything_to_save(tmp_path, monkeypatch):
    def load(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lenet, "load", load)
    with pytest.raises(SystemExit) as exit:
        lenet("--out", tmp_path)
    assert exit.value.code == 130 and not (tmp_path / "last.pt").exists()


def kill_again_and_again(folder, kills, seed):
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "killed_training.py", folder, str(kills), str(seed)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    done = [int(n) for n in run.stdout.rsplit("steps done:")[1].split()]
    assert done == sorted(done), f"a kill lost steps: {done}"
    assert len(set(done)) > 2, f"no kill came during the training: {done}"
    assert losses(folder / "killed") == losses(folder / "whole")
    assert without_times(log(folder / "killed")[1]) == without_times(log(folder / "whole")[1])
    left = {path.name for path in (folder / "killed").iterdir()}
    assert left == {"last.pt", "best.pt", "log.jsonl", ".lock"}


def test_ten_kills_lose_nothing(tmp_path):
    kill_again_and_again(tmp_path, 10, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_hundred_kills_lose_nothing(tmp_path, seed):
    kill_again_and_again(tmp_path, 10, seed)


@pytest.mark.long
def test_ctrl_c_in_a_terminal(tmp_path):
    """The signal goes to the whole process group, as from a terminal, while a worker prepares batches."""
    command = [sys.executable, LENET, "--out", tmp_path, "--workers", "1", "--save-every", "5"]
    run = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 120
    while not (tmp_path / "last.pt").exists() or not checkpoint.load(tmp_path / "last.pt")["steps_done"]:
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "continue with --resume" in out and err == ""


# Which runs are continued, and which start afresh


def saved(folder):
    """A run that was stopped after an epoch: its last.pt says it is not finished."""
    lenet(*TINY, "--out", folder)
    state = checkpoint.load(folder / "last.pt")
    checkpoint.save({**state, "finished": False}, folder / "last.pt")
    return (folder / "last.pt").read_bytes()


def refusal(folder, *options):
    """The one-line message of a run that is refused; it must have changed no file."""
    before = {path: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    with pytest.raises(SystemExit) as exit:
        lenet(*TINY, "--out", folder, *options)
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    assert "\n" not in exit.value.code
    return exit.value.code


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    saved(tmp_path)
    assert "last.pt is a run that is not finished (15 steps done): continue it with --resume" in refusal(tmp_path)


def test_another_run_is_not_continued(tmp_path):
    saved(tmp_path)
    assert "is a run with --seed 0, not 1" in refusal(tmp_path, "--resume", "--seed", 1)
    assert "is a run with --batch-size 8, not 4" in refusal(tmp_path, "--resume", "--batch-size", 4)


def test_resume_begins_where_there_is_nothing_and_ends_where_all_is_done(tmp_path, capsys):
    lenet(*TINY, "--out", tmp_path, "--resume")
    assert "nothing to resume" in capsys.readouterr().out
    before = losses(tmp_path)
    lenet(*TINY, "--out", tmp_path, "--resume")
    assert "after 15 of 15 steps" in capsys.readouterr().out and losses(tmp_path) == before
    lenet(*TINY, "--out", tmp_path)  # a finished run may be overwritten
    assert losses(tmp_path) == before


def test_a_log_that_is_ahead_of_the_checkpoint_is_put_right(tmp_path, monkeypatch):
    """A kill between writing the log and saving the checkpoint leaves one of them an epoch ahead."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)
        with pytest.raises(SystemExit):
            lenet(*TINY, "--out", tmp_path)
    _header, epochs = log(tmp_path)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write(json.dumps({**epochs[0], "epoch": 2}) + "\n" + '{"epo')
    lenet(*TINY, "--out", tmp_path, "--resume")
    assert [epoch["epoch"] for epoch in log(tmp_path)[1]] == [1, 2, 3] and len(losses(tmp_path)) == 15


def test_one_run_at_a_time_in_a_folder(tmp_path):
    other = "import sys; from convlab.training.files import sole_use_of\nwith sole_use_of(sys.argv[1]): print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", other, tmp_path], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    assert "another training run is writing to" in refusal(tmp_path)
    process.communicate(b"\n")
    lenet(*TINY, "--steps", 1, "--out", tmp_path)


# Files that are not checkpoints of this program


class Planted:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def torch_saved(contents):
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def damaged(tmp_path):
    good = saved(tmp_path)
    weights = checkpoint.load(tmp_path / "last.pt")["model"]["C5.weight"].numpy().tobytes()
    return {
        "empty": b"",
        "half": good[: len(good) // 2],
        "without its end": good[:-1],
        "a bit in a weight": flipped(good, good.index(weights) + 1000),
        "a bit in the middle": flipped(good, len(good) // 3),
        "text": b"not a checkpoint\n" * 100,
        "another program's": torch_saved({"state_dict": {"w": torch.zeros(3)}}),
        "a tensor": torch_saved(torch.zeros(3)),
        "a later version's": torch_saved({"format": "convlab training, 2"}),
        "a pickle that acts": torch_saved({"format": checkpoint.FORMAT, "model": Planted(tmp_path / "planted")}),
        "a bare pickle": pickle.dumps(Planted(tmp_path / "planted")),
    }


def test_what_is_no_checkpoint_is_refused_and_kept(tmp_path):
    run = tmp_path / "run"
    for what, data in damaged(run).items():
        for name in ("last.pt", "best.pt"):
            folder = tmp_path / f"{what}, {name}"
            folder.mkdir()
            (folder / name).write_bytes(data)
            for options in ([], ["--resume"]):
                message = refusal(folder, *options)
                assert name in message and "move it away" in message, (what, message)
    assert not (run / "planted").exists()


def test_checkpoint_round_trip(tmp_path):
    contents = {"model": {"w": torch.randn(3, 4)}, "epoch": 3, "name": "lenet", "history": [0.5, 0.25], "none": None}
    checkpoint.save({}, tmp_path / "a.pt")
    checkpoint.save(contents, tmp_path / "a.pt")
    loaded = checkpoint.load(tmp_path / "a.pt")
    assert (
        torch.equal(loaded["model"].pop("w"), contents["model"].pop("w"))
        and loaded == {"format": checkpoint.FORMAT} | contents
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.replace"])
def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch, step):
    checkpoint.save({"epoch": 1}, tmp_path / "a.pt")

    def fail(*args):
        if step == "torch.save":
            args[1].write(b"half a file")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.save({"epoch": 2}, tmp_path / "a.pt")
    assert checkpoint.load(tmp_path / "a.pt")["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]
