"""What a page shows of one run, as its template takes it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from nrp_onnx.report.page_tables import chosen_heads_table, layers_table, predictors_table
from nrp_onnx.report.run_facts import (
    model_facts,
    protocol_facts,
    provenance_facts,
    recordings_facts,
)
from nrp_onnx.report.run_words import error_units, is_simulated, model_name
from nrp_onnx.report.score_figures import difference_figure, error_figure
from nrp_onnx.report.search_figures import (
    layers_figure,
    loss_figure,
    read_trials,
    search_figure,
    training_figure,
)
from nrp_onnx.report.shown_images import all_shown_sites, read_shown_images
from nrp_onnx.report.site_figures import density_figure, site_figure, sites_figure
from nrp_onnx.report.site_scores import ShownSite, site_correlations, site_errors
from nrp_onnx.report.style import NamedFigure, inline_svg
from nrp_onnx.report.wording import overall_sentence, region_sentences
from nrp_onnx.scoring.finished_run import FinishedRun


@dataclass(frozen=True)
class Drawing:
    """A figure as the page has it."""

    svg: Markup
    caption: str


def drawings(figures: Sequence[NamedFigure], prefix: str) -> list[Drawing]:
    """Figures for a page; with ``prefix`` their names are unlike those of all others on it."""
    return [Drawing(Markup(inline_svg(figure, prefix)), figure.caption) for figure in figures]


def run_section(run: FinishedRun, prefix: str) -> tuple[dict[str, Any], list[NamedFigure]]:
    """What the template needs of a run, and all figures that are in it."""
    regions, trials = run.region_names, read_trials(run.folder)
    of_score = [error_figure(run, region) for region in regions]
    of_score += _there(difference_figure(run, region) for region in regions)
    of_sites = [density_figure(run, region) for region in regions]
    of_sites += _there(sites_figure(run, region) for region in regions)
    of_search = _there(
        draw(run, trials) for draw in (training_figure, loss_figure, search_figure, layers_figure)
    )
    shown = all_shown_sites(run)
    of_shown = [site_figure(run, site.place) for site in shown]
    images = read_shown_images(run.folder)
    correlations = site_correlations(run, "nrp")
    errors, mean_errors = site_errors(run, "nrp"), site_errors(run, "mean")
    cards: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for site, drawing in zip(shown, drawings(of_shown, prefix), strict=True):
        cards[run.regions[site.place]].append(
            {
                "name": run.site_ids[site.place],
                "rank": site.rank,
                "n_sites": site.n_sites,
                "r": f"{correlations[site.place]:.2f}",
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
        "recordings": run.result["recordings"]["name"],
        "simulated": is_simulated(run),
        "units": error_units(run),
        "recorded_units": run.result["recordings"]["units"],
        "overall": overall_sentence(run),
        "sentences": [region_sentences(run, region) for region in regions],
        "scores": [
            (region, found["nrp_error"]["value"], *found["nrp_error"]["ci95"])
            for region, found in run.result["regions"].items()
        ],
        "table": predictors_table(run),
        "score_figures": drawings(of_score, prefix),
        "site_figures": drawings(of_sites, prefix),
        "cards": cards,
        "search_figures": drawings(of_search, prefix),
        "heads": chosen_heads_table(run),
        "protocol": protocol_facts(run),
        "recordings_facts": recordings_facts(run),
        "model": model_facts(run),
        "layers": layers_table(run),
        "provenance": provenance_facts(run),
        "notes": run.result["notes"],
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
            "predicted": f"{run.predicted['nrp'][place, site.place]:.2f}",
        }
        for place in places
    ]


def _there(figures: Iterable[NamedFigure | None]) -> list[NamedFigure]:
    return [figure for figure in figures if figure is not None]
