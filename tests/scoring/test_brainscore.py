"""Brain-Score's metric against scikit-learn on the features themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.layer_file import LoadedLayer, StoredLayer
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.recordings import Recordings, import_arrays
from nrp_onnx.scoring.metrics.brainscore import (
    brainscore_of_regions,
    choose_splits,
    coordinates_of_layers,
)
from tests.recordings.test_noise import recordings_of
from tests.recordings.test_reliability import by_pandas


def r_of_scikit_learn(
    x: np.ndarray, rates: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]
) -> list[float]:
    """Median r over sites of each split; PLSRegression iterates until it has converged."""
    medians = []
    for train, test in splits:
        predicted = np.empty((len(test), rates.shape[1]))
        there = ~np.isnan(rates[train])
        for pattern in np.unique(there, axis=1).T:
            sites = np.flatnonzero((there == pattern[:, None]).all(axis=0))
            model = PLSRegression(25, scale=False, max_iter=20_000, tol=1e-10)
            model.fit(x[train[pattern]], rates[np.ix_(train[pattern], sites)])
            predicted[:, sites] = model.predict(x[test]).reshape(len(test), -1)
        r = []
        for site in range(rates.shape[1]):
            known = ~np.isnan(rates[test, site])
            r.append(scipy.stats.pearsonr(predicted[known, site], rates[test, site][known])[0])
        medians.append(float(np.median(r)))
    return medians


@pytest.fixture
def case() -> tuple[list[np.ndarray], Recordings]:
    """Two layers, one of more features than the 90 images, and 9 sites of 2 regions."""
    rng = np.random.default_rng(4)
    factors = rng.normal(size=(90, 12))
    wide = factors @ rng.normal(size=(12, 300)) + 0.3 * rng.normal(size=(90, 300)) + 5
    narrow = 20 * np.maximum(factors @ rng.normal(size=(12, 7)), 0)
    drive = np.tanh(factors @ rng.normal(size=(12, 9)))
    responses = drive[:, None] + 0.6 * rng.normal(size=(90, 4, 9)) + 3
    responses[[0, 3, 50], :, 2:4] = np.nan  # the same images lost by two sites, others by a third
    responses[10:20, :, 8] = np.nan
    responses[30, 1:, 5] = np.nan
    recordings = replace(
        recordings_of(responses),
        regions=("V4",) * 5 + ("IT",) * 4,
        stimulus_labels={"object_name": tuple("abc"[i % 3] for i in range(90))},
    )
    return [wide.astype(np.float32), narrow.astype(np.float32)], recordings


def seen(layers: list[np.ndarray]) -> np.ndarray:
    return coordinates_of_layers([read_span(LoadedLayer(x)) for x in layers], len(layers[0]))


@pytest.mark.parametrize("label", ["object_name", None])
def test_every_number_is_that_of_scikit_learn(case, label) -> None:
    layers, recordings = case
    if label is None:
        recordings = replace(recordings, stimulus_labels={})
    notes = Notes()
    found = brainscore_of_regions(seen(layers), recordings, choose_splits(recordings, notes))
    assert bool(notes.said) == (label is None)
    kind = ShuffleSplit if label is None else StratifiedShuffleSplit
    splitter = kind(10, train_size=0.9, random_state=1)
    labels = None if label is None else recordings.stimulus_labels[label]
    splits = list(splitter.split(np.zeros(90), labels))
    x = np.hstack(layers).astype(float)
    reliability = by_pandas(recordings, seed=1, n_splits=10)
    assert list(found) == ["V4", "IT"]
    for region, numbers in found.items():
        sites = np.array(recordings.regions) == region
        r = r_of_scikit_learn(x, recordings.averages[:, sites], splits)
        ceiling = np.median(reliability[:, sites], axis=1).mean()
        assert numbers.r == pytest.approx(np.mean(r), abs=1e-4)
        assert numbers.error == pytest.approx(np.std(r) / np.sqrt(10), abs=1e-4)
        assert numbers.ceiling == pytest.approx(ceiling, abs=1e-6)
        assert numbers.score == pytest.approx(np.mean(r) ** 2 / ceiling, abs=1e-3)
        assert (numbers.stratified_on, numbers.reason) == (label, None)
        assert numbers.score is not None
        assert 0.3 < numbers.score < 1.1, "a case in which there is something to predict"


def test_the_label_is_that_of_the_recordings(case) -> None:
    layers, recordings = case
    labels = {**recordings.stimulus_labels, "texture_type": ("x", "y") * 45}
    recordings = replace(recordings, stimulus_labels=labels, stratify_on="texture_type")
    numbers = brainscore_of_regions(seen(layers), recordings, choose_splits(recordings, Notes()))[
        "IT"
    ]
    assert numbers.stratified_on == "texture_type"
    splits = StratifiedShuffleSplit(10, train_size=0.9, random_state=1).split(
        np.zeros(90), labels["texture_type"]
    )
    x = np.hstack(layers).astype(float)
    r = r_of_scikit_learn(x, recordings.averages[:, 5:], list(splits))
    assert numbers.r == pytest.approx(np.mean(r), abs=1e-4)


def test_the_scale_of_activations_and_rates_changes_nothing(case) -> None:
    layers, recordings = case
    before = brainscore_of_regions(seen(layers), recordings, choose_splits(recordings, Notes()))[
        "V4"
    ]
    scaled = replace(recordings, responses=recordings.responses * np.float32(1e-4))
    after = brainscore_of_regions(
        seen([layer * np.float32(1e6) for layer in layers]), scaled, choose_splits(scaled, Notes())
    )["V4"]
    assert after.score == pytest.approx(before.score, abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_computed_is_none_with_a_reason(case) -> None:
    layers, recordings = case
    once = recordings.repetition == 0
    single = replace(
        recordings,
        responses=recordings.responses[once],
        presentation_stimulus=recordings.presentation_stimulus[once],
        repetition=recordings.repetition[once],
    )
    numbers = brainscore_of_regions(seen(layers), single, choose_splits(single, Notes()))["V4"]
    assert (numbers.score, numbers.ceiling) == (None, None)
    assert numbers.reason is not None
    assert "two repetitions" in numbers.reason
    assert numbers.r is not None
    assert numbers.r > 0.4
    numbers = brainscore_of_regions(
        np.zeros((recordings.n_stimuli, 0)), recordings, choose_splits(recordings, Notes())
    )["V4"]
    assert (numbers.score, numbers.r, numbers.error) == (None, None, None)
    assert numbers.reason is not None
    assert "never vary" in numbers.reason
    assert numbers.ceiling is not None
    assert numbers.ceiling > 0.5


@pytest.mark.slow
def test_real_recordings_and_activations(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "macaque_v4_210325"
    recordings = import_arrays(
        data / "images.zip",
        data / "responses.npy",
        tmp_path / "recordings",
        axes=("site", "stimulus", "repetition"),
        region="V4",
        stimuli=data / "stimuli.csv",
    )
    backbone = load_backbone(shared / "backbones" / "mobilenet_v2_1.0_224.onnx")
    names = ("t106_lin", "t133_lin")
    features = [
        Feature(layer, Reduction("avgpool", 7)) for layer in backbone.layers if layer.name in names
    ]
    spec = PRESETS["tf"].for_input(224, 224, "NCHW", "float32")
    paths = extract_activations(
        backbone, spec, features, recordings, tmp_path, "cpu", Notes()
    ).paths
    layers = [StoredLayer(path, recordings.stimulus_ids) for path in paths]
    found = brainscore_of_regions(
        coordinates_of_layers([read_span(layer) for layer in layers], 640),
        recordings,
        choose_splits(recordings, Notes(), 3),
    )
    x = np.hstack([layer.read(np.arange(640)) for layer in layers]).astype(float)
    # The features in an orthonormal basis: scikit-learn takes minutes on all of them.
    rotated = np.linalg.qr((x - x.mean(axis=0)).T)[1].T
    splits = list(
        StratifiedShuffleSplit(3, train_size=0.9, random_state=1).split(
            x, recordings.stimulus_labels["object_name"]
        )
    )
    r = r_of_scikit_learn(rotated, recordings.averages, splits)
    ceiling = np.median(by_pandas(recordings, seed=1, n_splits=3), axis=1).mean()
    numbers = found["V4"]
    assert numbers.r == pytest.approx(np.mean(r), abs=0.01)
    assert numbers.ceiling == pytest.approx(ceiling, abs=1e-4)
    assert numbers.score == pytest.approx(np.mean(r) ** 2 / ceiling, abs=0.01)
    # An independent prototype's r of PLS is 0.573 on another split.
    assert numbers.r is not None
    assert 0.5 < numbers.r < 0.65
