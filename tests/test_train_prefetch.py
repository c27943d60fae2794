"""--prefetch: the same batches and losses, and on a GPU each copied beside the step before it."""

from contextlib import nullcontext

import pytest
import torch

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

from scripts import lenet, losses

from convlab.training.prefetch import one_ahead, prefetched

TINY = ["--images", "40", "--batch-size", "16", "--steps", "4"]


def test_the_next_one_is_begun_before_one_is_handed_out():
    begun, seen = [], []
    for item in one_ahead(begun.append(i) or i for i in range(4)):
        seen.append((item, len(begun)))
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_ahead([])) == [] and list(one_ahead([5])) == [5]


class Side:
    """A stream that notes what it is asked for."""

    def __init__(self, notes):
        self.notes, self.events = notes, 0

    def record_event(self):
        self.events += 1
        return self.events

    def wait_event(self, event):
        self.notes.append(("waits for", event))


def test_each_step_waits_for_its_own_batch(monkeypatch):
    """Without a GPU: the calls, in their order."""
    notes, training = [], Side([])
    training.notes = notes
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Side(notes))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: training)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: notes.append(("pinned", len(t))) or t)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda t, s: notes.append(("used by training", s is training)))
    batches = [(torch.randn(n, 2, 3, 3), torch.arange(n), n) for n in (3, 2)]
    for (images, labels, n), (x, y, m) in zip(
        prefetched(batches, torch.device("cpu"), torch.channels_last), batches, strict=True
    ):
        notes.append(("step", n))
        assert n == m and torch.equal(images, x) and torch.equal(labels, y)
        assert images.is_contiguous(memory_format=torch.channels_last)
    pinned, used = [("pinned", 3)] * 2 + [("pinned", 2)] * 2, [("used by training", True)] * 2
    assert notes == [*pinned, ("waits for", 1), *used, ("step", 3), ("waits for", 2), *used, ("step", 2)]


def test_on_the_cpu_it_changes_nothing_and_says_so(tmp_path, capsys):
    lenet(*TINY, "--out", tmp_path / "plain")
    assert "--prefetch" not in capsys.readouterr().out
    lenet(*TINY, "--prefetch", "--workers", 1, "--out", tmp_path / "prefetched")
    assert "--prefetch: on the CPU there is nothing to copy" in capsys.readouterr().out
    assert losses(tmp_path / "plain") == losses(tmp_path / "prefetched")


# ---- on a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("more", [[], ["--channels-last"], ["--graph"], ["--workers", "1"]])
def test_the_same_losses_on_a_gpu(more, tmp_path):
    lenet(*TINY, "--device", "cuda", *more, "--out", tmp_path / "plain")
    lenet(*TINY, "--device", "cuda", *more, "--prefetch", "--out", tmp_path / "prefetched")
    assert losses(tmp_path / "plain") == pytest.approx(losses(tmp_path / "prefetched"), rel=1e-5)


@pytest.mark.cuda
def test_memory_is_not_used_again_before_a_slow_step_is_done():
    """And nothing waits for the GPU on the way."""
    device = torch.device("cuda")
    batches = [(torch.full((64, 3, 32, 32), float(i)), torch.full((64,), i), 64) for i in range(8)]
    list(prefetched(batches, device, torch.contiguous_format))  # what is allocated once
    sums = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, labels, _ in prefetched(batches, device, torch.contiguous_format):
            torch.cuda._sleep(20_000_000)
            sums.append(torch.stack([images.mean(), labels.float().mean()]))
            del images, labels
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(torch.stack(sums).cpu(), torch.arange(8.0)[:, None].expand(8, 2))
