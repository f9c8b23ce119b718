"""Solids in three dimensions as quadrilaterals, the parts that the simulated objects are made of.

A solid is a float64 array of shape (n_faces, 4, 3): the corners of each face, x to the right,
y up, z towards the viewer. A triangle repeats a corner.
"""

from collections.abc import Sequence

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
