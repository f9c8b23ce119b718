"""Every example runs, and its rates are those of ONNX Runtime on pixels that nrp-onnx decoded."""

import importlib.util
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nrp_onnx as nrp
from tests.browser import Page
from tests.export.engines import (
    EXAMPLES,
    by_node,
    by_onnxruntime,
    by_web,
    find_node,
    run_example,
    served,
)

pytestmark = pytest.mark.slow

ROOT = EXAMPLES.parent
SITES = [f"V4_{place:03d}" for place in range(6)]


@pytest.fixture(scope="module")
def model(predictor_folder: Callable[[str], Path]) -> Path:
    return predictor_folder("convolutional") / "predictor.onnx"


@pytest.fixture(scope="module")
def expected(model: Path, pictures: list[Path]) -> np.ndarray:
    return by_onnxruntime(model, pictures)


def test_plain_python(model: Path, pictures: list[Path], expected: np.ndarray) -> None:
    printed = json.loads(run_example(sys.executable, "plain_python.py", model, pictures[3]))
    assert list(printed) == SITES
    np.testing.assert_allclose(list(printed.values()), expected[3], rtol=1e-6)


@pytest.mark.parametrize(
    ("program", "example"), [("node", "node/predict.mjs"), (sys.executable, "openvino_predict.py")]
)
def test_rates_are_printed_with_sites_and_units(
    program: str, example: str, model: Path, pictures: list[Path], expected: np.ndarray
) -> None:
    """`tests.export.test_engines` compares other pictures."""
    printed = json.loads(run_example(program, example, model, pictures[5]))
    assert printed["units"] == "spikes/s"
    (row,) = printed["images"]
    assert row["image"] == str(pictures[5])
    assert list(row["rates"]) == SITES
    np.testing.assert_allclose(list(row["rates"].values()), expected[5], rtol=1e-5)


