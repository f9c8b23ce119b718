"""Tables, figures and pages made from the results of runs."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.report.page import write_report
    from nrp_onnx.report.terminal import print_table, score_table

__all__ = ["print_table", "score_table", "write_report"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"page": ["write_report"], "terminal": ["print_table", "score_table"]},
)
