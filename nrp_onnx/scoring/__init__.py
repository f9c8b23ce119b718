"""Scores: splits, fits of each fold, numbers with intervals, and the folder of a run."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.scoring.comparison import Comparison, compare_runs
    from nrp_onnx.scoring.options import ExtractOptions, ScoreOptions
    from nrp_onnx.scoring.pipeline import run_score
    from nrp_onnx.scoring.result import PredictorScore, RegionScore, Result
    from nrp_onnx.scoring.run import FinishedRun, open_finished_run
    from nrp_onnx.scoring.splits import Fold, held_out_split, outer_folds
    from nrp_onnx.scoring.steps import Inputs

__all__ = [
    "Comparison",
    "ExtractOptions",
    "FinishedRun",
    "Fold",
    "Inputs",
    "PredictorScore",
    "RegionScore",
    "Result",
    "ScoreOptions",
    "compare_runs",
    "held_out_split",
    "open_finished_run",
    "outer_folds",
    "run_score",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["Comparison", "compare_runs"],
        "options": ["ExtractOptions", "ScoreOptions"],
        "pipeline": ["run_score"],
        "result": ["PredictorScore", "RegionScore", "Result"],
        "run": ["FinishedRun", "open_finished_run"],
        "splits": ["Fold", "held_out_split", "outer_folds"],
        "steps": ["Inputs"],
    },
)
