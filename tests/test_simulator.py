"""convlab.simulate(): CPU tensors go through the CUDA kernels, and give what the CPU backend gives."""

import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import convlab
import convlab.functional as CF
from convlab import simulator
from convlab.testing import AWKWARD, check_conv

MODES = {
    "forward": dict(order="forward", check=False),
    "reverse": dict(order="reverse", check=False),
    "random": dict(order="random", seed=3, check=False),
    "checked": dict(order="random", seed=4),
}


def lenet():
    return nn.Sequential(
        convlab.Conv2d(1, 6, 5),
        convlab.LeakyReLU(0.1),
        convlab.MaxPool2d(2),
        convlab.Conv2d(6, 16, 5),
        convlab.ReLU(),
        convlab.AvgPool2d(2),
        convlab.Conv2d(16, 20, 5),
        convlab.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 10),
    )


def kernels(sim):
    return [launch.kernel.split("<")[0] for launch in sim.launches]


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", AWKWARD, ids=str)
def test_convolution(case, mode):
    x, w, b = case.tensors()
    with convlab.simulate(**MODES[mode]) as sim:
        y = CF.conv2d(x, w, b, *case.arguments)
        check_conv(
            lambda *t: CF.conv2d(*t, *case.arguments), x, w, b, torch.randn_like(y), case.arguments, f"{mode} {case}"
        )
    assert sim.launches or case.N == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes(dtype):
    for case in AWKWARD[:6]:
        x, w, b = case.tensors(dtype)
        with convlab.simulate():
            y = CF.conv2d(x, w, b, *case.arguments)
            check_conv(
                lambda *t: CF.conv2d(*t, *case.arguments), x, w, b, torch.randn_like(y), case.arguments, str(case)
            )


@pytest.mark.parametrize("start", range(5))
def test_activations_wherever_tensors_start(start):
    """16-byte accesses are for aligned addresses; the simulator keeps the tensors' own alignment and refuses misaligned
    ones."""
    for dtype in (torch.float32, torch.float64, torch.float16):
        for size in (0, 1, 3, 8, 17, 1000):
            x, dy = torch.randn(start + size).to(dtype)[start:], torch.randn(2 * start + size).to(dtype)[2 * start :]
            for ours, torchs in ((CF.relu, torch.relu), (CF.leaky_relu, nn.functional.leaky_relu)):
                a, b = x.detach().requires_grad_(), x.detach().requires_grad_()
                with convlab.simulate():
                    y = ours(a)
                assert torch.equal(y, torchs(b))
                assert torch.equal(torch.autograd.grad(y, a, dy)[0], torch.autograd.grad(torchs(b), b, dy)[0])


def test_a_training_step_of_lenet():
    model = lenet()
    x, target = torch.randn(8, 1, 32, 32), torch.randint(10, (8,))
    results = []
    for simulated in (False, True):
        model.zero_grad()
        if simulated:
            with convlab.simulate(check=True) as sim:
                loss = nn.functional.cross_entropy(model(x), target)
                loss.backward()
        else:
            loss = nn.functional.cross_entropy(model(x), target)
            loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    assert {"forward_kernel", "backward_kernel", "unary_kernel", "binary_kernel"} < set(
        kernels(sim)
    )  # pooling, activations, and convolution's


def test_a_training_loop():
    torch.manual_seed(0)
    models = [lenet(), lenet()]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    for _ in range(3):
        x, target = torch.randn(4, 1, 32, 32), torch.randint(10, (4,))
        for model, optimizer, simulated in zip(models, optimizers, (False, True)):
            with convlab.simulate(check=False) if simulated else torch.enable_grad():
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), target).backward()
                optimizer.step()
    for a, b in zip(*(m.parameters() for m in models)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("check", [False, True])
def test_gradients_of_gradients(check):
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, dtype=torch.float64, requires_grad=True)
    functions = [
        (lambda *t: CF.conv2d(*t, stride=(2, 1), padding=1, groups=2), (x, w, b)),
        (lambda t: CF.max_pool2d(t, 2, 1), (x,)),
        (lambda t: CF.avg_pool2d(t, 2, 1, 1), (x,)),
        (lambda t: CF.leaky_relu(t, 0.2), (x,)),
    ]
    with convlab.simulate(check=check) as sim:
        for f, inputs in functions:
            assert torch.autograd.gradcheck(f, inputs)
            assert torch.autograd.gradgradcheck(f, inputs)
    assert len(sim.launches) > 100


