"""Scores the models of a study one after the other, and keeps one record a model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import torch

from nrp_onnx.api import score_with
from nrp_onnx.engine import Engine, LocalEngine, open_engine
from nrp_onnx.errors import ModelError, NrpOnnxError, OptionError
from nrp_onnx.files import whole_file
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.comparison import nrp_error_interval
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.threads import same_threads

#: The linear predictors beside the headline: the paper's, and stronger ones.
LINEAR = ("ols", "ridge", "pls")


def record_of(name: str, run: FinishedRun, seed: int = 0) -> dict[str, Any]:
    """A model's errors with intervals, beside those of linear predictors on the same activations.

    Args:
        seed: of the bootstrap for the mean over regions.
    """
    model = run.result.model
    regions = {}
    for region, found in run.regions.items():
        predictors, own = found.predictors, found.predictors[run.headline]
        regions[region] = {
            "nrp_error": found.nrp_error.value,
            "ci95": list(found.nrp_error.ci95),
            "noise_floor": found.noise_floor,
            "explainable_removed": own.explainable_removed,
            "pearson_r": own.pearson_r,
            "mse": own.mse,
            "r2_normalised": own.r2_normalised,
            "pearson_r_normalised": own.pearson_r_normalised,
            "brainscore": found.brainscore.score if found.brainscore else None,
            **{
                linear: {
                    "mae": predictors[linear].mae,
                    "ci95": list(predictors[linear].mae_ci95),
                    "r2": predictors[linear].r2,
                }
                for linear in LINEAR
            },
        }
    return {
        "model": name,
        "run": str(run.folder),
        "sha256": model.sha256,
        "n_parameters": model.n_parameters,
        "weights": (model.source or {}).get("weights"),
        "layers": [layer.name for layer in model.layers],
        "reductions": [layer.reduction for layer in model.layers],
        "headline": run.headline,
        "nrp_error": run.nrp_error,
        "ci95": list(nrp_error_interval(run, seed)),
        "regions": regions,
    }


def study_facts(study: str, runs: Mapping[str, FinishedRun]) -> dict[str, Any]:
    """What holds for all models of a study: the recordings and the protocol."""
    first = next(iter(runs.values())).result.to_json()
    recordings, protocol = first["recordings"], first["protocol"]
    return {
        "study": study,
        "recordings": {key: recordings[key] for key in ("name", "simulated", "fingerprint")},
        "units": first["units"],
        "headline": first["headline"],
        "protocol": protocol,
        "search": first["search"]["preset"],
        "versions": first["versions"],
    }


def write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one row a record; keys of nested ones are joined by ``_``, intervals are two columns."""
    rows = [_flat(record) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = pa.table({key: pa.array([row.get(key) for row in rows]) for key in columns})
    with whole_file(path) as part:
        pa.csv.write_csv(table, part)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if key.endswith("ci95") and value is not None:
            before = key.removesuffix("ci95")
            flat[f"{before}low"], flat[f"{before}high"] = value
        elif isinstance(value, Mapping):
            inner = _flat(value).items()
            flat |= {name if key == "regions" else f"{key}_{name}": found for name, found in inner}
        elif isinstance(value, list):
            flat[key] = " ".join(map(str, value))
        else:
            flat[key] = value
    return flat


@dataclass(frozen=True)
class StudiedModel:
    """A model of a study.

    Attributes:
        name: unlike that of any other in the study; its run is in the folder of that name.
        file: gives its ONNX file when its turn comes; the file may be gone afterwards.
        options: how it is scored.
        recordings: on which; None: those of the study.
    """

    name: str
    file: Callable[[], AbstractContextManager[Path]]
    options: ScoreOptions
    recordings: Recordings | None = None


@dataclass(frozen=True)
class ScoredModels:
    """What came of it.

    Attributes:
        results: the runs by the model's name, in the order of the study.
        failed: why a model was not scored, by its name.
    """

    results: dict[str, FinishedRun]
    failed: dict[str, str]

    def check(self, where: object) -> None:
        """Say which models failed.

        Raises:
            ModelError: if one did.
        """
        if not self.failed:
            return
        total = len(self.failed) + len(self.results)
        raise ModelError(
            f"{len(self.failed)} of {total} models were not scored: {', '.join(self.failed)}",
            where=where,
            found=next(iter(self.failed.values())),
            fix="Give the same command again when that is mended: finished runs are kept.",
        )


def given_models(files: Sequence[Path], options: ScoreOptions) -> list[StudiedModel]:
    """Models from files, named like them.

    Raises:
        OptionError: if two files have one name.
    """
    names = [path.stem for path in files]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(
                "two models have the same name",
                where="MODELS",
                expected="file names that differ before .onnx",
                found=", ".join(str(path) for path in files if path.stem == name),
            )
    return [StudiedModel(path.stem, partial(_as_it_is, path.resolve()), options) for path in files]


def _as_it_is(path: Path) -> AbstractContextManager[Path]:
    return nullcontext(path)


def score_models(
    models: Sequence[StudiedModel], recordings: Recordings | None, folder: Path
) -> ScoredModels:
    """Score each model into ``folder/NAME``, where a finished run of the same is taken as it is.

    A model that fails does not keep the others from being scored. A full disk does. On a cluster each
    model is a task, unless models share a folder of activations: then they are scored one after the
    other, each in tasks of its own.

    Args:
        recordings: of the models that have none of their own.
    """
    results: dict[str, FinishedRun] = {}
    failed: dict[str, str] = {}
    notes = Notes()
    engine: Engine = LocalEngine()
    if models and all(model.options.activations is None for model in models):
        options = models[0].options
        engine = open_engine(options.engine, options.ray_address)
    threads = None
    if engine.remote:
        models = [_alone(model, engine, notes) for model in models]
        recordings = None if recordings is None else _at_full_paths(recordings)
        threads = torch.get_num_threads()
    task = partial(_scored, recordings, folder.resolve() if engine.remote else folder, threads)
    on_gpu = bool(models) and models[0].options.device not in ("auto", "cpu")
    with progress_bar(f"Scoring {len(models)} models", len(models)) as advance:
        outcomes = iter(engine.map(task, models, on_gpu))
        for number, model in enumerate(models, start=1):
            notes.say(f"scoring {model.name}, {number} of {len(models)}")
            found = next(outcomes)
            if isinstance(found, str):
                failed[model.name] = found
                notes.say(f"{model.name} is not scored: {found}")
            else:
                results[model.name] = found
            advance(1)
    return ScoredModels(results, failed)


def _at_full_paths(recordings: Recordings) -> Recordings:
    return replace(
        recordings, stimulus_paths=tuple(path.resolve() for path in recordings.stimulus_paths)
    )


def _scored(
    recordings: Recordings | None, folder: Path, threads: int | None, model: StudiedModel
) -> FinishedRun | str:
    """The run of a model, or why it is not scored.

    Args:
        threads: of PyTorch and BLAS, in another process; None in this one.
    """
    try:
        with nullcontext() if threads is None else same_threads(threads), model.file() as path:
            shown = model.recordings or recordings
            return score_with(path, shown, folder / model.name, model.options)
    except NrpOnnxError as error:
        return str(error)
    except OSError:
        raise
    except Exception as error:  # whatever a framework raises must not lose the other models
        return f"{type(error).__name__}: {error}"


def _alone(model: StudiedModel, engine: Engine, notes: Notes) -> StudiedModel:
    """A model as one task: what is in it runs in the task's own process."""
    device = model.options.device
    if device == "auto":
        device = "cuda" if engine.has_gpus else "cpu"
        notes.say(f"--device auto: running on {device}")
    options = replace(model.options, engine="local", ray_address=None, device=device)
    own = None if model.recordings is None else _at_full_paths(model.recordings)
    return replace(model, options=options, recordings=own)
