"""Inner products of images in one layer, without ever holding all of its activations.

For n images of D > n features, everything that a linear map can see of the activations X (n x D) is
in their Gram matrix X X^T (n x n). It is the sum of the Gram matrices of blocks of features. The
activations are stored image by image, so one pass over them sorts them into blocks of features in a
scratch file, and a second pass adds up the products. Ordinary reads and writes of that file leave
its pages to the operating system, which a memory map would count as this process's memory.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrp_onnx.activations.layer_activations import LayerActivations

FEATURES_A_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class LayerSpan:
    """What fits of a layer need: products of images where D > n, else the activations themselves.

    Attributes:
        products: float64 (n, n), inner products around the mean of all images; None where D <= n.
        features: float32 (n, D) where D <= n, else None.
        norms: float64 (n,), squared lengths of the images' activations, not centred.
    """

    products: np.ndarray | None
    features: np.ndarray | None
    norms: np.ndarray

    @property
    def n_images(self) -> int:
        return len(self.norms)


def read_span(
    layer: LayerActivations, scratch: Path | None = None, block: int = FEATURES_A_BLOCK
) -> LayerSpan:
    """Read a layer once and take its inner products.

    Memory holds at most 24 n^2 + 16 n ``block`` bytes, and 16 times a row group of a stored layer
    (4 MiB, or one image where that is more) for Parquet's decoder: nothing grows with n D. The
    scratch file takes 4 n D bytes on disk.

    Args:
        scratch: the folder of the scratch file, which is gone afterwards; None: the system's.
        block: features a block.
    """
    n, n_features = layer.shape
    norms = np.empty(n)
    if n_features <= n:
        features = np.empty((n, n_features), np.float32)
        for places, rows in layer.blocks():
            features[places] = rows
            norms[places] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        return LayerSpan(None, features, norms)
    products = np.zeros((n, n))
    with tempfile.TemporaryFile(dir=scratch) as file:
        order: list[np.ndarray] = []
        for places, rows in layer.blocks():
            norms[places] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
            written = sum(len(before) for before in order)
            for start in range(0, n_features, block):
                part = np.ascontiguousarray(rows[:, start : start + block])
                # Blocks before this one are n images long; in this one, some images are written.
                file.seek(4 * (n * start + written * part.shape[1]))
                file.write(part.data)
            order.append(places)
        for start in range(0, n_features, block):
            width = min(block, n_features - start)
            file.seek(4 * n * start)
            part = np.empty((n, width), np.float32)
            file.readinto(part.data)
            _add_products(products, part)
    places = np.concatenate(order)
    sorted_products = np.empty_like(products)
    sorted_products[np.ix_(places, places)] = products
    return LayerSpan(sorted_products, None, norms)


def _add_products(total: np.ndarray, features: np.ndarray) -> None:
    """Add (X - mean)(X - mean)^T of float32 (n, block) features, which are overwritten, to ``total``.

    Products of blocks are float32, their sum is float64: eigenvalues are right to about 1e-7 of the
    largest one.
    """
    features -= features.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Squares of large activations leave float32, so the product is taken at a scale near 1; a power
    # of two, which rounds nothing.
    exponent = int(np.frexp(max(float(features.max()), -float(features.min())))[1])
    np.ldexp(features, -exponent, out=features)
    total += np.ldexp((features @ features.T).astype(np.float64), 2 * exponent)


def centred(products: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Inner products (n, n) around the mean of the images ``train`` instead of any other point."""
    toward = products[:, train].mean(axis=1)
    moved: np.ndarray = products - toward[:, None]
    moved -= toward - toward[train].mean()
    return moved
