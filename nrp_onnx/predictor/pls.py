"""Partial least squares, all sites jointly, centred and not scaled."""

import numpy as np
from ikpls.numpy import PLS

PLS_COMPONENTS = 25


def predict_pls(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Fit `PLS_COMPONENTS` components, or as many as there are directions, and predict.

    Args:
        x: training coordinates (n_train, r), r > 0; the result is computed in their dtype. They are
            overwritten, and so is ``y``.
        y: training responses (n_train, n_sites) of the same dtype, none missing.
        new: (n_new, r).

    Returns:
        Array (n_new, n_sites) of the dtype of ``x``.
    """
    components = min(PLS_COMPONENTS, x.shape[1], len(x) - 1)
    model = PLS(algorithm=1, scale_X=False, scale_Y=False, copy=False, dtype=x.dtype.type)
    model.fit(x, y, components)
    predicted: np.ndarray = model.predict(new, n_components=components)
    return predicted.reshape(len(new), y.shape[1])
