"""Sizes of NRP-L1 and NRP-L2 against error (Figure 3A of the paper): the study and its figure."""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from scipy import stats

from nrp_onnx.errors import RunError
from nrp_onnx.files import write_json
from nrp_onnx.report.figures import save_study_figure, study_panels
from nrp_onnx.report.style import DENSITY, INK, MUTED, NamedFigure
from nrp_onnx.scoring.run import read_run
from nrp_onnx.scoring.run_folder import TRIALS_FILE
from nrp_onnx.studies.scored_models import write_csv

_COLOURS = DENSITY.reversed()  # the least error stands out
_INCHES_A_CELL = 1.05


def sizes_figure(study: Mapping[str, Any]) -> NamedFigure:
    """Args: study: the content of sizes.json."""
    sizes = study["sizes"]
    counts = sorted({size["n_layers"] for size in sizes})
    widths, heights = (sorted({size[key] for size in sizes}) for key in ("l1", "l2"))
    errors = [size["validation_mae"] for size in sizes]
    scale = Normalize(min(errors), max(errors) if max(errors) > min(errors) else min(errors) + 1e-6)
    width = 1.6 + len(counts) * max(1.5, _INCHES_A_CELL * len(widths))
    height = 1.5 + max(1.2, 0.62 * len(heights))
    with study_panels(
        1, len(counts), height, max(width, 4.4), simulated=study["recordings"]["simulated"],
        sharey=True,
    ) as axes:  # fmt: skip
        for column, count in enumerate(counts):
            of_count = [size for size in sizes if size["n_layers"] == count]
            image = _panel(axes[0, column], of_count, widths, heights, scale)
            axes[0, column].set_title(f"{count} layer{'s' if count > 1 else ''}")
            axes[0, column].set_xlabel("units of NRP-L1, each layer")
        axes[0, 0].set_ylabel("units of NRP-L2")
        bar = axes[0, 0].figure.colorbar(image, ax=axes[0, :].tolist(), pad=0.02)
        bar.set_label("validation error\n(MAE / s.d. of rates)")
    return NamedFigure(
        "figure_3a",
        "Validation error of heads of each size: the least in each fold, mean over folds, with half "
        "the width of its 95 % interval. The least of all is framed.",
        axes[0, 0].figure,
    )


def _panel(
    axes: Axes,
    sizes: list[dict[str, Any]],
    widths: list[int],
    heights: list[int],
    scale: Normalize,
) -> Any:
    grid = np.full((len(heights), len(widths)), np.nan)
    for size in sizes:
        grid[heights.index(size["l2"]), widths.index(size["l1"])] = size["validation_mae"]
    image = axes.imshow(grid, cmap=_COLOURS, norm=scale, origin="lower", aspect="auto")
    for size in sizes:
        x, y = widths.index(size["l1"]), heights.index(size["l2"])
        text = f"{size['validation_mae']:.3f}"
        if size["ci95"]:
            text += f"\n± {(size['ci95'][1] - size['ci95'][0]) / 2:.3f}"
        axes.text(x, y, text, ha="center", va="center", fontsize="small", color=INK, zorder=11)
        if size["validation_mae"] == scale.vmin:
            axes.add_patch(_frame(x, y))
    for y, x in np.argwhere(np.isnan(grid)):
        axes.text(x, y, "not tried", ha="center", va="center", fontsize="small", color=MUTED)
    axes.set_xticks(range(len(widths)), [str(width) for width in widths])
    axes.set_yticks(range(len(heights)), [str(height) for height in heights])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return image


def _frame(x: int, y: int) -> Rectangle:
    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.8, zorder=12)


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
        "model": result.model.file,
        "recordings": {
            "name": result.recordings.name,
            "simulated": result.recordings.simulated,
            "fingerprint": result.recordings.fingerprint,
        },
        "search": result.search.preset,
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
