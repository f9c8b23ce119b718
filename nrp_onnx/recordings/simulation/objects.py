"""The eight categories of simulated objects, those of the HvM images, built from solids.

A solid is a float64 array of shape (n_faces, 4, 3): the corners of each face, x to the right,
y up, z towards the viewer. A triangle repeats a corner.

Each function draws one exemplar: its proportions vary, its colours come later. The front is where
z is positive.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np

Point = Sequence[float] | np.ndarray

_RING = np.linspace(0, 2 * np.pi, 13)[None, :, None]
_COS, _SIN = np.cos(_RING), np.sin(_RING)


def box(centre: Point, size: Point, top: Sequence[float] = (1.0, 1.0)) -> np.ndarray:
    """A box; ``top`` scales its upper face in x and z, which makes it a wedge or a roof."""
    half = np.asarray(size) / 2
    signs = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], indexing="ij"), axis=-1)
    corners = signs * half
    corners[:, 1, :, 0] *= top[0]
    corners[:, 1, :, 2] *= top[1]
    return hexahedron(corners + np.asarray(centre))


def hexahedron(corners: np.ndarray) -> np.ndarray:
    """A solid of six faces.

    Args:
        corners: shape (2, 2, 2, 3), by the side in x, y and z.
    """
    flat = corners.reshape(8, 3)
    faces: np.ndarray = (_CELLS @ flat[_FACES]).reshape(-1, 4, 3)
    return faces


def lathe(
    profile: Sequence[tuple[float, float]], start: Point = (0, 0, 0), end: Point = (0, 1, 0)
) -> np.ndarray:
    """A solid of revolution.

    Args:
        profile: pairs of a place along the axis (0 is ``start``, 1 is ``end``) and a radius.
    """
    heights, radii = np.array(profile, float).T
    along = np.subtract(end, start)
    up = along / np.linalg.norm(along)
    # Two directions across the axis; for the first, one that is not along it.
    x, y, z = up
    side = np.array([y, -x, 0.0] if abs(z) < 0.9 else [0.0, z, -y])
    side /= np.linalg.norm(side)
    a, b, c = side
    ring = _COS * side + _SIN * np.array([y * c - z * b, z * a - x * c, x * b - y * a])
    return _quads(start + heights[:, None, None] * along + radii[:, None, None] * ring)


def rod(start: Point, end: Point, radius: float, end_radius: float | None = None) -> np.ndarray:
    """A closed cylinder, or a cone where the radii differ."""
    last = radius if end_radius is None else end_radius
    return lathe([(0, 0), (0, radius), (1, last), (1, 0)], start, end)


def ellipsoid(centre: Point, radii: Point) -> np.ndarray:
    """An ellipsoid with its axes along x, y and z."""
    angles = np.linspace(0, np.pi, 9)
    profile = [(-np.cos(angle), np.sin(angle)) for angle in angles]
    solid: np.ndarray = lathe(profile) * np.asarray(radii) + np.asarray(centre)
    return solid


def _quads(grid: np.ndarray) -> np.ndarray:
    """The cells of a grid of points (n, m, 3) as faces."""
    cells = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=2)
    quads: np.ndarray = cells.reshape(-1, 4, 3)
    return quads


def _cells(divisions: int) -> np.ndarray:
    """Weights (cells x corners, 4) that make the cells of a divided face of its four corners."""
    steps = np.linspace(0, 1, divisions + 1)
    u, v = np.meshgrid(steps, steps, indexing="ij")
    weights = np.stack([(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v], axis=-1)
    quads = [weights[:-1, :-1], weights[1:, :-1], weights[1:, 1:], weights[:-1, 1:]]
    return np.stack(quads, axis=2).reshape(-1, 4)


#: Faces are divided, as the painter's algorithm sorts small ones by depth more often rightly.
_CELLS = _cells(divisions=3)
_FACES = np.concatenate(
    [np.moveaxis(np.arange(8).reshape(2, 2, 2), axis, 0).reshape(2, 4) for axis in range(3)]
)


class Paint(IntEnum):
    """What colour a part takes."""

    MAIN = 0
    SECOND = 1
    DARK = 2
    LIGHT = 3


Part = tuple[np.ndarray, Paint]


def _animal(rng: np.random.Generator) -> list[Part]:
    length, leg, thick = rng.uniform(0.8, 1.1), rng.uniform(0.45, 0.75), rng.uniform(0.28, 0.38)
    neck, ear = rng.uniform(0.15, 0.45), rng.uniform(0.15, 0.3)
    head = np.array([0, thick + neck, length * 0.85])
    parts: list[Part] = [
        (ellipsoid((0, 0, 0), (thick, thick, length * 0.8)), Paint.MAIN),
        (rod((0, 0, length * 0.55), head, 0.2, 0.15), Paint.MAIN),
        (ellipsoid(head, (0.22, 0.22, 0.28)), Paint.MAIN),
        (ellipsoid(np.add(head, (0, -0.06, 0.26)), (0.12, 0.11, 0.2)), Paint.SECOND),
        (rod((0, 0.1, -length * 0.7), (0, 0.35, -length * 1.05), 0.07, 0.03), Paint.SECOND),
    ]
    for x in (-1, 1):
        parts.append(
            (
                rod(
                    np.add(head, (x * 0.13, 0.12, 0)),
                    np.add(head, (x * 0.2, 0.15 + ear, 0)),
                    0.09,
                    0.01,
                ),
                Paint.SECOND,
            )
        )
        parts.append(
            (ellipsoid(np.add(head, (x * 0.13, 0.08, 0.2)), (0.04, 0.04, 0.04)), Paint.DARK)
        )
        for z in (-0.5, 0.5):
            top = (x * thick * 0.6, -thick * 0.4, z * length)
            parts.append((rod(top, (top[0], -thick * 0.4 - leg, top[2]), 0.11, 0.09), Paint.MAIN))
    return parts


def _boat(rng: np.random.Generator) -> list[Part]:
    width, depth, mast = rng.uniform(0.3, 0.42), rng.uniform(0.3, 0.42), rng.uniform(1.1, 1.6)
    hull = np.zeros((2, 2, 2, 3))
    for ix, x in enumerate((-1.0, 1.0)):
        for iy, y in enumerate((-1.0, 0.0)):
            wide = width if y == 0 else width * 0.5
            hull[ix, iy, 0] = (x * wide, y * depth, -1.0 if y == 0 else -0.75)
            hull[ix, iy, 1] = (x * wide * 0.1, y * depth, 1.25 if y == 0 else 0.7)
    sail = np.zeros((2, 2, 2, 3))
    for ix, x in enumerate((-0.02, 0.02)):
        sail[ix, 0] = [(x, 0.2, -0.85), (x, 0.2, 0.05)]
        sail[ix, 1] = [(x, mast * 0.95, -0.03), (x, mast * 0.95, 0.05)]
    jib = sail * (1, 0.8, -0.95) + (0, 0.05, 0.25)
    return [
        (hexahedron(hull), Paint.MAIN),
        (box((0, 0.1, -0.45), (width, 0.25, 0.5)), Paint.SECOND),
        (rod((0, 0, 0.1), (0, mast, 0.1), 0.04), Paint.DARK),
        (hexahedron(sail), Paint.LIGHT),
        (hexahedron(jib), Paint.LIGHT),
    ]


def _car(rng: np.random.Generator) -> list[Part]:
    length, height = rng.uniform(1.9, 2.3), rng.uniform(0.32, 0.42)
    cabin, wheel = rng.uniform(0.9, 1.3), rng.uniform(0.2, 0.25)
    roof = height / 2 + 0.17
    place = rng.uniform(-0.25, 0.0)
    parts: list[Part] = [
        (box((0, 0, 0), (0.9, height, length), (0.95, 0.97)), Paint.MAIN),
        (box((0, roof, place), (0.84, 0.34, cabin), (0.8, 0.65)), Paint.DARK),
        (box((0, roof + 0.19, place), (0.68, 0.05, cabin * 0.65)), Paint.MAIN),
    ]
    for x in (-1, 1):
        parts.append((ellipsoid((x * 0.3, 0.03, length / 2), (0.1, 0.08, 0.05)), Paint.LIGHT))
        for z in (-0.32, 0.32):
            hub = np.array([x * 0.4, -height / 2, z * length])
            parts.append((rod(hub, np.add(hub, (x * 0.1, 0, 0)), wheel), Paint.DARK))
            parts.append(
                (
                    rod(np.add(hub, (x * 0.1, 0, 0)), np.add(hub, (x * 0.12, 0, 0)), wheel * 0.5),
                    Paint.LIGHT,
                )
            )
    return parts


def _chair(rng: np.random.Generator) -> list[Part]:
    width, leg, back = rng.uniform(0.8, 1.0), rng.uniform(0.65, 0.9), rng.uniform(0.8, 1.1)
    parts: list[Part] = [(box((0, 0, 0), (width, 0.12, width)), Paint.SECOND)]
    if rng.random() < 0.5:
        parts.append((box((0, back / 2, -width / 2), (width, back, 0.1)), Paint.MAIN))
    else:
        for height in (0.45, 0.9):
            parts.append((box((0, back * height, -width / 2), (width, 0.2, 0.08)), Paint.MAIN))
    for x in (-1, 1):
        post = (x * width * 0.46, 0, -width / 2)
        parts.append((rod(post, (post[0], back, post[2]), 0.06), Paint.MAIN))
        for z in (-1, 1):
            top = (x * width * 0.43, -0.05, z * width * 0.43)
            parts.append((rod(top, (top[0] * 1.1, -leg, top[2] * 1.1), 0.06), Paint.MAIN))
    return parts


def _face(rng: np.random.Generator) -> list[Part]:
    width, height = rng.uniform(0.68, 0.8), rng.uniform(0.95, 1.1)
    eye, mouth = rng.uniform(0.22, 0.3), rng.uniform(0.16, 0.28)
    parts: list[Part] = [
        (ellipsoid((0, 0, 0), (width, height, 0.8)), Paint.LIGHT),
        (ellipsoid((0, 0.28, -0.16), (width * 1.08, height * 0.82, 0.78)), Paint.DARK),
        (rod((0, -height * 0.75, -0.1), (0, -height * 1.25, -0.12), 0.33), Paint.LIGHT),
        (rod((0, 0.1, 0.74), (0, -0.16, 0.9), 0.05, 0.12), Paint.LIGHT),
        (ellipsoid((0, -0.45, 0.68), (mouth, 0.06, 0.08)), Paint.MAIN),
    ]
    for x in (-1, 1):
        parts.append((ellipsoid((x * eye, 0.14, 0.69), (0.13, 0.08, 0.08)), Paint.DARK))
        parts.append((box((x * eye, 0.31, 0.7), (0.26, 0.05, 0.08)), Paint.DARK))
        parts.append((ellipsoid((x * width, 0, 0), (0.08, 0.2, 0.13)), Paint.LIGHT))
    return parts


def _fruit(rng: np.random.Generator) -> list[Part]:
    # From a round apple to a pear: the upper half narrows.
    neck, tall = rng.uniform(0.35, 0.95), rng.uniform(1.5, 1.9)
    angles = np.linspace(0, np.pi, 11)
    profile = [
        ((1 - np.cos(a)) / 2, np.sin(a) * (1 if a < np.pi / 2 else neck + (1 - neck) * np.sin(a)))
        for a in angles
    ]
    body = lathe([(h, r * 0.85) for h, r in profile], (0, -tall / 2, 0), (0, tall / 2, 0))
    leaf = ellipsoid((0.3, 0, 0), (0.3, 0.04, 0.14)) + np.array([0, tall / 2 + 0.14, 0])
    return [
        (body, Paint.MAIN),
        (rod((0, tall / 2 - 0.1, 0), (0.06, tall / 2 + 0.4, 0), 0.06), Paint.DARK),
        (leaf, Paint.SECOND),
    ]


def _plane(rng: np.random.Generator) -> list[Part]:
    span, sweep, chord = rng.uniform(1.0, 1.35), rng.uniform(0.1, 0.55), rng.uniform(0.4, 0.55)
    body = [(0, 0.0), (0.04, 0.08), (0.25, 0.17), (0.85, 0.17), (0.95, 0.1), (1, 0.0)]
    parts: list[Part] = [(lathe(body, (0, 0, -1.2), (0, 0, 1.2)), Paint.MAIN)]
    fin = np.zeros((2, 2, 2, 3))
    for ix, x in enumerate((-0.03, 0.03)):
        fin[ix, 0] = [(x, 0.05, -1.15), (x, 0.05, -0.7)]
        fin[ix, 1] = [(x, 0.6, -1.25), (x, 0.6, -1.0)]
    parts.append((hexahedron(fin), Paint.SECOND))
    for x in (-1, 1):
        parts.append((_wing(x * span, chord, sweep, 0.1), Paint.SECOND))
        parts.append((_wing(x * span * 0.42, chord * 0.55, sweep * 0.4, -1.0), Paint.SECOND))
        engine = (x * span * 0.45, -0.12, 0.15 - sweep * 0.4)
        parts.append((rod(engine, (engine[0], engine[1], engine[2] + 0.35), 0.1), Paint.DARK))
    parts.append((ellipsoid((0, 0.1, 0.9), (0.1, 0.09, 0.16)), Paint.DARK))
    return parts


def _wing(tip: float, chord: float, sweep: float, z: float) -> np.ndarray:
    corners = np.zeros((2, 2, 2, 3))
    for ix, (x, back, deep) in enumerate(((0.0, 0.0, chord), (tip, sweep, chord * 0.45))):
        for iy, y in enumerate((-0.03, 0.03)):
            corners[ix, iy] = [(x, y, z - back - deep / 2), (x, y, z - back + deep / 2)]
    return hexahedron(corners)


def _table(rng: np.random.Generator) -> list[Part]:
    width, deep, leg = rng.uniform(1.5, 2.0), rng.uniform(0.9, 1.3), rng.uniform(0.6, 0.95)
    parts: list[Part] = []
    if rng.random() < 0.4:
        top = [(0, 0), (0, 0.45), (0, 0.9), (1, 0.9), (1, 0.45), (1, 0)]
        parts.append((lathe(top, (0, -0.05, 0), (0, 0.05, 0)), Paint.MAIN))
        parts.append((rod((0, -leg, 0), (0, 0, 0), 0.1), Paint.SECOND))
        parts.append((rod((0, -leg, 0), (0, -leg + 0.12, 0), 0.5, 0.12), Paint.SECOND))
        return parts
    parts.append((box((0, 0, 0), (width, 0.1, deep)), Paint.MAIN))
    for x in (-0.44, 0.44):
        for z in (-0.42, 0.42):
            parts.append(
                (rod((x * width, -leg, z * deep), (x * width, 0, z * deep), 0.07), Paint.SECOND)
            )
    return parts


#: How to build each category, by its name.
CATEGORIES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "animal": _animal,
    "boat": _boat,
    "car": _car,
    "chair": _chair,
    "face": _face,
    "fruit": _fruit,
    "plane": _plane,
    "table": _table,
}
