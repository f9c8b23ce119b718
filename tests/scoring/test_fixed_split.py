"""A fixed split of the recordings, end to end: train images shown once, test images more often, and OOD."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import pearsonr

import nrp_onnx as nrp
from nrp_onnx.bootstrap import bootstrap_drops
from nrp_onnx.recordings import load_recordings
from tests.command_line import assert_user_error, nrp_onnx

# The last two images have no part in the split.
TRAIN, TEST, OOD = (
    [f"s{i}" for i in range(start, end)] for start, end in ((0, 24), (24, 32), (32, 38))
)


@pytest.fixture(scope="module")
def split_folder(recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recordings with a column ``split``: train images were shown once, the others 4 times.

    Responses to the images out of distribution hardly repeat.
    """
    folder = tmp_path_factory.mktemp("split") / "recordings"
    shutil.copytree(recordings_folder, folder)
    stimuli = pd.read_csv(folder / "stimuli.csv", dtype=str)
    part_of = {
        x: part for part, ids in (("train", TRAIN), ("test", TEST), ("ood", OOD)) for x in ids
    }
    stimuli["split"] = [part_of.get(x, "") for x in stimuli["stimulus_id"]]
    stimuli.to_csv(folder / "stimuli.csv", index=False)
    rows = pd.read_parquet(folder / "responses.parquet")
    rows = rows[~rows["stimulus_id"].isin(TRAIN) | (rows["repetition"] == 1)]
    rng = np.random.default_rng(0)
    noisy = rows["stimulus_id"].isin(OOD)
    rows.loc[noisy, "responses"] = rows.loc[noisy, "responses"].map(
        lambda rates: (rates + 3 * rng.standard_normal(len(rates))).astype(np.float32)
    )
    _write_responses(folder, rows)
    return folder


def _write_responses(folder: Path, rows: pd.DataFrame) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(folder / "responses.parquet")
    table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
    pq.write_table(table, folder / "responses.parquet", use_dictionary=False)


