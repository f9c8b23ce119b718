"""The studies of the paper, as commands: what they leave, how they go on, and what is in the figures."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from scipy import stats
from torch import nn

from nrp_converters import paper
from nrp_converters.paper import PaperNetwork
from nrp_converters.torch.modules import convert
from nrp_onnx.api import score_with
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.backbone.pruning import prune_model
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.recordings import load_recordings, simulate_recordings
from nrp_onnx.report.figures import label_points, study_panels
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.studies.layers import study_layers
from nrp_onnx.studies.pruning import study_pruning
from nrp_onnx.studies.table1 import study_table1
from tests.command_line import assert_user_error, nrp_onnx

QUICK = ("--search", "quick", "--folds", 3)
QUICK_OPTIONS = ScoreOptions(search="quick", folds=3, report=False)
FORMATS = ("svg", "pdf", "png")


@pytest.fixture(scope="module")
def two_regions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of simulated recordings of V4 and IT."""
    folder = tmp_path_factory.mktemp("simulated") / "recordings"
    simulate_recordings(folder, 64)
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small networks that say that they are networks of the paper."""
    folder = tmp_path_factory.mktemp("networks")
    files = []
    for seed, name in enumerate(("MobileNet", "ResNet50", "Xception", "DenseNet121")):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 4 + 2 * seed, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(4 + 2 * seed, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5),
        ).eval()  # fmt: skip
        source = {"spec": f"keras:{name}", "weights": "none"}
        files.append(folder / f"{name}.onnx")
        convert(module, torch.zeros(1, 3, 32, 32), preprocessing=PRESETS["tf"], source=source).save(
            files[-1]
        )
    return files


def _texts(svg: Path) -> list[str]:
    """The texts of a figure: they are written as texts, and not as paths."""
    return re.findall(r"<text [^>]*>([^<]+)</text>", svg.read_text(encoding="utf-8"))


def _check_figure(folder: Path, name: str, *texts: str) -> None:
    for ending in FORMATS:
        assert (folder / f"{name}.{ending}").stat().st_size > 2000
    assert Image.open(folder / f"{name}.png").width >= 800
    found = _texts(folder / f"{name}.svg")
    together = " ".join(found)
    for text in texts:
        assert text in found or text in together, (text, found)


@pytest.mark.slow
def test_table1_has_what_the_paper_says_beside_what_is_measured(
    networks: list[Path], two_regions: Path, tmp_path: Path
) -> None:
    options = QUICK_OPTIONS
    study = study_table1(networks, load_recordings(two_regions), tmp_path, options)
    table = pd.read_csv(tmp_path / "table1.csv").set_index("model")
    assert json.loads((tmp_path / "table1.json").read_text()) == study
    # Table 1 of the paper.
    assert table["paper_top1"].to_dict() == {
        "MobileNet": 0.704, "ResNet50": 0.749, "Xception": 0.790, "DenseNet121": 0.750,
    }  # fmt: skip
    assert table.loc["ResNet50", ["paper_top5", "paper_nrp_error"]].tolist() == [0.921, 0.290]
    assert table.loc["ResNet50", "paper_n_parameters"] == 25_636_712
    for name, row in table.iterrows():
        result = json.loads((tmp_path / "runs" / str(name) / "result.json").read_text())
        v4, it = (result["regions"][region]["predictors"] for region in ("V4", "IT"))
        assert row["nrp_error"] == pytest.approx(
            (v4["nrp+ridge"]["mae"] + it["nrp+ridge"]["mae"]) / 2
        )
        assert row["low"] < row["nrp_error"] < row["high"]
        assert row["V4_ols_mae"] == v4["ols"]["mae"]
        assert row["IT_ridge_r2"] == it["ridge"]["r2"]
        assert row["V4_brainscore"] == result["regions"]["V4"]["brainscore"]["score"]
        assert row["V4_pearson_r_normalised"] == v4["nrp+ridge"]["pearson_r_normalised"]
        assert [row["IT_low"], row["IT_high"]] == it["nrp+ridge"]["mae_ci95"]
    rank = study["rank_correlation"]
    expected = stats.spearmanr(table["nrp_error"], table["paper_top1"])
    assert rank["rho"] == pytest.approx(expected.statistic)
    assert rank["n"] == 4
    # With four networks every order has a chance of 1 in 24.
    assert rank["p"] * 24 == pytest.approx(round(rank["p"] * 24))

    names = [path.stem for path in networks]
    _check_figure(
        tmp_path, "figure_2a", "SIMULATED", *names, "Top-1 on ImageNet, as in the paper (%)",
        "All with random weights: Top-1 is not theirs", "NRP-error (MAE) in",
        f"ρ = {rank['rho']:.2f} (n = 4,",
    )  # fmt: skip
    _check_figure(tmp_path, "figure_2b", "SIMULATED", *names, "V4", "IT", "linear error (MAE) in")
    _check_figure(tmp_path, "figure_2c", "SIMULATED", *names, "V4: NRP-error", "IT: NRP-error")


@pytest.mark.slow
def test_a_killed_study_goes_on_and_one_failed_model_does_not_lose_the_others(
    networks: list[Path], recordings_folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "Broken.onnx"
    broken.write_bytes(networks[0].read_bytes()[:500])
    out = tmp_path / "study"
    command = ["study", "table1", networks[0], broken, networks[1], "--recordings",
               recordings_folder, "-o", out, *QUICK]  # fmt: skip
    first, second = (out / "runs" / path.stem / "result.json" for path in networks[:2])
    process = subprocess.Popen(
        [sys.executable, "-m", "nrp_onnx", *map(str, command)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not second.exists()
    before = first.stat().st_mtime_ns

    run = nrp_onnx(*command)
    assert_user_error(run, "1 of 3 models were not scored: Broken", "expected a whole ONNX model")
    assert run.stderr.count("holds this very run, finished") == 1
    assert first.stat().st_mtime_ns == before
    study = json.loads((out / "table1.json").read_text())
    assert [record["model"] for record in study["models"]] == ["MobileNet", "ResNet50"]
    assert list(study["failed"]) == ["Broken"]
    _check_figure(out, "figure_2b", "MobileNet", "ResNet50")
    assert "SIMULATED" not in (out / "figure_2b.svg").read_text()
    assert not (out / "figure_2c.svg").exists()  # these recordings have one region
    again = nrp_onnx(*command[:3], networks[1], *command[5:])
    assert again.returncode == 0, again.stderr
    assert "0.704" in again.stdout
    assert "25,636,712" not in again.stdout  # the parameters are the model's own


FACTORY = """
from torch import nn

