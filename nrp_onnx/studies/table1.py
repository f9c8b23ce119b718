"""Table 1 and Figures 2A to 2C of the paper: several networks on one set of recordings."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from nrp_onnx.errors import OptionError
from nrp_onnx.files import write_json
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.figures import save_study_figure
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import rank_correlation
from nrp_onnx.studies.scored_models import (
    StudiedModel,
    given_models,
    record_of,
    score_models,
    study_facts,
    write_csv,
)
from nrp_onnx.studies.table1_figures import table1_figures

WEIGHTS = ("imagenet", "none")


def study_table1(
    files: Sequence[Path],
    recordings: Recordings,
    out: Path,
    options: ScoreOptions,
    weights: str | None = None,
) -> dict[str, Any]:
    """Score the paper's eight networks, or others, with one protocol.

    Runs are in ``out/runs``; finished ones are taken as they are.

    Args:
        files: ONNX backbones; empty: the paper's networks, which are converted into ``out/models``
            when they are not there.
        weights: of the paper's networks: ``imagenet``, which are downloaded, or ``none``, random
            ones from the seed; None: ``imagenet``.

    Returns:
        The content of table1.json: a record a network, with ``paper`` where it is one of the
        paper's, and ``rank_correlation`` of NRP-error and Top-1.

    Raises:
        OptionError: if two files have one name, or the weights make no sense.
        ModelError: at the end, if a network was not converted or scored.
    """
    if weights not in (None, *WEIGHTS):
        raise OptionError(
            "no such weights", where="--weights", expected=" or ".join(WEIGHTS), found=repr(weights)
        )
    if files and weights is not None:
        raise OptionError(
            "ONNX files have their own weights",
            where="--weights",
            expected="no such option beside MODELS",
            found=repr(weights),
        )
    if files:
        models = given_models(files, options)
    else:
        models = [
            StudiedModel(
                network.name,
                partial(_converted, network, out.resolve() / "models", weights, options),
                options,
            )
            for network in _paper_networks()
        ]
    scored = score_models(models, recordings, out / "runs")
    if not scored.results:
        scored.check(out)
    records: list[dict[str, Any]] = []
    for name, run in scored.results.items():
        record = record_of(name, run, options.seed)
        records.append({**record, "paper": _paper_of(run)})
    study = {
        **study_facts("table1", scored.results),
        "models": records,
        "rank_correlation": rank_correlation(
            [(of["nrp_error"], of["paper"]["top1"]) for of in records if of["paper"] is not None]
        ),
        "failed": scored.failed,
    }
    write_json(out / "table1.json", study)
    write_csv(out / "table1.csv", records)
    for figure in table1_figures(study):
        save_study_figure(figure, out)
    scored.check(out)
    return study


def _paper_networks() -> Sequence[Any]:
    # Converters are plug-ins: core code reaches them by name only.
    networks: Sequence[Any] = importlib.import_module("nrp_converters.paper").PAPER_NETWORKS
    return networks


@contextmanager
def _converted(
    network: Any, folder: Path, weights: str | None, options: ScoreOptions
) -> Iterator[Path]:
    """The network's file, made unless it is there."""
    request = importlib.import_module("nrp_converters.request").Request(
        weights="none" if weights == "none" else None, seed=options.seed, notes=Notes()
    )
    conversion = importlib.import_module("nrp_converters.paper")
    (path,) = conversion.convert_paper_networks(
        folder, request, networks=[network], say=Notes().say
    )
    yield path


def _paper_of(run: FinishedRun) -> dict[str, Any] | None:
    """What the paper says of a network; None for one that is not of the paper, or was pruned."""
    source = run.result.model.source or {}
    for network in _paper_networks():
        if source.get("spec") == network.spec and "pruning" not in source:
            return {
                "n_parameters": network.n_parameters_in_paper or network.n_parameters,
                "top1": network.top1,
                "top5": network.top5,
                "nrp_error": network.nrp_error,
            }
    return None
