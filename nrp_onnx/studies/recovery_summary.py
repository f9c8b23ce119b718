"""What a recovery study shows: who ranks first, and how much more the NRP head explains than ridge."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nrp_onnx.scoring.metrics import bootstrap_means
from nrp_onnx.scoring.paired import compare_errors, explainable_removed
from nrp_onnx.studies.recovery_populations import Population

#: Predictors whose rankings are shown side by side.
RANKED = ("nrp", "ridge", "pls")


def summary(populations: Sequence[Population], seed: int) -> dict[str, Any]:
    """The rankings and what each predictor removes at the true source.

    Returns:
        ``first``: for each of `RANKED` at how many populations the true source ranks first;
        ``confusion``: for each, the counts of source (row) against winner (column);
        ``at_source``: the share of the explainable error that each removes, the mean over
        populations, and the paired difference of NRP head and ridge, the sites of all populations
        together (they see the same held-out images);
        ``populations``: each one's source, floor, MAEs and winners.
    """
    names = list(populations[0].errors)
    confusion = {name: np.zeros((len(names), len(names)), int) for name in RANKED}
    rows: list[dict[str, Any]] = []
    for population in populations:
        maes = {
            name: {candidate: population.mae(candidate, name) for candidate in names}
            for name in ("mean", *RANKED)
        }
        winners = {name: min(names, key=maes[name].__getitem__) for name in RANKED}
        for name, winner in winners.items():
            confusion[name][names.index(population.source), names.index(winner)] += 1
        removed = {
            name: explainable_removed(
                maes[name][population.source], maes["mean"][population.source], population.floor
            )
            for name in RANKED
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
    nrp, ridge = (np.hstack([errors[name] for errors in at_source]) for name in ("nrp", "ridge"))
    return {
        "n_populations": len(populations),
        "first": {name: int(np.trace(confusion[name])) for name in RANKED},
        "confusion": {name: confusion[name].tolist() for name in RANKED},
        "at_source": {
            "explainable_removed": {
                name: float(np.mean([row["explainable_removed"][name] for row in rows]))
                for name in RANKED
            },
            "nrp_less_ridge": compare_errors(
                nrp,
                ridge,
                bootstrap_means(np.abs(nrp), seed) - bootstrap_means(np.abs(ridge), seed),
            ),
        },
        "populations": rows,
    }
