"""The card of an exported predictor: in the metadata, beside the model, and as people read it."""

import json
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest

import nrp_onnx as nrp
from nrp_onnx.files import sha256_of_file
from tests.command_line import assert_user_error, nrp_onnx


@pytest.fixture(scope="module")
def run(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> nrp.Run:
    return nrp.score(
        *(model_path, recordings_folder),
        out=tmp_path_factory.mktemp("card") / "run",
        search="quick",
        folds=4,
        layers="1",
        all_images=True,
        report=False,
    )


def test_every_file_of_a_run_has_the_same_card(run: nrp.Run, model_path: Path) -> None:
    card = nrp.read_card(run.folder / "predictor.json")
    for name in ("head.onnx", "predictor.onnx", "scorer.onnx"):
        assert nrp.read_card(run.folder / name) == card
        onnx.checker.check_model(onnx.load(run.folder / name), full_check=True)
    result = run.result
    assert (card.predictor, card.units, card.simulated) == (result.headline, "unknown", False)
    assert card.sites == list(nrp.load_predictor(run.folder / "predictor.onnx").sites)
    assert card.scores["V4"]["nrp_error"]["value"] == result.regions["V4"].nrp_error.value
    assert card.scores["V4"]["noise_floor"] == result.regions["V4"].noise_floor
    assert card.model.file == model_path.name
    assert card.model.sha256 == sha256_of_file(model_path)
    assert (card.run, card.recordings.fingerprint) == (
        result.fingerprint,
        result.recordings.fingerprint,
    )
    assert list(card.layers) == ["1"]
    assert card.versions == result.versions
    of_all = nrp.read_card(run.folder / "predictor_all.json")
    assert of_all == nrp.read_card(run.folder / "predictor_all.onnx")
    assert (of_all.trained_on.what, of_all.trained_on.not_seen) == ("all images", [])


def test_no_local_path_is_in_what_is_shipped(
    run: nrp.Run, model_path: Path, recordings_folder: Path
) -> None:
    for path in run.folder.glob("predictor*"):
        content = path.read_bytes()
        for folder in (run.folder, model_path.parent, recordings_folder, Path.home()):
            assert str(folder).encode() not in content


def test_show_prints_the_card(run: nrp.Run) -> None:
    shown = nrp_onnx("show", run.folder / "predictor.onnx")
    assert shown.returncode == 0
    found = run.result.regions["V4"].nrp_error
    for text in (
        "small: recorded responses, 40 images",
        f"{found.value:.3f} [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]",
        "the training images of fold 0",
        run.result.model.sha256,
    ):
        assert text in shown.stdout
    as_json = nrp_onnx("show", "--json", run.folder / "predictor.json")
    assert json.loads(as_json.stdout) == asdict(nrp.read_card(run.folder / "scorer.onnx"))


def test_what_is_no_card_is_one_line(run: nrp.Run, model_path: Path, tmp_path: Path) -> None:
    assert_user_error(nrp_onnx("show", tmp_path / "none.onnx"), "no such card", "none.onnx")
    assert_user_error(nrp_onnx("show", model_path), "this file has no card", "nrp-onnx score")
    damaged = tmp_path / "damaged.json"
    for content in ("{", "[]", '{"sites": 3}'):
        damaged.write_text(content)
        assert_user_error(nrp_onnx("show", damaged), "this file has no card", "damaged.json")
    card = json.loads((run.folder / "predictor.json").read_text())
    damaged.write_text(json.dumps(card | {"schema": 2, "sites": None}))
    assert_user_error(nrp_onnx("show", damaged), "newer version", "schema 1", "found 2")
