"""The report, as a reader has it: its numbers, its images, and the page in a browser."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nrp_onnx.report.sites import shown_sites, site_correlations, site_errors
from nrp_onnx.report.words import region_sentences
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
from nrp_onnx.scoring.run import FinishedRun, HeldOut
from nrp_onnx.statistics import PairedDifference
from tests.browser import NAMES, Page, find_chromium, open_browser
from tests.command_line import assert_user_error, nrp_onnx

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow

#: Nothing in it to break a line at.
LONG_NAME = "a" * 30 + "_model_whose_name_is_longer_than_a_telephone_is_wide"


@pytest.fixture(scope="module")
def run_folder(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("report")
    shutil.copy(model_path, folder / f"{LONG_NAME}.onnx")
    run = nrp_onnx(
        "score", folder / f"{LONG_NAME}.onnx", "--recordings", recordings_folder,
        "-o", folder / "run", "--search", "quick",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert str(folder / "run" / "report.html") in run.stdout
    return folder / "run"


@pytest.fixture(scope="module")
def simulated_run(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NRP_ONNX_CACHE", str(folder / "cache"))
        run = nrp_onnx(
            "score", model_path, "--recordings", "simulated:96", "-o", folder / "run",
            "--search", "quick", "--folds", 2, "--no-report",
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert not (folder / "run" / "report.html").exists()
    return folder / "run"


class _Tables(HTMLParser):
    """The texts of all cells, by table and row, and the sources of all images."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.images: list[dict[str, str | None]] = []
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True
        elif tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _figures(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def test_the_table_has_the_numbers_of_the_result(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    tables = _Tables((run_folder / "report.html").read_text()).tables
    heading, *rows = tables[0]
    assert heading[:3] == ["Region", "Predictor", "Error (95 %)"]
    found = result["regions"]["V4"]
    assert len(rows) == len(found["predictors"]) == 6  # `quick` fits no kernel ridge
    for row, numbers in zip(rows, found["predictors"].values(), strict=True):
        low, high = numbers["mae_ci95"]
        assert row[2] == f"{numbers['mae']:.3f} ({low:.3f} to {high:.3f})"
        cells = dict(zip(heading, row, strict=True))
        assert cells["r / ceiling"].replace("−", "-") == _shown(numbers["pearson_r_normalised"])
    heading, row = tables[1]
    brainscore = [_shown(found["brainscore"][key]) for key in ("score", "r", "ceiling")]
    beside = [_shown(found["noise_floor"]), _shown(found["reliability"]), *brainscore]
    assert [cell.replace("−", "-") for cell in row] == ["V4", "6", *beside]
    paired = found["comparisons"]["ridge"]
    ridge = dict(zip(tables[0][0], rows[2], strict=True))
    low, high = paired["ci95"]
    words = f"{paired['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
    assert ridge["Less it (95 %)"] == words.replace("-", "−")
    assert ridge["Better at"] == f"{paired['wins']} of 6"
    numbers = found["predictors"]["ridge"]
    low, high = numbers["mse_ci95"]
    assert ridge["MSE (95 %)"] == f"{numbers['mse']:.3f} ({low:.3f} to {high:.3f})"
    assert "Calibrated (95 %)" not in ridge, "there is none"


def test_sites_are_ranked_by_their_correlation_and_shown_with_their_images(
    run_folder: Path, recordings_folder: Path
) -> None:
    table = pd.read_parquet(run_folder / "predictions.parquet")
    fold = table["fold"].to_numpy()
    recorded, predicted = (np.stack(table[name].to_list()) for name in ("recorded", "nrp+ridge"))
    r = [
        np.mean(
            [
                # A fold in which the mixture gives the mean explains nothing.
                np.corrcoef(recorded[fold == k, i], predicted[fold == k, i])[0, 1]
                if np.ptp(predicted[fold == k, i])
                else 0
                for k in range(5)
            ]
        )
        for i in range(6)
    ]
    page = (run_folder / "report.html").read_text()
    shown = re.findall(r"<h5>(\S+) <small>rank (\d) of 6.*?<p>r (-?[\d.]+)[,;]", page, re.DOTALL)
    sites = pd.read_csv(recordings_folder / "sites.csv")["site_id"].to_list()
    expected = [(sites[i], str(n + 1), f"{r[i]:.2f}") for n, i in enumerate(np.argsort(r)[::-1])]
    assert shown == expected
    # The first images are those that the best site answered most to.
    best = int(np.argmax(r))
    most = table["stimulus_id"].to_numpy()[np.argsort(-recorded[:, best])[:3]]
    images = _Tables(page).images
    assert [image["title"] for image in images[:3]] == most.tolist()
    files = pd.read_csv(recordings_folder / "stimuli.csv").set_index("stimulus_id")["filename"]
    for name, image in zip(most, images, strict=False):
        kept = base64.b64decode((image["src"] or "").removeprefix("data:image/jpeg;base64,"))
        original = np.asarray(Image.open(recordings_folder / "stimuli" / files[name]), float)
        pixels = np.asarray(Image.open(io.BytesIO(kept)), float)
        # JPEG blurs colours; another image of these random ones correlates not at all.
        assert np.corrcoef(pixels.mean(axis=2).ravel(), original.mean(axis=2).ravel())[0, 1] > 0.8


@pytest.mark.slow
def test_simulated_is_written_across_every_figure_made_from_simulated_recordings(
    run_folder: Path, simulated_run: Path, tmp_path: Path
) -> None:
    run = nrp_onnx(
        "report", run_folder, simulated_run, "-o", tmp_path / "both.html",
        "--figures", tmp_path / "figures",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    together, recorded, simulated = re.split(
        r'<details class="run"', (tmp_path / "both.html").read_text()
    )
    assert len(_figures(simulated)) >= 12
    assert all("SIMULATED" in figure for figure in _figures(simulated))
    assert len(_figures(recorded)) >= 9
    assert "SIMULATED" not in recorded
    # The comparison holds both: V4, where one is simulated, and IT, where the only one is.
    assert len(_figures(together)) == 2
    assert all("SIMULATED" in figure for figure in _figures(together))
    assert "differ in more than the model: recordings, units, split" in together
    heading, *rows = _Tables(together).tables[0]
    results = [
        json.loads((folder / "result.json").read_text()) for folder in (run_folder, simulated_run)
    ]
    errors = sorted(result["nrp_error"] for result in results)
    assert [row[heading.index("NRP-error")] for row in rows] == [f"{error:.3f}" for error in errors]
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert len(names) == len(_figures(together + recorded + simulated))
    for name in names:
        assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(tmp_path / "figures" / f"{name}.png") as image:
            corner = image.convert("RGBA").getpixel((0, 0))
            assert corner == (255, 255, 255, 255)
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 8


def test_a_report_is_made_again_and_none_is_left_of_an_older_run(
    model_path: Path, recordings_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    before = (tmp_path / "run" / "report.html").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    arguments = ("score", run_folder.parent / f"{LONG_NAME}.onnx", "--recordings",
                 recordings_folder, "-o", tmp_path / "run", "--search", "quick")  # fmt: skip
    run = nrp_onnx(*arguments)
    assert "nothing is computed again" in run.stderr
    assert (tmp_path / "run" / "report.html").read_bytes() == before
    run = nrp_onnx(*arguments, "--folds", 2, "--overwrite", "--no-report")
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "run" / "report.html").exists()


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    run = nrp_onnx("report", tmp_path, "-o", tmp_path / "report.html")
    assert_user_error(run, tmp_path, "result.json", "Score into this folder")
    assert not (tmp_path / "report.html").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)})")
    with open_browser(chromium) as page:
        yield page


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_and_sorts_in_a_browser(width: int, run_folder: Path, browser: Page) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(run_folder / "report.html", width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("innerWidth") == width
    assert browser.value("[...document.images].every(image => image.naturalWidth > 0)")
    assert browser.value(_MISPLACED) == []
    result = json.loads((run_folder / "result.json").read_text())
    errors = [found["mae"] for found in result["regions"]["V4"]["predictors"].values()]
    column = "[...document.querySelector('table').tBodies[0].rows].map(row => row.cells[2].textContent.split(' ')[0])"
    click = "document.querySelectorAll('th button')[2].click()"
    assert browser.value(column) == [f"{error:.3f}" for error in errors]
    browser.value(click)
    assert browser.value(column) == [f"{error:.3f}" for error in sorted(errors)]
    assert browser.value("document.querySelectorAll('th')[2].ariaSort") == "ascending"
    browser.value(click)
    assert browser.value(column) == [f"{error:.3f}" for error in sorted(errors, reverse=True)]
    assert browser.complaints == []
    assert {request.split(":")[0] for request in browser.requests} <= {"file", "data"}


#: Texts of figures that reach out of their figure, and those that lie on another, by over a pixel.
_MISPLACED = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent !== 'SIMULATED')
    .map(text => ({text: text.textContent, box: text.getBoundingClientRect()}));
  const out = texts.filter(({box: it}) => it.left < box.left - 1 || it.right > box.right + 1
    || it.top < box.top - 1 || it.bottom > box.bottom + 1);
  const over = texts.flatMap((a, n) => texts.slice(n + 1).filter(b =>
    Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left) > 1
    && Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top) > 2
  ).map(b => ({text: `${a.text} on ${b.text}`})));
  return [...out, ...over].map(({text}) => text);
})
"""


@pytest.mark.browser
def test_colours_follow_the_reader_and_paper_is_white(run_folder: Path, browser: Page) -> None:
    browser.open(run_folder / "report.html", 1280)
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure svg text')).fill"

    def lightness(expression: str) -> float:
        return float(
            np.mean([int(part) for part in re.findall(r"\d+", browser.value(expression))[:3]])
        )

    try:
        browser.media(prefers_color_scheme="light")
        assert lightness(ground) > 200 > 100 > lightness(ink)
        browser.media(prefers_color_scheme="dark")
        assert lightness(ground) < 60 < 150 < lightness(ink)
        browser.media("print", prefers_color_scheme="dark")
        assert lightness(ground) == 255
        assert lightness(ink) < 60
    finally:
        browser.media()


def _run(
    recorded: np.ndarray, predicted: np.ndarray, comparison: tuple[float, float]
) -> FinishedRun:
    n_images, n_sites = recorded.shape
    region = RegionScore(
        n_sites=n_sites,
        nrp_error=NrpError(value=0.5, ci95=(0.4, 0.6), by_seed=[0.5]),
        noise_floor=0.3,
        predictors={
            name: PredictorScore(mae=mae, mae_ci95=(mae - 0.1, mae + 0.1), r2=None, pearson_r=None)
            for name, mae in (("mean", 0.8), ("ridge", 0.6), ("nrp", 0.5))
        },
        comparisons={"ridge": PairedDifference(-0.1, comparison, 2, n_sites)},
    )
    result = Result(
        schema_version=SCHEMA_VERSION,
        fingerprint="0" * 64,
        nrp_error=0.5,
        units="z",
        regions={"IT": region},
        model=ModelFacts("net.onnx", "0" * 64, 1, None, {}, []),
        recordings=RecordingsFacts("toy", False, n_images, n_sites, "spikes", 0.0, "0" * 64),
        protocol=Protocol("k-fold", 2, None, 0.2, "zscore", 0, "95 %", 0),
        search=SearchFacts("quick", {}, Trials("trials.parquet", 0)),
        export=ExportFacts(0.0),
        provider="CPUExecutionProvider",
        notes=[],
        versions={},
        timings={},
    )
    run = FinishedRun(Path("run"), result)
    # As if read from predictions.parquet.
    vars(run)["held_out"] = HeldOut(
        stimulus_ids=tuple(f"s{i}" for i in range(n_images)),
        fold=np.arange(n_images) % 2,
        site_ids=tuple(f"c{i}" for i in range(n_sites)),
        site_regions=("IT",) * n_sites,
        recorded=recorded,
        predictions={"nrp": predicted},
        scale=np.full(recorded.shape, 2.0),
    )
    return run


def test_sites_with_missing_or_constant_rates() -> None:
    rng = np.random.default_rng(0)
    recorded = rng.standard_normal((20, 4))
    predicted = recorded + rng.standard_normal((20, 4)) * [0.1, 2, 1, 1]
    recorded[[3, 8], 0] = np.nan
    predicted[:, 2] = 0.7
    recorded[:, 3] = np.nan
    run = _run(recorded, predicted, (-0.2, -0.05))
    even = ~np.isnan(recorded[:, 0]) & (np.arange(20) % 2 == 0)
    odd = ~np.isnan(recorded[:, 0]) & (np.arange(20) % 2 == 1)
    expected = [np.corrcoef(recorded[rows, 0], predicted[rows, 0])[0, 1] for rows in (even, odd)]
    r = site_correlations(run, "nrp")
    assert r[0] == pytest.approx(np.mean(expected))
    assert np.isnan(r[[2, 3]]).all()
    errors = site_errors(run, "nrp")
    there = even | odd
    assert errors[0] == pytest.approx(np.abs(recorded - predicted)[there, 0].mean() / 2)
    assert np.isnan(errors[3])
    shown = shown_sites(run, "IT", 3)
    assert [site.place for site in shown] == [0, 1]
    assert not {3, 8} & {*shown[0].driving, *shown[0].surprising}


@pytest.mark.parametrize(
    ("interval", "claim"),
    [
        ((-0.2, -0.05), "does better than ridge"),
        ((-0.2, 0.05), "is not shown to differ from ridge"),
        ((0.05, 0.2), "does worse than ridge"),
    ],
)
def test_a_claim_is_made_only_where_the_interval_supports_it(
    interval: tuple[float, float], claim: str
) -> None:
    sentences = " ".join(region_sentences(_run(np.ones((4, 3)), np.ones((4, 3)), interval), "IT"))
    assert claim in sentences
    # (0.8 - 0.5) / (0.8 - 0.3)
    assert "60 % is predicted" in sentences
    assert "0.500 standard deviations" in sentences