def good():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())

def broken():
    raise ValueError("out of luck")
"""


@pytest.mark.slow
def test_the_papers_networks_are_converted_once_and_one_that_cannot_be_is_named(
    recordings_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makes = tmp_path / "makes.py"
    makes.write_text(FACTORY)
    monkeypatch.setattr(
        paper,
        "PAPER_NETWORKS",
        tuple(
            PaperNetwork(name, f"torch:{makes}:{name}", 260, 0.9, 0.7, 0.2, (8, 8), "raw", "none")
            for name in ("good", "broken")
        ),
    )
    options, out = QUICK_OPTIONS, tmp_path / "out"
    recordings = load_recordings(recordings_folder)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"1 of 2 models were not scored: broken.*out of luck"):
            study_table1([], recordings, out, options)
        assert [file.name for file in (out / "models").iterdir()] == ["good.onnx"]
    (record,) = json.loads((out / "table1.json").read_text())["models"]
    assert record["paper"]["top1"] == 0.7
    written = (out / "models" / "good.onnx").stat().st_mtime_ns
    assert written < (out / "runs" / "good" / "result.json").stat().st_mtime_ns


def _with_another_last_layer(path: Path, out: Path) -> Path:
    proto = onnx.load(path)
    gemm = next(node for node in proto.graph.node if node.op_type == "Gemm")
    (weights,) = [t for t in proto.graph.initializer if t.name == gemm.input[1]]
    values = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(values * (np.abs(values) > 0.02), weights.name))
    onnx.save(proto, out)
    return out


@pytest.mark.slow
def test_study_of_pruning(model_path: Path, recordings_folder: Path, tmp_path: Path) -> None:
    twin = _with_another_last_layer(model_path, tmp_path / "twin.onnx")
    out = tmp_path / "study"
    run = nrp_onnx(
        "study", "pruning", model_path, "--sparsity", "0,0.75", "--fine-tuned", twin,
        "--recordings", recordings_folder, "-o", out, *QUICK,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    study = json.loads((out / "pruning.json").read_text())
    records = {record["model"]: record for record in study["models"]}
    assert list(records) == ["unpruned", "fine-tuned-twin", "magnitude-0.75", "random-0.75"]
    weights = [
        numpy_helper.to_array(t) for t in onnx.load(twin).graph.initializer if len(t.dims) >= 2
    ]
    share = sum((w == 0).sum() for w in weights) / sum(w.size for w in weights)
    assert 0 < share < 1
    assert [record["sparsity"] for record in study["models"]] == pytest.approx(
        [0, share, 0.75, 0.75], abs=1e-3
    )
    # The twin differs in the last layer only, which none of the chosen layers depends on.
    assert run.stderr.count("the activations are there already") == 1
    unpruned = records["unpruned"]["nrp_error"]
    assert records["fine-tuned-twin"]["nrp_error"] == unpruned
    assert records["fine-tuned-twin"]["from_unpruned"]["ci95"] == [0, 0]

    pruned = tmp_path / "alone.onnx"
    prune_model(model_path, pruned, 0.75)
    alone = score_with(pruned, recordings_folder, tmp_path / "alone", QUICK_OPTIONS)
    found = records["magnitude-0.75"]
    assert found["nrp_error"] == alone.nrp_error != unpruned
    # Predictions are kept as float32.
    expected = pytest.approx(alone.nrp_error - unpruned, abs=1e-6)
    assert found["from_unpruned"]["difference"] == expected
    low, high = found["from_unpruned"]["ci95"]
    assert low < alone.nrp_error - unpruned < high
    _check_figure(
        out, "figure_3b", "weights of least magnitude", "random weights", "fine-tuned",
        "weights that are zero (%)", "difference from unpruned", "V4",
    )  # fmt: skip
    assert f"{share:.1%} fine-tuned" in run.stdout


@pytest.mark.slow
def test_study_of_layers(model_path: Path, two_regions: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    run = nrp_onnx(
        "study", "layers", model_path, "--layers", "0,3,5", "--recordings", two_regions, "-o",
        out, *QUICK,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("Extracting") == 1  # one pass over the images for all layers
    study = json.loads((out / "layers.json").read_text())
    assert [record["layer"] for record in study["layers"]] == ["0", "3", "5"]
    for record in study["layers"]:
        alone = json.loads((out / "runs" / record["layer"] / "result.json").read_text())
        assert [layer["name"] for layer in alone["model"]["layers"]] == [record["layer"]]
        for region in ("V4", "IT"):
            found, predictors = record["regions"][region], alone["regions"][region]["predictors"]
            assert found["nrp_error"] == predictors["nrp+ridge"]["mae"]
            assert found["pls"]["ci95"] == predictors["pls"]["mae_ci95"]
    errors = {of["regions"]["V4"]["ridge"]["mae"] for of in study["layers"]}
    assert len(errors) == 3
    _check_figure(out, "layers", "SIMULATED", "V4", "IT", "ridge", "PLS-25", "NRP + ridge", "5")


@pytest.mark.slow
def test_study_of_sizes(model_path: Path, recordings_folder: Path, tmp_path: Path) -> None:
    search = tmp_path / "mine.json"
    search.write_text(
        '{"layers": ["all", "each"], "sizes": [[8, 16], [8, 32], [24, 32]], "max_epochs": 4}'
    )
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "--layers", "0,3", "--folds", 2,
        "--search", search, "-o", tmp_path / "run",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    run = nrp_onnx("study", "sizes", tmp_path / "run", "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    trials = pd.read_parquet(tmp_path / "run" / "trials.parquet")
    trials["n_layers"] = trials["layers"].str.len()
    best = trials.groupby(["n_layers", "l1", "l2", "fold"])["validation_mae"].min()
    expected = best.groupby(level=[0, 1, 2]).agg(["mean", "sem"])
    table = pd.read_csv(tmp_path / "out" / "sizes.csv").set_index(["n_layers", "l1", "l2"])
    assert sorted(table.index) == sorted(expected.index)
    assert len(table) == 6
    expected = expected.loc[table.index]
    np.testing.assert_allclose(table["validation_mae"], expected["mean"])
    # Student's t of two folds: 12.706 standard errors.
    np.testing.assert_allclose(
        table["high"] - table["validation_mae"], 12.7062 * expected["sem"], rtol=1e-4
    )
    assert table["n_trials"].tolist() == [8, 8, 8, 4, 4, 4]
    least = f"{expected['mean'].min():.3f}"
    _check_figure(
        tmp_path / "out", "figure_3a", "1 layer", "2 layers", "not tried", "units of NRP-L2", least
    )
    assert_user_error(
        nrp_onnx("study", "sizes", tmp_path, "-o", tmp_path / "o"), tmp_path, "no finished run"
    )


@pytest.mark.parametrize("spread", [0.002, 0.01, 0.03])
def test_names_of_points_overlap_neither_each_other_nor_points(spread: float) -> None:
    """The paper's networks at its Top-1, with errors that lie near each other."""
    names = [network.name for network in paper.PAPER_NETWORKS]
    xs = [network.top1 for network in paper.PAPER_NETWORKS]
    ys = (0.25 + spread * np.random.default_rng(0).standard_normal(8)).tolist()
    boxes, frame, places, bars = _labelled(names, xs, ys)
    for name, box in boxes.items():
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.contains(*place) for place in places), name
        assert not any(box.overlaps(other) for key, other in boxes.items() if key != name), name
    # AlexNet stands alone: there is room beside its interval.
    box = boxes["AlexNet"]
    assert not any(box.x0 < x < box.x1 for (x, _), _ in bars)


