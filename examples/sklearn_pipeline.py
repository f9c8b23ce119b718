"""Which class does an image belong to, decoded from its predicted rates?

python sklearn_pipeline.py predictor.onnx FOLDER

FOLDER has a folder of images for each class. `SitesOfPredictor` is a transformer of scikit-learn, so it
stands in a pipeline before any other step.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


class SitesOfPredictor(TransformerMixin, BaseEstimator):
    """Paths of images to rates, float32 (n_images, n_sites), in the units of the recordings.

    Args:
        model: path of a predictor.onnx. It learns nothing more: `fit` opens the file.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    def fit(self, X: Sequence[str], y: Any = None) -> Self:
        self.session_ = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        self.metadata_ = self.session_.get_modelmeta().custom_metadata_map
        return self

    def transform(self, X: Sequence[str]) -> np.ndarray:
        rates = []
        for path in X:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            rates.append(self.session_.run(["rates"], {"images": pixels[None]})[0])
        return np.concatenate(rates)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array(json.loads(self.metadata_["nrp_onnx.sites"]), dtype=object)


def decoder(model: str) -> Pipeline:
    """Images to classes."""
    return make_pipeline(SitesOfPredictor(model), StandardScaler(), LogisticRegression())


def main(model: str, folder: Path) -> None:
    paths = sorted(path for path in folder.glob("*/*") if path.is_file())
    classes = [path.parent.name for path in paths]
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    right = cross_val_score(decoder(model), [str(path) for path in paths], classes, cv=folds)
    print(json.dumps({"n_images": len(paths), "accuracy_by_fold": right.tolist()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
