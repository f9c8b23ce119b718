"""Fits every predictor on each training fold, here or on a cluster, and predicts the held-out images.

Each fold writes its trials to a file of its own, since two machines cannot write to one. A search that
was interrupted finds them there; in the end they are joined in the run's trials.parquet.
"""

import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.files import whole_file
from nrp_onnx.predictor.channels import SeenLayer
from nrp_onnx.predictor.image_products import LayerSpan, read_span, read_spans, span_bytes
from nrp_onnx.predictor.memory import PrimalSizes
from nrp_onnx.predictor.nrp_predictor import n_heads
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.fold import FittedFold, FoldFit, fit_fold
from nrp_onnx.scoring.prepared_fold import FoldPlan, PreparedFold, prepare_fold, site_scaling
from nrp_onnx.scoring.splits import Fold
from nrp_onnx.threads import go_at_once, one_blas_thread, same_threads

__all__ = ["Fits", "fit_folds", "notes_on_layers", "site_scaling", "spans_of"]

_FOLDER = ".tasks"


@dataclass(frozen=True)
class _Tasks:
    """What the tasks of a run share; ``threads`` of this process, so that sums go the same way."""

    plan: FoldPlan
    folder: Path
    n_layers: int
    record: TrialRecord
    threads: int


def spans_of_tasks(layers: Sequence[StoredLayer], engine: Engine, folder: Path) -> list[LayerSpan]:
    """The span of the images in each layer, one task a layer; they also stay in ``folder``."""
    store = (folder / _FOLDER).resolve()
    store.mkdir(exist_ok=True)
    for left in store.glob("span-*"):
        left.unlink()
    tasks = [(layer, _span_path(store, place)) for place, layer in enumerate(layers)]
    for _ in engine.map(partial(_write_span, torch.get_num_threads()), tasks):
        pass
    return [_read_span_file(path) for _, path in tasks]


def fits_of_tasks(
    plan: FoldPlan,
    folds: Sequence[Fold],
    record: TrialRecord,
    engine: Engine,
    done: Callable[[], None],
) -> Generator[FoldFit, None, None]:
    """The fits of all folds in order, one task a fold.

    Args:
        record: of the run, which has all trials in the end.
        done: called after each fold.
    """
    store = (record.path.parent / _FOLDER).resolve()
    n_layers = len(list(store.glob("span-*.npz")))
    store.mkdir(parents=True, exist_ok=True)  # fits on features left nothing there
    shared = _Tasks(plan, store, n_layers, record, torch.get_num_threads())
    for number, fit in enumerate(engine.map(partial(_fit, shared), list(enumerate(folds)))):
        record.take(_trials_path(store, number))
        done()
        yield fit
    shutil.rmtree(store)


def _fit(shared: _Tasks, task: tuple[int, Fold]) -> FoldFit:
    number, fold = task
    spans = [_read_span_file(_span_path(shared.folder, i)) for i in range(shared.n_layers)]
    record = shared.record.beside(_trials_path(shared.folder, number), number)
    with same_threads(shared.threads):
        prepared = prepare_fold(shared.plan, spans, number, fold)
        fit = fit_fold(shared.plan, prepared, record, lambda _: None)
    record.write()
    return fit


def _write_span(threads: int, task: tuple[StoredLayer, Path]) -> None:
    layer, path = task
    # As in `read_spans`, so that sums go the same way.
    together = go_at_once(span_bytes(layer.shape[0]))
    with same_threads(threads), one_blas_thread() if together else nullcontext():
        span = read_span(layer)
    held = {name: value for name, value in vars(span).items() if value is not None}
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **held)


def _read_span_file(path: Path) -> LayerSpan:
    with np.load(path, allow_pickle=False) as held:
        return LayerSpan(held["products"], held.get("features"), held["norms"])


def _span_path(store: Path, place: int) -> Path:
    return store / f"span-{place:04d}.npz"


