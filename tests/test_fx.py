"""torch.fx and torch.jit on converted models: a tracer finds the layers that it finds in torch's."""

import copy
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from checkout import ROOT
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

import convlab
import convlab.functional as CF

FX = "`torch.fx`: `symbolic_trace`, its fusion, torchvision's feature extractors"
JIT = "`torch.jit.trace` of a model in `eval()`, saved, and loaded where convlab is imported"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ours = False
        self.conv, self.norm, self.act = nn.Conv2d(3, 6, 3, padding="same", groups=3), nn.BatchNorm2d(6), nn.ReLU()
        self.pool, self.scale = nn.MaxPool2d(3, 2, ceil_mode=True), nn.Parameter(torch.randn(4, 6, 2, 1))
        self.last = nn.Sequential(nn.LeakyReLU(0.3), nn.AvgPool2d(2, 1, count_include_pad=False))

    def forward(self, x):
        f = CF if self.ours else F
        y = self.pool(self.act(self.norm(self.conv(x))))
        return self.last(f.conv2d(y, self.scale, stride=(2, 1)) + f.relu(y[:, :4, :3, :-1]).mean())


def models():
    """torch's, and the same converted, with statistics to fold, in eval()."""
    theirs = Block()
    theirs.norm.running_mean.normal_()
    theirs.norm.running_var.uniform_(0.5, 2)
    ours = copy.deepcopy(theirs)
    ours.ours = True
    return theirs.eval(), convlab.convert(ours).eval()


def batch():
    return torch.randn(2, 3, 11, 9)


def graph(model):
    return [
        (node.op, str(node.target) if node.op != "call_function" else node.name)
        for node in fx.symbolic_trace(model).graph.nodes
    ]


@pytest.mark.works_with(FX)
def test_symbolic_trace():
    theirs, ours = models()
    assert graph(ours) == graph(theirs)
    traced = fx.symbolic_trace(ours)
    assert {CF.conv2d, CF.relu} < {node.target for node in traced.graph.nodes if node.op == "call_function"}
    x = batch()
    for module in (traced, pickle.loads(pickle.dumps(traced)), copy.deepcopy(traced)):
        torch.testing.assert_close(module(x), theirs(x))
        assert type(module.conv) is convlab.Conv2d
    (g,), (expected,) = (torch.autograd.grad(m(x).square().sum(), m.conv.weight) for m in (traced, theirs))
    torch.testing.assert_close(g, expected)
    assert type(convlab.restore(traced).conv) is nn.Conv2d


@pytest.mark.works_with(FX)
def test_fusion():
    theirs, ours = models()
    x = batch()
    torch.testing.assert_close(fuse(ours)(x), fuse(theirs)(x))
    torch.testing.assert_close(convlab.convert(fuse(theirs))(x), theirs(x))
    folded = nn.utils.fusion.fuse_conv_bn_eval(ours.conv, ours.norm)
    assert type(folded) is convlab.Conv2d
    torch.testing.assert_close(folded(x), theirs.norm(theirs.conv(x)))


@pytest.mark.works_with(FX)
def test_feature_extractors():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    theirs, ours = models()
    names = extraction.get_graph_node_names(theirs)
    assert extraction.get_graph_node_names(ours) == names and "last.1" in names[0]
    x, wanted = batch(), {"act": "a", "pool": "b", "last.0": "c", "conv2d": "d"}
    expected, got = (extraction.create_feature_extractor(m, wanted)(x) for m in (theirs, ours))
    assert set(got) == set(wanted.values())
    torch.testing.assert_close(got, expected)


def test_a_tracer_that_looks_into_torchs_layers_looks_into_convlabs():
    class Thorough(fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, (nn.BatchNorm2d, nn.ReLU))

    theirs, ours = models()
    graph = Thorough().trace(ours)
    kinds = [node.target for node in graph.nodes if node.op == "call_function"]
    assert {CF.conv2d, CF.max_pool2d, CF.leaky_relu, CF.avg_pool2d} < set(kinds)
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["norm", "act"]
    x = batch()
    torch.testing.assert_close(fx.GraphModule(ours, graph)(x), theirs(x))


def test_functions_of_a_proxy():
    def calls(x, w):
        y, at = CF.max_pool2d(CF.conv2d(x, w, None, 2, padding=1, algo="direct"), 2, return_indices=True)
        return CF.avg_pool2d(CF.leaky_relu(y, 0.5), 1, divisor_override=2), at

    traced, x, w = fx.symbolic_trace(calls), batch(), torch.randn(5, 3, 3, 3)
    torch.testing.assert_close(traced(x, w), calls(x, w))
    assert "algo = 'direct'" in traced.code and "divisor_override" not in traced.code


# ---- TorchScript
# ------------------------------------------------------------------------------------------------------


@pytest.mark.works_with(JIT)
@pytest.mark.parametrize("gradients", [False, True])
def test_jit_trace(gradients, tmp_path):
    theirs, ours = models()
    x, others = batch(), torch.randn(5, 3, 14, 9)
    with warnings.catch_warnings(record=True) as said, torch.set_grad_enabled(gradients):
        warnings.simplefilter("always")
        traced = torch.jit.trace(ours, x)
    assert not [w for w in said if issubclass(w.category, torch.jit.TracerWarning)]
    code = str(traced.inlined_graph)
    assert code.count("convlab::") == 7 and "PythonOp" not in code
    traced.save(tmp_path / "traced.pt")
    for module in (traced, torch.jit.load(tmp_path / "traced.pt"), torch.jit.freeze(traced)):
        for t in (x, others):
            torch.testing.assert_close(module(t), theirs(t))
    with convlab.simulate(check=False) as sim:
        torch.testing.assert_close(traced(x), theirs(x))
    assert len(sim.launches) >= 7


@pytest.mark.works_with(JIT)
@pytest.mark.parametrize("kind", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_a_trace_of_adaptive_pooling_takes_images_of_other_sizes(kind):
    theirs = nn.Sequential(kind(3), kind(1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(convlab.convert(copy.deepcopy(theirs)), torch.randn(1, 2, 12, 12))
    for x in (torch.randn(1, 2, 12, 12), torch.randn(2, 2, 14, 9)):
        torch.testing.assert_close(traced(x), theirs(x))


@pytest.mark.works_with(JIT)
def test_a_trace_in_another_process(tmp_path):
    model = convlab.convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())).eval()
    torch.jit.trace(model, torch.ones(1, 1, 5, 5)).save(tmp_path / "traced.pt")
    script = "import torch, convlab; print(torch.jit.load('traced.pt')(torch.ones(2, 1, 4, 4)).shape)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "torch.Size([2, 2, 2, 2])", done.stderr


def test_a_trace_is_for_inference():
    """torch says so where a backward meets it: an operator in a file has no derivative."""
    layer, x = convlab.Conv2d(1, 2, 3), torch.randn(1, 1, 5, 5)
    traced = torch.jit.trace(layer, x)
    with pytest.warns(UserWarning, match="convlab::conv2d_forward.*autograd kernel was not registered"):
        traced(x).sum().backward()


def test_jit_script_is_refused():
    for layer in (convlab.Conv2d(1, 2, 3), convlab.MaxPool2d(2)):
        for model in (layer, nn.Sequential(nn.Flatten(), layer)):
            with pytest.raises(NotImplementedError, match=r"torch\.jit\.script.*torch\.jit\.trace.*convlab\.restore"):
                torch.jit.script(model)
            assert model is layer or model[1] is layer
    torch.jit.script(convlab.restore(nn.Sequential(convlab.Conv2d(1, 2, 3))))
