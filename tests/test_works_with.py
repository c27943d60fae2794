"""The parts of PyTorch that people use layers with: what works with torch.nn's works with convlab's, converted in
place."""

import copy
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import convlab
import convlab.functional as CF
from convlab._algorithms import names_of

ROOT = Path(__file__).parent.parent
works_with = pytest.mark.works_with


def network(dtype=torch.float64):
    """A small network of all of convlab's layers, as torch.nn has them."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 5, (2, 1), stride=2),
        nn.Flatten(),
    ).to(dtype)


def pair(dtype=torch.float64):
    """torch's network and the same one converted."""
    original = network(dtype)
    return original, convlab.convert(copy.deepcopy(original))


def batch(n=3, dtype=torch.float64):
    return torch.randn(n, 3, 12, 12, dtype=dtype)


def close(ours, torchs, tolerance=1e-12):
    torch.testing.assert_close(ours, torchs, rtol=tolerance, atol=tolerance)


def gradients(model, x, **loss):
    return torch.autograd.grad(model(x).square().sum(), list(model.parameters()), **loss)


# ---- torch.compile, torch.export
# --------------------------------------------------------------------------------------


@works_with("`torch.export`, strict and not, with a dynamic batch; saved and loaded")
@pytest.mark.parametrize("strict", [False, True])
def test_export(strict, tmp_path):
    original, ours = pair()
    program = torch.export.export(
        ours, (batch(3),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=strict
    )
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for n in (3, 7):
        x = batch(n)
        close(loaded(x), original(x))
    graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    assert any("convlab.conv2d_forward" in graph.code for graph in graphs)


@works_with("AOTInductor, with a dynamic batch")
@pytest.mark.long
def test_aot_inductor(tmp_path):
    original, ours = pair(torch.float32)
    program = torch.export.export(
        ours, (batch(3, torch.float32),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    )
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    loaded = torch._inductor.aoti_load_package(package)
    for n in (3, 7):
        x = batch(n, torch.float32)
        close(loaded(x), original(x), 1e-5)


@works_with("derivatives of a compiled function's derivatives")
@pytest.mark.xfail(
    strict=True,
    raises=RuntimeError,
    reason="`torch.compile` has none, for torch's layers neither; not compiled, they work",
)
def test_double_backward_of_a_compiled_function():
    x, w = torch.randn(1, 1, 5, 5, requires_grad=True), torch.randn(1, 1, 2, 2, requires_grad=True)
    try:
        y = torch.compile(lambda x, w: CF.conv2d(x, w).pow(2).sum(), backend="aot_eager")(x, w)
        (g,) = torch.autograd.grad(y, w, create_graph=True)
        g.sum().backward()
    finally:
        torch._dynamo.reset()


# ---- torch.func
# -------------------------------------------------------------------------------------------------------


@works_with("gradients sample by sample: `vmap` over `grad` of a `functional_call`")
@pytest.mark.filterwarnings("error:.*performance drop.*")
def test_per_sample_gradients():
    original, ours = pair()
    x = batch(4)
    parameters = {name: p.detach() for name, p in ours.named_parameters()}
    per_sample = vmap(grad(lambda p, x: functional_call(ours, p, (x[None],)).square().sum()), in_dims=(None, 0))(
        parameters, x
    )
    for i in range(4):
        for name, g in zip(parameters, gradients(original, x[i : i + 1])):
            close(per_sample[name][i], g, 1e-10)


# ---- autograd
# ---------------------------------------------------------------------------------------------------------


@works_with("double backward, for every algorithm")
def test_gradient_penalty():
    values, results = batch(), []
    for model in pair():
        x = values.clone().requires_grad_()
        y = model(x)
        (g,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(y.square().sum() + g.square().sum(), list(model.parameters())))
    close(results[1], results[0])


@works_with("activation checkpointing, reentrant or not")
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant):
    original, ours = pair()
    x = batch().requires_grad_()

    def checkpointed(x):
        return checkpoint(ours, x, use_reentrant=use_reentrant)

    checkpointed(x).square().sum().backward()
    for p, g in zip(ours.parameters(), gradients(original, x)):
        close(p.grad, g)


@works_with("frozen weights, `torch.no_grad`, `torch.inference_mode`")
def test_frozen_and_inference():
    original, ours = pair()
    x = batch()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            y = ours(x)
        assert not y.requires_grad and y.is_inference() == (context is torch.inference_mode)
        close(y, original(x).detach())
    ours.requires_grad_(False)
    x.requires_grad_()
    close(torch.autograd.grad(ours(x).sum(), x)[0], torch.autograd.grad(original(x).sum(), x)[0])


# ---- precision, determinism, layout
# -----------------------------------------------------------------------------------


@works_with("autocast: bfloat16 and float16, gradients in the parameters' dtype; eager and compiled")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype, compiled):
    original, ours = pair(torch.float32)
    run = torch.compile(ours, backend="aot_eager", fullgraph=True) if compiled else ours
    x = batch(3, torch.float32)
    results = []
    for model, forward in ((original, original), (ours, run)):
        with torch.autocast("cpu", dtype):
            y = forward(x)
            loss = y.float().square().sum()
        loss.backward()
        assert y.dtype is dtype and all(p.grad.dtype is torch.float32 for p in model.parameters())
        results.append([y.detach().float(), *(p.grad for p in model.parameters())])
    eps = torch.finfo(dtype).eps
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=8 * eps, atol=8 * eps * b.abs().max().item())
    torch._dynamo.reset()


