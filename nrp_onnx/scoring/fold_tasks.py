"""Spans and folds as tasks of a cluster, which hand on what is large in files of the run's folder.

Each fold writes its trials to a file of its own, since two machines cannot write to one. A search that
was interrupted finds them there; in the end they are joined in the run's trials.parquet.
"""

import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nrp_onnx.activations.store import StoredLayer
from nrp_onnx.engine import Engine
from nrp_onnx.files import whole_file
from nrp_onnx.predictor.cores import go_at_once, one_blas_thread, same_threads
from nrp_onnx.predictor.layer_span import LayerSpan, read_span, span_bytes
from nrp_onnx.predictor.trial_record import TrialRecord
from nrp_onnx.scoring.fold_fit import FoldFit, FoldPlan, fit_heads, prepare_fold
from nrp_onnx.scoring.splits import Fold

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
        fit = fit_heads(shared.plan, prepared, record, lambda _: None)
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
