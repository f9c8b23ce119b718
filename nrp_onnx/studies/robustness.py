"""The study of robustness: do networks that noise moves less predict neurons better?

The paper leaves that open: pruned networks, which it found to predict better, are said to be more robust.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import NrpOnnxError, OptionError
from nrp_onnx.files import write_json
from nrp_onnx.main_job import ScoreOptions
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.robustness_figure import robustness_figure
from nrp_onnx.report.study_figures import save_study_figure
from nrp_onnx.studies.rank_correlation import rank_correlation
from nrp_onnx.studies.records import record_of, study_facts, write_csv
from nrp_onnx.studies.scored_models import ScoredModels, given_models, score_models
from nrp_onnx.studies.sensitivity import measured_sensitivity


def study_robustness(
    files: Sequence[Path],
    recordings: Recordings,
    out: Path,
    levels: Sequence[float],
    n_images: int,
    options: ScoreOptions,
) -> dict[str, Any]:
    """Score models with one protocol, and measure how sensitive each is to image noise.

    Runs are in ``out/runs``, sensitivities in ``out/sensitivity``; finished ones are taken as they are.

    Args:
        levels: deviations of the noise, in grey levels of 255.
        n_images: how many of the stimuli the noise is added to, drawn from the seed; all of them
            where there are fewer.

    Returns:
        The content of robustness.json: a record a model, with ``sensitivity``, its mean over layers
        at each level; and ``rank_correlation`` with the NRP-error at each level.

    Raises:
        OptionError: for a level below 0 or one that comes twice, or two models of one name.
        ModelError: at the end, if a model was not scored or measured.
    """
    _check_levels(levels)
    scored = score_models(given_models(files, options), recordings, out / "runs")
    failed, results = dict(scored.failed), {}
    records: list[dict[str, Any]] = []
    by_name = {path.stem: path for path in files}
    for name, result in scored.results.items():
        kept = out / "sensitivity" / f"{name}.json"
        try:
            found = measured_sensitivity(
                by_name[name], result, recordings, levels, n_images, options, kept
            )
        except NrpOnnxError as error:
            failed[name] = str(error)
            continue
        results[name] = result
        of_level = {f"{level:g}": of for level, of in zip(levels, found["levels"], strict=True)}
        record = record_of(name, result, options.seed)
        records.append({**record, "sensitivity": of_level, "without": found["without"]})
    if not results:
        ScoredModels(results, failed).check(out)
    study = {
        **study_facts("robustness", results),
        "levels": list(levels),
        "n_images": min(n_images, min(of["recordings"]["n_stimuli"] for of in results.values())),
        "seed": options.seed,
        "models": records,
        "rank_correlation": {
            f"{level:g}": rank_correlation(
                [(of["nrp_error"], of["sensitivity"][f"{level:g}"]["value"]) for of in records]
            )
            for level in levels
        },
        "failed": failed,
    }
    write_json(out / "robustness.json", study)
    write_csv(out / "robustness.csv", records)
    save_study_figure(robustness_figure(study), out)
    ScoredModels(results, failed).check(out)
    return study


def _check_levels(levels: Sequence[float]) -> None:
    if len(set(levels)) < len(levels) or not all(of >= 0 and np.isfinite(of) for of in levels):
        raise OptionError(
            "these are no levels of noise",
            where="--levels",
            expected="different numbers from 0 up with commas",
            found=", ".join(f"{level:g}" for level in levels),
        )
