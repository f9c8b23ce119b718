"""Fits on features, for many images, against fits on inner products of the images and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.backbone.layers import Grid
from nrp_onnx.errors import OptionError
from nrp_onnx.predictor.baselines import arc_cosine, fit_baselines
from nrp_onnx.predictor.channels import SeenLayer, fit_channels
from nrp_onnx.predictor.directions import fit_sampled_basis
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.predictor.kernel_path import kernel_path
from nrp_onnx.predictor.linear_path import PrimalPath
from nrp_onnx.predictor.masked_ridge import choose_views, fit_masked, fit_masked_by_landmarks
from nrp_onnx.predictor.memory import choose_sizes, parse_budget, primal_sizes
from nrp_onnx.predictor.nystroem import draw_landmarks
from nrp_onnx.predictor.primal_baselines import JoinedFeatures, KernelOnFeatures, LinearOnFeatures
from nrp_onnx.predictor.ridge import ALPHAS
from nrp_onnx.predictor.rows_on_disk import RowsOnDisk

N, TRAIN, NEW = 240, np.arange(200), np.arange(200, 240)


@pytest.fixture(scope="module")
def layers() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((2, 12, 60))
    hidden = rng.standard_normal((N, 12))
    return [
        (hidden @ mix[place, :, :width] + 0.3 * rng.standard_normal((N, width)) + 5).astype(
            np.float32
        )
        for place, width in enumerate((30, 60))
    ]


@pytest.fixture(scope="module")
def y(layers: list[np.ndarray]) -> np.ndarray:
    rng = np.random.default_rng(1)
    rates: np.ndarray = layers[0] @ rng.standard_normal((30, 5)) / 5 + rng.standard_normal((N, 5))
    rates = (rates - rates[TRAIN].mean(axis=0)) / rates[TRAIN].std(axis=0)
    rates[:30, 4] = np.nan  # a site that was recorded in fewer images
    return rates


def joined(layers: list[np.ndarray], most: int = 100) -> JoinedFeatures:
    bases = [fit_sampled_basis(LoadedLayer(x), TRAIN, TRAIN, most) for x in layers]
    return JoinedFeatures.of(bases, TRAIN)


def test_both_sides_give_the_same_predictions(layers: list[np.ndarray], y: np.ndarray) -> None:
    """To 1e-4 standard deviations: mean, least squares, ridge, PLS, kernel ridge; and held-out rates."""
    spans = [read_span(LoadedLayer(x)) for x in layers]
    dual = fit_baselines(spans, y[TRAIN], TRAIN, NEW, hold_out=True)
    primal = LinearOnFeatures(joined(layers), TRAIN, NEW, hold_out=True).fit(y[TRAIN])
    kernel = KernelOnFeatures(joined(layers), TRAIN, NEW, draw_landmarks(TRAIN, 200)).fit(y[TRAIN])
    for name in ("mean", "ols", "ridge", "pls"):
        np.testing.assert_allclose(
            primal.predictions[name], dual.predictions[name], atol=1e-4, err_msg=name
        )
        np.testing.assert_allclose(
            primal.held_out[name], dual.held_out[name], atol=2e-4, err_msg=name
        )
    # The site that misses images is the exception: its landmarks are not around its own mean.
    every = slice(0, 4)
    found, left_out = (one["kernel"][:, every] for one in kernel)
    np.testing.assert_allclose(found, dual.predictions["kernel"][:, every], atol=1e-4)
    np.testing.assert_allclose(left_out, dual.held_out["kernel"][:, every], atol=2e-4)


def test_ridge_is_that_of_scikit_learn(layers: list[np.ndarray], y: np.ndarray) -> None:
    primal = LinearOnFeatures(joined(layers), TRAIN, NEW, hold_out=False).fit(y[TRAIN])
    parts = []
    for x in layers:
        moved = x.astype(np.float64) - x[TRAIN].mean(axis=0, dtype=np.float64)
        parts.append(moved / np.sqrt((moved[TRAIN] ** 2).sum(axis=1).mean()))
    both = np.hstack(parts)
    for site in range(5):
        rows = TRAIN[~np.isnan(y[TRAIN, site])]
        alphas = ALPHAS * ((both[rows] - both[rows].mean(axis=0)) ** 2).sum(axis=1).mean()
        expected = RidgeCV(alphas).fit(both[rows], y[rows, site]).predict(both[NEW])
        np.testing.assert_allclose(primal.predictions["ridge"][:, site], expected, atol=1e-5)
    path = primal.ridge
    assert isinstance(path, PrimalPath)
    rates = path.at_mean.copy()
    for place, x in enumerate(layers):
        weights, mean = path.fold(place, LoadedLayer(x))
        rates = rates + (x - mean) @ weights.T
    np.testing.assert_allclose(rates[NEW], primal.predictions["ridge"], atol=1e-5)


def test_leading_directions_of_a_sample_hold_the_variance_of_all() -> None:
    """A layer wider than the directions that are asked for: as those of an SVD of all images."""
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((N, 20)) * np.arange(20, 0, -1)
    x = (hidden @ rng.standard_normal((20, 500)) + 3).astype(np.float32)
    basis = fit_sampled_basis(LoadedLayer(x), TRAIN, TRAIN[::2], 15)
    assert basis.coordinates.shape == (N, 15)
    assert basis.directions is not None
    moved = x[TRAIN].astype(np.float64) - x[TRAIN].mean(axis=0, dtype=np.float64)
    best = (np.linalg.svd(moved, compute_uv=False)[:15] ** 2).sum()
    held = np.square((moved @ basis.directions) / basis.scale).sum()
    assert held > 0.99 * best
    assert basis.mean is not None
    np.testing.assert_allclose(
        basis.coordinates,
        (x - basis.mean) @ basis.directions,
        atol=1e-3 * np.asarray(basis.coordinates).std(),
    )


def test_heads_see_the_leading_directions(layers: list[np.ndarray]) -> None:
    whole = fit_sampled_basis(LoadedLayer(layers[1]), TRAIN, TRAIN, 100)
    few = whole.leading(5)
    assert few.coordinates.shape == (N, 5)
    assert np.square(few.coordinates[TRAIN]).mean() == pytest.approx(1, rel=1e-5)
    weights = np.random.default_rng(0).standard_normal((3, 5))
    folded, mean = few.fold(weights, LoadedLayer(layers[1]))
    np.testing.assert_allclose(
        (layers[1] - mean) @ folded.T, few.coordinates @ weights.T, atol=1e-4
    )


def test_few_landmarks_come_close_to_the_exact_kernel(
    layers: list[np.ndarray], y: np.ndarray
) -> None:
    spans = [read_span(LoadedLayer(x)) for x in layers]
    exact = fit_baselines(spans, y[TRAIN], TRAIN, NEW).predictions["kernel"][:, :4]

    def far(n: int) -> float:
        landmarks = draw_landmarks(TRAIN, n)
        found = KernelOnFeatures(joined(layers), TRAIN, NEW, landmarks).fit(y[TRAIN])
        return float(np.abs(found[0]["kernel"][:, :4] - exact).mean())

    assert far(20) > far(80) > far(160) > far(200)
    assert far(160) < 0.03


@pytest.fixture(scope="module")
def maps() -> SeenLayer:
    rng = np.random.default_rng(3)
    smooth = rng.standard_normal((N, 8, 4, 4)).repeat(2, axis=2).repeat(2, axis=3)
    x = smooth + 0.5 * rng.standard_normal(smooth.shape)
    return SeenLayer(LoadedLayer(x.reshape(N, -1).astype(np.float32)), Grid(8, 8, 8, True))


def test_coordinates_on_disk_are_those_in_memory(
    maps: SeenLayer, layers: list[np.ndarray], tmp_path: Path
) -> None:
    given = LoadedLayer(layers[1])

    def channels(folder: Path | None) -> np.ndarray | RowsOnDisk:
        return fit_channels(maps, TRAIN, 8, 8, folder).coordinates

    def directions(folder: Path | None) -> np.ndarray | RowsOnDisk:
        return fit_sampled_basis(given, TRAIN, TRAIN, 20, folder).coordinates

    for fit in (channels, directions):
        on_disk = fit(tmp_path)
        assert isinstance(on_disk, RowsOnDisk)
        np.testing.assert_array_equal(np.asarray(on_disk), fit(None))


def test_sites_share_no_more_masks_than_they_may(maps: SeenLayer) -> None:
    """Each site keeps the mask of least error among those that are left."""
    rng = np.random.default_rng(6)
    bases = [fit_channels(maps, TRAIN, 8, 8)]
    x = np.asarray(maps.activations.read(np.arange(N)), float).reshape(N, 8, 8, 8)
    y = x[:, 0, ::2, ::2].reshape(N, -1) + 0.3 * rng.standard_normal((N, 16))
    free = choose_views(bases, y[TRAIN], TRAIN)
    capped = choose_views(bases, y[TRAIN], TRAIN, most=3)
    assert len(set(free)) > 3
    assert len(set(capped)) == 3
    assert set(capped) <= set(free)
    stays = [one == other for one, other in zip(free, capped, strict=True) if one in set(capped)]
    assert all(stays)


def test_masked_fits_by_all_landmarks_are_the_exact_ones(maps: SeenLayer) -> None:
    rng = np.random.default_rng(4)
    bases = [fit_channels(maps, TRAIN, 8, 8)]
    y = np.asarray(maps.activations.read(np.arange(N)), float)[:, :6] + rng.standard_normal((N, 6))
    views = choose_views(bases, y[TRAIN], TRAIN)
    exact = fit_masked(bases, views, y[TRAIN], TRAIN, NEW, arc_cosine)
    found = fit_masked_by_landmarks(bases, views, y[TRAIN], TRAIN, NEW, TRAIN)
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one.rates, other.rates, atol=2e-4)
        np.testing.assert_allclose(one.held_out, other.held_out, atol=1e-3)


def test_a_kernel_path_of_landmarks_gives_the_rates_of_the_fit(maps: SeenLayer) -> None:
    """What is exported has the landmarks alone."""
    rng = np.random.default_rng(5)
    bases = [fit_channels(maps, TRAIN, 8, 8)]
    y = np.asarray(maps.activations.read(np.arange(N)), float)[:, :4] + rng.standard_normal((N, 4))
    landmarks = draw_landmarks(TRAIN, 60)
    views = choose_views(bases, y[TRAIN], TRAIN)
    _, curved = fit_masked_by_landmarks(bases, views, y[TRAIN], TRAIN, NEW, landmarks)
    path = kernel_path(bases, curved, landmarks)
    assert path.weights.shape == (4, 60)
    # Half-precision coordinates of the landmarks.
    np.testing.assert_allclose(path.rates([bases[0].coordinates[NEW]]), curved.rates, atol=1e-3)


def test_sizes_fit_into_the_budget_and_few_images_stay_on_images() -> None:
    widths, positions = (20000, 30000, 1280), (49, 49, 1)
    assert choose_sizes(2**32, 3200, 256, widths, positions) is None
    sizes = choose_sizes(2**32, 22348, 1024, widths, positions)
    assert sizes is not None
    assert sizes.bytes <= 2**32
    smaller = primal_sizes(sizes.bytes - 1, 22348, 1024, widths, positions)
    assert smaller.bytes < sizes.bytes
    assert smaller.channels < sizes.channels
    with pytest.raises(OptionError, match=r"--memory.*expected .* GB or more for 22,348 images"):
        primal_sizes(2**30, 22348, 1024, widths, positions)


@pytest.mark.parametrize(
    ("text", "n"), [("4GB", 2**32), ("800 mb", 800 * 2**20), ("1.5GiB", 3 * 2**29)]
)
def test_budgets(text: str, n: int) -> None:
    assert parse_budget(text) == n


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(OptionError, match="no amount of memory"):
        parse_budget(text)
