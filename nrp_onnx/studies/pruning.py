"""The study of pruning, Figure 3B of the paper: NRP-error over the share of weights that are zero."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nrp_onnx.backbone.pruning import measured_sparsity, prune_model
from nrp_onnx.errors import OptionError
from nrp_onnx.files import write_json
from nrp_onnx.main_job import ScoreOptions
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.pruning_figure import pruning_figure
from nrp_onnx.report.study_figures import save_study_figure
from nrp_onnx.scoring.comparison import paired_difference
from nrp_onnx.studies.records import record_of, study_facts, write_csv
from nrp_onnx.studies.scored_models import StudiedModel, given_models, score_models

UNPRUNED = "unpruned"


def study_pruning(
    model: Path,
    recordings: Recordings,
    out: Path,
    sparsities: Sequence[float],
    options: ScoreOptions,
    scope: str = "global",
    fine_tuned: Sequence[Path] = (),
) -> dict[str, Any]:
    """Score a model as it is, with its least weights zero, and with random weights zero.

    The recordings, the layers and the protocol are the same for all. Runs are in ``out/runs``; finished
    ones are taken as they are. Activations are in ``out/activations``, those of the last model: a
    layer that the next one computes in the same way is not computed again.

    Args:
        sparsities: shares of the weights from 0 to 1; 0 is always scored.
        fine_tuned: further models, such as ones that were trained after pruning; their sparsity is
            counted in their weights.

    Returns:
        The content of pruning.json: a record a model, with ``kind``, ``sparsity`` as measured, and
        ``from_unpruned``, the paired difference.

    Raises:
        OptionError: for a sparsity that is no share, or two models of one name.
        ModelError: at the end, if a model was not scored.
    """
    options = replace(options, activations=out / "activations")
    kinds = {UNPRUNED: ("unpruned", measured_sparsity(model))}
    models = [*given_models([model], options)]
    models[0] = replace(models[0], name=UNPRUNED)
    for given in given_models(fine_tuned, options):
        given = replace(given, name=f"fine-tuned-{given.name}")
        with given.file() as path:
            kinds[given.name] = ("fine-tuned", measured_sparsity(path))
        models.append(given)
    for share in _shares(sparsities):
        for kind, seed in (("magnitude", None), ("random", options.seed)):
            name = f"{kind}-{share:g}"
            prune = partial(_pruned, model.resolve(), name, share, scope, seed)
            models.append(StudiedModel(name, prune, options))
            kinds[name] = (kind, share)

    scored = score_models(models, recordings, out / "runs")
    if UNPRUNED not in scored.results:
        scored.check(out)
    records = []
    for name, result in scored.results.items():
        kind, share = kinds[name]
        if kind in ("magnitude", "random"):  # as counted when it was pruned
            share = result["model"]["source"]["pruning"]["sparsity"]
        record = {"kind": kind, "sparsity": share, **record_of(name, result, options.seed)}
        if name != UNPRUNED:
            folders = Path(result["folder"]), Path(scored.results[UNPRUNED]["folder"])
            record["from_unpruned"] = _from(paired_difference(*folders, options.seed))
        records.append(record)
    study = {
        **study_facts("pruning", scored.results),
        "model": model.name,
        "scope": scope,
        "models": records,
        "failed": scored.failed,
    }
    write_json(out / "pruning.json", study)
    write_csv(out / "pruning.csv", records)
    save_study_figure(pruning_figure(study), out)
    scored.check(out)
    return study


def _from(pair: Mapping[str, Any]) -> dict[str, Any]:
    """A paired difference without the names of its runs."""
    return {key: pair[key] for key in ("difference", "ci95", "wins", "n_sites", "regions")}


def _shares(sparsities: Sequence[float]) -> list[float]:
    for share in sparsities:
        if not 0 <= share <= 1:
            raise OptionError(
                "this is no share of the weights",
                where="--sparsity",
                expected="numbers from 0 to 1 with commas",
                found=share,
            )
    return sorted({share for share in sparsities if share > 0})


@contextmanager
def _pruned(model: Path, name: str, share: float, scope: str, seed: int | None) -> Iterator[Path]:
    """The pruned model, while it is scored: it can always be made again, and the run holds it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        prune_model(model, path, share, scope, seed)
        yield path