@pytest.fixture(scope="module")
def run(model_path: Path, split_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> nrp.Run:
    """Ridge alone is in the mixture, so that predictions differ between images."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "ridge.yaml").write_text("sizes: [[4, 4]]\nlinear_shares: [1]\nkernel_ridge: false\n")
    return nrp.score(
        model_path, split_folder, out=folder / "run", search=str(folder / "ridge.yaml")
    )


def test_the_split_of_the_recordings_is_the_default(run: nrp.Run) -> None:
    protocol = run.result.protocol
    assert (protocol.name, protocol.stratified_on) == ("split", None)
    assert protocol.split is not None
    assert (protocol.split.name, protocol.split.n_train) == ("default", 24)
    assert (protocol.split.n_test, protocol.split.n_ood) == (8, 6)
    assert any("24 train, 8 test, 6 are out of distribution" in note for note in run.result.notes)
    table = pd.read_parquet(run.folder / "predictions.parquet").set_index("stimulus_id")
    assert list(table.index) == TEST + OOD
    for ids, fold in ((TEST, 0), (OOD, -2)):
        assert (table.loc[ids, "fold"] == fold).all()
    assert not np.isnan(np.stack(table["ridge"].to_list())).any()


def test_errors_and_the_drop_are_those_of_the_stored_predictions(
    run: nrp.Run, split_folder: Path
) -> None:
    table = pd.read_parquet(run.folder / "predictions.parquet").set_index("stimulus_id")
    rates = {
        name: {x: np.array(row, float) for x, row in table[name].items()}
        for name in ("recorded", "mean", "ols", "nrp+ridge")
    }
    recordings = load_recordings(split_folder)
    train = recordings.averages[[recordings.stimulus_ids.index(x) for x in TRAIN]]
    # The mean response is the test of what was trained on.
    np.testing.assert_allclose(rates["mean"][TEST[0]], train.mean(axis=0), rtol=1e-5)
    region, found = run.result.regions["V4"], {}
    for part, ids in (("test", TEST), ("ood", OOD)):
        for name in ("mean", "nrp+ridge"):
            errors = [(rates[name][x] - rates["recorded"][x]) / train.std(axis=0) for x in ids]
            found[part, name] = np.abs(errors).mean(), np.square(errors).mean()
    assert region.ood is not None
    for name in ("mean", "nrp+ridge"):
        assert region.predictors[name].mae == pytest.approx(found["test", name][0], rel=1e-4)
        ood = region.ood[name]
        assert (ood.mae, ood.mse) == pytest.approx(found["ood", name], rel=1e-4)
        assert ood.drop == pytest.approx(found["ood", name][0] - found["test", name][0], abs=1e-4)
        assert ood.drop_ci95[0] < ood.drop < ood.drop_ci95[1]
    assert run.nrp_error == pytest.approx(found["test", "nrp+ridge"][0], rel=1e-4)
    of_sites = [
        pearsonr(*(np.array([rates[name][x][site] for x in OOD]) for name in ("recorded", "ols")))
        for site in range(6)
    ]
    r = np.median([one.statistic for one in of_sites])
    assert region.ood["ols"].pearson_r == pytest.approx(r, abs=1e-4)


def test_reliability_and_floor_are_those_of_the_test_images(
    run: nrp.Run, split_folder: Path
) -> None:
    recordings = load_recordings(split_folder)
    test = recordings.without_stimuli(set(recordings.stimulus_ids) - set(TEST))
    noise = np.array(
        [
            test.responses[test.presentation_stimulus == place].astype(float).var(axis=0, ddof=1)
            / 4
            for place in range(8)
        ]
    )
    expected = 1 - noise.mean(axis=0) / test.averages.var(axis=0, ddof=1)
    region = run.result.regions["V4"]
    assert region.reliability == pytest.approx(np.nanmedian(expected), abs=0.01)
    assert region.noise_floor_share == 1.0
    assert region.brainscore is not None
    assert region.brainscore.n_splits == 1
    assert region.brainscore.ceiling == pytest.approx(np.nanmedian(expected), abs=0.02)


def test_the_predictor_gives_the_predictions_of_the_test_images(
    run: nrp.Run, split_folder: Path
) -> None:
    table = pd.read_parquet(run.folder / "predictions.parquet").set_index("stimulus_id")
    names = pd.read_csv(split_folder / "stimuli.csv").set_index("stimulus_id")["filename"]
    scored = np.stack(table.loc[TEST + OOD, "nrp+ridge"].to_list())
    predictor = nrp.load_predictor(run.folder / "predictor.onnx")
    paths = [split_folder / "stimuli" / names[x] for x in TEST + OOD]
    deviation = np.stack(table["recorded"].to_list()).std(axis=0)
    assert scored.std(axis=0).max() > 0.1 * deviation.min()
    assert np.abs((predictor.predict(paths) - scored) / deviation).max() < 1e-3


def test_report_and_table_show_train_test_and_ood(run: nrp.Run, split_folder: Path) -> None:
    page = (run.folder / "report.html").read_text()
    assert "24 images train, 8 test, 6 out of distribution" in page
    assert "Out of distribution (95 %)" in page
    facts = nrp_onnx("recordings", "describe", split_folder)
    assert "train of 24 stimuli (1 repetitions)" in facts.stdout
    assert "ood of 6 stimuli (4 repetitions)" in facts.stdout


def test_folds_are_there_to_be_asked_for(
    model_path: Path, split_folder: Path, tmp_path: Path
) -> None:
    run = nrp.score(
        model_path, split_folder, out=tmp_path / "run", folds=3, search="quick", report=False
    )
    assert (run.result.protocol.name, run.result.protocol.split) == ("k-fold", None)
    assert run.result.regions["V4"].ood is None


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--split", "other"], ["--split", "no such split", "default"]),
        (["--split", "default", "--folds", "3"], ["--folds", "only k-fold has folds"]),
        (["--split", "default", "--protocol", "paper"], ["--split", "no folds", "paper"]),
        (["--split", "few"], ["--split few", "too small", "8 train"]),
        (["--protocol", "leave-one-out"], ["--protocol", "no such protocol", "split"]),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    options: list[str], parts: list[str], model_path: Path, split_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    shutil.copytree(split_folder, folder)
    (folder / "splits.json").write_text(json.dumps({"few": {"train": TRAIN[:3], "test": TEST}}))
    given = ["score", model_path, "--recordings", folder, "-o", tmp_path / "run"]
    assert_user_error(nrp_onnx(*given, *options), *parts)


def test_splits_by_name_are_read_and_kept(
    model_path: Path, split_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    shutil.copytree(split_folder, folder)
    before = load_recordings(folder).fingerprint
    (folder / "splits.json").write_text(
        json.dumps({"turned": {"train": OOD + TRAIN, "test": TEST}})
    )
    recordings = load_recordings(folder)
    assert recordings.fingerprint != before
    copy = nrp.recordings.save_recordings(recordings, tmp_path / "copy")
    assert copy.splits["turned"].train == tuple(OOD + TRAIN)
    assert set(copy.splits) == {"default", "turned"}
    given = ["score", model_path, "--recordings", folder, "-o", tmp_path / "run"]
    run = nrp_onnx(*given, "--split", "turned", "--search", "quick", "--no-report", "--json")
    assert json.loads(run.stdout)["protocol"]["split"] == {
        "name": "turned", "n_train": 30, "n_test": 8, "n_ood": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("splits", "parts"),
    [
        (
            {"a": {"train": TRAIN, "test": [*TEST, "s3"]}},
            ["twice in the split 'a'", "'s3'", "test"],
        ),
        ({"a": {"train": TRAIN, "test": [*TEST, "t1"]}}, ["unknown", "'t1'"]),
        ({"a": {"train": TRAIN, "tset": TEST}}, ["these are no splits", "test", "tset"]),
        (["s1"], ["these are no splits"]),
    ],
)
def test_splits_that_cannot_be_scored_are_one_line(
    splits: object, parts: list[str], split_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    shutil.copytree(split_folder, folder)
    (folder / "splits.json").write_text(json.dumps(splits))
    run = nrp_onnx("recordings", "describe", folder)
    assert_user_error(run, "splits.json", *parts)


def test_a_column_of_another_meaning_is_one_line(split_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    shutil.copytree(split_folder, folder)
    text = (folder / "stimuli.csv").read_text()
    (folder / "stimuli.csv").write_text(text.replace(",ood", ",holdout"))
    run = nrp_onnx("recordings", "describe", folder)
    assert_user_error(run, "stimuli.csv", "'holdout'", "train, test, ood")


def test_a_picture_on_both_sides_is_said(
    model_path: Path, split_folder: Path, tmp_path: Path
) -> None:
    """The same pixels in files of other bytes."""
    folder = tmp_path / "recordings"
    shutil.copytree(split_folder, folder)
    with Image.open(folder / "stimuli" / "im03.png") as image:
        image.save(folder / "stimuli" / "im25.png", compress_level=1)
    run = nrp.score(model_path, folder, out=tmp_path / "run", search="quick", report=False)
    assert any("'s25' is 's3'" in note and "training images" in note for note in run.result.notes)


def test_drops_vary_as_the_images_of_both_sides_do() -> None:
    """With a single site, the variance is that of the difference of two means."""
    rng = np.random.default_rng(0)
    test, ood = rng.normal(0, 1, (50, 1)), rng.normal(1, 2, (30, 1))
    drops = bootstrap_drops(test, ood, seed=1, n_resamples=20000)
    expected = np.sqrt(test.var() / 50 + ood.var() / 30)
    assert drops.mean() == pytest.approx(ood.mean() - test.mean(), abs=0.02)
    assert drops.std() == pytest.approx(expected, rel=0.03)