def _trials_path(store: Path, number: int) -> Path:
    return store / f"trials-{number:04d}.parquet"


#: Two folds are prepared at a time where all their eigendecompositions together need no more than this;
#: each needs about so many bytes for the square of the number of training images.
_MOST_BYTES, _DECOMPOSITIONS, _DECOMPOSITION = 2**32, 2 * 4, 60


#: More held-out rates than these are float32, as they are stored.
_MOST_DOUBLE = 2**23


@dataclass(frozen=True)
class Fits:
    """Held-out predictions.

    Attributes:
        kept: places of the k images that the rows are of: all, or those that a fixed split holds out.
        predictions: for each predictor float (k, n_sites), in recorded units: float64, or float32
            where these are many.
        predictions_by_seed: the headline's predictions by each seed, those of the first one included.
        scales: float64 (k, n_sites): errors are divided by these to be in score units.
        first: the fold that is exported.
        n_trials: how many heads were trained.
        best: the chosen head of each fold, without its curves.
        n_directions: for each layer, in how many directions the images differ at most.
        headline: the predictor whose error is the NRP-error.
        fields: centre (x, y) and width of the mask of each site in each fold, as shares of the image:
            float64 (n_folds, n_sites, 3), NaN where a site sees the whole image alike; None without
            masks.
    """

    kept: np.ndarray
    predictions: dict[str, np.ndarray]
    predictions_by_seed: list[np.ndarray]
    scales: np.ndarray
    first: FittedFold
    n_trials: int
    best: list[dict[str, Any]]
    n_directions: dict[str, int]
    headline: str = "nrp"
    fields: np.ndarray | None = None


def spans_of(layers: Sequence[StoredLayer], engine: Engine, folder: Path) -> list[LayerSpan]:
    """The span of the images in each layer.

    Args:
        folder: of the run; what tasks of a cluster hand on is kept there until the fits are done.
    """
    if engine.remote:
        return spans_of_tasks(layers, engine, folder)
    return read_spans(layers)


def fit_folds(
    layers: Sequence[LayerSpan],
    layer_names: Sequence[str],
    recordings: Recordings,
    folds: Sequence[Fold],
    space: SearchSpace,
    normalise: str,
    seed: int,
    record: TrialRecord,
    n_seeds: int = 1,
    engine: Engine | None = None,
    seen: Sequence[SeenLayer] = (),
    primal: PrimalSizes | None = None,
    device: str = "cpu",
) -> Fits:
    """Fit baselines and NRP heads on each fold.

    Args:
        layers: the span of the images in each layer, in the order of the stimuli.
        normalise: ``zscore`` or ``none``.
        record: trials that it holds are not trained again.
        n_seeds: how often heads are searched and trained on each fold, each time from another seed.
        seen: of each layer, its activations and where its features lie; without them, nothing sees
            places: heads are dense, and there is no masked ridge.
        engine: where a fold is fitted; None: in this process. Tasks of a cluster take the spans that
            `spans_of` left in the folder of the record.
        primal: sizes of fits on features, which need ``seen`` and no ``layers``; None: fits on inner
            products.
        device: where heads train, as PyTorch names it.
    """
    activations = [layer.activations for layer in seen]
    if not any(layer.grid for layer in seen):
        space, seen = space.without_places(), ()
    rates = recordings.averages
    regions, names = tuple(recordings.regions), tuple(recordings.region_names)
    plan = FoldPlan(
        rates,
        regions,
        names,
        space,
        normalise,
        seed,
        n_seeds,
        seen,
        primal,
        activations,
        device,
        None if primal is None else record.path.parent.resolve(),
    )
    engine = engine or LocalEngine()
    heads_a_fold = n_seeds * n_heads(space, len(layer_names))
    with (
        progress_bar("Training NRP heads", len(folds) * heads_a_fold) as advance,
        # Few large products and decompositions share the cores; many small ones take one each.
        one_blas_thread() if primal is None else nullcontext(),
    ):
        if engine.remote:
            found = fits_of_tasks(plan, folds, record, engine, partial(advance, heads_a_fold))
        else:
            found = _fits_here(plan, layers, folds, record, advance)
        with closing(found):
            return _fits(found, plan, folds, layer_names, record)


