"""The span of the training images against the activations that it stands for."""

import numpy as np
import pytest

from nrp_onnx.activations.layer_file import LoadedLayer, StoredLayer
from nrp_onnx.activations.layer_writer import LayerWriter
from nrp_onnx.predictor.directions import fit_basis
from nrp_onnx.predictor.image_products import read_span, read_spans
from nrp_onnx.threads import one_blas_thread

TRAIN = np.arange(40)


@pytest.mark.parametrize("n_features", [30, 300])
def test_folded_weights_give_what_coordinates_give(n_features: int) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((50, n_features)) + 30).astype(np.float32)
    basis = fit_basis(read_span(LoadedLayer(x)), TRAIN)
    weights = rng.standard_normal((7, basis.n_directions))
    folded, mean = basis.fold(weights, LoadedLayer(x))
    np.testing.assert_allclose((x - mean) @ folded.T, basis.coordinates @ weights.T, atol=1e-3)
    np.testing.assert_allclose(mean, x[TRAIN].astype(np.float64).mean(axis=0))
    assert (basis.coordinates[TRAIN] ** 2).mean() == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(basis.coordinates[TRAIN].mean(axis=0), 0, atol=1e-4)


@pytest.mark.parametrize("n_features", [45, 700])
def test_directions_are_principal_components(n_features: int) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((50, n_features)) * np.arange(1, n_features + 1) ** -0.7).astype(
        np.float32
    )
    moved = x.astype(np.float64) - x[TRAIN].mean(axis=0, dtype=np.float64)
    s, directions = np.linalg.svd(moved[TRAIN], full_matrices=False)[1:]
    shares = np.cumsum(s**2) / (s**2).sum()
    by_share = fit_basis(read_span(LoadedLayer(x)), TRAIN, explained=0.9)
    assert by_share.n_directions == int((shares < 0.9).sum()) + 1
    few = fit_basis(read_span(LoadedLayer(x)), TRAIN, most=5)
    expected = moved @ directions[:5].T
    expected /= np.sqrt((expected[TRAIN] ** 2).mean())
    signs = np.sign((few.coordinates * expected).sum(axis=0))
    np.testing.assert_allclose(few.coordinates * signs, expected, atol=1e-3)


@pytest.mark.parametrize("n_features", [350, 900])
def test_a_few_directions_of_many_hold_nearly_the_variance_of_the_best(n_features: int) -> None:
    rng = np.random.default_rng(4)
    spread = np.arange(1, n_features + 1) ** -0.5
    x = (rng.standard_normal((400, n_features)) * spread + 5).astype(np.float32)
    x[390:] += 3  # the training images are elsewhere than all images
    train = np.arange(390)
    with one_blas_thread():
        basis = fit_basis(read_span(LoadedLayer(x)), train, most=20)
    moved = x.astype(np.float64) - x[train].mean(axis=0, dtype=np.float64)
    best = np.linalg.svd(moved[train], compute_uv=False)[:20]
    assert basis.n_directions == 20
    directions = basis.fold(np.eye(20), LoadedLayer(x))[0]
    np.testing.assert_allclose(basis.coordinates, moved @ directions.T, atol=1e-4)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(directions @ directions.T, np.eye(20), atol=1e-9)
    assert ((moved[train] @ directions.T) ** 2).sum() > 0.995 * (best**2).sum()


@pytest.mark.parametrize("rank", [0, 3])
def test_no_more_directions_are_found_than_there_are(rank: int) -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((400, rank)) @ rng.standard_normal((rank, 900)) + 7
    basis = fit_basis(read_span(LoadedLayer(x.astype(np.float32))), np.arange(300), most=20)
    assert basis.n_directions == rank
    assert np.isfinite(basis.coordinates).all()


def test_span_of_a_stored_layer_in_any_order_is_that_of_the_array(tmp_path) -> None:
    rng = np.random.default_rng(5)
    x = (1e12 * rng.standard_normal((50, 333))).astype(np.float32)
    names = [f"s{i}" for i in range(50)]
    stored = rng.permutation(50)
    writer = LayerWriter(tmp_path / "layer.parquet", 333, {})
    for part in np.array_split(stored, 7):
        writer.write([names[i] for i in part], x[part])
    writer.close()
    kept = np.delete(np.arange(50), 17)
    layer = StoredLayer(tmp_path / "layer.parquet", tuple(names[i] for i in kept))
    assert layer.shape == (49, 333)
    np.testing.assert_array_equal(layer.read(np.array([30, 2, 48])), x[kept][[30, 2, 48]])
    moved = x[kept].astype(np.float64) - x[kept].mean(axis=0, dtype=np.float64)
    for block in (50, 333, 4096):
        span = read_span(layer, block)
        scale = np.abs(moved @ moved.T).max()
        np.testing.assert_allclose(span.products / scale, moved @ moved.T / scale, atol=1e-14)
    np.testing.assert_allclose(span.norms, (x[kept].astype(np.float64) ** 2).sum(axis=1))
    assert [path.name for path in tmp_path.iterdir()] == ["layer.parquet"]


def test_spans_of_several_layers_keep_the_order_of_the_layers() -> None:
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal((50, n)).astype(np.float32) for n in (10, 300, 40)]
    for span, x in zip(read_spans([LoadedLayer(x) for x in arrays]), arrays, strict=True):
        moved = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(span.products, moved @ moved.T, atol=1e-9)
