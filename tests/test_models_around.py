"""Models made of the layers around convolution are torch's in float64, outputs and gradients, once converted."""

import copy

import pytest
import torch
from torch import nn

import convlab


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.pool = nn.Conv2d(2, 6, 3, padding=1), nn.MaxPool2d(2)
        self.bottom, self.up = nn.Conv2d(6, 8, 3, padding=1), nn.ConvTranspose2d(8, 6, 2, stride=2, output_padding=1)
        self.out, self.act = nn.Conv2d(12, 1, 1), nn.PReLU(6)

    def forward(self, x):
        skipped = self.act(self.down(x))
        return self.out(torch.cat([skipped, self.up(self.bottom(self.pool(skipped)).relu())], 1))


class DCGAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(
            nn.ConvTranspose2d(5, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4)
        )

    def forward(self, x):
        return self.discriminator(self.generator(x))


class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 6, 1)
        self.gates = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(4))
        self.pool, self.last = nn.AdaptiveAvgPool1d(5), nn.Conv1d(6, 3, 1)

    def forward(self, x):
        x = self.first(x)
        for i, gate in enumerate(self.gates):
            a, b = gate(nn.functional.pad(x, (2**i, 0))).chunk(2, 1)
            x = x + a.tanh() * b.sigmoid()
        return self.last(self.pool(x))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Conv2d(2, 6, 3, padding=1), nn.ConvTranspose2d(6, 2, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.act, self.small = nn.ReLU6(), nn.AdaptiveMaxPool2d((5, 3))

    def forward(self, x):
        y, indices = self.pool(self.act(self.encode(x)))
        return self.small(self.decode(self.unpool(y, indices, output_size=x.shape[-2:])))


MODELS = [(UNet, (2, 2, 13, 11)), (DCGAN, (3, 5, 1, 1)), (WaveNet, (2, 1, 50)), (Autoencoder, (2, 2, 12, 14))]


@pytest.mark.parametrize("kind,shape", MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_outputs_and_gradients(kind, shape):
    torchs = kind().double()
    ours = convlab.convert(copy.deepcopy(torchs))
    results = []
    for model in (torchs, ours):
        torch.manual_seed(1)
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        y = model(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert not any(type(layer) in convlab._convert.CONVERTED for layer in ours.modules())
    assert [type(layer) for layer in convlab.restore(ours).modules()] == [type(layer) for layer in torchs.modules()]


@pytest.mark.parametrize("kind,shape", MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_summary_compares(kind, shape):
    model = convlab.convert(kind().double())
    report = convlab.summary(model, torch.randn(shape, dtype=torch.float64), compare=True)
    assert report.times_faster > 0 and all(row.torch_seconds > 0 and row.error < 1e-9 for row in report.passes)
    ours, torchs = report.model_seconds
    assert report.times_faster == torchs / ours
    assert bool(report.functions) == (kind is UNet)  # its relu is a method's
    answer, _, disturbed = str(report).splitlines()[-1].partition(", but other programs took the processor")
    assert answer.endswith(f" ms: {report.times_faster:.2f} times as fast")
    assert bool(disturbed) == bool(report.disturbed)
