"""Spearman's rank correlation over few models, with a p-value that holds for few."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """Spearman's correlation of two values over models.

    Args:
        pairs: two values of each model.

    Returns:
        ``rho``, ``p`` (two-sided, by permutation: exact up to 8 models) and ``n``; None for fewer
        than three models, or where one of the values is the same for all.
    """
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    first, second = (stats.zscore(stats.rankdata(values)) for values in zip(*pairs, strict=True))

    def rho(permuted: np.ndarray, axis: int) -> np.ndarray:
        found: np.ndarray = (permuted * second).mean(axis=axis)
        return found

    test = stats.permutation_test(
        (first,),
        rho,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=50_000,
        rng=np.random.default_rng(0),
    )
    return {"rho": float(test.statistic), "p": float(test.pvalue), "n": len(pairs)}
