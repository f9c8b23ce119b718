"""Solids in three dimensions as quadrilaterals, the parts that the simulated objects are made of.

A solid is a float64 array of shape (n_faces, 4, 3): the corners of each face, x to the right,
y up, z towards the viewer. A triangle repeats a corner.
"""

from collections.abc import Sequence

import numpy as np

Point = Sequence[float]


def box(centre: Point, size: Point, top: Sequence[float] = (1.0, 1.0)) -> np.ndarray:
    """A box; ``top`` scales its upper face in x and z, which makes it a wedge or a roof."""
    half = np.asarray(size) / 2
    signs = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], indexing="ij"), axis=-1)
    corners = signs * half
    corners[:, 1, :, 0] *= top[0]
    corners[:, 1, :, 2] *= top[1]
    return hexahedron(corners + np.asarray(centre))


def hexahedron(corners: np.ndarray, divisions: int = 3) -> np.ndarray:
    """A solid of six faces.

    Args:
        corners: shape (2, 2, 2, 3), by the side in x, y and z.
        divisions: of each edge. Small faces let the painter's algorithm sort by depth.
    """
    steps = np.linspace(0, 1, divisions + 1)
    u, v = (grid[..., None] for grid in np.meshgrid(steps, steps, indexing="ij"))
    faces = []
    for axis in range(3):
        for side in range(2):
            (a, b), (c, d) = corners.take(side, axis=axis)
            faces.append(_quads((1 - u) * (1 - v) * a + (1 - u) * v * b + u * (1 - v) * c + u * v * d))
    return np.concatenate(faces)


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
    side = np.cross(up, [0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    angles = np.linspace(0, 2 * np.pi, 13)[None, :, None]
    ring = np.cos(angles) * side + np.sin(angles) * np.cross(up, side)
    return _quads(start + heights[:, None, None] * along + radii[:, None, None] * ring)


def rod(start: Point, end: Point, radius: float, end_radius: float | None = None) -> np.ndarray:
    """A closed cylinder, or a cone where the radii differ."""
    last = radius if end_radius is None else end_radius
    return lathe([(0, 0), (0, radius), (1, last), (1, 0)], start, end)


def ellipsoid(centre: Point, radii: Point) -> np.ndarray:
    """An ellipsoid with its axes along x, y and z."""
    angles = np.linspace(0, np.pi, 9)
    profile = [(-np.cos(angle), np.sin(angle)) for angle in angles]
    return lathe(profile) * np.asarray(radii) + np.asarray(centre)


def _quads(grid: np.ndarray) -> np.ndarray:
    """The cells of a grid of points (n, m, 3) as faces."""
    cells = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=2)
    return cells.reshape(-1, 4, 3)