def test_node_says_what_it_does_not_decode(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif")
    run = subprocess.run(
        [find_node(), EXAMPLES / "node" / "predict.mjs", model, tmp_path / "a.gif"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr == f"error: {tmp_path / 'a.gif'} is neither PNG nor JPEG\n"


@pytest.fixture(scope="module")
def other_files(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A transparent PNG, and a JPEG with colours at half the resolution."""
    folder = tmp_path_factory.mktemp("files")
    pixels = np.asarray(Image.open(pictures[8]))
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (*pixels.shape[:2], 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(folder / "clear.png")
    Image.fromarray(pixels).save(folder / "photo.jpg", quality=90, subsampling="4:2:0")
    return [folder / "clear.png", folder / "photo.jpg"]


def test_decoders_of_node(model: Path, other_files: list[Path], expected: np.ndarray) -> None:
    right = nrp.load_predictor(model, device="cpu").predict(other_files)
    apart = np.abs(by_node(model, other_files) - right) / expected.std(axis=0)
    assert apart[0].max() < 1e-4
    # jpeg-js repeats colours where Pillow interpolates: docs/embedding.md says by how much rates move.
    assert 1e-3 < apart[1].max() < 0.2


@pytest.mark.browser
def test_decoders_of_chromium(
    model: Path, other_files: list[Path], expected: np.ndarray, browser: Page
) -> None:
    right = nrp.load_predictor(model, device="cpu").predict(other_files)
    apart = np.abs(by_web(model, other_files, browser) - right) / expected.std(axis=0)
    assert apart[0].max() < 1e-2  # it rounds colours under the alpha
    assert apart[1].max() < 1e-3


def test_batch_of_parquet(
    model: Path, pictures: list[Path], expected: np.ndarray, tmp_path: Path
) -> None:
    """300 rows, so that there is more than one batch; sizes alternate."""
    order = np.random.default_rng(0).integers(0, 4, 300)
    encoded = [picture.read_bytes() for picture in pictures]
    table = pa.table({"id": np.arange(300) * 7, "image": [encoded[place] for place in order]})
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=100)
    run_example(
        sys.executable, "batch_parquet.py", model, "images.parquet", "rates.parquet", cwd=tmp_path
    )
    found = pq.read_table(tmp_path / "rates.parquet")
    assert found.column_names == ["id", *SITES]
    assert found["id"].to_pylist() == table["id"].to_pylist()
    assert found.schema.metadata[b"nrp_onnx.units"] == b"spikes/s"
    rates = np.column_stack([found[site].to_numpy() for site in SITES])
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected[order], atol=1e-4 * expected.std(axis=0).min())


@pytest.fixture(scope="module")
def classes(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, the bright ones in one folder and the dark ones in another."""
    folder = tmp_path_factory.mktemp("photos")
    bright = [np.asarray(Image.open(picture)).mean() for picture in pictures]
    for picture, value in zip(pictures, bright, strict=True):
        home = folder / ("bright" if value > np.median(bright) else "dark")
        home.mkdir(exist_ok=True)
        shutil.copy(picture, home)
    return folder


def test_scikit_learn_decodes_classes(model: Path, classes: Path) -> None:
    printed = json.loads(run_example(sys.executable, "sklearn_pipeline.py", model, classes))
    paths = sorted(classes.glob("*/*"))
    rates = by_onnxruntime(model, paths)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    right = cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression()),
        rates, [path.parent.name for path in paths], cv=folds,
    )  # fmt: skip
    assert printed == {"n_images": 16, "accuracy_by_fold": pytest.approx(right)}


def test_the_transformer_of_scikit_learn(
    model: Path, pictures: list[Path], expected: np.ndarray
) -> None:
    spec = importlib.util.spec_from_file_location("sites", EXAMPLES / "sklearn_pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    sites = clone(example.SitesOfPredictor(str(model))).fit(pictures)
    np.testing.assert_allclose(sites.transform(pictures), expected, rtol=1e-5)
    assert list(sites.get_feature_names_out()) == SITES


@pytest.mark.browser
@pytest.mark.parametrize("width", [1100, 380])
def test_the_page_shows_the_rates_of_an_image(
    width: int, model: Path, pictures: list[Path], expected: np.ndarray, browser: Page
) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    with served(model.parent) as address:
        browser.open(address, width)
        browser.wait("document.body.dataset.state === 'ready'")
        assert "6 sites in V4 and IT" in browser.value(_text("facts"))
        assert browser.value("document.getElementById('simulated').hidden")
        scored = json.loads((model.parent / "result.json").read_text())["regions"]
        for region, score in scored.items():
            error = score["nrp_error"]
            low, high = error["ci95"]
            text = f"{region} {error['value']:.3f} [{low:.3f}, {high:.3f}]"
            assert text in browser.value(_text("scores"))
        # The order of the keyboard: the file, then the plot, which arrow keys walk through.
        browser.press("Tab")
        assert browser.value("document.activeElement.id") == "file"
        browser.choose("#file", pictures[2])
        browser.wait("document.body.dataset.state === 'shown'")
        _assert_shown(browser, expected[2])
        assert browser.value("document.documentElement.scrollWidth") <= width
        browser.press("Tab")
        assert browser.value("document.activeElement.id") == "plot"
        browser.press("ArrowRight")
        browser.press("ArrowRight")
        assert browser.value(_text("site")).startswith("V4_002 (V4): ")
        assert browser.value(_text("site")).endswith(" spikes/s")
        browser.press("End")
        assert browser.value(_text("site")).startswith("V4_004 (IT): ")
        browser.value(_dropped(pictures[7]))
        browser.wait("document.getElementById('name').textContent === 'dropped.png'")
        _assert_shown(browser, expected[7])
        assert browser.complaints == []
        assert all(request.startswith((address, "blob:", "data:")) for request in browser.requests)


@pytest.mark.browser
def test_the_page_says_what_is_wrong(model: Path, tmp_path: Path, browser: Page) -> None:
    with served(model.parent) as address:
        browser.open(address, 1000)
        browser.wait("document.body.dataset.state === 'ready'")
        (tmp_path / "broken.png").write_bytes(b"no image")
        browser.choose("#file", tmp_path / "broken.png")
        browser.wait("document.body.dataset.state === 'failed'")
        assert "broken.png does not open as an image" in browser.value(_text("error"))
    (tmp_path / "predictor.json").write_text("{}")
    with served(tmp_path) as address:
        browser.open(address, 1000)
        browser.wait("document.body.dataset.state === 'failed'")
        assert "predictor.onnx is not there (404)" in browser.value(_text("error"))
        assert browser.value("document.getElementById('file').disabled")


@pytest.mark.browser
def test_the_page_warns_of_simulated_recordings(model: Path, tmp_path: Path, browser: Page) -> None:
    shutil.copy(model, tmp_path)
    facts = json.loads(model.with_suffix(".json").read_text())
    (tmp_path / "predictor.json").write_text(json.dumps(facts | {"simulated": True}))
    with served(tmp_path) as address:
        browser.open(address, 1000)
        browser.wait("document.body.dataset.state === 'ready'")
        assert not browser.value("document.getElementById('simulated').hidden")


def _text(part: str) -> str:
    return f"document.getElementById('{part}').textContent"


def _dropped(picture: Path) -> str:
    """JavaScript that drops a picture on the page."""
    numbers = list(picture.read_bytes())
    return f"""{{
        const data = new DataTransfer();
        const bytes = new Uint8Array({json.dumps(numbers)});
        data.items.add(new File([bytes], "dropped.png", {{ type: "image/png" }}));
        dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, cancelable: true }}));
    }}"""


def _assert_shown(browser: Page, rates: np.ndarray) -> None:
    """The table, the bars and the means, regions together in the order of the first site."""
    order = [0, 2, 3, 5, 1, 4]
    rows = browser.value(
        "[...document.querySelectorAll('#rows tr')].map(row => [...row.cells].map(c => c.textContent))"
    )
    assert [row[:2] for row in rows] == [
        [SITES[place], "IT" if place in (1, 4) else "V4"] for place in order
    ]
    # Written with the digits that four of the largest rate take.
    unit = 10.0 ** (math.floor(math.log10(np.abs(rates).max())) - 3)
    shown = [_number(row[2]) for row in rows]
    np.testing.assert_allclose(shown, rates[order], atol=0.51 * unit)
    heights, colours, up = (
        browser.value(f"[...document.querySelectorAll('.bar')].map(bar => {expression})")
        for expression in (
            "bar.height.baseVal.value",
            "getComputedStyle(bar).fill",
            "bar.y.baseVal.value < document.querySelector('.zero').y1.baseVal.value - 1e-3",
        )
    )
    np.testing.assert_allclose(
        np.array(heights) / max(heights), np.abs(rates[order]) / np.abs(rates).max(), atol=5e-3
    )
    assert up == (rates[order] > 0).tolist()
    assert [colour == colours[0] for colour in colours] == [True] * 4 + [False] * 2
    legend = browser.value(
        "[...document.querySelectorAll('#legend li')].map(entry => entry.textContent)"
    )
    for entry, name, sites in zip(
        legend, ("V4 4 sites", "IT 2 sites"), (order[:4], order[4:]), strict=True
    ):
        counted, mean = entry.split(", mean ")
        assert counted == name
        assert _number(mean) == pytest.approx(rates[sites].mean(), abs=0.51 * unit)
    assert browser.value(_text("caption")).startswith("Rate of each site, in spikes/s.")


def _number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


@pytest.fixture(scope="module")
def desk(
    model: Path, pictures: list[Path], classes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What docs/embedding.md takes for given."""
    folder = tmp_path_factory.mktemp("embedding")
    (folder / "examples").symlink_to(EXAMPLES)
    (folder / "runs").mkdir()
    (folder / "runs" / "model").symlink_to(model.parent)
    (folder / "photos").symlink_to(classes)
    shutil.copy(pictures[0], folder / "image.png")
    shutil.copy(pictures[1], folder / "other.png")
    table = pa.table({"id": ["a"], "image": [pictures[0].read_bytes()]})
    pq.write_table(table, folder / "images.parquet")
    return folder


_PAGE = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
#: Those that fetch packages, or go on until they are stopped: `make` runs the one, a browser opens what
#: the other serves.
_NOT_RUN = ("npm ", "cp ", "python -m http.server")


def _commands() -> list[str]:
    found = re.findall(r"^ {4}(\S.*)$", _PAGE.replace("\\\n", " "), re.MULTILINE)
    return [command for command in found if not command.startswith(_NOT_RUN)]


def test_the_page_of_docs_has_a_command_of_every_example() -> None:
    examples = {str(path.relative_to(ROOT)) for path in EXAMPLES.glob("*.py")}
    examples.add("examples/node/predict.mjs")
    assert {command.split()[1] for command in _commands()} == examples


@pytest.mark.parametrize("command", _commands())
def test_commands_of_the_page_of_docs_run(command: str, desk: Path) -> None:
    program, *arguments = shlex.split(command)
    program = {"python": sys.executable, "node": find_node()}[program]
    run = subprocess.run(
        [program, *arguments], cwd=desk, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_code_in_the_page_of_docs_runs(desk: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=desk, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["(2,", "6)", "spikes/s"]


def test_packages_are_installed_as_the_page_says() -> None:
    """And their locks name no other registry than npm's own."""
    makefile = (ROOT / "Makefile").read_text()
    assert "npm ci --ignore-scripts --prefix examples/$*" in makefile.replace(
        " --no-audit --no-fund", ""
    )
    for folder in ("node", "web"):
        assert f"    npm ci --ignore-scripts --prefix examples/{folder}\n" in _PAGE
        lock = json.loads((EXAMPLES / folder / "package-lock.json").read_text())
        homes = [package.get("resolved", "") for package in lock["packages"].values()]
        assert all(home.startswith("https://registry.npmjs.org/") for home in homes if home)
        wanted = json.loads((EXAMPLES / folder / "package.json").read_text())["dependencies"]
        for name, version in wanted.items():
            assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
            assert lock["packages"][f"node_modules/{name}"]["version"] == version


def test_the_table_of_examples_names_all_of_them() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| \[`(.+?)`\]", table, re.MULTILINE))
    there = {path.name for path in EXAMPLES.glob("*.py")} | {"node/", "web/"}
    assert named == there
