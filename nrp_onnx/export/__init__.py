"""What a score leaves to be used elsewhere: head, predictor and scorer as ONNX."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.export.card import Card, read_card
    from nrp_onnx.export.exported_fold import check_exported_head, export_fold
    from nrp_onnx.export.folded_head import FoldedHead, fold_head
    from nrp_onnx.export.predict import Predictor, load_predictor
    from nrp_onnx.export.scorer import ScorerResult, score_with

__all__ = [
    "Card",
    "FoldedHead",
    "Predictor",
    "ScorerResult",
    "check_exported_head",
    "export_fold",
    "fold_head",
    "load_predictor",
    "read_card",
    "score_with",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "card": ["Card", "read_card"],
        "exported_fold": ["check_exported_head", "export_fold"],
        "folded_head": ["FoldedHead", "fold_head"],
        "predict": ["Predictor", "load_predictor"],
        "scorer": ["ScorerResult", "score_with"],
    },
)