def test_channels_last():
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    w = torch.randn(4, 3, 3, 3)
    with convlab.simulate():
        y = CF.max_pool2d(CF.conv2d(x, w), 2)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, CF.max_pool2d(CF.conv2d(x, w), 2))


# ---- what is simulated, and what is not ------------------------------------------------------------------------------


def test_outside_nothing_is_simulated():
    x, w = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 3, 3)
    with convlab.simulate() as sim:
        pass
    CF.conv2d(x, w)
    assert sim.launches == [] and simulator.current() is None


def test_the_backend_is_fixed_at_the_forward_call():
    x = torch.randn(2, 2, 7, 7, requires_grad=True)
    w = torch.randn(3, 2, 3, 3, requires_grad=True)
    with convlab.simulate() as sim:
        simulated = CF.max_pool2d(CF.relu(CF.conv2d(x, w)), 2)
    real = CF.max_pool2d(CF.relu(CF.conv2d(x, w)), 2)
    before = len(sim.launches)
    (dx,) = torch.autograd.grad(simulated.sum(), x, create_graph=True)
    after = len(sim.launches)
    assert after > before
    dx.square().sum().backward()
    assert len(sim.launches) > after  # a second derivative of it, too
    with convlab.simulate() as other:
        torch.autograd.grad(real.sum(), x)
    assert other.launches == []


def test_blocks_nest_and_the_innermost_counts():
    x, w = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 3, 3)
    with convlab.simulate() as outer:
        CF.conv2d(x, w, algo="direct")
        with convlab.simulate(check=False) as inner:
            CF.conv2d(x, w, algo="direct")
            CF.conv2d(x, w, algo="direct")
        CF.relu(x)
    assert kernels(outer) == ["forward_kernel", "unary_kernel"] and kernels(inner) == ["forward_kernel"] * 2


def test_an_exception_leaves_the_block_properly():
    with pytest.raises(ZeroDivisionError), convlab.simulate():
        raise ZeroDivisionError
    assert simulator.current() is None


@pytest.mark.parametrize("check", [False, True])
def test_threads_simulate_side_by_side(check):
    """Each with its own order and record; a thread that entered no block is not simulated."""
    x, w = torch.randn(4, 3, 12, 12), torch.randn(5, 3, 3, 3)
    expected, sims, failures = CF.conv2d(x, w), {}, []

    def work(order):
        try:
            with convlab.simulate(order=order, check=check) as sims[order]:
                for _ in range(20):
                    torch.testing.assert_close(CF.conv2d(x, w), expected, rtol=1e-4, atol=1e-5)
        except BaseException as e:  # noqa: BLE001  (raised in the thread that waits)
            failures.append(e)

    threads = [threading.Thread(target=work, args=(order,)) for order in ("forward", "reverse", "random")]
    for t in threads:
        t.start()
    with convlab.simulate() as mine:
        bystander = []
        t = threading.Thread(target=lambda: bystander.append(CF.conv2d(x, w)))
        t.start()
        t.join()
    for t in threads:
        t.join()
    assert not failures
    assert [len(s.launches) for s in sims.values()] == [20] * 3 and mine.launches == []


def test_a_backward_on_another_thread():
    x = torch.randn(1, 1, 6, 6, requires_grad=True)
    with convlab.simulate() as sim:
        y = CF.conv2d(x, torch.randn(1, 1, 3, 3), algo="direct")
    t = threading.Thread(target=lambda: y.sum().backward())
    t.start()
    t.join()
    assert kernels(sim) == ["forward_kernel", "dgrad_kernel"] and x.grad is not None


def test_compiled_functions_run_eagerly_inside():
    x, w = torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3)
    compiled = torch.compile(lambda x, w: CF.relu(CF.conv2d(x, w)), backend="aot_eager")
    expected = compiled(x, w)
    torch._dynamo.utils.counters.clear()
    with convlab.simulate() as sim:
        y = compiled(x, w)
    assert not torch._dynamo.utils.counters["frames"]  # nor is what simulates compiled
    torch.testing.assert_close(y, expected)
    assert kernels(sim) == ["gemm_kernel", "unary_kernel"]
    assert torch.equal(compiled(x, w), expected)


