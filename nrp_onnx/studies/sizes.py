"""The study of sizes, Figure 3A of the paper: what a search found out about the size of its heads."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from nrp_onnx.errors import RunError
from nrp_onnx.files import write_json
from nrp_onnx.report.sizes_figure import sizes_figure
from nrp_onnx.report.study_figures import save_study_figure
from nrp_onnx.scoring.finished_run import read_run
from nrp_onnx.scoring.run_folder import TRIALS_FILE
from nrp_onnx.studies.records import write_csv


def study_sizes(run: Path, out: Path) -> dict[str, Any]:
    """Validation error over the units of NRP-L1 and NRP-L2 and the number of layers.

    Nothing is trained: a search keeps all its trials. For each size the least error is taken in each
    fold, over all else that the search varied, and then the mean over folds.

    Args:
        run: the output folder of a score.

    Returns:
        The content of sizes.json: in ``sizes`` for each size ``validation_mae``, ``ci95`` (of the
        mean over folds, by Student's t; None for one fold), ``n_trials`` and ``n_folds``.

    Raises:
        RunError: if there is no run, or it has kept no trials.
    """
    result = read_run(run).result
    path = run / TRIALS_FILE
    trials = pq.read_table(path).to_pylist() if path.is_file() else []
    by_size: dict[tuple[int, int, int], dict[int, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for trial in trials:
        if math.isfinite(trial["validation_mae"]):
            size = (len(trial["layers"]), trial["l1"], trial["l2"])
            by_size[size][trial["fold"]].append(trial["validation_mae"])
    if not by_size:
        raise RunError(
            "this run has kept no trials of its search",
            where=run,
            expected=f"{TRIALS_FILE} with a validation error",
            found="none",
            fix="Score again with --overwrite.",
        )
    sizes = []
    for (n_layers, l1, l2), folds in sorted(by_size.items()):
        least = np.array([min(errors) for errors in folds.values()])
        sizes.append(
            {
                "n_layers": n_layers,
                "l1": l1,
                "l2": l2,
                "validation_mae": float(least.mean()),
                "ci95": _interval(least),
                "n_folds": len(least),
                "n_trials": sum(map(len, folds.values())),
            }
        )
    study = {
        "study": "sizes",
        "run": str(run),
        "model": result["model"]["file"],
        "recordings": {
            key: result["recordings"][key] for key in ("name", "simulated", "fingerprint")
        },
        "search": result["search"]["preset"],
        "sizes": sizes,
    }
    write_json(out / "sizes.json", study)
    write_csv(out / "sizes.csv", sizes)
    save_study_figure(sizes_figure(study), out)
    return study


def _interval(values: np.ndarray) -> list[float] | None:
    if len(values) < 2:
        return None
    reach = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return [float(values.mean()) - reach, float(values.mean()) + reach]
