"""A network for sounds: one-dimensional convolutions and poolings that tell four words by their melody.

python examples/keywords.py

The words are drawn from a seed: a voice of five harmonics, whose pitch rises, falls, or does one after the other, begins at
any moment, is of any height and length, and has noise around it.
"""

import math

import torch

import convlab
import convlab.functional as CF

RATE, SAMPLES = 4000, 2000  # a second, and of a sound
WORDS = {"up": (1, 1), "down": (-1, -1), "peak": (1, -1), "valley": (-1, 1)}  # which way the pitch goes, in two halves


def sounds(count: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """x [count, 1, SAMPLES] and the words' numbers [count]"""

    def between(least: float, most: float) -> torch.Tensor:
        return least + (most - least) * torch.rand(count, 1, generator=draw)

    labels = torch.randint(len(WORDS), (count,), generator=draw)
    slopes = torch.tensor(list(WORDS.values()), dtype=torch.float32)[labels]
    length, time = between(1000, 1600), torch.arange(SAMPLES)
    at = (time - between(0, 1) * (SAMPLES - length)) / length  # 0 to 1 while the word lasts
    octaves = slopes[:, :1] * (at.clamp(0, 0.5) - 0.25) + slopes[:, 1:] * (at.clamp(0.5, 1) - 0.75)
    phase = (2 * math.pi / RATE * between(120, 240) * 2**octaves).cumsum(1)
    voice = sum(torch.sin(h * phase) / h for h in range(1, 6)) * torch.sin(math.pi * at.clamp(0, 1))
    return (voice + 0.1 * torch.randn(count, SAMPLES, generator=draw)).unsqueeze(1), labels


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # windows of 20 ms, 2 ms apart: an element of x stands in ten of them
        self.listen = convlab.Conv1d(1, 32, 80, stride=8)
        self.local = convlab.Conv1d(32, 32, 3, padding=1)
        self.wide = convlab.Conv1d(32, 32, 3, padding=4, dilation=4)
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(32) for _ in range(3))
        self.tell = torch.nn.Linear(32 * 4, len(WORDS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip((self.listen, self.local, self.wide), self.norms):
            x = CF.max_pool1d(CF.relu(norm(conv(x))), 2)
        return self.tell(CF.adaptive_avg_pool1d(x, 4).flatten(1))


def main() -> None:
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(1, 161):
        x, labels = sounds(32, draw)
        loss = torch.nn.functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    network.eval()
    with torch.no_grad():
        x, labels = sounds(256, draw)
        right = (network(x).argmax(1) == labels).float().mean().item()
    print(f"{right:.0%} of 256 new sounds are told right")
    assert right > 0.9
    print(convlab.summary(network, x[:32]))


if __name__ == "__main__":
    main()
