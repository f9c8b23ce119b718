"""nrp-onnx predict: the images that are named, and what rates are written to."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import nrp_onnx as nrp
from nrp_onnx.decoding import Decoded
from nrp_onnx.export.rates_file import rates_file
from tests.command_line import assert_user_error, nrp_onnx

#: The first test waits for a score.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(raw_data: Path, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, and images of two sizes as files, in folders and in a zip, with hidden ones between."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(run_folder, folder / "run")
    for name in ("photos/sub", "photos/__MACOSX", "other", "empty"):
        (folder / name).mkdir(parents=True)
    images = raw_data / "images"
    for number, name in enumerate(["photos/b.png", "photos/sub/a.png", "one.png", "other/im1.png"]):
        shutil.copy(images / f"im{number:02d}.png", folder / name)
    larger = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(larger).save(folder / "other" / "im2.png")
    for name in ("photos/._b.png", "photos/__MACOSX/b.png", "photos/notes.txt", "other/notes.txt"):
        (folder / name).write_text("no image")
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        for number, name in enumerate(["z/y.png", "x.png"]):
            archive.write(images / f"im{number + 4:02d}.png", name)
        archive.writestr("z/._y.png", "no image")
        archive.writestr("read.me", "no image")
    with zipfile.ZipFile(folder / "none.zip", "w") as archive:
        archive.writestr("read.me", "no image")
    (folder / "broken.zip").write_bytes((folder / "more.zip").read_bytes()[:200])
    return folder


GIVEN = ["photos", "one.png", "more.zip", "other/*", "other/im[2].png"]
NAMES = [
    "photos/b.png", "photos/sub/a.png", "one.png", "more.zip/x.png", "more.zip/z/y.png",
    "other/im1.png", "other/im2.png", "other/im2.png",
]  # fmt: skip


@pytest.fixture(scope="module")
def expected(desk: Path) -> np.ndarray:
    """The rates of `NAMES`, by ONNX Runtime from pixels that Pillow reads."""
    session = ort.InferenceSession(desk / "run/predictor.onnx", providers=["CPUExecutionProvider"])
    with zipfile.ZipFile(desk / "more.zip") as archive:
        archive.extractall(desk / "more")
    rates = []
    for name in NAMES:
        image = np.asarray(Image.open(desk / name.replace("more.zip", "more")).convert("RGB"))
        rates.append(session.run(["rates"], {"images": image[None]})[0][0])
    shutil.rmtree(desk / "more")
    return np.array(rates)


@pytest.mark.parametrize("ending", ["parquet", "csv", "npy"])
def test_the_ending_is_the_format(ending: str, desk: Path, expected: np.ndarray) -> None:
    out = desk / f"rates.{ending}"
    run = nrp_onnx("predict", "run", *GIVEN, "-o", out.name, cwd=desk)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"8 images, 6 sites, in unknown: {out.name}\n"
    assert "Predicting" in run.stderr
    if ending == "npy":
        rates = np.load(out)
    else:
        table = (pd.read_parquet if ending == "parquet" else pd.read_csv)(out)
        assert list(table.columns) == ["image", *(f"V4_{i:03d}" for i in range(6))]
        assert list(table["image"]) == NAMES
        rates = table.iloc[:, 1:].to_numpy(np.float32)
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected, rtol=1e-4, atol=1e-5)
    # No digit is lost on the way: the file has the numbers that Python gives.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        np.testing.assert_array_equal(rates, nrp.load_predictor("run").predict(GIVEN))


def test_json_and_csv_on_stdout(desk: Path, expected: np.ndarray) -> None:
    run = nrp_onnx("predict", "run/predictor.onnx", *GIVEN, "--json", cwd=desk)
    found = json.loads(run.stdout)
    assert list(found) == ["predictor", "units", "sites", "regions", "rates"]
    assert found["predictor"] == "run/predictor.onnx"
    assert (found["units"], found["regions"]) == ("unknown", ["V4"] * 6)
    assert found["sites"] == [f"V4_{i:03d}" for i in range(6)]
    assert [row["image"] for row in found["rates"]] == NAMES
    np.testing.assert_allclose(
        [row["rates"] for row in found["rates"]], expected, rtol=1e-4, atol=1e-5
    )
    run = nrp_onnx("predict", "run/predictor.onnx", "one.png", "more.zip", cwd=desk)
    header, *rows = run.stdout.splitlines()
    assert header == "image," + ",".join(found["sites"])
    assert [row.split(",")[0] for row in rows] == NAMES[2:5]


def test_python_takes_one_path_many_or_an_array(desk: Path, expected: np.ndarray) -> None:
    predictor = nrp.load_predictor(desk / "run")
    assert predictor.path == desk / "run" / "predictor.onnx"
    np.testing.assert_allclose(
        predictor.predict(desk / "photos"), expected[:2], rtol=1e-4, atol=1e-5
    )
    one = predictor.predict(str(desk / "one.png"))
    np.testing.assert_allclose(one, expected[[2]], rtol=1e-4, atol=1e-5)
    pixels = np.asarray(Image.open(desk / "one.png"))[None]
    np.testing.assert_array_equal(predictor.predict(pixels), one)
    assert predictor.predict([]).shape == (0, 6)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["missing.png"], ["missing.png: no such image", "folders or zips"]),
        (["empty"], ["empty: there are no images here", "none"]),
        (["missing/*.png"], ["missing/*.png: there are no images here", "nothing that it matches"]),
        (["photos/*.txt"], ["photos/*.txt: there are no images here", "1 other files or folders"]),
        (["none.zip"], ["none.zip: there are no images here", "1 other entries"]),
        (["broken.zip"], ["broken.zip: the zip cannot be opened"]),
        (["photos/notes.txt"], ["photos/notes.txt"]),
        (["one.png", "-o", "rates.txt"], ["-o rates.txt", ".parquet, .csv or .npy", "found .txt"]),
        (["one.png", "-o", "rates"], ["-o rates", "found no ending"]),
    ],
)
def test_what_cannot_be_predicted_is_said_in_one_line(
    given: list[str], parts: list[str], desk: Path
) -> None:
    before = set(desk.iterdir())
    assert_user_error(nrp_onnx("predict", "run", *given, cwd=desk), *parts)
    assert set(desk.iterdir()) == before


def test_a_file_is_whole_or_not_there(desk: Path, tmp_path: Path) -> None:
    """The last of the images does not open, after rates of others were written."""
    for ending in ("parquet", "csv", "npy"):
        out = tmp_path / f"rates.{ending}"
        run = nrp_onnx("predict", "run", *["one.png"] * 40, "photos/notes.txt", "-o", out, cwd=desk)
        assert_user_error(run, "photos/notes.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_entry_of_a_zip_that_is_damaged_is_named(desk: Path, tmp_path: Path) -> None:
    whole = (desk / "more.zip").read_bytes()
    place = whole.index(b"x.png") + 200  # among the bytes of the image
    damaged = whole[:place] + bytes(255 - byte for byte in whole[place : place + 20])
    (tmp_path / "more.zip").write_bytes(damaged + whole[place + 20 :])
    run = nrp_onnx("predict", desk / "run", tmp_path / "more.zip")
    assert_user_error(run, tmp_path / "more.zip/x.png", "the image cannot be unpacked")


def _changed(source: Path, out: Path, metadata: dict[str, str | None]) -> Path:
    """A copy of a model with other metadata; None takes a key away."""
    proto = onnx.load(source)
    facts = {entry.key: entry.value for entry in proto.metadata_props} | metadata
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {k: v for k, v in facts.items() if v is not None})
    onnx.save(proto, out)
    return out


def test_files_of_another_kind_or_version_are_refused(desk: Path, tmp_path: Path) -> None:
    image, predictor = desk / "one.png", desk / "run" / "predictor.onnx"
    schema = "nrp_onnx.schema"
    assert {e.key: e.value for e in onnx.load(predictor).metadata_props}[schema] == "1"
    for name in ("head", "scorer"):
        assert_user_error(
            nrp_onnx("predict", desk / "run" / f"{name}.onnx", image), "this is no predictor"
        )
    newer = _changed(predictor, tmp_path / "newer.onnx", {schema: "2"})
    assert_user_error(
        nrp_onnx("predict", newer, image), newer, "made by a newer version", "nrp_onnx.schema 1",
        "found 2",
    )  # fmt: skip
    older = _changed(predictor, tmp_path / "older.onnx", {schema: None})
    np.testing.assert_array_equal(
        nrp.load_predictor(older).predict(image), nrp.load_predictor(predictor).predict(image)
    )
    bare = _changed(predictor, tmp_path / "bare.onnx", {"nrp_onnx.sites": None})
    assert_user_error(
        nrp_onnx("predict", bare, image), "this is no predictor", "without nrp_onnx.sites"
    )
    (tmp_path / "text.onnx").write_text("no model")
    assert_user_error(nrp_onnx("predict", tmp_path / "text.onnx", image), "cannot be read as ONNX")
    assert_user_error(nrp_onnx("predict", tmp_path, image), tmp_path, "has no predictor.onnx")


class _Counted:
    """An image that says when it is decoded."""

    def __init__(self, decoded: list["_Counted"]) -> None:
        self.done = decoded

    def decoded(self) -> Decoded:
        self.done.append(self)
        return Decoded(np.zeros((32, 32, 3), np.uint8), "RGB", 8, transparent=False, turned=False)


def test_few_images_are_decoded_at_a_time(desk: Path) -> None:
    predictor, decoded = nrp.load_predictor(desk / "run"), list[_Counted]()
    blocks = predictor.blocks([_Counted(decoded) for _ in range(1000)])
    seen = 0
    for block in blocks:
        seen += len(block)
        assert len(block) <= 16
        assert seen <= len(decoded) <= seen + 32
    assert seen == len(decoded) == 1000


class _Sites:
    """As much of a predictor as a file of rates asks for."""

    sites, units = tuple(f"site {i}" for i in range(3000)), "spikes, a second"


def test_parquet_has_row_groups_of_many_images(tmp_path: Path) -> None:
    """1,398 rows of 3,000 sites are a group, whatever the blocks that they come in."""
    block = np.random.default_rng(0).normal(size=(16, 3000)).astype(np.float32)
    predictor: Any = _Sites()
    with rates_file(tmp_path / "r.parquet", predictor, 1600) as write:
        for number in range(100):
            write([f"im{16 * number + row}" for row in range(16)], block + number)
    file = pq.ParquetFile(tmp_path / "r.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [1408, 192]
    assert file.schema_arrow.metadata[b"nrp_onnx.units"] == b"spikes, a second"
    found = file.read(columns=["image", "site 2999"]).to_pydict()
    assert found["image"] == [f"im{row}" for row in range(1600)]
    last = (block[:, 2999] + np.arange(100, dtype=np.float32)[:, None]).ravel()
    np.testing.assert_array_equal(np.array(found["site 2999"], np.float32), last)