def _labelled(names: list[str], xs: list[float], ys: list[float]) -> tuple[Any, Any, Any, Any]:
    """In pixels: the box of each name, that of the panel, the points, and their intervals."""
    bars = [((x, y - 0.02), (x, y + 0.02)) for x, y in zip(xs, ys, strict=True)]
    with study_panels(1, 1, 5, 6.3, simulated=False) as axes:
        panel = axes[0, 0]
        panel.plot(xs, ys, "o", markersize=6)
        panel.vlines(xs, [low for (_, low), _ in bars], [high for _, (_, high) in bars])
        label_points(panel, list(zip(xs, ys, names, strict=True)), bars)
        panel.figure.draw_without_rendering()
        found = [(text.get_text(), text.get_window_extent()) for text in panel.texts]
        boxes = {name: box for name, box in found if name}
        assert sorted(boxes) == sorted(names)
        places = panel.transData.transform(list(zip(xs, ys, strict=True)))
        lines = panel.transData.transform(np.array(bars).reshape(-1, 2)).reshape(-1, 2, 2)
        return boxes, panel.get_window_extent(), places, lines


def test_wrong_options_are_one_line(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    run = nrp_onnx(
        "study", "pruning", model_path, "--sparsity", "0,half", "--recordings", recordings_folder,
        "-o", tmp_path,
    )  # fmt: skip
    assert_user_error(run, "--sparsity", "numbers from 0 to 1", "'0,half'")
    recordings = load_recordings(recordings_folder)
    with pytest.raises(OptionError, match=r"--sparsity.*from 0 to 1.*2"):
        study_pruning(model_path, recordings, tmp_path, [0.5, 2], QUICK_OPTIONS)
    with pytest.raises(OptionError, match=r"--layers.*'nine'"):
        study_layers(model_path, recordings, tmp_path, replace(QUICK_OPTIONS, layers="0,nine"))
    with pytest.raises(OptionError, match=r"--weights.*imagenet or none.*'mine'"):
        study_table1([], recordings, tmp_path, QUICK_OPTIONS, weights="mine")
    with pytest.raises(OptionError, match=r"--weights.*no such option.*'none'"):
        study_table1([model_path], recordings, tmp_path, QUICK_OPTIONS, weights="none")


def test_two_models_of_one_name_are_refused(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / model_path.name
    other.parent.mkdir()
    other.write_bytes(model_path.read_bytes())
    with pytest.raises(OptionError, match=r"same name.*other"):
        study_table1(
            [model_path, other], load_recordings(recordings_folder), tmp_path, QUICK_OPTIONS
        )
