"""The NRP head and its search as a scikit-learn estimator, on features that are at hand already."""

import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.export.folded_head import FoldedHead, fold_head
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.predictor.search_file import read_search
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.scoring.fold import fit_fold
from nrp_onnx.scoring.prepared_fold import FoldPlan, prepare_fold
from nrp_onnx.scoring.splits import VALIDATION_SHARE, Fold
from nrp_onnx.threads import one_blas_thread

_REGION = "all"
#: Images, and responses of a site: a fifth of them validates.
_FEWEST = 5


class NrpRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The neural response predictor of Anand, Sen & Roy (2021) for any features and responses.

    One dense layer with ReLU on the features (NRP-L1), one on its units (NRP-L2), one linear output a
    site (NRP-out), searched and trained as in a score. A fifth of the images, drawn from
    ``random_state``, chooses; then heads are trained on all of them.

    Args:
        search: ``quick``, ``default``, ``paper``, ``thorough``, or a YAML or JSON file.
        random_state: seed of the split, the weights and the minibatches.

    Attributes:
        n_features_in_: of the features that it was fitted to.
        head_: the fitted head as plain arrays.

    Example:
        >>> import numpy as np, nrp_onnx as nrp
        >>> rng = np.random.default_rng(0)
        >>> X = rng.standard_normal((64, 8))
        >>> Y = np.maximum(X[:, :3], 0)
        >>> nrp.NrpRegressor(search="quick").fit(X, Y).predict(X).shape
        (64, 3)
    """

    def __init__(self, search: str = "quick", random_state: int = 0) -> None:
        self.search = search
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Search and train.

        Args:
            X: features, (n_images, n_features).
            y: responses, (n_images,) or (n_images, n_sites); NaN is missing.

        Raises:
            ValueError: for fewer than five images, or shapes that do not fit.
            OptionError: for a search that does not exist.
        """
        features = validate_data(self, X, dtype=np.float64, ensure_min_samples=_FEWEST)
        if y is None:
            raise ValueError(
                "NrpRegressor requires y to be passed, but the target y is None: give responses "
                "(n_images, n_sites)"
            )
        Y = check_array(
            y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y"
        )
        if len(Y) != len(features):
            raise ValueError(f"y has {len(Y)} rows; expected {len(features)}, as X has")
        self._one_output = Y.ndim == 1
        Y = Y.reshape(len(Y), -1)
        known = (~np.isnan(Y)).sum(axis=0)
        if known.min() < _FEWEST:
            site = int(known.argmin())
            raise ValueError(
                f"site {site} has {known[site]} responses in y; expected {_FEWEST} or more"
            )
        fit, validation = train_test_split(
            np.arange(len(features)), test_size=VALIDATION_SHARE, random_state=self.random_state
        )
        # Nothing is held out: the images are all for training.
        fold = Fold(np.arange(1), np.sort(fit), np.sort(validation))
        layer = LoadedLayer(np.asarray(features, np.float32))
        plan = FoldPlan(
            rates=Y,
            regions=(_REGION,) * Y.shape[1],
            region_names=(_REGION,),
            space=read_search(self.search).without_places(),
            normalise="zscore",
            seed=self.random_state,
            n_seeds=1,
        )
        with one_blas_thread(), tempfile.TemporaryDirectory() as folder:
            prepared = prepare_fold(plan, [read_span(layer)], 0, fold)
            record = TrialRecord(Path(folder) / "trials.parquet", ["X"])
            fitted = fit_fold(plan, prepared, record, lambda _: None).fitted
        assert fitted is not None, "the first fold is kept"
        self._means = np.nanmean(Y, axis=0)
        self.head_: FoldedHead | None = None
        if fitted.bases[0].n_directions:
            self.head_ = fold_head(
                fitted.predictor,
                fitted.bases,
                fitted.channels,
                [layer],
                fitted.offset,
                fitted.scale,
            )
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predicted responses.

        Args:
            X: features, (n_images, n_features).

        Returns:
            float64 (n_images, n_sites), or (n_images,) where the responses had one axis.
        """
        check_is_fitted(self, "head_")
        features = validate_data(self, X, dtype=np.float64, reset=False)
        if self.head_ is None:
            rates = np.tile(self._means, (len(features), 1))
        else:
            rates = self.head_.rates([features])
        return rates[:, 0] if self._one_output else rates

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags
