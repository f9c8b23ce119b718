"""The report: one page that needs no other file, and its figures as files for print."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from nrp_onnx.files import whole_file
from nrp_onnx.report.comparison_figure import comparison_figures, differences_of_protocol
from nrp_onnx.report.page_tables import comparison_table
from nrp_onnx.report.run_section import drawings, run_section
from nrp_onnx.report.run_words import is_simulated, model_name
from nrp_onnx.report.style import save_figure
from nrp_onnx.scoring.finished_run import FinishedRun, read_run


def write_report(folders: Sequence[Path], out: Path, figures: Path | None = None) -> None:
    """Write the report of one run, or of several with their comparison.

    Args:
        folders: of finished runs.
        out: the HTML file.
        figures: a folder that takes every figure as PDF and PNG as well.

    Raises:
        RunError: if a folder holds no finished run, or not all of it.
        OSError: if a file cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    together = comparison_figures(runs) if len(runs) > 1 else []
    sections = [run_section(run, f"run-{place}") for place, run in enumerate(runs)]
    comparison = None
    if len(runs) > 1:
        comparison = {
            "table": comparison_table(runs),
            "figures": drawings(together, "runs"),
            "differ": differences_of_protocol(runs),
        }
    environment = Environment(
        loader=PackageLoader("nrp_onnx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        title=_title(runs),
        simulated=any(map(is_simulated, runs)),
        comparison=comparison,
        runs=[section for section, _ in sections],
        version=version("nrp-onnx"),
    )
    with whole_file(out) as part:
        part.write_text(page, encoding="utf-8")
    if figures is None:
        return
    for figure in together:
        save_figure(figure, figures, "runs")
    for place, (run, (_, of_run)) in enumerate(zip(runs, sections, strict=True)):
        prefix = model_name(run) if len(runs) == 1 else f"{place + 1}-{model_name(run)}"
        for figure in of_run:
            save_figure(figure, figures, prefix)


def _title(runs: list[FinishedRun]) -> str:
    if len(runs) == 1:
        return f"{model_name(runs[0])} on {runs[0].result['recordings']['name']}"
    return f"NRP-errors of {len(runs)} runs"
