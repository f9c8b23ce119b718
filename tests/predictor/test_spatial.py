"""Predictors that see where: against scikit-learn, formulas, and sites whose places are known."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.layers import Grid, Layer, grid_of
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.export.folded_head import fold_head
from nrp_onnx.export.onnx_models import head_model
from nrp_onnx.predictor.baselines import arc_cosine
from nrp_onnx.predictor.calibration import SquareRoot
from nrp_onnx.predictor.channels import ChannelBasis, SeenLayer, fit_channels
from nrp_onnx.predictor.directions import fit_basis
from nrp_onnx.predictor.head import HeadConfig, Job, TrainingPlan
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.predictor.kernel_path import kernel_path
from nrp_onnx.predictor.masked_ridge import choose_views, fit_masked
from nrp_onnx.predictor.masks import MASKS, View, layer_weightings
from nrp_onnx.predictor.nrp_predictor import NrpPredictor
from nrp_onnx.predictor.readouts.spatial import SpatialHead, SpatialShape, positions
from nrp_onnx.predictor.ridge import ALPHAS
from nrp_onnx.predictor.training import train_heads

N, TRAIN, NEW = 160, np.arange(120), np.arange(120, 160)
ALIKE = (1.0, 1.0, 1.0)
#: A map, the tokens of a transformer with a class token, and a layer without places.
SHAPES = [((6, 7, 7), "NCHW"), ((17, 5), "NTC"), ((9,), "NC")]


def _layers(n: int = N) -> list[SeenLayer]:
    rng = np.random.default_rng(0)
    found = []
    for place, (shape, layout) in enumerate(SHAPES):
        x = rng.standard_normal((n, int(np.prod(shape)))).astype(np.float32) * 3.0**place + place
        found.append(SeenLayer(LoadedLayer(x), grid_of(shape, layout)))
    return found


def _bases(layers: Sequence[SeenLayer], train: np.ndarray = TRAIN) -> list[ChannelBasis]:
    return [fit_channels(layer, train, 4, 9) for layer in layers]


def _masked_features(bases: Sequence[ChannelBasis], view: View) -> np.ndarray:
    """Coordinates times the mask; each layer has a mean square length of what it counts."""
    parts = []
    for basis, counts in zip(bases, view.layers, strict=True):
        chosen, grid = MASKS[view.mask], basis.grid
        weights = np.ones(grid.n_positions)
        if chosen is not None and grid.n_positions > 1:
            y, x = np.divmod(np.arange(grid.n_positions), grid.width)
            x, y = (x + 0.5) / grid.width, (y + 0.5) / grid.height
            weights = np.exp(-((x - chosen.x) ** 2 + (y - chosen.y) ** 2) / (2 * chosen.width**2))
        seen = (np.asarray(basis.coordinates).astype(np.float64) * weights[:, None]).reshape(
            len(basis.coordinates), -1
        )
        parts.append(np.sqrt(counts) * seen / np.sqrt((seen[TRAIN] ** 2).sum(axis=1).mean()))
    return np.hstack(parts)


def test_coordinates_are_those_of_the_folded_directions() -> None:
    for layer in _layers():
        basis = fit_channels(layer, TRAIN, 4, 9)
        x = layer.activations.read(np.arange(N)).astype(np.float64) - basis.mean
        expected = basis.grid.by_position(x) @ basis.directions
        np.testing.assert_allclose(basis.coordinates, expected, atol=2e-5)
        assert np.mean(basis.coordinates[TRAIN] ** 2) == pytest.approx(1, rel=1e-4)
        assert np.abs(basis.coordinates[TRAIN].mean(axis=0)).max() < 1e-5


def test_masked_ridge_and_kernel_are_those_of_scikit_learn_on_masked_features() -> None:
    bases = _bases(_layers())
    rng = np.random.default_rng(1)
    views = [View(0, ALIKE), View(7, layer_weightings(3)[3]), View(20, ALIKE)]
    y = rng.standard_normal((len(TRAIN), 3))
    for site, view in enumerate(views):
        features = _masked_features(bases, view)
        y[:, site] += 3 * features[TRAIN] @ rng.standard_normal(features.shape[1])
    y[:9, 1] = np.nan
    linear, curved = fit_masked(bases, views, y, TRAIN, NEW, arc_cosine)
    for site, view in enumerate(views):
        rows = np.flatnonzero(~np.isnan(y[:, site]))
        features = _masked_features(bases, view)
        features -= features[TRAIN[rows]].mean(axis=0)
        known = features[TRAIN[rows]]
        alphas = ALPHAS * (known**2).sum(axis=1).mean()
        ridge = RidgeCV(alphas).fit(known, y[rows, site])
        np.testing.assert_allclose(linear.rates[:, site], ridge.predict(features[NEW]), atol=1e-3)
        one = rows[5]
        others = rows[rows != one]
        alone = RidgeCV([ridge.alpha_]).fit(features[TRAIN[others]], y[others, site])
        assert linear.held_out[one, site] == pytest.approx(
            alone.predict(features[TRAIN[[one]]])[0], abs=1e-3
        )
        everything = np.concatenate([known, features[NEW]])
        kernel = arc_cosine(everything @ everything.T)
        n = len(known)
        kernel -= kernel[:, :n].mean(axis=1, keepdims=True)
        kernel -= kernel[:n].mean(axis=0)
        sizes = ALPHAS * np.trace(kernel[:n, :n]) / n
        mean = y[rows, site].mean()
        fits = [
            KernelRidge(alpha=alpha, kernel="precomputed").fit(kernel[:n, :n], y[rows, site] - mean)
            for alpha in sizes
        ]
        errors = [
            np.abs(fit.predict(kernel[n:, :n]) + mean - curved.rates[:, site]).max() for fit in fits
        ]
        assert min(errors) < 1e-3


def test_a_path_of_kernels_gives_the_rates_of_the_kernel_ridge() -> None:
    bases = _bases(_layers())
    y = np.random.default_rng(2).standard_normal((len(TRAIN), 3))
    y[:5, 0] = np.nan
    views = [View(3, ALIKE), View(30, layer_weightings(3)[2]), View(3, ALIKE)]
    _, curved = fit_masked(bases, views, y, TRAIN, NEW, arc_cosine)
    path = kernel_path(bases, curved, TRAIN)
    assert list(path.kernel_of_site) == [0, 1, 2]  # the first lacks five of the images
    rates = path.rates([basis.coordinates[NEW] for basis in bases])
    np.testing.assert_allclose(rates, curved.rates, atol=1e-4)


def _local_sites(n: int, n_sites: int) -> tuple[SeenLayer, np.ndarray, np.ndarray]:
    """A map of independent noise, and sites that read one of its cells through a rectified filter."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, 8, 7, 7)).astype(np.float32)
    cells = rng.integers(1, 6, (n_sites, 2))
    filters = rng.standard_normal((n_sites, 8))
    seen = np.stack([x[:, :, row, column] for row, column in cells], axis=1)
    drive = np.einsum("nsc,sc->ns", seen, filters) / np.linalg.norm(filters, axis=1)
    y = np.maximum(drive, 0) * 2 + drive + 0.8 * rng.standard_normal((n, n_sites))
    layer = SeenLayer(LoadedLayer(x.reshape(n, -1)), Grid(7, 7, 8, True))
    return layer, (y - y.mean(axis=0)) / y.std(axis=0), cells


