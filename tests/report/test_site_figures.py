"""Receptive fields and reliabilities of sites, as the report of a run shows them."""

import csv
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from nrp_onnx.report.site_figures import (
    NO_FIELD,
    NO_FIELDS,
    draw_fields,
    fields_figure,
    reliability_figure,
)
from nrp_onnx.report.sites import site_columns
from nrp_onnx.scoring.run import open_finished_run
from tests.command_line import nrp_onnx

FIELDS = ("rf_x", "rf_y", "rf_width")


def test_fields_are_drawn_at_their_place_and_their_width() -> None:
    axes = Figure().subplots()
    draw_fields(axes, {
        "rf_x": np.array([0.25, np.nan, 0.5]), "rf_y": np.array([0.75, np.nan, 0.5]),
        "rf_width": np.array([0.1, np.nan, 0.2]), "reliability": np.array([0.9, 0.5, np.nan]),
    })  # fmt: skip
    (ellipses,) = (of for of in axes.collections if isinstance(of, EllipseCollection))
    assert np.array_equal(np.array(ellipses.get_offsets()), [[0.25, 0.75], [0.5, 0.5]])
    assert np.array(ellipses.get_widths()) == pytest.approx([0.2, 0.4])
    assert axes.get_ylim() == (1, 0)  # from the top, as an image
    one, other = np.array(ellipses.get_edgecolor())
    assert not np.array_equal(one, other)


def _with_fields(folder: Path, fields: dict[str, tuple[str, str, str]] | None) -> None:
    """Give sites.csv these receptive fields and no other; None: not even their columns."""
    with (folder / "sites.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if not name.startswith("rf_")]
    if fields is not None:
        names += FIELDS
        for row in rows:
            row |= dict(zip(FIELDS, fields.get(row["site_id"], ("", "", "")), strict=True))
    with (folder / "sites.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        # In another order than the run's: sites are found by their ids.
        writer.writerows(rows[::-1])


@pytest.mark.slow
def test_the_report_shows_the_fields_that_there_are_or_says_why_not(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "-o", folder, "--search", "quick",
        "--folds", 2,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    _with_fields(folder, None)
    assert nrp_onnx("report", folder, "-o", tmp_path / "old.html").returncode == 0
    page = (tmp_path / "old.html").read_text()
    assert NO_FIELDS in page
    assert "split-half reliability" in page

    _with_fields(folder, {})
    assert nrp_onnx("report", folder, "-o", tmp_path / "none.html").returncode == 0
    assert NO_FIELD in (tmp_path / "none.html").read_text()

    finished = open_finished_run(folder)
    first, last = finished.site_ids[0], finished.site_ids[-1]
    _with_fields(folder, {first: ("0.25", "0.5", "0.1"), last: ("0.75", "0.5", "0.2")})
    columns = site_columns(finished)
    assert (columns["rf_x"][0], columns["rf_x"][-1]) == (0.25, 0.75)
    assert int(np.isnan(columns["rf_x"]).sum()) == len(finished.site_ids) - 2
    assert fields_figure(finished, "V4") is not None
    assert reliability_figure(finished, "V4") is not None
    assert nrp_onnx("report", folder, "-o", tmp_path / "two.html").returncode == 0
    page = (tmp_path / "two.html").read_text()
    assert "receptive fields of 2 of 6 sites" in page
    assert "Receptive fields are not drawn" not in page
    assert "drawn at random" not in page

    with mock.patch("nrp_onnx.report.sites._MOST_POINTS", 4):
        assert nrp_onnx("report", folder, "-o", tmp_path / "some.html").returncode == 0
    assert "Shown are 4 of 6 sites, drawn at random." in (tmp_path / "some.html").read_text()
