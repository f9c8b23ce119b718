"""The public names of nrp_onnx: what a user types in Python, and what comes back."""

import doctest
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn

import nrp_onnx as nrp
from nrp_onnx import errors, regressor
from tests.command_line import assert_user_error, nrp_onnx

PUBLIC = [
    "Activations", "Card", "Comparison", "DeviceError", "EngineError", "ExtractOptions", "ModelError",
    "NrpOnnxError", "NrpRegressor", "OptionError", "OutputError", "Predictor", "Recordings",
    "RecordingsError", "Run", "RunError", "ScoreOptions", "ScorerResult", "__version__", "compare",
    "convert", "extract", "import_recordings", "load_predictor", "open_recordings", "open_run",
    "read_card", "score", "score_with",
]  # fmt: skip


@pytest.fixture(scope="module")
def pooled() -> nn.Sequential:
    """Takes images of any size, as a module that is scored as it is must."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(12 * 16, 5),
    ).eval()


@pytest.fixture(scope="module")
def run(pooled: nn.Module, recordings_folder: Path, tmp_path_factory) -> nrp.Run:
    out = tmp_path_factory.mktemp("api") / "a"
    return nrp.score(
        pooled, recordings_folder, layers=["1", "3"], preprocess="tf", search="quick", out=out,
        progress=False,
    )  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert sorted(nrp.__all__) == PUBLIC
    assert dir(nrp) == PUBLIC
    for name in PUBLIC:
        assert getattr(nrp, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        nrp.scores  # noqa: B018


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import nrp_onnx, sys; dir(nrp_onnx); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


class Stages(nn.Module):
    """Four layers with the names that the README uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 6, 3, stride=4)
        self.layer2 = nn.ReLU()
        self.layer3 = nn.Conv2d(6, 8, 3, stride=4)
        self.layer4 = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return found


@pytest.mark.slow
def test_the_lines_of_the_readme_run(
    recordings_folder: Path, raw_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copytree(recordings_folder, tmp_path / "my_recordings")
    shutil.copytree(raw_data / "images", tmp_path / "photos")
    shutil.copy(raw_data / "images" / "im00.png", tmp_path / "image.png")
    torch.manual_seed(0)
    for name in ("model.onnx", "other.onnx"):
        nrp.convert(Stages().eval(), preprocessing="tf").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(lines, names)
    assert names["rates"].shape == (1, len(names["predictor"].sites))
    assert names["activations"].shape == (40, 8, 4, 4)
    assert len(pd.read_csv("predictors.csv")) == 6
    assert "NRP-error" in Path("run_a.html").read_text()
    assert names["run"].folder == Path("runs/a")
    assert nrp.open_run("runs/b").nrp_error == names["other"].nrp_error


@pytest.mark.slow
def test_what_comes_back_is_what_others_compute(
    run: nrp.Run, pooled: nn.Sequential, recordings_folder: Path, raw_data: Path, tmp_path: Path
) -> None:
    # A run has the numbers of its result.json.
    result = json.loads((run.folder / "result.json").read_text())
    region = result["regions"]["V4"]
    assert run.nrp_error == result["nrp_error"] == region["nrp_error"]["value"]
    assert list(run.ci95) == result["nrp_error_ci95"] == region["nrp_error"]["ci95"]
    assert run.regions["V4"].predictors["ridge"].mae == region["predictors"]["ridge"]["mae"]
    assert [layer.name for layer in run.result.model.layers] == ["1", "3"]
    # Its predictions are those of the Parquet file.
    table = pq.read_table(run.folder / "predictions.parquet")
    np.testing.assert_allclose(run.predictions["nrp"], np.stack(table["nrp"].to_numpy()))
    frame = run.to_frame()
    assert isinstance(frame, pd.DataFrame)
    ridge = frame[(frame["predictor"] == "ridge") & (frame["region"] == "V4")]
    assert ridge["mae"].item() == region["predictors"]["ridge"]["mae"]
    page = run.report(tmp_path / "page.html")
    assert "NRP-error" in page.read_text()
    # Opened again it is the same.
    again = nrp.open_run(run.folder)
    assert (again.nrp_error, again.ci95, again.regions) == (run.nrp_error, run.ci95, run.regions)
    recordings = nrp.open_recordings(recordings_folder)
    assert recordings.n_stimuli == 40
    imported = nrp.import_recordings(
        raw_data / "images", raw_data / "rates.npy", tmp_path / "imported",
        axes=["site", "stimulus", "repetition"], region="V4", stimuli=raw_data / "stimuli.csv",
    )  # fmt: skip
    np.testing.assert_array_equal(imported.averages, recordings.averages)
    # Activations are what PyTorch computes.
    found = nrp.extract(
        run.folder / "backbone.onnx", raw_data / "images", tmp_path / "activations", layers=["3"],
        reduce="none", progress=False,
    )["3"]  # fmt: skip
    name = "im07.png"
    image = Image.open(raw_data / "images" / name).convert("RGB")
    pixels = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    given = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = pooled[:4](given)[0].numpy()
    place = found.stimulus_ids.index(name)
    assert found.array().shape == (40, *expected.shape)
    np.testing.assert_allclose(found.array()[place], expected, atol=5e-3)
    # The interval of a difference is that of the command line's comparison.
    other = nrp.score(
        run.folder / "backbone.onnx", recordings, layers=["1"], search="quick",
        out=tmp_path / "b", report=False, progress=False,
    )  # fmt: skip
    compared = nrp.compare([run, other])
    pair = compared.pairs[0]
    assert pair.ci95[0] < pair.difference < pair.ci95[1]
    assert pair.difference == pytest.approx(-abs(run.nrp_error - other.nrp_error), abs=1e-6)
    # The predictor gives the held-out predictions of the first fold.
    predictor = nrp.load_predictor(run.folder / "predictor.onnx")
    assert predictor.sites == run.site_ids
    assert predictor.units == "unknown"
    assert predictor.regions == ("V4",) * 6
    first = np.flatnonzero(run.fold == 0)
    paths = dict(zip(recordings.stimulus_ids, recordings.stimulus_paths, strict=True))
    held_out = [paths[run.stimulus_ids[place]] for place in first]
    rates = predictor.predict(held_out)
    np.testing.assert_allclose(rates, run.predictions[run.headline][first], atol=1e-3)
    arrays = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in held_out])
    np.testing.assert_array_equal(predictor.predict(arrays), rates)


