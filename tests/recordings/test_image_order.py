"""An order of images that their simple features contradict is found, and a right one is left alone."""

import logging
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict

from nrp_onnx.recordings import import_arrays
from nrp_onnx.recordings.image_order import image_features, measure_order
from tests.recordings.scenes import coarse_images, follow, save_images

N, N_SITES = 120, 6


@pytest.fixture
def names() -> list[str]:
    return [f"im{place}.png" for place in range(N)]


@pytest.fixture
def features(names, tmp_path) -> np.ndarray:
    save_images(tmp_path / "images", names, coarse_images(N))
    return image_features([tmp_path / "images" / name for name in names])


@pytest.fixture
def rates() -> np.ndarray:
    noise = np.random.default_rng(5).normal(size=(N, N_SITES))
    return follow(coarse_images(N), N_SITES) + noise


def test_features_are_those_of_the_pixels(features):
    images = coarse_images(N) / 255.0
    first = features[:, : 8 * 8 * 3].reshape(N, 8, 8, 3)
    np.testing.assert_allclose(first, images, atol=1e-12)
    luma = images @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(features[:, -2], luma.mean(axis=(1, 2)), atol=0.01)


def test_the_fit_is_about_that_of_another_ridge(features, rates, names):
    """Of scikit-learn, with other folds: the mean r differs by chance only."""
    x = (features - features.mean(axis=0)) / features.std(axis=0).clip(1e-9)
    model = Ridge(alpha=10 * x.shape[1])
    folds = KFold(5, shuffle=True, random_state=1)
    y = (rates - rates.mean(axis=0)) / rates.std(axis=0)
    predicted = cross_val_predict(model, x, y, cv=folds)
    r = np.mean([np.corrcoef(predicted[:, s], y[:, s])[0, 1] for s in range(N_SITES)])
    assert measure_order(features, rates, names).r == pytest.approx(r, abs=0.06)


def test_the_right_order_is_right_and_a_shuffled_one_wrong(features, rates, names):
    right = measure_order(features, rates, names)
    assert right.z > 5
    assert not right.looks_wrong
    for seed in range(3):
        shuffled = measure_order(features, rates[np.random.default_rng(seed).permutation(N)], names)
        assert shuffled.looks_wrong
        assert shuffled.z < 3


def test_an_order_that_is_wrong_within_kinds_of_images_is_found(features, names):
    """Dark images, then bright ones, each kind shuffled: the kinds alone are predicted well."""
    order = np.argsort(features[:, -2])
    driven = follow(coarse_images(N), N_SITES)[order] + 3 * (np.arange(N) >= N // 2)[:, None]
    kinds = np.argsort(np.arange(N) // (N // 2) + np.random.default_rng(0).random(N))
    right = measure_order(features[order], driven, names)
    wrong = measure_order(features[order], driven[kinds], names)
    assert not right.looks_wrong
    assert wrong.r > 0.3
    assert wrong.looks_wrong


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rates, names: rates[::-1], "the reverse"),
        (lambda rates, names: np.roll(rates, 1, axis=0), "each with the image before"),
        (lambda rates, names: np.roll(rates, -1, axis=0), "each with the image after"),
        (
            lambda rates, names: rates[np.argsort(names)],
            "that of the file names as text, image10 before image2",
        ),
    ],
)
def test_an_order_that_is_easily_mistaken_is_named(features, rates, names, change, words):
    found = measure_order(features, change(rates, names), names)
    assert found.better == words
    assert found.better_r is not None
    assert found.better_r > 2 * found.r


def test_missing_responses_and_constant_sites_are_no_obstacle(features, rates, names):
    rates = np.hstack([rates, np.full((N, 1), 3.0)])
    rates[::7, 2] = np.nan
    assert measure_order(features, rates, names).z > 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_any_mode_have_features(tmp_path, mode):
    suffix = ".tif" if mode == "CMYK" else ".png"
    Image.new(mode, (9, 7)).save(tmp_path / f"a{suffix}")
    features = image_features([tmp_path / f"a{suffix}"])
    assert features.shape == (1, 8 * 8 * 3 + 3 * 4 * 4 + 2)
    assert np.isfinite(features).all()


def test_recordings_keep_what_was_found(names, rates, tmp_path, caplog):
    save_images(tmp_path / "images", names, coarse_images(N))
    np.save(tmp_path / "rates.npy", rates[np.random.default_rng(0).permutation(N)])
    lines = ["stimulus_id,filename", *(f"{name[:-4]},{name}" for name in names)]
    (tmp_path / "stimuli.csv").write_text("\n".join(lines) + "\n")
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        read = import_arrays(
            tmp_path / "images", tmp_path / "rates.npy", tmp_path / "out",
            axes=("stimulus", "site"), region="V4", stimuli=tmp_path / "stimuli.csv",
        )  # fmt: skip
    assert "the order of the images looks shuffled" in caplog.text
    order = read.provenance["image_order"]["all"]
    assert order["n_images"] == N
    assert order["looks_wrong"] is True


def test_sites_that_do_not_repeat_tell_nothing(names, tmp_path, caplog):
    save_images(tmp_path / "images", names, coarse_images(N))
    noise = np.random.default_rng(0).normal(size=(N, N_SITES, 4))
    np.save(tmp_path / "rates.npy", noise)
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        import_arrays(
            tmp_path / "images", tmp_path / "rates.npy", tmp_path / "out",
            axes=("stimulus", "site", "repetition"), region="V4",
        )  # fmt: skip
    assert "shuffled" not in caplog.text


@pytest.mark.parametrize("session", ["190928", "210322"])
def test_recorded_v4_passes_in_its_order_only(shared, tmp_path, session):
    data = shared / "data" / f"macaque_v4_{session}"
    if not data.is_dir():
        pytest.skip(f"the recorded session {session} is not beside the checkout")
    with zipfile.ZipFile(data / "images.zip") as archive:
        archive.extractall(tmp_path)
        names = sorted(archive.namelist())
    rates = np.load(data / "responses.npy", allow_pickle=False).T
    features = image_features([tmp_path / name for name in names])
    right = measure_order(features, rates, names)
    assert right.z > 20
    assert not right.looks_wrong
    wrong = np.random.default_rng(0).permutation(len(names))
    assert measure_order(features[wrong], rates, [names[row] for row in wrong]).better is not None
