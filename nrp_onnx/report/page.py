"""The report: one page that needs no other file, and its figures as files for print."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nrp_onnx.files import whole_file
from nrp_onnx.report.comparison import comparison_figures, differences_of_protocol
from nrp_onnx.report.page_tables import (
    chosen_heads_table,
    comparison_table,
    layers_table,
    model_facts,
    ood_table,
    predictors_table,
    protocol_facts,
    provenance_facts,
    recordings_facts,
    regions_table,
)
from nrp_onnx.report.run_figures import (
    density_figure,
    difference_figure,
    error_figure,
    site_figure,
    sites_figure,
)
from nrp_onnx.report.search_figures import (
    layers_figure,
    loss_figure,
    read_trials,
    search_figure,
    training_figure,
)
from nrp_onnx.report.site_figures import (
    fields_figure,
    missing_site_figures,
    reliability_figure,
)
from nrp_onnx.report.sites import (
    ShownSite,
    all_shown_sites,
    read_shown_images,
    site_correlations,
    site_errors,
)
from nrp_onnx.report.style import NamedFigure, inline_svg, save_figure
from nrp_onnx.report.words import (
    error_units,
    is_simulated,
    model_name,
    overall_sentence,
    predictor_name,
    region_sentences,
)
from nrp_onnx.scoring.run import FinishedRun, read_run
from nrp_onnx.scoring.run_folder import SITES_FILE


@dataclass(frozen=True)
class Drawing:
    """A figure as the page has it."""

    svg: str
    caption: str


def drawings(figures: Sequence[NamedFigure], prefix: str) -> list[Drawing]:
    """Figures for a page; with ``prefix`` their names are unlike those of all others on it."""
    return [Drawing(inline_svg(figure, prefix), figure.caption) for figure in figures]


def run_section(run: FinishedRun, prefix: str) -> tuple[dict[str, Any], list[NamedFigure]]:
    """What the template needs of a run, and all figures that are in it."""
    regions, trials = run.region_names, read_trials(run.folder)
    of_score = [error_figure(run, region) for region in regions]
    of_score += _there(difference_figure(run, region) for region in regions)
    of_sites = [density_figure(run, region) for region in regions]
    of_sites += _there(sites_figure(run, region) for region in regions)
    of_sites += _there(fields_figure(run, region) for region in regions)
    of_sites += _there(reliability_figure(run, region) for region in regions)
    of_search = _there(
        draw(run, trials) for draw in (training_figure, loss_figure, search_figure, layers_figure)
    )
    shown = all_shown_sites(run)
    of_shown = [site_figure(run, site.place) for site in shown]
    images = read_shown_images(run.folder)
    correlations = site_correlations(run, run.headline)
    errors, mean_errors = site_errors(run, run.headline), site_errors(run, "mean")
    reliability = _reliability(run)
    cards: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for site, drawing in zip(shown, drawings(of_shown, prefix), strict=True):
        cards[run.site_regions[site.place]].append(
            {
                "name": run.site_ids[site.place],
                "rank": site.rank,
                "n_sites": site.n_sites,
                "r": f"{correlations[site.place]:.2f}",
                "reliability": reliability.get(run.site_ids[site.place]),
                "error": f"{errors[site.place]:.3f}",
                "mean_error": f"{mean_errors[site.place]:.3f}",
                "drawing": drawing,
                "driving": _pictures(run, site, site.driving, images),
                "surprising": _pictures(run, site, site.surprising, images),
            }
        )
    section = {
        "id": prefix,
        "name": model_name(run),
        "folder": run.folder.name,
        "recordings": run.result.recordings.name,
        "simulated": is_simulated(run),
        "units": error_units(run),
        "recorded_units": run.result.recordings.units,
        "overall": overall_sentence(run),
        "headline": predictor_name(run.headline),
        "interval": run.result.protocol.interval,
        "sentences": [region_sentences(run, region) for region in regions],
        "scores": [
            (region, found.nrp_error.value, *found.nrp_error.ci95)
            for region, found in run.regions.items()
        ],
        "table": predictors_table(run),
        "ood_table": ood_table(run),
        "regions_table": regions_table(run),
        "score_figures": drawings(of_score, prefix),
        "site_figures": drawings(of_sites, prefix),
        "missing_site_figures": missing_site_figures(run),
        "cards": cards,
        "search_figures": drawings(of_search, prefix),
        "heads": chosen_heads_table(run),
        "protocol": protocol_facts(run),
        "recordings_facts": recordings_facts(run),
        "model": model_facts(run),
        "layers": layers_table(run),
        "provenance": provenance_facts(run),
        "notes": run.result.notes,
    }
    return section, [*of_score, *of_sites, *of_shown, *of_search]


def _pictures(
    run: FinishedRun, site: ShownSite, places: list[int], images: dict[str, str]
) -> list[dict[str, str]]:
    """Images with the rates of a site; without a source where the run has no copy of one."""
    return [
        {
            "name": run.stimulus_ids[place],
            "source": images.get(run.stimulus_ids[place], ""),
            "measured": f"{run.recorded[place, site.place]:.2f}",
            "predicted": f"{run.predictions[run.headline][place, site.place]:.2f}",
        }
        for place in places
    ]


def _reliability(run: FinishedRun) -> dict[str, str]:
    """The reliability of each site that has one."""
    path = run.folder / SITES_FILE
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["reliability"]]
    return {row["site_id"]: f"{float(row['reliability']):.2f}" for row in rows}


def _there(figures: Iterable[NamedFigure | None]) -> list[NamedFigure]:
    return [figure for figure in figures if figure is not None]


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
    write_page(
        out,
        "page.html.jinja",
        title=_title(runs),
        simulated=any(map(is_simulated, runs)),
        comparison=comparison,
        runs=[section for section, _ in sections],
    )
    if figures is None:
        return
    for figure in together:
        save_figure(figure, figures, "runs")
    for place, (run, (_, of_run)) in enumerate(zip(runs, sections, strict=True)):
        prefix = model_name(run) if len(runs) == 1 else f"{place + 1}-{model_name(run)}"
        for figure in of_run:
            save_figure(figure, figures, prefix)


def write_page(out: Path, template: str, **content: Any) -> None:
    """Write a page from a template of this package, and what is in it."""
    environment = Environment(
        loader=PackageLoader("nrp_onnx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(version=version("nrp-onnx"), **content)
    with whole_file(out) as part:
        part.write_text(page, encoding="utf-8")


def _title(runs: list[FinishedRun]) -> str:
    if len(runs) == 1:
        return f"{model_name(runs[0])} on {runs[0].result.recordings.name}"
    return f"NRP-errors of {len(runs)} runs"