class Cells(HTMLParser):
    """The text of each cell of a table, and the targets of links."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.links: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag in ("td", "th")
        if self._inside:
            self.cells.append("")
        self.links += [value or "" for key, value in attrs if tag == "a" and key == "href"]

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


@pytest.mark.slow
def test_a_notebook_shows_the_table_and_a_link(run: nrp.Run) -> None:
    page = Cells()
    page.feed(run._repr_html_())
    assert f"{run.regions['V4'].predictors['nrp'].mae:.3f}" in page.cells
    assert page.links == [(run.folder / "report.html").resolve().as_uri()]
    assert f"{run.nrp_error:.3f}" in repr(run)


def test_a_conversion_shows_its_layers(network: nn.Module) -> None:
    converted = nrp.convert(network, torch.zeros(1, 3, 32, 32), preprocessing="tf")
    page = Cells()
    page.feed(converted._repr_html_())
    assert [layer.name for layer in converted.layers] == page.cells[4::4]
    assert "8 × 16 × 16" in page.cells


def test_no_bar_where_none_is_wanted(
    model_path: Path, raw_data: Path, tmp_path: Path, capfd
) -> None:
    nrp.extract(model_path, raw_data / "images", tmp_path / "a", layers=["1"], progress=False)
    assert "Extracting" not in capfd.readouterr().err
    nrp.extract(model_path, raw_data / "images", tmp_path / "b", layers=["1"])
    assert "Extracting" in capfd.readouterr().err


def test_errors_of_python_users(tmp_path: Path) -> None:
    with pytest.raises(nrp.RunError, match=r"this is no finished run.*result\.json"):
        nrp.open_run(tmp_path)
    with pytest.raises(nrp.OptionError, match="expected two or more"):
        nrp.compare([])
    with pytest.raises(nrp.ModelError, match="no such model file"):
        nrp.load_predictor(tmp_path / "none.onnx")


def test_errors_name_arguments_where_the_command_line_names_options(
    model_path: Path, recordings_folder: Path, raw_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(nrp.OptionError, match=r"^folds=: this number of folds does not fit"):
        nrp.score(model_path, recordings_folder, folds=1, out=tmp_path / "a")
    with pytest.raises(nrp.OptionError, match=r"^layers=, .*has no such layer"):
        nrp.extract(model_path, raw_data / "images", tmp_path / "b", layers=["conv9"])
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "diary.txt").write_text("mine")
    with pytest.raises(nrp.OutputError, match=r"something else.*Choose another one with out="):
        nrp.score(model_path, recordings_folder, out=tmp_path / "c", progress=False)
    run = nrp_onnx("score", model_path, "--recordings", recordings_folder, "--folds", 1)
    assert_user_error(run, "--folds: this number of folds does not fit")


@pytest.mark.slow
def test_images_that_are_none(run: nrp.Run) -> None:
    predictor = nrp.load_predictor(run.folder / "predictor.onnx")
    with pytest.raises(nrp.OptionError, match=r"expected uint8 .*found float64 \(1, 32, 32, 3\)"):
        predictor.predict(np.zeros((1, 32, 32, 3)))
    assert predictor.predict([]).shape == (0, 6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"),
    estimator_checks_generator(nrp.NrpRegressor(search="quick")),
    ids=lambda value: getattr(getattr(value, "func", None), "__name__", None),
)
def test_the_estimator_passes_the_checks_of_scikit_learn(
    estimator: nrp.NrpRegressor, check: Callable[[nrp.NrpRegressor], None]
) -> None:
    if "array_api" in check.func.__name__:  # type: ignore[attr-defined]
        pytest.skip("needs an environment variable that is set before SciPy starts")
    check(estimator)


def test_the_estimator_fits_what_is_not_linear() -> None:
    """|x| has no linear part: a linear regression explains nothing, two ReLUs all of it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 6))
    Y = np.abs(X[:, :2]) + 0.05 * rng.standard_normal((600, 2))
    model = nrp.NrpRegressor(search="quick").fit(X[:500], Y[:500])
    left = ((model.predict(X[500:]) - Y[500:]) ** 2).sum(0) / (
        (Y[500:] - Y[500:].mean(0)) ** 2
    ).sum(0)
    assert left.max() < 0.35


def test_the_examples_of_docstrings_run() -> None:
    for module in (errors, regressor):
        found = doctest.testmod(module)
        assert (found.failed, found.attempted > 0) == (0, True)
