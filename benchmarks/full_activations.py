"""An NRP head on all activations of one wide layer: in the span of the images, and on raw features.

Usage: python benchmarks/full_activations.py [--features 100352] [--images 3200] [--raw-epochs 20]

The activations are made up: ReLU of a random projection of 300 hidden causes, plus noise; the
responses depend on the causes through another ReLU layer, plus noise. The raw side is a plain PyTorch
loop over nn.Linear modules, as a user of PyTorch would write it, with the activations in memory,
centred and scaled; its time to the best epoch counts, without reading. Its epochs are few, so its whole
curve is printed: where the last is its best, more would take it even longer. Beside the times to the
best epochs stands the time until the other side first errs as little as the raw one at its best. The other side reads the
activations from Parquet. The last ratio is that of a search, which reads the layer once for 4 heads on each
of 5 folds, as if each took as long as the one that was measured. Images train, validate and rest as in a fold of five. On a machine that others
use, --cpu counts seconds of CPU and gives both sides one thread.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.activations.layer_writer import LayerWriter
from nrp_onnx.predictor.directions import fit_basis
from nrp_onnx.predictor.head import HeadConfig, Job, TrainingPlan
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.predictor.training import train_heads
from nrp_onnx.threads import one_blas_thread

_BATCH, _CAUSES = 64, 300


def main() -> None:
    """Measure and print a Markdown table, ratios first."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("features", 100_352), ("images", 3200), ("sites", 168)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--l1", type=int, default=256)
    parser.add_argument("--l2", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--raw-epochs", type=int, default=20)
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    if given.cpu:
        torch.set_num_threads(1)
        threadpool_limits(1)
    clock = time.process_time if given.cpu else time.perf_counter
    x, y = _data(given)
    order = np.random.default_rng(1).permutation(given.images)
    parts = np.split(order, [given.images * 64 // 100, given.images * 80 // 100])
    fit, validation = (np.sort(part) for part in parts[:2])
    train = np.sort(np.concatenate([fit, validation]))
    y = (y - y[train].mean(axis=0)) / y[train].std(axis=0)
    targets = torch.from_numpy(y.astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        layer = _stored(Path(folder) / "layer.parquet", x)
        span, of_span = _timed(clock, lambda: read_span(layer))
        heads = {}
        for name, most in (("all directions", None), ("256 directions", 256)):
            with one_blas_thread():
                basis, of_basis = _timed(clock, lambda most=most: fit_basis(span, train, most))
            config = HeadConfig((0,), given.l1, given.l2, given.learning_rate)
            (head,), of_training = _timed(
                clock,
                lambda basis=basis, config=config: train_heads(
                    [torch.from_numpy(basis.coordinates)],
                    targets,
                    torch.from_numpy(fit),
                    torch.from_numpy(validation),
                    [torch.arange(given.sites)],
                    [Job(config, 0)],
                    TrainingPlan(max_epochs=100, patience=10),
                    lambda _: None,
                ),
            )
            weights = head.head.state_dict()["l1.0.weight"].double().numpy()
            _, of_fold = _timed(
                clock, lambda basis=basis, weights=weights: basis.fold(weights, layer)
            )
            to_best = of_training * head.epochs / len(head.curve)
            heads[name] = (head, of_basis, to_best, of_fold)
    x -= x[train].mean(axis=0)
    x /= np.sqrt(np.mean(np.square(x[train[:100]], dtype=np.float64)))
    seconds, curve = _train_raw(torch.from_numpy(x), targets, fit, validation, given, clock)
    _print(given, of_span, heads, seconds, curve)


def _data(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((given.images, _CAUSES), dtype=np.float32)
    causes *= np.arange(1, _CAUSES + 1, dtype=np.float32) ** -0.5
    x = np.empty((given.images, given.features), np.float32)
    for start in range(0, given.features, 8192):
        part = x[:, start : start + 8192]
        loadings = rng.standard_normal((_CAUSES, part.shape[1]), dtype=np.float32)
        noise = rng.standard_normal(part.shape, dtype=np.float32)
        part[:] = np.maximum(causes @ loadings + 0.5 * noise, 0)
    hidden = np.maximum(causes @ rng.standard_normal((_CAUSES, 100), dtype=np.float32), 0)
    y = hidden @ rng.standard_normal((100, given.sites), dtype=np.float32)
    y += y.std() * rng.standard_normal(y.shape, dtype=np.float32)
    return x, y


def _stored(path: Path, x: np.ndarray) -> StoredLayer:
    writer = LayerWriter(path, x.shape[1], {})
    for start in range(0, len(x), 16):
        writer.write([str(i) for i in range(start, min(start + 16, len(x)))], x[start : start + 16])
    writer.close()
    return StoredLayer(path, tuple(map(str, range(len(x)))))


def _train_raw(
    x: Tensor,
    y: Tensor,
    fit: np.ndarray,
    validation: np.ndarray,
    given: argparse.Namespace,
    clock: Callable[[], float],
) -> tuple[float, list[float]]:
    """Seconds an epoch, and the validation error after each."""
    torch.manual_seed(0)
    head = nn.Sequential(
        nn.Linear(given.features, given.l1),
        nn.ReLU(),
        nn.Linear(given.l1, given.l2),
        nn.ReLU(),
        nn.Linear(given.l2, given.sites),
    )
    optimiser = torch.optim.Adam(head.parameters(), lr=given.learning_rate, fused=True)
    places, held_out = torch.from_numpy(fit), torch.from_numpy(validation)
    seconds, curve = [], []
    for _ in range(given.raw_epochs):
        start = clock()
        for batch in places[torch.randperm(len(places))].split(_BATCH):
            optimiser.zero_grad()
            nn.functional.mse_loss(head(x[batch]), y[batch]).backward()
            optimiser.step()
        with torch.no_grad():
            errors = [(head(x[some]) - y[some]).abs() for some in held_out.split(_BATCH)]
        seconds.append(clock() - start)
        curve.append(float(torch.cat(errors).mean()))
    return min(seconds), curve


def _timed(clock: Callable[[], float], work: Callable[[], Any]) -> tuple[Any, float]:
    start = clock()
    found = work()
    return found, clock() - start


def _print(
    given: argparse.Namespace,
    of_span: float,
    heads: dict[str, tuple[Any, float, float, float]],
    seconds: float,
    curve: list[float],
) -> None:
    best = int(np.argmin(curve)) + 1
    raw = seconds * best
    print(
        f"\n{given.images} images of {given.features} features, {given.sites} sites, head "
        f"{given.l1}/{given.l2}, learning rate {given.learning_rate:g}; {platform.machine()}, "
        f"{os.cpu_count()} cores{', seconds of CPU' if given.cpu else ''}, PyTorch {version('torch')}, NumPy {version('numpy')}\n"
    )
    print(
        "| times as fast as raw features | to its error | training | with the basis | with all | search |"
    )
    print("|---|---|---|---|---|---|")
    for name, (head, of_basis, to_best, of_fold) in heads.items():
        # The epoch at which this head is first as good as the other at its best.
        as_good = next((i for i, e in enumerate(head.curve, 1) if e <= min(curve)), None)
        to_error = f"{raw / (to_best * as_good / head.epochs):.1f}" if as_good else "never"
        ratios = (raw / to_best, raw / (to_best + of_basis))
        everything = raw / (to_best + of_basis + of_span + of_fold)
        # The paper's grid on one layer: 4 heads on each of 5 folds, each as long as this one.
        search = 20 * raw / (of_span + 5 * (of_basis + 4 * to_best) + of_fold)
        print(
            f"| {name} | {to_error} | {ratios[0]:.1f} | {ratios[1]:.1f} | {everything:.1f} | {search:.1f} |"
        )
    print("\n| | validation MAE | best epoch | seconds to it | basis | folding V back |")
    print("|---|---|---|---|---|---|")
    print(f"| raw features | {min(curve):.4f} | {best} of {len(curve)} | {raw:.1f} | | |")
    for name, (head, of_basis, to_best, of_fold) in heads.items():
        print(
            f"| {name} | {head.validation_mae:.4f} | {head.epochs} | {to_best:.2f} | "
            f"{of_basis:.1f} | {of_fold:.1f} |"
        )
    print(f"\nReading the layer and its Gram matrix, once for all folds and heads: {of_span:.1f} s")
    print(f"Raw features: {seconds:.1f} s an epoch; curve", " ".join(f"{e:.4f}" for e in curve))


if __name__ == "__main__":
    main()
