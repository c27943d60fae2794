"""Ctrl-C ends a simulated launch, at once, and the process goes on."""

import os
import signal
import threading
import time

import pytest
import torch

import convlab
import convlab.functional as CF

X, W = torch.randn(8, 64, 56, 56), torch.randn(64, 64, 3, 3)  # half a minute and more
SECONDS = 10.0  # on a machine with much else to do; one second on one without


@pytest.fixture(autouse=True)
def warm():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    for check in (False, True):
        with convlab.simulate(check=check):  # what the first loads, Ctrl-C should not meet
            CF.relu(torch.ones(3))
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC:
    """Comes as soon as a launch takes CPU time."""

    def __init__(self, after=0.2):
        self.timer = threading.Timer(after, self.press)

    def press(self):
        self.at = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *_):
        self.timer.join()
        assert time.monotonic() - self.at < SECONDS


def goes_on(sim, launches):
    assert len(sim.launches) == launches
    assert CF.relu(torch.tensor([-1.0, 2.0])).tolist() == [0, 2] and len(sim.launches) == launches + 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.works_with("Ctrl-C in a simulated launch: `KeyboardInterrupt`, and the next launch works")
@pytest.mark.parametrize("check", [False, True])
def test_forward(check):
    with convlab.simulate(check=check) as sim:
        with CtrlC(), pytest.raises(KeyboardInterrupt) as caught:
            CF.conv2d(X, W, algo="direct")
        assert "kernel forward_kernel<float>" in str(caught.value.__context__)
        goes_on(sim, 0)


def test_one_block_that_takes_long():
    """One thread of one block: it ends in the middle of its loop, and the report says where."""
    x = torch.ones(1, 3_000_000, 1, 1)
    with convlab.simulate(count=True) as sim:
        with CtrlC(0.5), pytest.raises(KeyboardInterrupt) as caught:
            while True:
                CF.conv2d(x, x, algo="direct")
        assert "interrupted" in str(caught.value.__context__)
        goes_on(sim, len(sim.launches))


def test_backward():
    x, w = torch.randn(1, 4, 20, 20), torch.randn(4, 4, 3, 3, requires_grad=True)
    with convlab.simulate() as sim:
        y = CF.conv2d(x, w, algo={"wgrad": "direct"}).sum()
        with CtrlC(), pytest.raises(KeyboardInterrupt):
            while True:
                torch.autograd.grad(y, w, retain_graph=True)
        goes_on(sim, len(sim.launches))


def test_another_thread():
    """That launches while the main one waits for it."""
    ended = threading.Event()

    def launch():
        with convlab.simulate(check=False):
            try:
                CF.conv2d(X, W, algo="direct")
            except KeyboardInterrupt:
                ended.set()

    threading.Thread(target=launch).start()
    with CtrlC(), pytest.raises(KeyboardInterrupt):
        ended.wait()
    assert ended.wait(SECONDS)


def test_a_program_with_a_handler_of_its_own():
    """Decides itself, when the launch is over."""
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with convlab.simulate(check=False) as sim:
            with CtrlC(0.05):
                while not seen:
                    y = CF.conv2d(X[:1, :4], W[:4, :4], algo="direct")
            assert len(sim.launches) >= 1 and y.isfinite().all() and seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_simulation_nothing_is_touched():
    before = signal.getsignal(signal.SIGINT)
    CF.conv2d(X[:1], W)
    assert signal.getsignal(signal.SIGINT) is before