def test_algorithms_are_those_of_cuda():
    x, w = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 3, 3)
    with convlab.simulate() as sim:
        CF.conv2d(x, w, algo="direct")
        with pytest.raises(ValueError, match="cuda"):
            CF.conv2d(x, w, algo="reference")
        assert convlab.Conv2dProblem.of(x, w).backend == "cuda"
    assert len(sim.launches) == 1
    assert convlab.Conv2dProblem.of(x, w).backend == "cpu"


def test_bad_arguments():
    for arguments, message in [
        (dict(order="backwards"), "order='backwards'"),
        (dict(seed=-1), "seed=-1"),
        (dict(seed="x"), "seed='x'"),
    ]:
        with pytest.raises(ValueError, match=message), convlab.simulate(**arguments):
            pass


# ---- records ---------------------------------------------------------------------------------------------------------


def test_launches():
    with convlab.simulate() as sim:
        CF.conv2d(
            torch.randn(2, 3, 20, 20), torch.randn(4, 3, 3, 3, requires_grad=True), algo="direct"
        ).sum().backward()
    forward, wgrad = sim.launches[0], sim.launches[-1]
    assert forward.kernel == "forward_kernel<float>" and forward.source.startswith("csrc/kernels/conv2d_direct.cu:")
    assert (forward.grid, forward.block, forward.shared_bytes) == ((-(-2 * 4 * 18 * 18 // 256), 1, 1), (256, 1, 1), 0)
    assert wgrad.grid == (4 * 3 * 9, 1, 1) and wgrad.shared_bytes == 256 * 4


def test_traffic():
    """The copy of 1024 elements by 16 bytes a thread: 8 requests of 512 bytes in 16 sectors, none too many."""
    x = torch.randn(1024)
    with convlab.simulate(count=True) as sim:
        CF.relu(x)
    rows = {(r.access, r.memory): r for r in sim.traffic}
    assert set(rows) == {("read", "input"), ("write", "output")}
    for r in rows.values():
        assert (r.space, r.requests, r.bytes, r.sectors, r.ideal, r.wavefronts) == ("global", 8, 4096, 128, 128, 0)
        assert (
            r.file == "csrc/kernels/elementwise.h"
            and ("load_vector" if r.access == "read" else "store_vector") in r.source
        )


def test_traffic_of_every_access():
    """Reads of x by direct convolution: each of the N K P Q outputs reads C R S of them."""
    with convlab.simulate(count=True) as sim:
        CF.conv2d(torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3), algo="direct")
    assert sum(r.bytes for r in sim.traffic if r.memory == "input") == 4 * (2 * 4 * 7 * 7) * (3 * 3 * 3)
    table = str(sim.traffic)
    assert "conv2d_direct.cu:" in table and "sectors" in table and "xc[h * g.W + v]" in table


def test_traffic_needs_counting():
    with convlab.simulate() as sim:
        CF.relu(torch.randn(3))
    with pytest.raises(RuntimeError, match="count=True"):
        _ = sim.traffic


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_errors_of_arguments_are_those_of_the_other_backends():
    x = torch.randn(1, 2, 6, 6)
    with convlab.simulate():
        for arguments in [(torch.randn(1, 3, 3, 3),), (torch.randn(1, 2, 9, 9),), (torch.randn(1, 2, 3, 3).double(),)]:
            with pytest.raises(RuntimeError, match="conv2d"):
                CF.conv2d(x, *arguments)
        torch.testing.assert_close(CF.relu(x), torch.relu(x))


def test_orders_are_repeatable():
    x, dy = torch.randn(4, 2, 9, 9), torch.randn(4, 3, 7, 7)
    w = torch.randn(3, 2, 3, 3, requires_grad=True)

    def gradient(**mode):
        with convlab.simulate(**mode):
            return torch.autograd.grad(CF.conv2d(x, w), w, dy)[0]

    assert torch.equal(gradient(seed=1), gradient(seed=1))
    assert torch.equal(gradient(seed=1), gradient(order="reverse"))  # no atomics: the same bits in every order


def test_it_loads_late():
    """Importing convlab does not load the simulator, and simulating does not load torch's compiler."""
    code = """if True:
        import sys, convlab, torch
        assert not [line for line in open("/proc/self/maps") if "_sim" in line]
        with convlab.simulate(check=False) as sim:
            convlab.functional.relu(torch.ones(3))
        assert sim.launches and "torch._dynamo" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
