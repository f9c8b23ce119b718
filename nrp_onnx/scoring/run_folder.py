"""The output folder of a run, and the predictions in it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.bootstrap import LEVELS
from nrp_onnx.errors import OutputError
from nrp_onnx.files import LOCK, locked_folder, whole_file, write_json
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.result import Result
from nrp_onnx.scoring.splits import Fold

RUN_FILE, RESULT_FILE = "run.json", "result.json"
PREDICTIONS_FILE, SITES_FILE, TRIALS_FILE = "predictions.parquet", "sites.csv", "trials.parquet"
#: Heads of the search on all images.
TRIALS_ALL_FILE = "trials_all.parquet"
FINISHED = (
    *(RESULT_FILE, "head.onnx", "predictor.onnx", "scorer.onnx"),
    *(PREDICTIONS_FILE, SITES_FILE),
)
SITES_KEY, REGIONS_KEY, LEVELS_KEY = "nrp_onnx.sites", "nrp_onnx.regions", "nrp_onnx.levels"
#: The fold of an image that is never held out; and of one that a fixed split holds out as of another
#: distribution, and that is scored apart.
NEVER_HELD_OUT, OUT_OF_DISTRIBUTION = -1, -2
#: The column of what errors are divided by.
SCALE = "scale"
#: What a report is, and what it shows of the stimuli.
REPORT_FILE, THUMBNAILS_FILE = "report.html", "report_images.parquet"


@contextmanager
def only_one_run(folder: Path) -> Iterator[None]:
    """Keep other processes from scoring into the folder while the block runs.

    Raises:
        OutputError: if one does, or the folder is a file or holds something else than a run.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError("this is no folder", where=folder, fix="Choose another one with -o.")
    # Before the lock, which would be a file of ours among those of somebody else.
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {LOCK} and RUN_FILE not in names:
        raise OutputError(
            "the folder holds something else than a run",
            where=folder,
            expected="a new or empty folder, or one of this command",
            fix="Choose another one with -o.",
        )
    with locked_folder(folder, "another process is scoring into this folder"):
        yield


def take_folder(folder: Path, settings: dict[str, Any], overwrite: bool) -> Result | None:
    """Take a folder for a run; the result if it holds this very run, finished.

    Args:
        settings: all that decides the result, as JSON.
        overwrite: take the place of another run; activations that still fit are kept.

    Raises:
        OutputError: if the folder holds another run, or a damaged result of this one.
    """
    run_path = folder / RUN_FILE
    if run_path.is_file():
        try:
            held = json.loads(run_path.read_text(encoding="utf-8"))
        except ValueError:
            held = {}
        if held == settings and not overwrite:
            if all((folder / name).is_file() for name in FINISHED):
                return _finished_result(folder / RESULT_FILE)
        elif not overwrite:
            differ = [key for key in settings if held.get(key) != settings[key]]
            raise OutputError(
                "the folder holds another run",
                where=folder,
                expected=", ".join(f"{key} {_short(settings[key])}" for key in differ),
                found=", ".join(f"{key} {_short(held.get(key))}" for key in differ),
                fix="Choose another folder with -o, or pass --overwrite.",
            )
    # Nothing may look finished until it is.
    for name in (*FINISHED, REPORT_FILE, THUMBNAILS_FILE):
        (folder / name).unlink(missing_ok=True)
    write_json(run_path, settings)
    return None


def _finished_result(path: Path) -> Result:
    try:
        return Result.from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise OutputError(
            "the result of this very run is damaged",
            where=path,
            expected="what a score writes",
            found=error,
            fix="Compute it again with --overwrite.",
        ) from None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."


def seed_column(headline: str, place: int) -> str:
    """The column of the headline's predictions by a further seed; ``place`` 0 is the headline itself."""
    return f"{headline}.seed{place}" if place else headline


def write_predictions(
    path: Path,
    recordings: Recordings,
    folds: Sequence[Fold],
    predictions: dict[str, np.ndarray],
    scales: np.ndarray,
    headline: str = "",
    by_seed: Sequence[np.ndarray] = (),
) -> None:
    """Write stimulus_id, fold, the recorded averages and each predictor's rates, in recorded units.

    The column ``scale`` is what errors of an image are divided by to be in units of the score. The fold of
    an image that is never held out is `NEVER_HELD_OUT`, and its rates are missing; a fixed split has
    rows for its held-out images alone. The metadata name sites and regions, and the animal and session
    of each site where they are known.

    Args:
        recordings, folds: of the held-out images alone, where a fixed split holds them out.
        headline: the predictor that ``by_seed`` are predictions of.
        by_seed: of each seed; those after the first, which is ``headline`` itself, have columns of
            their own.
    """
    further = {seed_column(headline, place): rates for place, rates in enumerate(by_seed) if place}
    fold_of = np.full(recordings.n_stimuli, NEVER_HELD_OUT, np.int32)
    for number, fold in enumerate(folds):
        fold_of[fold.test] = number
        fold_of[fold.ood] = OUT_OF_DISTRIBUTION
    columns = {"stimulus_id": pa.array(recordings.stimulus_ids, pa.string()), "fold": fold_of}
    every = {"recorded": recordings.averages, SCALE: scales, **predictions, **further}
    for name, rates in every.items():
        flat = pa.array(np.ascontiguousarray(rates, np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, recordings.n_sites)
    sites = {
        SITES_KEY: list(recordings.site_ids),
        REGIONS_KEY: list(recordings.regions),
        LEVELS_KEY: {
            name: list(recordings.site_labels[name])
            for name in LEVELS
            if name in recordings.site_labels
        },
    }
    table = pa.table(columns).replace_schema_metadata(
        {key: json.dumps(value) for key, value in sites.items()}
    )
    with whole_file(path) as part:
        pq.write_table(table, part, use_dictionary=False)
