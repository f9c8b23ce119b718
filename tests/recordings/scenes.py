"""Images, and sites that follow their colours: what an importer can tell the order of."""

from pathlib import Path

import numpy as np
from PIL import Image


def coarse_images(n: int, seed: int = 0, side: int = 8) -> np.ndarray:
    """uint8 array of shape (n, side, side, 3): coloured blocks, each image another."""
    blocks = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(side // 4, axis=1).repeat(side // 4, axis=2)


def follow(images: np.ndarray, n_sites: int, seed: int = 1) -> np.ndarray:
    """float64 array of shape (n_images, n_sites): each site weights the pixels at random."""
    pixels = images.reshape(len(images), -1) / 255.0
    weights = np.random.default_rng(seed).normal(size=(pixels.shape[1], n_sites))
    driven = (pixels - pixels.mean(axis=0)) @ weights
    return np.asarray(driven / driven.std(axis=0))


def save_images(folder: Path, names: list[str], images: np.ndarray) -> None:
    """Write images as files, with the folders that their names have."""
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
