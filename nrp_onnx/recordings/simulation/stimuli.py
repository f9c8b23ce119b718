"""Renders the simulated stimuli: objects of eight categories on textured backgrounds.

After the HvM images of Majaj et al. (2015): one object an image, at any place, size and pose, on a
background that says nothing of it. The categories differ by shape only; colour and shading vary
freely. Each image has a generator of its own, seeded with (seed, index), so that the order in which
images are rendered does not matter.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

PIXELS = 96
_OVERSAMPLING = 4


def _polygon(n: int, radii: tuple[float, ...], turn: float = 0.0) -> np.ndarray:
    angles = turn + 2 * np.pi * np.arange(n * len(radii)) / (n * len(radii))
    return np.tile(radii, n)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _points(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs)


#: Outlines in a square from -1 to 1, as filled polygons; a second polygon is cut out of the first.
SHAPES: dict[str, list[np.ndarray]] = {
    "disc": [_polygon(48, (0.95,))],
    "ring": [_polygon(48, (1.0,)), _polygon(48, (0.55,))],
    "bar": [_points((-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3))],
    "triangle": [_polygon(3, (1.1,), np.pi / 2)],
    "cross": [
        _points(
            *((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)),
            *((0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)),
        )
    ],
    "star": [_polygon(5, (1.1, 0.42), np.pi / 2)],
    "crescent": [_polygon(48, (1.0,)), _polygon(48, (0.85,)) + np.array([0.5, 0.0])],
    "arrow": [
        _points((-1, -0.2), (0.1, -0.2), (0.1, -0.7), (1, 0), (0.1, 0.7), (0.1, 0.2), (-1, 0.2))
    ],
}
CATEGORIES = tuple(SHAPES)


@dataclass(frozen=True)
class Latents:
    """What is true of one image: centre in half-widths, size, angles in radians."""

    category: int
    x: float
    y: float
    size: float
    rotation: float
    tilt: float


def draw_latents(seed: int, index: int) -> Latents:
    """The latent variables of image ``index``; the categories take turns, so they are balanced."""
    rng = np.random.default_rng([seed, index, 0])
    return Latents(
        category=index % len(CATEGORIES),
        x=rng.uniform(-0.45, 0.45),
        y=rng.uniform(-0.45, 0.45),
        size=rng.uniform(0.3, 0.6),
        rotation=rng.uniform(-np.pi / 3, np.pi / 3),
        tilt=rng.uniform(-0.9, 0.9),
    )


def render(seed: int, index: int) -> Image.Image:
    """Image ``index``: RGB, `PIXELS` x `PIXELS`."""
    latents = draw_latents(seed, index)
    rng = np.random.default_rng([seed, index, 1])
    mask = _object_mask(latents)[..., None]
    background = _texture(rng, smooth=rng.uniform(1.0, 1.8)) * rng.uniform(0.08, 0.2)
    grey = rng.uniform(0.35, 0.65)
    ground = grey + background[..., None] * rng.uniform(0.8, 1.2, 3)
    # Clearly lighter or darker than its ground, so that its outline is there to be seen.
    tone = grey + rng.choice([-1, 1]) * rng.uniform(0.2, 0.35)
    surface = _texture(rng, smooth=1.6) * 0.05
    ramp = np.linspace(-0.12, 0.12, PIXELS)
    light = ramp[:, None] * rng.uniform(-1, 1) + ramp[None, :] * rng.uniform(-1, 1)
    thing = tone * rng.uniform(0.85, 1.15, 3) + (surface + light)[..., None]
    pixels = np.clip(ground * (1 - mask) + thing * mask, 0, 1)
    # 64 levels a channel: invisible, and half the file size.
    return Image.fromarray((np.round(pixels * 63) * 4).astype(np.uint8), "RGB")


def _object_mask(latents: Latents) -> np.ndarray:
    """How much of each pixel the object covers, float64 (PIXELS, PIXELS)."""
    side = PIXELS * _OVERSAMPLING
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    cos, sin = np.cos(latents.rotation), np.sin(latents.rotation)
    # Turned out of the picture plane about its upright axis, then within the plane.
    pose = np.array([[cos, -sin], [sin, cos]]) @ np.diag([np.cos(latents.tilt), 1.0])
    centre = np.array([latents.x, latents.y])
    for cut, outline in enumerate(SHAPES[CATEGORIES[latents.category]]):
        points = (latents.size * outline @ pose.T + centre + 1) / 2 * side
        draw.polygon([(float(x), float(y)) for x, y in points], fill=0 if cut else 255)
    small = canvas.resize((PIXELS, PIXELS), Image.Resampling.BOX)
    return np.asarray(small, np.float64) / 255


def _texture(rng: np.random.Generator, smooth: float) -> np.ndarray:
    """Noise with the spectrum 1 / f^smooth, mean 0 and standard deviation 1: (PIXELS, PIXELS)."""
    fy, fx = np.fft.fftfreq(PIXELS)[:, None], np.fft.rfftfreq(PIXELS)[None, :]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((PIXELS, PIXELS))) / frequency**smooth
    texture: np.ndarray = np.fft.irfft2(spectrum, s=(PIXELS, PIXELS))
    return (texture - texture.mean()) / texture.std()