@works_with("`GradScaler`, also where a step overflows and is left out")
def test_grad_scaler():
    torch.manual_seed(0)
    model = convlab.convert(network(torch.float32))
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=2.0**20), torch.optim.SGD(model.parameters(), 1e-3)
    x, losses = batch(4, torch.float32), []
    for _ in range(12):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = (model(x).float() - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert scaler.get_scale() < 2.0**20, "no step overflowed"
    assert losses[-1] < losses[0] and all(map(torch.isfinite, map(torch.tensor, losses)))


@works_with("`torch.use_deterministic_algorithms`: the same bits in every run, for any number of threads")
def test_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    model = convlab.convert(network(torch.float32))
    x = batch(8, torch.float32)
    first = gradients(model, x)
    for _ in range(9):
        assert all(map(torch.equal, gradients(model, x), first))


@works_with("`channels_last` in, `channels_last` out, through a network")
def test_channels_last():
    original, ours = (nn.Sequential(*model[:-1]) for model in pair())
    for model in (original, ours):
        model.to(memory_format=torch.channels_last)
    x = batch().contiguous(memory_format=torch.channels_last).requires_grad_()
    y, expected = ours(x), original(x)
    close(y, expected)
    assert y.stride() == expected.stride() and y.is_contiguous(memory_format=torch.channels_last)
    dy = torch.randn_like(y)
    for layout in (torch.contiguous_format, torch.channels_last):  # of the gradient that comes in, whatever x's is
        (dx,), (expected_dx,) = (
            torch.autograd.grad(t, x, dy.contiguous(memory_format=layout), retain_graph=True) for t in (y, expected)
        )
        close(dx, expected_dx)
        assert dx.stride() == expected_dx.stride()


# ---- sizes
# ------------------------------------------------------------------------------------------------------------


@works_with("batches of any size, empty ones too")
@pytest.mark.parametrize("n", [0, 1, 33, 1000])
def test_batches(n):
    original, ours = pair()
    x = batch(n)
    close(ours(x), original(x))
    for g, expected in zip(gradients(ours, x), gradients(original, x)):
        close(g, expected, 1e-10)


HUGE = {  # x, w, groups
    "images": ((2**21, 4, 64, 64), (4, 4, 3, 3), 1),
    "an image": ((1, 64, 8192, 8192), (8, 64, 3, 3), 1),
    "a plane": ((1, 1, 46000, 46000), (1, 1, 3, 3), 1),
    "outputs": ((2, 3, 8192, 8192), (64, 3, 3, 3), 1),
    "weights": ((1, 2**16, 5, 5), (2**16, 2**16, 3, 3), 1),
    "groups": ((1, 2**21, 64, 64), (2**21, 1, 3, 3), 2**21),
}


@works_with("tensors of 2^31 elements and more: 64-bit offsets, or an algorithm that says what it cannot number")
@pytest.mark.parametrize("what", HUGE)
def test_huge_problems(what):
    """Without the tensors: what each algorithm says, and how it would launch."""
    x, w, groups = HUGE[what]
    problem = convlab.Conv2dProblem.of(torch.empty(x, device="meta"), torch.empty(w, device="meta"), groups=groups)
    for backend in ("cpu", "cuda"):
        there = replace(problem, backend=backend)
        works = {}
        for pass_ in ("forward", "dgrad", "wgrad"):
            able = {
                a.name: a.supports(there, pass_)
                for a in convlab.algorithms()
                if pass_ in a.passes_by_backend.get(backend, ())
            }
            assert all(ok or any(char.isdigit() for char in reason) for ok, reason in able.values()), able
            works[pass_] = [name for name, (ok, _) in able.items() if ok]
            for algorithm in convlab.algorithms() if backend == "cuda" else ():
                if able.get(algorithm.name, (False,))[0]:
                    grid = algorithm.plan(there, pass_)["grid"]
                    assert 1 <= grid[0] < 2**31 and 1 <= grid[1] <= 65535 and 1 <= grid[2] <= 65535, (
                        algorithm.name,
                        pass_,
                        grid,
                    )
        if all(works.values()):
            assert all(name in works[pass_] for pass_, name in names_of("auto", there).items())
        else:
            with pytest.raises(ValueError, match="no algorithm can do this"):
                names_of("auto", there)


# ---- processes, threads, files
# ----------------------------------------------------------------------------------------


class Blurred(torch.utils.data.Dataset):
    """Runs a convolution and a pooling in the worker that loads an item."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        x = torch.arange(i, i + 3 * 16 * 16, dtype=torch.float32).view(3, 16, 16)
        return CF.max_pool2d(CF.conv2d(x, torch.full((3, 1, 3, 3), 1 / 9), groups=3), 2)


@works_with("`DataLoader` workers that fork")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_forked_workers():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        CF.conv2d(torch.randn(64, 16, 32, 32), torch.randn(32, 16, 3, 3))  # threads that will not exist in the workers
        loader = torch.utils.data.DataLoader(
            Blurred(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        loaded = torch.cat(list(loader))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(loaded, torch.stack([Blurred()[i] for i in range(8)]))


@works_with("several threads that call at once, forward and backward")
def test_threads():
    models = [convlab.convert(network(torch.float32)) for _ in range(4)]
    x = batch(16, torch.float32)
    expected = [gradients(model, x) for model in models]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for got, wanted in zip(pool.map(lambda model: gradients(model, x), models * 2), expected * 2):
                assert all(map(torch.equal, got, wanted))


@works_with("importing it: nothing is compiled or written, no compiler needed")
def test_import_compiles_nothing(tmp_path):
    environ = {
        "PATH": "",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    script = "import torch, convlab; print(convlab.Conv2d(1, 2, 3)(torch.ones(1, 1, 4, 4)).shape)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == "torch.Size([1, 2, 2, 2])", done.stderr
    assert list(tmp_path.iterdir()) == []


@works_with("pickle, `torch.save`, `copy.deepcopy`, `state_dict` (that of torch's layers)")
def test_pickle_and_state_dict(tmp_path):
    original, ours = pair()
    x = batch()
    torch.save(ours, tmp_path / "model.pt")
    torch.save(original.state_dict(), tmp_path / "state.pt")
    fresh = convlab.convert(network(), algo="direct")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt"))
    for model in (
        torch.load(tmp_path / "model.pt", weights_only=False),
        copy.deepcopy(ours),
        fresh,
        copy.deepcopy(fresh),
    ):
        close(model(x), original(x))
    assert list(ours.state_dict()) == list(original.state_dict())
    network().load_state_dict(ours.state_dict())


@works_with("ONNX export, after `convlab.restore`")
@pytest.mark.filterwarnings("ignore")
def test_onnx(tmp_path):
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    model = convlab.convert(network(torch.float32)).eval()
    x = batch(3, torch.float32)
    expected = model(x).detach()
    torch.onnx.export(convlab.restore(model), (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    exported = onnx.load(tmp_path / "model.onnx")
    (y,) = ReferenceEvaluator(exported).run(None, {exported.graph.input[0].name: x.numpy()})
    close(torch.from_numpy(y), expected, 1e-4)
    assert type(convlab.convert(model)[0]) is convlab.Conv2d


@works_with("pruning, `weight_norm` and `spectral_norm` on converted layers")
@pytest.mark.filterwarnings("ignore")
def test_parametrizations_on_top():
    for change in (
        lambda m: parametrizations.weight_norm(m),
        lambda m: parametrizations.spectral_norm(m).eval(),
        lambda m: nn.utils.weight_norm(m),
        lambda m: prune.l1_unstructured(m, "weight", amount=0.5),
    ):
        original, x = nn.Conv2d(3, 4, 3).double(), batch()
        ours = convlab.convert(copy.deepcopy(original))
        torch.manual_seed(0)
        expected = change(original)(x)
        torch.manual_seed(0)
        close(change(ours)(x), expected)


def test_the_page_says_what_these_tests_show():
    pytest.importorskip("torchvision")
    import works_with

    text = works_with.PAGE.read_text()
    assert works_with.updated(text, works_with.rows()) == text, (
        "python -m tools.works_with --write brings docs/compatibility.md up to date"
    )
