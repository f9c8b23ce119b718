"""The balanced count sketch: a random projection that costs one addition a feature.

The n features of an image get random signs and a random order, and are dealt into D buckets of
m = ceil(n / D) each; a bucket's sum is a number of the sketch. So S has one entry of +-1 in every
column, and m in every row (Charikar, Chen & Farach-Colton 2002, with buckets of equal size).

For any two vectors, E<Sx, Sy> = <x, y>: the signs are independent, so that products of different
features cancel in the mean. Two features share a bucket with probability
p = (m - 1) / (m D - 1) <= 1 / D, and only those that do disturb:

    Var<Sx, Sy> = p sum_{i != j} (x_i^2 y_j^2 + x_i y_i x_j y_j) <= (|x|^2 |y|^2 + <x, y>^2) / D.

So an inner product is off by at most sqrt(2 / D) |x| |y| in standard deviations, and by Chebyshev's
inequality by more than sqrt(2 / (delta D)) |x| |y| with a probability of at most delta. A linear
predictor or a kernel sees the layer through its inner products alone.
"""

import numpy as np

#: Of every sketch. It is stored with the activations and is part of their fingerprint.
SEED = 0


def sketch_plan(n_features: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which feature goes where, and with which sign.

    The numbers are read from PCG64 itself, whose stream NumPy keeps from version to version.

    Returns:
        ``order``, int64 (m * size,): place j of bucket b takes feature order[j * size + b];
        ``signs``, float32 of the same shape: +1, -1, or 0 where the last places stay empty.
    """
    draws = np.random.PCG64(SEED).random_raw(n_features)
    n_places = -(-n_features // size) * size
    order = np.zeros(n_places, np.int64)
    order[:n_features] = np.argsort(draws, kind="stable")
    signs = np.zeros(n_places, np.float32)
    # The order hangs on the high bits, which decide every comparison; the sign on the lowest.
    signs[:n_features] = np.where(draws[order[:n_features]] & 1, 1, -1)
    return order, signs
