"""Ten classes of 32x32 colour images, drawn from a seed: for where CIFAR-10 is not and cannot be downloaded.

Seven shapes and three textures. Place, size, angle, proportions, contrast and every colour are drawn for each image,
the figure and the background shade from one colour into another, bars and spots lie behind and before the figure, and
noise lies over everything. So no pixel by itself tells the class: a linear classifier finds little, a convolutional
network nearly all of it.
"""

import math

import torch

SIZE = 32
_CHUNK = 500  # images drawn at once: their planes stay in the cache


def draw(count, seed):
    """`count` images and their classes: ([count, 3, 32, 32] float32 in 0 to 1, [count] int64 in 0 to 9, as many of each
    as can be).

    The same numbers give the same images, and a smaller `count` gives the first of them.
    """
    generator = torch.Generator()
    images, labels = [], []
    for chunk in range(-(-count // _CHUNK)):
        generator.manual_seed(seed * 1_000_003 + chunk)
        classes = torch.arange(_CHUNK) % len(NAMES)
        images.append(_images(classes, generator))
        labels.append(classes)
    return torch.cat(images)[:count], torch.cat(labels)[:count]


class _Draw:
    """Random numbers for a chunk of images: each call gives [N, 1, 1], to be broadcast over the pixels."""

    def __init__(self, n, generator):
        self.n, self.generator = n, generator

    def between(self, low, high):
        return low + (high - low) * torch.rand(self.n, 1, 1, generator=self.generator)

    def colour(self):
        return torch.rand(self.n, 3, 1, 1, generator=self.generator)

    def normal(self, *size):
        return torch.randn(self.n, *size, generator=self.generator)


def _images(classes, generator):
    """The images [N, 3, 32, 32] of `classes` [N]."""
    rng = _Draw(len(classes), generator)
    axis = torch.linspace(-1, 1, SIZE)
    x, y = axis.expand(1, SIZE, SIZE), axis[:, None].expand(1, SIZE, SIZE)

    background = rng.colour()
    image = _shade(rng, x, y, background)
    for _ in range(3):
        image = _clutter(rng, x, y, image)
    u, v = _placed(rng, x, y, rng.between(-0.3, 0.3), rng.between(-0.3, 0.3), rng.between(0.5, 0.8))
    stretch = rng.between(0.85, 1.15)
    cover = torch.empty(len(classes), SIZE, SIZE)
    grain = rng.between(7.5, 11)  # radians of a texture in a figure's radius
    for label, name in enumerate(NAMES):
        of = classes == label
        cover[of] = _cover(name, u[of] * stretch[of], v[of] / stretch[of], grain[of])
    # A colour apart from the background's: as far away as `contrast` says, in a random direction.
    direction = rng.colour() - background
    direction = direction / direction.abs().amax(1, keepdim=True).clamp(min=1e-3)
    contrast = rng.between(0.4, 0.9)[:, None]
    image = _over(image, _shade(rng, x, y, background + contrast * direction), cover)
    image = _clutter(rng, x, y, image, size=0.6)
    noise = rng.between(0.02, 0.08)[:, None]
    return (image + noise * rng.normal(3, SIZE, SIZE)).clamp(0, 1)


def _placed(rng, x, y, x0, y0, radius):
    """Coordinates (u, v) [N, 32, 32] around (x0, y0), turned by a random angle, in units of `radius`."""
    angle = rng.between(0, 2 * math.pi)
    cos, sin = angle.cos() / radius, angle.sin() / radius
    return cos * (x - x0) + sin * (y - y0), cos * (y - y0) - sin * (x - x0)


def _shade(rng, x, y, colour):
    """A plane [N, 3, 32, 32] that goes through `colour` in the middle and changes along a random direction."""
    angle, depth = rng.between(0, 2 * math.pi), rng.between(0, 0.25)
    slope = depth * (angle.cos() * x + angle.sin() * y)
    return colour + slope[:, None] * rng.normal(3, 1, 1).clamp(-1, 1)


def _clutter(rng, x, y, image, size=1.0):
    """A bar or a spot of a random colour over the image."""
    long = rng.between(0.05, 0.8) * size
    u, v = _placed(rng, x, y, rng.between(-1, 1), rng.between(-1, 1), torch.ones(1))
    distance = torch.maximum(u.abs() - long, v.abs() - rng.between(0.04, 0.16) * size)
    return _over(image, rng.colour(), _ink(distance, 1))


def _over(image, colour, cover):
    """`colour` laid over `image` where `cover` [N, 32, 32] is 1."""
    return torch.lerp(image, colour.expand_as(image), cover[:, None])


def _ink(distance, radius=0.58):
    """1 inside (distance below 0), 0 outside, smooth over a pixel; `radius`: what the distance's unit is in half
    images."""
    return (0.5 - distance * (radius * SIZE / 2)).clamp(0, 1)


# ---- the figures: how much of each pixel [n, 32, 32] they cover, by its position (u, v) in units of the figure's radius


def _polygon(u, v, sides):
    """The distance from the edge of a regular polygon, its corners at 1."""
    angles = [2 * math.pi * k / sides for k in range(sides)]
    return torch.stack([u * math.cos(a) + v * math.sin(a) for a in angles]).amax(0) - math.cos(math.pi / sides)


def _cross(u, v):
    u, v = u.abs(), v.abs()
    return torch.maximum(torch.maximum(u, v) - 0.95, torch.minimum(u, v) - 0.27)


def _star(u, v):
    """Five points: the tips at 1, the corners between them at 0.4."""
    sector = 2 * math.pi / 5
    angle = (torch.remainder(torch.atan2(v, u), sector) - sector / 2).abs()  # 0 between two tips, sector / 2 at a tip
    r = torch.hypot(u, v)
    a, b = r * angle.cos(), r * angle.sin()  # the edge runs from (0.4, 0) to the tip
    tip = math.cos(sector / 2), math.sin(sector / 2)
    normal = tip[1], 0.4 - tip[0]
    return ((a - 0.4) * normal[0] + b * normal[1]) / math.hypot(*normal)


def _wave(u, grain):
    """Stripes along v, `grain` radians in a unit."""
    return (0.5 + 1.5 * (grain * u).sin()).clamp(0, 1)


def _patch(u, v):
    """What a texture fills: a square with round corners."""
    return _ink((u**4 + v**4) ** 0.25 - 1)


_SHAPES = {  # the distance from the edge
    "disc": lambda u, v: torch.hypot(u, v) - 0.85,
    "ring": lambda u, v: (torch.hypot(u, v) - 0.75).abs() - 0.2,
    "square": lambda u, v: _polygon(u, v, 4),
    "triangle": lambda u, v: _polygon(u, v, 3),
    "cross": _cross,
    "star": _star,
    "crescent": lambda u, v: torch.maximum(torch.hypot(u, v) - 0.95, 0.72 - torch.hypot(u - 0.5, v)),
}
_TEXTURES = {  # how much is covered
    "stripes": lambda u, v, grain: _wave(u, grain),
    "checks": lambda u, v, grain: _wave(u, 0.7 * grain).sub(_wave(v, 0.7 * grain)).abs(),
    "dots": lambda u, v, grain: (1.5 * (grain * u).cos() + 1.5 * (grain * v).cos() - 0.5).clamp(0, 1),
}
NAMES = (*_SHAPES, *_TEXTURES)


def _cover(name, u, v, grain):
    return _ink(_SHAPES[name](u, v)) if name in _SHAPES else _patch(u, v) * _TEXTURES[name](u, v, grain)
