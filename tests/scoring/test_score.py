"""The main job, through the command line."""

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from nrp_onnx.recordings import load_recordings, site_reliability
from nrp_onnx.report.terminal import score_table
from nrp_onnx.scoring.result import Result
from tests.command_line import assert_user_error, nrp_onnx


@pytest.fixture(scope="module")
def run_folder(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "-o", out, "--search", "quick",
        "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["nrp_error"] > 0
    assert "--layers auto" in run.stderr
    assert "--normalise zscore" in run.stderr
    return out


def test_result_has_the_documented_keys(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    region = result["regions"]["V4"]
    assert region["n_sites"] == 6
    # The search is `quick`, which fits no kernel ridge.
    assert list(region["predictors"]) == ["mean", "ols", "ridge", "pls", "nrp", "nrp+ridge"]
    assert list(region["comparisons"]) == ["mean", "ols", "ridge", "pls", "nrp"]
    assert result["headline"] == "nrp+ridge"
    assert set(region["shares"]) == {"nrp", "ridge", "mean"}
    assert sum(region["shares"].values()) == pytest.approx(1)
    low, high = region["nrp_error"]["ci95"]
    assert low < region["nrp_error"]["value"] < high
    assert region["noise_floor"] > 0
    assert region["noise_floor_share"] == 1, "every stimulus is repeated at every site"
    assert set(result["model"]) >= {"sha256", "n_parameters", "layers"}
    assert set(result["recordings"]) >= {"name", "simulated", "n_stimuli", "fingerprint"}
    assert set(result) >= {
        "schema_version", "nrp_error", "protocol", "search", "provider", "versions", "timings"
    }  # fmt: skip
    assert result["provider"] == "CPUExecutionProvider"
    assert len(result["search"]["best"]) == 5


def test_errors_are_those_of_the_stored_predictions(run_folder: Path) -> None:
    """The reported MAE is recomputed from predictions.parquet with z-scores of the training part."""
    table = pd.read_parquet(run_folder / "predictions.parquet")
    result = json.loads((run_folder / "result.json").read_text())
    recorded, fold = np.stack(table["recorded"].to_list()), table["fold"].to_numpy()
    assert sorted(np.bincount(fold)) == [8] * 5
    for name, reported in result["regions"]["V4"]["predictors"].items():
        predicted = np.stack(table[name].to_list())
        errors = []
        for k in range(5):
            deviation = recorded[fold != k].std(axis=0)
            errors.append(np.abs(predicted - recorded)[fold == k] / deviation)
        assert np.concatenate(errors).mean() == pytest.approx(reported["mae"], rel=1e-5)
    mean = np.stack(table["mean"].to_list())
    np.testing.assert_allclose(mean[fold == 0][0], recorded[fold != 0].mean(axis=0), rtol=1e-5)


def test_the_ceilings_are_those_of_the_stored_sites(
    run_folder: Path, recordings_folder: Path
) -> None:
    """r is recomputed from predictions.parquet, and with the reliability of each site normalised."""
    sites = pd.read_csv(run_folder / "sites.csv")
    recordings = load_recordings(recordings_folder)
    assert tuple(sites["site_id"]) == recordings.site_ids
    np.testing.assert_allclose(sites["reliability"], site_reliability(recordings), rtol=1e-5)
    table = pd.read_parquet(run_folder / "predictions.parquet")
    recorded = np.stack(table["recorded"].to_list())
    region = json.loads((run_folder / "result.json").read_text())["regions"]["V4"]
    assert region["reliability"] == pytest.approx(sites["reliability"].median(), rel=1e-5)
    assert region["reliability_reason"] is None
    for name in ("ols", "nrp+ridge"):
        predicted = np.stack(table[name].to_list())
        r = np.array(
            [
                np.mean(
                    [
                        # A fold in which the mixture gives the mean explains nothing.
                        np.corrcoef(predicted[test, site], recorded[test, site])[0, 1]
                        if np.ptp(predicted[test, site])
                        else 0
                        for test in (table["fold"].to_numpy() == k for k in range(5))
                    ]
                )
                for site in range(6)
            ]
        )
        normalised = np.median(r / np.sqrt(sites["reliability"]))
        found = region["predictors"][name]["pearson_r_normalised"]
        assert found == pytest.approx(normalised, abs=1e-3), "stored as float32"
    np.testing.assert_allclose(sites["r"], r, atol=3e-3)
    np.testing.assert_allclose(sites["r_normalised"], r / np.sqrt(sites["reliability"]), atol=5e-3)
    assert region["predictors"]["mean"]["pearson_r_normalised"] is None


def test_squared_errors_and_sites_are_those_of_the_stored_predictions(run_folder: Path) -> None:
    """MSE, noise-corrected r2, tests and what is explained of each site, from the Parquet file."""
    table = pd.read_parquet(run_folder / "predictions.parquet")
    region = json.loads((run_folder / "result.json").read_text())["regions"]["V4"]
    sites = pd.read_csv(run_folder / "sites.csv")
    recorded, fold = np.stack(table["recorded"].to_list()), table["fold"].to_numpy()
    scale = np.stack([np.nanstd(recorded[fold != k], axis=0) for k in range(5)])[fold]
    errors = {
        name: (np.stack(table[name].to_list()) - recorded) / scale for name in region["predictors"]
    }
    for name, found in region["predictors"].items():
        assert found["mse"] == pytest.approx((errors[name] ** 2).mean(), rel=1e-4)
        low, high = found["mse_ci95"]
        assert low < found["mse"] < high
    nrp, ridge, mean = (errors[name] for name in ("nrp+ridge", "ridge", "mean"))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(sites["mae"], np.abs(nrp).mean(axis=0))
    close(sites["mse"], (nrp**2).mean(axis=0))
    close(sites["mae_ridge"], np.abs(ridge).mean(axis=0))
    way = np.abs(mean).mean(axis=0) - sites["noise_floor"]
    np.testing.assert_allclose(
        sites["explained"], (np.abs(mean) - np.abs(nrp)).mean(axis=0) / way, rtol=1e-3, atol=1e-4
    )
    assert sites["noise_floor"].mean() == pytest.approx(region["noise_floor"], rel=1e-4)
    found = region["predictors"]["nrp+ridge"]
    close(sites["r2_normalised"], sites["r"] ** 2 / sites["reliability"])
    assert found["r2_normalised"] == pytest.approx(sites["r2_normalised"].median(), rel=1e-4)
    low, high = found["r2_normalised_ci95"]
    assert sites["r2_normalised"].min() <= low <= high <= sites["r2_normalised"].max() + 1e-5
    for name, other in (("ridge", ridge), ("mean", mean)):
        test = stats.ttest_rel(np.abs(nrp), np.abs(other))
        np.testing.assert_allclose(sites[f"p_{name}"], test.pvalue, rtol=1e-2, atol=1e-4)
        q = stats.false_discovery_control(sites[f"p_{name}"])
        np.testing.assert_allclose(sites[f"q_{name}"], q, rtol=1e-4)
        paired = region["comparisons"][name]
        apart = (nrp**2 - other**2).mean()
        assert paired["mse_difference"] == pytest.approx(apart, abs=1e-5)
        assert paired["mse_ci95"][0] < apart < paired["mse_ci95"][1]
        better = (q < 0.05) & (test.statistic < 0)
        worse = (q < 0.05) & (test.statistic > 0)
        assert paired["significant_sites"] == {"better": better.sum(), "worse": worse.sum()}


def test_what_makes_intervals_too_narrow_is_said(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    assert any("fewer than 20 sites (6 here)" in note for note in result["notes"])
    assert result["protocol"]["interval"] == "95 %, bootstrap over images and sites, 2000 resamples"


def test_the_table_shows_ceilings_and_brain_score(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(score_table(Result.from_json(result)))
    lines = console.export_text().splitlines()
    region = result["regions"]["V4"]
    (limits,) = [line for line in lines if "noise floor, ceiling" in line]
    assert f"{region['noise_floor']:.3f}" in limits
    assert f"{np.sqrt(region['reliability']):.3f}" in limits
    (score,) = [line for line in lines if "Brain-Score" in line and "│" in line]
    assert f"Brain-Score {region['brainscore']['score']:.3f}" in score
    assert f"{region['brainscore']['r']:.3f}" in score
    (nrp,) = [line for line in lines if "│ NRP + ridge " in line]
    assert f"{region['predictors']['nrp+ridge']['r2_normalised']:.3f}" in nrp
    assert f"{region['predictors']['nrp+ridge']['mse']:.3f}" in nrp
    assert any("z, that of: NRP + ridge" in line for line in lines)
    text = " ".join(word.strip() for word in lines)
    assert "not to be compared between recordings" in text


def test_predictor_runs_with_onnxruntime_and_numpy_alone(
    run_folder: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    table = pd.read_parquet(run_folder / "predictions.parquet")
    held_out = table[table["fold"] == 0]
    names = pd.read_csv(recordings_folder / "stimuli.csv").set_index("stimulus_id")["filename"]
    from PIL import Image

    paths = [recordings_folder / "stimuli" / names[name] for name in held_out["stimulus_id"]]
    np.save(tmp_path / "images.npy", np.stack([np.asarray(Image.open(path)) for path in paths]))
    code = (
        "import sys, numpy as np, onnxruntime as ort\n"
        "session = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "rates = session.run(None, {'images': np.load(sys.argv[2])})[0]\n"
        "assert 'torch' not in sys.modules and 'nrp_onnx' not in sys.modules\n"
        "np.save(sys.argv[3], rates)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, run_folder / "predictor.onnx", tmp_path / "images.npy",
         tmp_path / "rates.npy"], check=True,
    )  # fmt: skip
    scored = np.stack(held_out["nrp+ridge"].to_list())
    deviation = np.stack(table["recorded"].to_list()).std(axis=0)
    assert np.abs((np.load(tmp_path / "rates.npy") - scored) / deviation).max() < 1e-3

    run = nrp_onnx("predict", run_folder / "predictor.onnx", *paths, "-o", tmp_path / "r.parquet")
    assert run.returncode == 0, run.stderr
    rates = pd.read_parquet(tmp_path / "r.parquet")
    assert list(rates.columns) == ["image", *(f"V4_{i:03d}" for i in range(6))]
    np.testing.assert_allclose(rates.iloc[:, 1:], scored, atol=1e-3)


def test_a_second_run_does_nothing_again(
    run_folder: Path, model_path: Path, recordings_folder: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.parquet")}
    given = ("score", model_path, "--recordings", recordings_folder, "-o", run_folder)
    run = nrp_onnx(*given, "--search", "quick")
    assert run.returncode == 0
    assert "nothing is computed again" in run.stderr
    assert "NRP network" in run.stdout
    again = nrp_onnx(*given, "--search", "quick", "--overwrite")
    assert "nothing is extracted" in again.stderr
    result = json.loads((run_folder / "result.json").read_text())
    assert result["provider"] == "CPUExecutionProvider"
    for path in run_folder.glob("activations/*.parquet"):
        assert path.stat().st_mtime_ns == before[path]
    assert_user_error(nrp_onnx(*given, "--search", "paper"), run_folder, "another run", "search")


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    search = tmp_path / "mine.yaml"
    search.write_text("layers: [all, each]\nmax_epochs: 120\npatience: 120\nsizes: [[16, 16]]\n")
    out = tmp_path / "out"
    given = (
        "score", str(model_path), "--recordings", str(recordings_folder), "-o", str(out),
        "--search", str(search),
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "nrp_onnx", *given], stderr=subprocess.DEVNULL
    ) as process:
        trials = out / "trials.parquet"
        while not trials.exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    before = pd.read_parquet(trials)
    assert not (out / "result.json").exists()
    stamp = time.time_ns()

    run = nrp_onnx(*given, "--json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    after = pd.read_parquet(trials)
    n_trials = 5 * 2 * (1 + len(result["model"]["layers"]))
    assert result["search"]["trials"] == {"file": "trials.parquet", "count": n_trials}
    assert len(after) == n_trials > len(before) > 0
    pd.testing.assert_frame_equal(after.head(len(before)), before)
    assert stamp < trials.stat().st_mtime_ns
    for fold, best in enumerate(result["search"]["best"]):
        errors = after[after["fold"] == fold]["validation_mae"]
        assert best["fold"] == fold
        assert best["validation_mae"] == errors.min()
    assert result["search"]["space"]["sizes"] == [[16, 16]]

    # Another search in the file is another run; the same one is not.
    assert "nothing is computed again" in nrp_onnx(*given).stderr
    search.write_text("sizes: [[8, 8]]")
    assert_user_error(nrp_onnx(*given), "another run", "search")


def test_another_reduction_extracts_again(
    run_folder: Path, model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    from nrp_onnx.activations.extract import extract_activations
    from nrp_onnx.backbone.feature_graph import Feature
    from nrp_onnx.backbone.model import load_backbone
    from nrp_onnx.backbone.preprocessing import PRESETS
    from nrp_onnx.backbone.reductions import Reduction
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings import load_recordings

    backbone, recordings = load_backbone(model_path), load_recordings(recordings_folder)
    layer = backbone.layers[1]

    def extracted(preset: str, reduction: Reduction) -> int:
        spec = PRESETS[preset].for_input(32, 32, "NCHW", "float32")
        features = [Feature(layer, reduction)]
        found = extract_activations(
            backbone, spec, features, recordings, tmp_path, "cpu", Notes(), overwrite=True
        )
        return found.n_extracted

    assert extracted("tf", Reduction("none")) == 1
    assert extracted("tf", Reduction("none")) == 0
    assert extracted("tf", Reduction("mean")) == 1
    assert extracted("caffe", Reduction("mean")) == 1


def test_bad_input_is_one_line(model_path: Path, recordings_folder: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(model_path.read_bytes()[:2000])
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    at = ("--recordings", recordings_folder, "-o", tmp_path / "out")
    cases = [
        ((tmp_path / "none.onnx", *at), ["none.onnx", "no such model"]),
        ((truncated, *at), ["truncated.onnx", "expected a whole ONNX model"]),
        ((model_path, *at, "--layers", "0,3x"), ["'3x'", "expected one of", "nrp-onnx layers"]),
        ((model_path, *at, "--region", "IT"), ["--region", "of V4", "found IT"]),
        ((model_path, *at, "--reduce", "pool"), ["--reduce", "avgpool:K"]),
        ((model_path, *at, "--preprocess", "vgg"), ["--preprocess", "imagenet", "'vgg'"]),
        ((model_path, *at, "--search", "papre"), ["--search", "paper, quick", "'papre'"]),
        ((model_path, *at, "--folds", "30"), ["--folds", "2 to 10"]),
        ((model_path, *at, "--device", "tpu"), ["--device", "auto, cpu, cuda or tensorrt"]),
        ((model_path, "--recordings", tmp_path / "no"), ["no such recordings"]),
        ((model_path, *at[:2], "-o", taken), ["taken", "something else"]),
        ((model_path, "--frobnicate"), ["--frobnicate"]),
    ]
    for arguments, parts in cases:
        assert_user_error(nrp_onnx("score", *arguments), *parts)
        assert not (tmp_path / "out" / "result.json").exists()
    assert (taken / "thesis.txt").read_text() == "mine"


def test_stimuli_without_an_image_are_left_out_if_asked(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    folder = _damaged(recordings_folder, tmp_path / "recordings", _cut_an_image)
    given = (
        "score",
        model_path,
        "--recordings",
        folder,
        "--search",
        "quick",
        "-o",
        tmp_path / "run",
    )
    assert_user_error(nrp_onnx(*given), "im07.png", "--skip-bad-stimuli")
    run = nrp_onnx(*given, "--skip-bad-stimuli", "--overwrite")
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["recordings"]["skipped_stimuli"] == ["s7"]
    assert result["recordings"]["n_stimuli"] == 39
    assert any("1 images do not open and are left out: s7" in note for note in result["notes"])
    held_out = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert set(held_out["stimulus_id"]) == {f"s{i}" for i in range(40) if i != 7}


def _damaged(source: Path, folder: Path, damage: Callable[[Path], None]) -> Path:
    shutil.copytree(source, folder)
    damage(folder)
    return folder


def _cut_an_image(folder: Path) -> None:
    image = folder / "stimuli" / "im07.png"
    image.write_bytes(image.read_bytes()[:200])


def _lose_a_stimulus(folder: Path) -> None:
    lines = (folder / "stimuli.csv").read_text().splitlines()
    (folder / "stimuli.csv").write_text("\n".join(lines[:-1]) + "\n")


def _repeat_an_id(folder: Path) -> None:
    table = (folder / "stimuli.csv").read_text()
    (folder / "stimuli.csv").write_text(table.replace("s5,", "s4,"))


def _silence_a_site(folder: Path) -> None:
    table = pd.read_parquet(folder / "responses.parquet")
    table["responses"] = [np.where(np.arange(6) == 2, np.nan, row) for row in table["responses"]]
    table.to_parquet(folder / "responses.parquet")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (_cut_an_image, ["im07.png", "does not open", "200 bytes"]),
        (_lose_a_stimulus, ["responses.parquet", "s39"]),
        (_repeat_an_id, ["stimuli.csv", "stimulus_id comes twice", "'s4'"]),
        (_silence_a_site, ["responses.parquet", "V4_002"]),
    ],
)
def test_damaged_recordings_are_one_line_and_leave_nothing_finished(
    damage: Callable[[Path], None],
    parts: list[str],
    model_path: Path,
    recordings_folder: Path,
    tmp_path: Path,
) -> None:
    folder = _damaged(recordings_folder, tmp_path / "damaged", damage)
    run = nrp_onnx("score", model_path, "--recordings", folder, "-o", tmp_path / "out")
    assert_user_error(run, *parts)
    # What was extracted before the fault waits, hidden, for the next run to go on with.
    left = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")]
    shown = [path for path in left if not any(part.startswith(".") for part in path.parts)]
    assert {str(path) for path in shown} <= {"run.json", "activations"}


@pytest.mark.parametrize("wrong", ["model", "search"])
def test_what_is_wrong_is_said_before_recordings_are_made(
    wrong: str, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRP_ONNX_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "missing.onnx" if wrong == "model" else model_path
    search = "deepest" if wrong == "search" else "quick"
    run = nrp_onnx("score", model, "--search", search, "-o", tmp_path / "out")
    assert_user_error(run, "missing.onnx" if wrong == "model" else "deepest")
    assert not (tmp_path / "cache").exists()


def test_several_seeds_on_the_same_folds(
    model_path: Path, recordings_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    run = nrp_onnx(
        *("score", model_path, "--recordings", recordings_folder, "-o", tmp_path / "out"),
        *("--search", "quick", "--seeds", "3", "--json", "--no-report"),
    )
    assert run.returncode == 0, run.stderr
    region = json.loads(run.stdout)["regions"]["V4"]
    errors = region["nrp_error"]["by_seed"]
    assert len(set(errors)) == 3
    # More seeds leave what the first one gave, and what it is compared with, as it was.
    alone = json.loads((run_folder / "result.json").read_text())["regions"]["V4"]
    assert errors[0] == region["nrp_error"]["value"] == alone["nrp_error"]["value"]
    assert region["predictors"]["ridge"] == alone["predictors"]["ridge"]
    spread = np.std(errors, ddof=1)
    assert f"over 3 seeds, standard deviation {spread:.4f}" in run.stderr
    trials = pd.read_parquet(tmp_path / "out" / "trials.parquet")
    assert set(trials.groupby("fold")["seed"].nunique()) == {3}


def test_cuda_without_a_gpu_is_an_error(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    import onnxruntime as ort

    if any(d.device.type == ort.OrtHardwareDeviceType.GPU for d in ort.get_ep_devices()):
        pytest.skip("this machine has a GPU")
    run = nrp_onnx(
        "score",
        model_path,
        "--recordings",
        recordings_folder,
        "-o",
        tmp_path / "o",
        "--device",
        "cuda",
    )
    assert_user_error(run, "--device cuda", "use --device cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "preprocess"),
    [("mobilenet_v2_1.0_224.onnx", "tf"), ("SqueezeNet_fp16.onnx", "caffe")],
)
def test_real_recordings_and_backbones(
    shared: Path, tmp_path: Path, file: str, preprocess: str
) -> None:
    data = shared / "data" / "macaque_v4_210325"
    run = nrp_onnx(
        "recordings", "import", data / "images.zip", data / "responses.npy", "--axes",
        "site,stimulus,repetition", "--region", "V4", "--stimuli", data / "stimuli.csv", "-o",
        tmp_path / "v4",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    run = nrp_onnx(
        "score", shared / "backbones" / file, "--preprocess", preprocess, "--recordings",
        tmp_path / "v4", "-o", tmp_path / "out", "--search", "quick", "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    region = json.loads(run.stdout)["regions"]["V4"]
    mae = {name: found["mae"] for name, found in region["predictors"].items()}
    # Reference values of an independent prototype: see the README beside the recordings.
    assert mae["mean"] == pytest.approx(0.77, abs=0.02)
    assert region["noise_floor"] == pytest.approx(0.364, abs=0.02)
    assert region["noise_floor"] < mae["ridge"] < mae["ols"] < mae["mean"]
    assert region["reliability"] == pytest.approx(0.75, abs=0.015)
    brainscore = region["brainscore"]
    assert brainscore["stratified_on"] == "object_name"
    assert brainscore["score"] == pytest.approx(brainscore["r"] ** 2 / brainscore["ceiling"])
    # The baseline's PLS sees layers scaled to the same variance, and other splits.
    assert brainscore["r"] == pytest.approx(region["predictors"]["pls"]["pearson_r"], abs=0.1)
    if preprocess == "tf":
        assert mae["ols"] == pytest.approx(0.65, abs=0.02)
        assert mae["ridge"] == pytest.approx(0.61, abs=0.02)
        assert mae["nrp"] < mae["ols"] + 0.01
