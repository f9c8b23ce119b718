"""The report: one page that needs no other file, and its figures as files for print."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.comparison_figure import comparison_figures, differences_of_protocol
from nrp_onnx.report.page_tables import (
    chosen_heads_table,
    comparison_table,
    layers_table,
    predictors_table,
)
from nrp_onnx.report.run_facts import (
    model_facts,
    protocol_facts,
    provenance_facts,
    recordings_facts,
)
from nrp_onnx.report.score_figures import difference_figure, error_figure
from nrp_onnx.report.scored_run import Responses, ScoredRun, read_run
from nrp_onnx.report.search_figures import (
    layers_figure,
    loss_figure,
    search_figure,
    training_figure,
)
from nrp_onnx.report.site_figures import density_figure, site_figure, sites_figure
from nrp_onnx.report.site_scores import ShownSite, shown_sites, site_correlations, site_errors
from nrp_onnx.report.style import NamedFigure, inline_svg, save_figure
from nrp_onnx.report.thumbnails import read_thumbnails, write_thumbnails
from nrp_onnx.report.wording import overall_sentence, region_sentences

REPORT_FILE = "report.html"
#: Best and worst sites of a region that are shown with their images; fewer where regions are many.
_SITES_EACH, _FEW_REGIONS = 3, 3


def write_report(
    folders: Sequence[Path], out: Path, figures: Path | None = None
) -> None:
    """Write the report of one run, or of several with their comparison.

    Args:
        folders: of finished runs.
        out: the HTML file.
        figures: a folder that takes every figure as PDF and PNG as well.

    Raises:
        OptionError: if a folder holds no finished run.
        OSError: if a file cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    drawn: list[tuple[str, NamedFigure]] = []
    together = comparison_figures(runs) if len(runs) > 1 else []
    drawn += [("runs", figure) for figure in together]
    sections = []
    for place, run in enumerate(runs):
        section, of_run = _section(run, f"run-{place}")
        sections.append(section)
        drawn += [(_file_prefix(run, place, len(runs)), figure) for figure in of_run]
    page = _environment().get_template("page.html.jinja").render(
        title=_title(runs),
        simulated=any(run.simulated for run in runs),
        comparison=None if len(runs) == 1 else {
            "table": comparison_table(runs),
            "figures": [_drawing(figure, "runs") for figure in together],
            "differ": differences_of_protocol(runs),
            "n_simulated": sum(run.simulated for run in runs),
        },
        runs=sections,
        version=version("nrp-onnx"),
    )  # fmt: skip
    with whole_file(out) as part:
        part.write_text(page, encoding="utf-8")
    if figures is not None:
        for prefix, figure in drawn:
            save_figure(figure, figures, prefix)


def keep_shown_images(folder: Path, recordings: Recordings) -> None:
    """Keep small copies of the images that the report of a finished run shows, beside it."""
    run = read_run(folder)
    responses = run.responses
    if responses is None:
        return
    shown = {
        responses.stimulus_ids[image]
        for site in _all_shown_sites(run, responses)
        for image in (*site.driving, *site.surprising)
    }
    paths = dict(zip(recordings.stimulus_ids, recordings.stimulus_paths, strict=True))
    write_thumbnails(folder, shown, paths)


@dataclass(frozen=True)
class _Drawing:
    """A figure as the page has it."""

    svg: Markup
    caption: str


def _section(run: ScoredRun, prefix: str) -> tuple[dict[str, Any], list[NamedFigure]]:
    """What the template needs of a run, and the figures in it."""
    regions = list(run.result["regions"])
    responses = run.responses
    of_score = [error_figure(run, region) for region in regions]
    of_score += [difference_figure(run, region) for region in regions]
    of_sites: list[NamedFigure | None] = []
    cards: dict[str, list[dict[str, Any]]] = defaultdict(list)
    of_cards = []
    if responses is not None:
        of_sites += [density_figure(run, responses, region) for region in regions]
        of_sites += [sites_figure(run, responses, region) for region in regions]
        thumbnails = read_thumbnails(run.folder)
        for site in _all_shown_sites(run, responses):
            figure = site_figure(run, responses, site.place)
            of_cards.append(figure)
            region = responses.regions[site.place]
            cards[region].append(_card(run, responses, site, thumbnails, _drawing(figure, prefix)))
    of_search = [training_figure(run), loss_figure(run), search_figure(run), layers_figure(run)]
    figures = [f for f in (*of_score, *of_sites, *of_cards, *of_search) if f is not None]
    section = {
        "id": prefix,
        "name": run.model_name,
        "recordings": run.result["recordings"]["name"],
        "simulated": run.simulated,
        "overall": overall_sentence(run),
        "sentences": [region_sentences(run, region) for region in regions],
        "scores": [
            (region, found["nrp_error"]["value"], *found["nrp_error"]["ci95"])
            for region, found in run.result["regions"].items()
        ],
        "recorded_units": run.result["recordings"]["units"],
        "table": predictors_table(run),
        "score_figures": _drawings(of_score, prefix),
        "site_figures": _drawings(of_sites, prefix),
        "cards": cards,
        "search_figures": _drawings(of_search, prefix),
        "heads": chosen_heads_table(run),
        "protocol": protocol_facts(run),
        "recordings_facts": recordings_facts(run),
        "model": model_facts(run),
        "layers": layers_table(run),
        "provenance": provenance_facts(run),
        "notes": run.result["notes"],
    }
    return section, figures


def _card(
    run: ScoredRun,
    responses: Responses,
    site: ShownSite,
    thumbnails: dict[str, str],
    drawing: _Drawing,
) -> dict[str, Any]:
    """What the template needs of a site."""
    place = site.place

    def pictures(images: list[int]) -> list[dict[str, str]]:
        return [
            {
                "name": responses.stimulus_ids[image],
                "source": thumbnails.get(responses.stimulus_ids[image], ""),
                "measured": f"{responses.recorded[image, place]:.2f}",
                "predicted": f"{responses.predicted['nrp'][image, place]:.2f}",
            }
            for image in images
        ]

    return {
        "name": responses.site_ids[place],
        "rank": site.rank,
        "n_sites": site.n_sites,
        "r": f"{site_correlations(responses, 'nrp')[place]:.2f}",
        "error": f"{site_errors(responses, 'nrp')[place]:.3f}",
        "mean_error": f"{site_errors(responses, 'mean')[place]:.3f}",
        "units": run.units,
        "drawing": drawing,
        "driving": pictures(site.driving),
        "surprising": pictures(site.surprising),
    }


def _all_shown_sites(run: ScoredRun, responses: Responses) -> list[ShownSite]:
    regions = run.result["regions"]
    n_each = _SITES_EACH if len(regions) <= _FEW_REGIONS else 1
    return [site for region in regions for site in shown_sites(responses, region, n_each)]


def _drawing(figure: NamedFigure, prefix: str) -> _Drawing:
    return _Drawing(Markup(inline_svg(figure, prefix)), figure.caption)


def _drawings(figures: Sequence[NamedFigure | None], prefix: str) -> list[_Drawing]:
    return [_drawing(figure, prefix) for figure in figures if figure is not None]


def _title(runs: list[ScoredRun]) -> str:
    if len(runs) == 1:
        return f"{runs[0].model_name} on {runs[0].result['recordings']['name']}"
    return f"NRP-errors of {len(runs)} runs"


def _file_prefix(run: ScoredRun, place: int, n_runs: int) -> str:
    name = run.model_name if n_runs == 1 else f"{place + 1}-{run.model_name}"
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("nrp_onnx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
