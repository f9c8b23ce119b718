"""Names of predictors, and which of them stand beside each other in tables."""

import io

import numpy as np
import pytest
from rich.console import Console

from nrp_onnx.report.page_tables import predictors_table
from nrp_onnx.report.run_figures import difference_figure, error_figure
from nrp_onnx.report.terminal import score_table
from nrp_onnx.report.words import (
    base_predictors,
    best_baseline,
    overall_sentence,
    predictor_name,
    region_sentences,
)
from nrp_onnx.scoring.result import (
    SCHEMA_VERSION,
    ExportFacts,
    ModelFacts,
    NrpError,
    PredictorScore,
    Protocol,
    RecordingsFacts,
    RegionScore,
    Result,
    SearchFacts,
    Trials,
)
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import PairedDifference, SiteCounts

MIXTURE = "nrp+masked_ridge"
HEADLINE = f"{MIXTURE}_calibrated"
#: MAE of each predictor, and calibrated.
MAE = {
    "mean": (0.812, None),
    "ols": (0.731, 0.729),
    "masked_ridge": (0.652, 0.642),
    "masked_kernel": (0.661, 0.651),
    "nrp": (0.634, 0.628),
    MIXTURE: (0.623, 0.617),
}


def _predictors() -> dict[str, PredictorScore]:
    found = {}
    for name, errors in MAE.items():
        for key, mae in zip((name, f"{name}_calibrated"), errors, strict=True):
            if mae is not None:
                found[key] = PredictorScore(
                    mae, (mae - 0.01, mae + 0.01), 0.2, 0.5, 0.4, 0.6, mae**2 * 1.6,
                    (mae**2 * 1.5, mae**2 * 1.7), 0.36, (0.3, 0.4),
                )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Without files: what is shown of numbers alone."""
    predictors = _predictors()
    region = RegionScore(
        n_sites=168,
        nrp_error=NrpError(value=0.617, ci95=(0.607, 0.627), by_seed=[0.617]),
        noise_floor=0.3,
        predictors=predictors,
        comparisons={
            name: PairedDifference(
                0.617 - score.mae,
                (-0.03, -0.001),
                150,
                168,
                -0.02,
                (-0.03, -0.01),
                SiteCounts(99, 7),
            )
            for name, score in predictors.items()
            if name != HEADLINE
        },
        reliability=0.9,
    )
    result = Result(
        schema_version=SCHEMA_VERSION,
        fingerprint="0" * 64,
        nrp_error=0.617,
        nrp_error_ci95=(0.607, 0.627),
        units="z",
        regions={"IT": region},
        model=ModelFacts("net.onnx", "0" * 64, 1, None, {}, []),
        recordings=RecordingsFacts("toy", False, 100, 168, "spikes", 0.0, "0" * 64),
        protocol=Protocol("k-fold", 5, None, 0.2, "zscore", 0, "95 %, bootstrap", 0),
        search=SearchFacts("default", {}, Trials("trials.parquet", 0)),
        export=ExportFacts(0.0),
        provider="CPUExecutionProvider",
        notes=[],
        versions={},
        timings={},
        headline=HEADLINE,
    )
    return FinishedRun(tmp_path_factory.mktemp("run"), result)


def test_predictors_are_named_in_words() -> None:
    names = {
        "nrp": "NRP network",
        "masked_ridge": "masked ridge",
        "masked_kernel": "masked kernel ridge",
        "ridge_calibrated": "ridge, calibrated",
        MIXTURE: "NRP + masked ridge",
        HEADLINE: "NRP + masked ridge, calibrated",
        "somebody_elses": "somebody_elses",
    }
    assert {key: predictor_name(key) for key in names} == names


def test_baselines_are_what_holds_no_nrp_network() -> None:
    assert best_baseline(_predictors(), HEADLINE) == "masked_ridge_calibrated"
    assert best_baseline(_predictors(), "masked_ridge") == "masked_kernel_calibrated"
    alone = {name: _predictors()[name] for name in ("mean", "nrp", "nrp_calibrated")}
    assert best_baseline(alone, "nrp") is None
    assert list(base_predictors(_predictors())) == list(MAE)
    only = {"ridge_calibrated": _predictors()["mean"]}
    assert list(base_predictors(only)) == ["ridge_calibrated"]


def test_the_terminal_shows_a_calibrated_error_beside_its_own(run: FinishedRun) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(score_table(run.result))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 160
    for name, (mae, also) in MAE.items():
        (line,) = [line for line in lines if f"│ {predictor_name(name)} " in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells[2] == f"{mae:.3f}"
        assert cells[4] == ("-" if also is None else f"{also:.3f}")
        assert cells[5] == f"{mae**2 * 1.6:.3f}"
        assert cells[-1] == "150 of 168"
        assert cells[-2] == f"{0.617 - mae:+.3f} [-0.030, -0.001]"
    assert not any("│ masked kernel ridge, calibrated" in line for line in lines)
    assert any(
        "NRP-error 0.617 z, that of: NRP + masked ridge, calibrated" in line for line in lines
    )


def test_the_page_shows_a_calibrated_error_beside_its_own(run: FinishedRun) -> None:
    table = predictors_table(run)
    headings = [heading for heading, _ in table.headings]
    assert len(table.rows) == len(MAE)
    rows = {row[1].text: dict(zip(headings, row, strict=True)) for row in table.rows}
    row = rows["NRP + masked ridge"]
    assert row["Error (95 %)"].text == "0.623 (0.613 to 0.633)"
    assert row["Calibrated (95 %)"].text == "0.617 (0.607 to 0.627)"
    assert row["Calibrated (95 %)"].strong
    assert rows["mean response"]["Calibrated (95 %)"].text == "–"
    assert row["r² / reliability (95 %)"].text == "0.360 (0.300 to 0.400)"
    assert "not to be compared between recordings" in table.caption


def test_figures_draw_every_predictor_and_those_calibrated(run: FinishedRun) -> None:
    errors, differences = error_figure(run, "IT"), difference_figure(run, "IT")
    assert "rings: calibrated" in errors.caption
    (axes,) = errors.figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        predictor_name(name) for name in MAE
    ]
    points = [np.asarray(line.get_xdata())[0] for line in axes.lines if line.get_marker() == "o"]
    assert points == [mae for both in MAE.values() for mae in both if mae is not None]
    assert differences is not None
    assert "NRP + masked ridge, calibrated" in differences.caption


def test_sentences_say_whose_error_it_is(run: FinishedRun) -> None:
    assert "that of the predictor NRP + masked ridge, calibrated" in overall_sentence(run)
    sentences = " ".join(region_sentences(run, "IT"))
    assert "NRP + masked ridge, calibrated does better than masked ridge, calibrated" in sentences
    assert "at 99 of them by a test of the site alone, and more at 7" in sentences
