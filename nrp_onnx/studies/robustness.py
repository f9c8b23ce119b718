"""The study of robustness: do networks that noise moves less predict neurons better?

The paper leaves that open: pruned networks, which it found to predict better, are said to be more robust.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nrp_onnx.errors import NrpOnnxError, OptionError
from nrp_onnx.files import write_json
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.figures import save_study_figure
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import rank_correlation
from nrp_onnx.studies.gradients import gradient_of_backbone
from nrp_onnx.studies.robustness_report import robustness_figure
from nrp_onnx.studies.scored_models import (
    ScoredModels,
    given_models,
    record_of,
    score_models,
    study_facts,
    write_csv,
)
from nrp_onnx.studies.sensitivity import measured_sensitivity


def study_robustness(
    files: Sequence[Path],
    recordings: Recordings,
    out: Path,
    levels: Sequence[float],
    n_images: int,
    options: ScoreOptions,
    fgsm: Sequence[float] = (),
    sources: Mapping[str, nn.Module] | None = None,
) -> dict[str, Any]:
    """Score models with one protocol, and measure how sensitive each is to changes of images.

    Runs are in ``out/runs``, sensitivities in ``out/sensitivity``; finished ones are taken as they are.

    Args:
        levels: deviations of the noise, in grey levels of 255.
        n_images: how many of the stimuli the noise is added to, drawn from the seed; all of them
            where there are fewer.
        fgsm: levels of FGSM (see `nrp_onnx.studies.gradients`), in grey levels of 255.
        sources: for FGSM, the PyTorch networks that files were made from, by the files' names without
            ``.onnx``; others are made anew from what their files say, where that is enough.

    Returns:
        The content of robustness.json: a record a model, with ``sensitivity``, its mean over layers
        at each level; and ``rank_correlation`` with the NRP-error at each level. With FGSM, records
        have it as ``fgsm``, of None without gradients, and ``fgsm`` has its levels and correlations.

    Raises:
        OptionError: for a level below 0 or one that comes twice, or two models of one name.
        ModelError: at the end, if a model was not scored or measured.
    """
    _check_levels(levels, "--levels", least=0)
    # Less than half a grey level is rounded away.
    _check_levels(fgsm, "--fgsm", least=0.5)
    scored = score_models(given_models(files, options), recordings, out / "runs")
    failed, notes = dict(scored.failed), Notes()
    results: dict[str, FinishedRun] = {}
    records: list[dict[str, Any]] = []
    by_name = {path.stem: path for path in files}
    for name, run in scored.results.items():
        kept = out / "sensitivity" / f"{name}.json"
        try:
            found = measured_sensitivity(
                by_name[name], run, recordings, levels, n_images, options, kept
            )
        except NrpOnnxError as error:
            failed[name] = str(error)
            continue
        results[name] = run
        record = record_of(name, run, options.seed)
        record |= {"sensitivity": _by_level(levels, found["levels"]), "without": found["without"]}
        if fgsm:
            own = partial(gradient_of_backbone, module=(sources or {}).get(name))
            kept = out / "sensitivity" / f"{name}-fgsm.json"
            nothing: dict[str, Any] = {"value": None, "ci95": [None, None], "layers": {}}
            along: list[dict[str, Any]] = [nothing] * len(fgsm)
            try:
                along = measured_sensitivity(
                    by_name[name], run, recordings, fgsm, n_images, options, kept, own
                )["levels"]
            except NrpOnnxError as error:
                notes.say(f"no FGSM of {name}: {error}")
            record["fgsm"] = _by_level(fgsm, along)
        records.append(record)
    if not results:
        ScoredModels(results, failed).check(out)
    study = {
        **study_facts("robustness", results),
        "levels": list(levels),
        "n_images": min(n_images, min(of.result.recordings.n_stimuli for of in results.values())),
        "seed": options.seed,
        "models": records,
        "rank_correlation": _correlations(records, "sensitivity"),
        "failed": failed,
    }
    if fgsm:
        correlations = _correlations(records, "fgsm")
        study["fgsm"] = {"levels": list(fgsm), "rank_correlation": correlations}
    write_json(out / "robustness.json", study)
    write_csv(out / "robustness.csv", records)
    save_study_figure(robustness_figure(study), out)
    ScoredModels(results, failed).check(out)
    return study


def _by_level(
    levels: Sequence[float], found: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {f"{level:g}": of for level, of in zip(levels, found, strict=True)}


def _correlations(records: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """At each level, of the NRP-error and what was measured, over the models that have it."""
    return {
        level: rank_correlation(
            [
                (of["nrp_error"], of[kind][level]["value"])
                for of in records
                if of[kind][level]["value"] is not None
            ]
        )
        for level in records[0][kind]
    }


def _check_levels(levels: Sequence[float], where: str, least: float) -> None:
    if len(set(levels)) < len(levels) or not all(of >= least and np.isfinite(of) for of in levels):
        raise OptionError(
            "these are no levels",
            where=where,
            expected=f"different numbers from {least:g} up with commas",
            found=", ".join(f"{level:g}" for level in levels),
        )