def test_masks_are_found_where_the_sites_look() -> None:
    layer, y, cells = _local_sites(400, 20)
    train = np.arange(320)
    views = choose_views([fit_channels(layer, train, 8, 8)], y[train], train)
    found = [MASKS[view.mask] for view in views]
    assert all(mask is not None for mask in found)
    centres = np.array([(mask.y * 7 - 0.5, mask.x * 7 - 0.5) for mask in found if mask is not None])
    assert (np.abs(centres - cells).max(axis=1) <= 1).mean() >= 0.9


@pytest.mark.parametrize("mask", ["gaussian", "free"])
def test_a_spatial_head_learns_where_the_sites_look(mask: str) -> None:
    layer, y, cells = _local_sites(600, 10)
    fit, left_out = torch.arange(480), torch.arange(480, 600)
    basis = fit_channels(layer, np.arange(480), 8, 8)
    config = HeadConfig((0,), 16, 0, 1e-2, weight_decay=0.3, mask=mask)
    plan = TrainingPlan(max_epochs=40, patience=40, schedule="cosine")
    (trained,) = train_heads(
        [torch.from_numpy(basis.coordinates)],
        torch.from_numpy(y.astype(np.float32)),
        fit,
        left_out,
        [torch.arange(10)],
        [Job(config, 0)],
        plan,
        lambda _: None,
        [(7, 7)],
    )
    assert isinstance(trained.head, SpatialHead)
    weights = trained.head.masks(0)[:, 0].numpy()
    row, column = np.divmod(np.arange(49), 7)
    apart = np.maximum(np.abs(row - cells[:, :1]), np.abs(column - cells[:, 1:]))
    # Nine of 49 cells are within one: a mask that saw all alike would have 0.18 there.
    assert np.median((weights * (apart <= 1)).sum(axis=1)) > 0.5
    if mask == "gaussian":
        assert (apart[np.arange(10), weights.argmax(axis=1)] <= 1).mean() >= 0.9
    # The noise alone is an error of 0.8 / std * sqrt(2 / pi) = 0.3; the mean response 0.8.
    assert trained.validation_mae < 0.5