def _fits_here(
    plan: FoldPlan,
    layers: Sequence[LayerSpan],
    folds: Sequence[Fold],
    record: TrialRecord,
    advance: Callable[[int], None],
) -> Generator[FoldFit, None, None]:
    """The fits of all folds in order; while the heads of one train, others are prepared.

    Few heads, or small ones, leave cores idle, and so does an eigendecomposition that outlasts another.
    """
    n_train = len(folds[0].train)
    few = plan.primal is None and _DECOMPOSITIONS * _DECOMPOSITION * n_train**2 <= _MOST_BYTES
    n_ahead = 2 if few else 1
    pool = ThreadPoolExecutor(n_ahead, thread_name_prefix="prepare")
    try:
        todo, ahead = deque(enumerate(folds)), deque[Future[PreparedFold]]()
        for _ in folds:
            # Fits on features are large: no fold is prepared while another one's heads train.
            while todo and len(ahead) <= (n_ahead if plan.primal is None else 0):
                ahead.append(pool.submit(prepare_fold, plan, layers, *todo.popleft()))
            yield fit_fold(plan, ahead.popleft().result(), record, advance)
    finally:
        pool.shutdown(cancel_futures=True)


def _fits(
    found: Iterable[FoldFit],
    plan: FoldPlan,
    folds: Sequence[Fold],
    layer_names: Sequence[str],
    record: TrialRecord,
) -> Fits:
    """The folds put together; one at a time is held."""
    kept = np.arange(len(plan.rates))
    if folds[0].is_fixed:
        kept = np.sort(folds[0].new)
    shape = len(kept), plan.rates.shape[1]
    dtype = np.float32 if shape[0] * shape[1] > _MOST_DOUBLE else np.float64
    predictions: dict[str, np.ndarray] = {}
    predictions_by_seed = [np.full(shape, np.nan, dtype) for _ in range(plan.n_seeds)]
    scales = np.full(shape, np.nan)
    best, fields, first = [], [], None
    n_directions = dict.fromkeys(layer_names, 0)
    for fold, fit in zip(folds, found, strict=True):
        new = np.searchsorted(kept, fold.new)
        scales[new] = fit.scale
        for name, predicted in fit.predictions.items():
            predictions.setdefault(name, np.full(shape, np.nan, dtype))[new] = predicted
        for whole, predicted in zip(predictions_by_seed, fit.predictions_by_seed, strict=True):
            whole[new] = predicted
        for name, number in zip(layer_names, fit.n_directions, strict=True):
            n_directions[name] = max(n_directions[name], number)
        best.append(fit.best)
        if fit.fields is not None:
            fields.append(fit.fields)
        first = first or fit.fitted
    assert first is not None
    return Fits(
        kept,
        predictions,
        predictions_by_seed,
        scales,
        first,
        record.n_trials,
        best,
        n_directions,
        plan.headline,
        np.stack(fields) if fields else None,
    )


def notes_on_layers(n_directions: Mapping[str, int]) -> list[str]:
    """What is to be said of layers in which images hardly differ, or not at all."""
    notes = []
    for name, number in n_directions.items():
        if number == 0:
            notes.append(
                f"the layer {name} is the same for every image, but for rounding: it predicts nothing"
            )
        elif number == 1:
            notes.append(
                f"the layer {name} differs between images by one number alone: all its activations "
                "lie on a line"
            )
    if not any(n_directions.values()):
        notes.append(
            "no layer tells the images apart: every predictor gives the same rates for all of them, "
            "so the NRP-error is that of the mean response"
        )
    return notes
