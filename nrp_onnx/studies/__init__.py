"""Studies: experiments over many scores, each with its figure and table."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.studies.arena import study_arena
    from nrp_onnx.studies.demo import run_demo
    from nrp_onnx.studies.layers import study_layers
    from nrp_onnx.studies.pruning import study_pruning
    from nrp_onnx.studies.recovery import RecoveryOptions, study_recovery
    from nrp_onnx.studies.robustness import study_robustness
    from nrp_onnx.studies.sizes import study_sizes
    from nrp_onnx.studies.table1 import study_table1

__all__ = [
    "RecoveryOptions",
    "run_demo",
    "study_arena",
    "study_layers",
    "study_pruning",
    "study_recovery",
    "study_robustness",
    "study_sizes",
    "study_table1",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arena": ["study_arena"],
        "demo": ["run_demo"],
        "layers": ["study_layers"],
        "pruning": ["study_pruning"],
        "recovery": ["RecoveryOptions", "study_recovery"],
        "robustness": ["study_robustness"],
        "sizes": ["study_sizes"],
        "table1": ["study_table1"],
    },
)