def _random_head(
    grids: Sequence[tuple[int, int]], n_inputs: Sequence[int], mask: str
) -> SpatialHead:
    shape = SpatialShape(tuple(grids), tuple(n_inputs), 5, 3, mask, 2)
    generator = torch.Generator().manual_seed(7)
    state = {
        name: value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in shape.initial_state(1).items()
    }
    return SpatialHead(shape, state)


@pytest.mark.parametrize("mask", ["gaussian", "free"])
def test_a_spatial_head_is_its_formula(mask: str) -> None:
    """Sum over layers, masks, positions and units of mask * weight * relu(W x + b), by loops."""
    head = _random_head([(2, 3), (1, 1)], [4, 6], mask)
    rng = np.random.default_rng(4)
    inputs = [rng.standard_normal((7, 6, 4)), rng.standard_normal((7, 1, 6))]
    state = {name: value.double().numpy() for name, value in head.state.items()}
    expected = np.repeat(state["out.bias"], 7, axis=0)
    places: list[list[tuple[float, float]]] = [
        [(0.5, 1 / 3), (0.5, 1), (0.5, 5 / 3), (1.5, 1 / 3), (1.5, 1), (1.5, 5 / 3)],
        [(1, 1)],
    ]
    for at, x in enumerate(inputs):
        units = np.maximum(x @ state[f"l1.{at}.weight"] + state[f"l1.{at}.bias"], 0)
        for site in range(3):
            for component in range(2):
                cy, cx = state["mask.centre"][site, component]
                width = np.exp(state["mask.log_width"][site, component])
                logits = np.array(
                    [
                        -((y - 1 - cy) ** 2 + (x_ - 1 - cx) ** 2) / (2 * width**2)
                        for y, x_ in places[at]
                    ]
                )
                if mask == "free" and at == 0:
                    logits = logits + state["mask.0.free"][site, component]
                weights = np.exp(logits) / np.exp(logits).sum()
                of_units = state["out.weight"][site, component, at * 5 : at * 5 + 5]
                expected[:, site] += np.einsum("npu,p,u->n", units, weights, of_units)
    tensors = [torch.from_numpy(x.astype(np.float32)) for x in inputs]
    np.testing.assert_allclose(head(tensors).numpy(), expected, atol=1e-4)
    assert positions((2, 3))[1].tolist() == [-0.5, 0.0]


