"""Model recovery in numbers: a scored population, the summary over all, the table."""

import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from nrp_onnx.files import whole_file
from nrp_onnx.report.words import NOT_BETWEEN_RECORDINGS, predictor_name
from nrp_onnx.significance import site_tests
from nrp_onnx.statistics import bootstrap_means, compare_errors, explainable_removed


@dataclass(frozen=True, eq=False)
class Population:
    """Simulated sites that read one layer, and how every candidate predicts them.

    Attributes:
        source: the name of the candidate that they read.
        floor: the MAE of the true rates on the held-out images, in z units.
        errors: for each candidate and predictor, predicted - recorded in z units, float64
            (n_test, n_sites).
        headline: the predictor whose error is the NRP-error.
    """

    source: str
    floor: float
    errors: dict[str, dict[str, np.ndarray]]
    headline: str

    def mae(self, candidate: str, predictor: str) -> float:
        """The mean absolute error of a predictor from a candidate layer."""
        return float(np.abs(self.errors[candidate][predictor]).mean())


def write_population(path: Path, fingerprint: str, population: Population) -> None:
    """Write a population as .npz, whole or not at all.

    Args:
        fingerprint: of all that decides it.
    """
    names = [(c, p) for c, found in population.errors.items() for p in found]
    arrays: dict[str, Any] = {
        f"errors_{i}": population.errors[c][p] for i, (c, p) in enumerate(names)
    }
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            fingerprint=fingerprint,
            source=population.source,
            floor=population.floor,
            headline=population.headline,
            names=np.array(names),
            **arrays,
        )


def read_population(path: Path, fingerprint: str) -> Population | None:
    """The population in a file; None where there is none, or one of another fingerprint."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if str(held["fingerprint"]) != fingerprint:
                return None
            errors: dict[str, dict[str, np.ndarray]] = {}
            for place, (candidate, predictor) in enumerate(held["names"].tolist()):
                errors.setdefault(candidate, {})[predictor] = held[f"errors_{place}"]
            return Population(
                str(held["source"]), float(held["floor"]), errors, str(held["headline"])
            )
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return None


#: Predictors whose rankings are shown beside that of the headline.
BESIDE = ("ridge", "pls")


def summary(populations: Sequence[Population], seed: int) -> dict[str, Any]:
    """The rankings and what each predictor removes at the true source.

    Returns:
        ``headline``: the predictor whose error is the NRP-error;
        ``first``: for it and each of `BESIDE` at how many populations the true source ranks first;
        ``confusion``: for each, the counts of source (row) against winner (column);
        ``at_source``: the share of the explainable error that each removes, the mean over
        populations, and the paired difference of the headline and ridge, the sites of all populations
        together (they see the same held-out images);
        ``populations``: each one's source, floor, MAEs and winners.
    """
    names, headline = list(populations[0].errors), populations[0].headline
    ranked = tuple(dict.fromkeys((headline, *BESIDE)))
    confusion = {name: np.zeros((len(names), len(names)), int) for name in ranked}
    rows: list[dict[str, Any]] = []
    for population in populations:
        maes = {
            name: {candidate: population.mae(candidate, name) for candidate in names}
            for name in ("mean", *ranked)
        }
        winners = {name: min(names, key=maes[name].__getitem__) for name in ranked}
        for name, winner in winners.items():
            confusion[name][names.index(population.source), names.index(winner)] += 1
        removed = {
            name: explainable_removed(
                maes[name][population.source], maes["mean"][population.source], population.floor
            )
            for name in ranked
        }
        rows.append(
            {
                "source": population.source,
                "noise_floor": population.floor,
                "mae": maes,
                "first": winners,
                "explainable_removed": removed,
            }
        )
    at_source = [population.errors[population.source] for population in populations]
    own, ridge = (np.hstack([errors[name] for errors in at_source]) for name in (headline, "ridge"))
    return {
        "headline": headline,
        "n_populations": len(populations),
        "first": {name: int(np.trace(confusion[name])) for name in ranked},
        "confusion": {name: confusion[name].tolist() for name in ranked},
        "at_source": {
            "explainable_removed": {
                name: float(np.mean([row["explainable_removed"][name] for row in rows]))
                for name in ranked
            },
            "headline_less_ridge": asdict(
                compare_errors(
                    own,
                    ridge,
                    bootstrap_means(np.abs(own), seed) - bootstrap_means(np.abs(ridge), seed),
                    bootstrap_means(own**2, seed) - bootstrap_means(ridge**2, seed),
                    site_tests(own, ridge).counts,
                )
            ),
        },
        "populations": rows,
    }


def recovery_lines(result: dict[str, Any]) -> list[str]:
    """The findings in words: who is found, and by how much the headline errs less than ridge."""
    total, paired = result["n_populations"], result["at_source"]["headline_less_ridge"]
    low, high = paired["ci95"]
    return [
        *(
            f"{predictor_name(name)}: the true source ranks first at {right} of {total} populations"
            for name, right in result["first"].items()
        ),
        f"At the true source, {predictor_name(result['headline'])} less ridge: {paired['difference']:+.4f} z, 95 % {low:+.4f} to "
        f"{high:+.4f}; less error at {paired['wins']} of {paired['n_sites']} sites (SIMULATED)",
    ]


def confusion_table(result: dict[str, Any], predictor: str) -> Table:
    """How often each candidate (column) ranks first for sites of a source (row)."""
    names = result["candidates"]
    table = Table(title=f"{predictor_name(predictor)}  SIMULATED")
    table.add_column("source")
    for place in range(len(names)):
        table.add_column(str(place + 1), justify="right")
    for place, (name, row) in enumerate(zip(names, result["confusion"][predictor], strict=True)):
        cells = [str(count) if count else "." for count in row]
        cells[place] = f"[bold]{cells[place]}[/bold]"
        table.add_row(f"{place + 1} {name}", *cells)
    return table


def removed_table(result: dict[str, Any]) -> Table:
    """The share of the explainable error that each predictor removes at the true source."""
    found = result["at_source"]
    table = Table(title="SIMULATED", caption=f"of these sites: {NOT_BETWEEN_RECORDINGS}")
    table.add_column("predictor")
    table.add_column("explainable error removed", justify="right")
    for name, share in found["explainable_removed"].items():
        table.add_row(predictor_name(name), f"{share:.1%}")
    return table
