"""Renders the simulated stimuli: objects of eight categories on textured backgrounds.

After the HvM images of Majaj et al. (2015): one object an image, at any place, size and pose, on a
background that says nothing of it. The categories differ by shape; colours and light vary freely.
Each image has generators of its own, seeded with (seed, index), so that neither the number of
images nor the order in which they are rendered matters.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
import scipy.fft
from PIL import Image, ImageDraw

from nrp_onnx.recordings.simulation.objects import CATEGORIES, Part

PIXELS = 128
OBJECT_NAMES = tuple(CATEGORIES)
_OVERSAMPLING = 2
_CAMERA_DISTANCE = 5.0
#: 64 levels a channel: invisible, and smaller files.
_LEVELS = [min(4 * round(level / 4), 255) for level in range(256)] * 3


@dataclass(frozen=True)
class Latents:
    """What is true of one image.

    Attributes:
        category: place in `OBJECT_NAMES`.
        x, y: centre of the object, in image widths to the right of and above the image's centre.
        size: diameter of the sphere around the object, in image widths.
        rotation: within the picture plane, anticlockwise, degrees.
        azimuth: about the object's upright axis, degrees; 0 shows its front.
        tilt: from which the camera looks down on the object, degrees.
    """

    category: int
    x: float
    y: float
    size: float
    rotation: float
    azimuth: float
    tilt: float


def draw_latents(seed: int, index: int) -> Latents:
    """The latent variables of image ``index``; the categories take turns, so they are balanced."""
    rng = np.random.default_rng([seed, index, 0])
    return Latents(
        category=index % len(OBJECT_NAMES),
        x=_uniform(rng, -0.2, 0.2),
        y=_uniform(rng, -0.2, 0.2),
        size=_uniform(rng, 0.5, 0.95),
        rotation=_uniform(rng, -40, 40),
        azimuth=_uniform(rng, -75, 75),
        tilt=_uniform(rng, -5, 40),
    )


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    # Rounded, so that the table of stimuli holds the very number that was rendered.
    return round(float(rng.uniform(low, high)), 4)


def render(seed: int, index: int) -> Image.Image:
    """Image ``index``: RGB, `PIXELS` x `PIXELS`."""
    latents = draw_latents(seed, index)
    rng = np.random.default_rng([seed, index, 1])
    side = PIXELS * _OVERSAMPLING
    # Each pixel becomes a block of its own colour, and is itself again after the reduction.
    canvas = _background(rng).resize((side, side), Image.Resampling.NEAREST)
    parts = CATEGORIES[OBJECT_NAMES[latents.category]](rng)
    faces, colours = _shaded_faces(parts, latents, rng)
    draw = ImageDraw.Draw(canvas)
    for corners, colour in zip(faces.tolist(), colours.tolist(), strict=True):
        draw.polygon([(x, y) for x, y in corners], fill=tuple(colour))
    small = canvas.reduce(_OVERSAMPLING)
    return small.point(_LEVELS)


def _shaded_faces(
    parts: list[Part], latents: Latents, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The visible faces from back to front (painter's algorithm), under one light.

    Returns:
        Corners in pixels of the canvas, float64 (n_faces, 4, 2), and colours, int64 (n_faces, 3).
    """
    points = np.concatenate([solid for solid, _ in parts])
    inside = np.concatenate(
        [np.tile(solid.mean(axis=(0, 1)), (len(solid), 1)) for solid, _ in parts]
    )
    paints = np.concatenate([np.full(len(solid), paint) for solid, paint in parts])
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    pose = _pose(latents)
    middle = (low + high) / 2
    radius = np.linalg.norm(points - middle, axis=2).max()
    points = (points - middle) @ pose.T / radius
    inside = (inside - middle) @ pose.T / radius

    normals = np.cross(points[:, 2] - points[:, 0], points[:, 3] - points[:, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    centres = points.mean(axis=1)
    # The parts are convex, or nearly: a normal points away from the middle of its part.
    normals *= np.where((normals * (centres - inside)).sum(axis=1) < 0, -1, 1)[:, None]
    towards = np.array([0, 0, _CAMERA_DISTANCE]) - centres
    seen = np.flatnonzero((normals * towards).sum(axis=1) > 0)
    seen = seen[np.argsort(centres[seen, 2], kind="stable")]

    light = np.array([rng.uniform(-1, 1), rng.uniform(0.2, 1), rng.uniform(0.3, 1)])
    brightness = 0.35 + 0.75 * np.maximum(normals[seen] @ (light / np.linalg.norm(light)), 0)
    colours = np.clip(_palette(rng)[paints[seen]] * brightness[:, None], 0, 1) * 255

    scale = latents.size / 2 * _CAMERA_DISTANCE / (_CAMERA_DISTANCE - points[seen, :, 2])
    x = 0.5 + latents.x + points[seen, :, 0] * scale
    y = 0.5 - latents.y - points[seen, :, 1] * scale
    return np.stack([x, y], axis=2) * PIXELS * _OVERSAMPLING, colours.astype(np.int64)


def _pose(latents: Latents) -> np.ndarray:
    """The rotation matrix: about the upright axis, then towards the camera, then in the plane."""
    (ca, ct, cr), (sa, st, sr) = (
        f(np.deg2rad([latents.azimuth, latents.tilt, latents.rotation])) for f in (np.cos, np.sin)
    )
    turned = np.array([[ca, 0, sa], [0, 1, 0], [-sa, 0, ca]])
    tilted = np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
    rolled = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    pose: np.ndarray = rolled @ tilted @ turned
    return pose


def _palette(rng: np.random.Generator) -> np.ndarray:
    """RGB from 0 to 1 of the paints MAIN, SECOND, DARK, LIGHT."""
    main, second = (
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.55, 1))
        for _ in range(2)
    )
    dark, light = rng.uniform(0.05, 0.2), rng.uniform(0.8, 1)
    return np.array([main, second, [dark] * 3, [light, light * 0.95, light * 0.85]])


def _background(rng: np.random.Generator) -> Image.Image:
    """Noise with the spectrum 1 / f^a, tinted, RGB of `PIXELS` x `PIXELS`."""
    white = scipy.fft.rfft2(rng.standard_normal((PIXELS, PIXELS), np.float32))
    power = np.float32(-rng.uniform(1.3, 2.0))
    texture = scipy.fft.irfft2(white * _FREQUENCY**power, s=(PIXELS, PIXELS))
    texture *= np.float32(rng.uniform(0.08, 0.2)) / texture.std()
    tint = rng.uniform(0.85, 1.1, 3)
    contrast = (tint * rng.uniform(0.7, 1.1, 3)).astype(np.float32)
    mean = (tint * rng.uniform(0.25, 0.75)).astype(np.float32)
    levels = mean + texture[..., None] * contrast
    return Image.fromarray((levels.clip(0, 1) * 255).astype(np.uint8))


def _frequencies() -> np.ndarray:
    """Spatial frequency of each place of a real spectrum, infinite for the mean."""
    fy, fx = np.fft.fftfreq(PIXELS)[:, None], np.fft.rfftfreq(PIXELS)[None, :]
    frequency: np.ndarray = np.hypot(fy, fx).astype(np.float32)
    frequency[0, 0] = np.inf
    return frequency


_FREQUENCY = _frequencies()