@pytest.mark.parametrize("root", [False, True])
def test_the_exported_head_gives_the_mixed_rates(root: bool) -> None:
    """A map, tokens with a class token and a layer without places, in ONNX Runtime."""
    layers = _layers()
    bases = _bases(layers)
    rng = np.random.default_rng(5)
    y = rng.standard_normal((len(TRAIN), 3))
    y[:7, 1] = np.nan
    views = [View(place, ALIKE) for place in (0, 5, 0)]
    _, curved = fit_masked(bases, views, y, TRAIN, NEW, arc_cosine)
    path = kernel_path(bases, curved, TRAIN)
    grids = [(basis.grid.height, basis.grid.width) for basis in bases]
    # The head sees fewer components of the layer without places than the kernel ridge.
    n_seen = [min(basis.coordinates.shape[2], 6) for basis in bases]
    head = _random_head(grids, n_seen, "free")
    offset, scale = np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 0.5])
    weight, path_weight = rng.random((2, 3))
    turned = SquareRoot(np.array([1.5, 2.0, 2.2]), np.array([0.4, 0.5, 0.3])) if root else None
    predictor = NrpPredictor((0, 1, 2), (head, head), turned, path, weight, path_weight)
    activations = [layer.activations for layer in layers]
    spans = [fit_basis(read_span(x), TRAIN, 2) for x in activations]
    folded = fold_head(predictor, spans, bases, activations, offset, scale)

    seen = [basis.coordinates[NEW][..., :n] for basis, n in zip(bases, n_seen, strict=True)]
    network = head([torch.from_numpy(x) for x in seen]).double().numpy()
    if turned is not None:
        counts = np.maximum(network * turned.scale + turned.offset, 0) ** 2
        network = (counts - offset) / scale
    z = weight * network + path_weight * curved.rates
    expected = z * scale + offset
    x = [layer.read(NEW) for layer in activations]
    np.testing.assert_allclose(folded.rates(x), expected, atol=1e-4)

    features = [
        Feature(Layer(f"layer{i}", f"t{i}", shape, layout, "Relu", i), Reduction("none"))
        for i, (shape, layout) in enumerate(SHAPES)
    ]
    proto = head_model(folded, features, {})
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (rates,) = session.run(None, {f"layer{i}": values for i, values in enumerate(x)})
    np.testing.assert_allclose(rates, expected, atol=1e-4)


@pytest.mark.parametrize("is_local", [True, False])
def test_masks_help_where_sites_are_local_and_cost_nothing_where_they_are_not(
    is_local: bool,
) -> None:
    """Held-out errors of masked ridge less those of ridge on the same coordinates, paired by image."""
    layer, y, _ = _local_sites(400, 20)
    train, new = np.arange(320), np.arange(320, 400)
    if not is_local:
        rng = np.random.default_rng(6)
        x = layer.activations.read(np.arange(400)).astype(np.float64)
        drive = x @ rng.standard_normal((x.shape[1], 20)) / np.sqrt(x.shape[1])
        y = drive + 0.3 * rng.standard_normal(drive.shape)
    bases = [fit_channels(layer, train, 8, 8)]
    views = choose_views(bases, y[train], train)
    everywhere = [View(0, (1.0,))] * 20
    errors = []
    for chosen in (views, everywhere):
        linear, _ = fit_masked(bases, chosen, y[train], train, new, arc_cosine)
        errors.append(np.abs(linear.rates - y[new]).mean(axis=1))
    paired = errors[0] - errors[1]
    spread = 2 * paired.std(ddof=1) / np.sqrt(len(new))
    if is_local:
        assert paired.mean() + spread < 0
    else:
        assert paired.mean() - spread <= 0
