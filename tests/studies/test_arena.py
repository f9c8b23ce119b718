"""The arena: pooling against loops and known distributions, and the study on small recordings."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from nrp_converters.torch.modules import convert
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.recordings import import_arrays, load_recordings
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run import open_finished_run
from nrp_onnx.studies.arena import study_arena
from nrp_onnx.studies.arena_errors import pairs_of_predictors, site_groups
from nrp_onnx.studies.arena_pooling import Pooling, Session, holm, pooled_difference
from nrp_onnx.studies.arena_words import answer, caveats, named, verdict
from tests.command_line import assert_user_error, nrp_onnx

QUICK = ScoreOptions(search="quick", folds=2, report=False)


def _sessions() -> tuple[list[Session], list[np.ndarray]]:
    """Two animals of two and one sessions, two regions in one of them, with gaps."""
    rng = np.random.default_rng(3)
    sessions = [
        Session("a", "1", 9, ("V4",) * 4 + ("IT",) * 3),
        Session("a", "2", 7, ("V4",) * 5),
        Session("b", "3", 8, ("V4",) * 3),
    ]
    errors = []
    for place, of in enumerate(sessions):
        values = rng.gamma(2.0, 1.0, (of.n_images, len(of.regions))) + place
        values[0, 0] = np.nan
        errors.append(values)
    return sessions, errors


def _mean_in_loops(
    sessions: Sequence[Session], errors: Sequence[np.ndarray], draw: np.random.Generator | None
) -> float:
    """The pooled mean of one resample, drawn value by value; without a generator, of what there is."""

    def drawn(n: int) -> list[int]:
        return list(range(n)) if draw is None else [int(draw.integers(n)) for _ in range(n)]

    animals = list(dict.fromkeys(of.animal for of in sessions))
    of_animals = []
    for animal in (animals[at] for at in drawn(len(animals))):
        own = [at for at, of in enumerate(sessions) if of.animal == animal]
        of_sessions = []
        for at in (own[place] for place in drawn(len(own))):
            images, of_regions = drawn(sessions[at].n_images), []
            for region in dict.fromkeys(sessions[at].regions):
                columns = [c for c, name in enumerate(sessions[at].regions) if name == region]
                sites = [columns[place] for place in drawn(len(columns))]
                values = [errors[at][i, c] for i in images for c in sites]
                of_regions.append(np.mean([of for of in values if not np.isnan(of)]))
            of_sessions.append(np.mean(of_regions))
        of_animals.append(np.mean(of_sessions))
    return float(np.mean(of_animals))


def test_pooling_is_what_loops_give() -> None:
    sessions, errors = _sessions()
    found = Pooling(sessions, seed=0).mean(errors)
    assert found.value == pytest.approx(_mean_in_loops(sessions, errors, None))
    rng = np.random.default_rng(1)
    loops = np.array([_mean_in_loops(sessions, errors, rng) for _ in range(2000)])
    # Two bootstraps of thousands of resamples differ by their own draws only.
    assert found.resampled.mean() == pytest.approx(loops.mean(), abs=0.06)
    assert found.resampled.std() == pytest.approx(loops.std(), rel=0.06)
    assert found.ci95 == pytest.approx(np.quantile(loops, [0.025, 0.975]), abs=0.15)
    assert found.resampled.shape == (4000,)


def test_animals_are_drawn_whole_and_a_single_one_is_not_drawn() -> None:
    constant = [np.full((4, 3), value) for value in (0.0, 1.0)]
    two = Pooling([Session("a", "1", 4, ("V4",) * 3), Session("b", "1", 4, ("V4",) * 3)], seed=5)
    shares = [float(np.mean(two.mean(constant).resampled == value)) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert [of["resampled"] for of in two.levels()] == [True, False, True, True]
    assert [of["groups"] for of in two.levels()] == [2, 2, 8, 6]

    one = Pooling([Session("a", "1", 4, ("V4",) * 3)], seed=5)
    assert set(one.mean(constant[1:]).resampled) == {1.0}
    assert [of["resampled"] for of in one.levels()] == [False, False, True, True]
    within = Pooling([Session("a", name, 4, ("V4",) * 3) for name in "12"], seed=5)
    shares = [float(np.mean(within.mean(constant).resampled == value)) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_differences_are_paired_and_their_p_is_that_of_the_interval() -> None:
    sessions, errors = _sessions()
    pooling = Pooling(sessions, seed=0)
    mean = pooling.mean(errors)
    # What is added to all errors alike is the whole difference, in every resample.
    moved = pooled_difference(pooling.mean([of + 0.25 for of in errors]), mean)
    assert moved.difference == pytest.approx(0.25)
    assert moved.ci95 == pytest.approx((0.25, 0.25))
    assert moved.p == pytest.approx(2 / 4001)
    same = pooled_difference(mean, mean)
    assert (same.difference, same.ci95, same.p) == (0, (0, 0), 1)
    assert np.array_equal(Pooling(sessions, seed=0).mean(errors).resampled, mean.resampled)
    assert not np.array_equal(Pooling(sessions, seed=1).mean(errors).resampled, mean.resampled)
    rng = np.random.default_rng(0)
    for shift in (-0.2, 0.0, 0.1):
        other = pooling.mean([of + shift + 0.6 * rng.standard_normal(of.shape) for of in errors])
        found = pooled_difference(mean, other)
        assert (found.p < 0.05) == (found.ci95[0] * found.ci95[1] > 0)


def test_holm_is_that_of_its_author() -> None:
    # By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and no less than those before.
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}


def test_pairs_are_those_that_are_there_each_once_with_their_twins() -> None:
    assert pairs_of_predictors(["mean", "ridge", "nrp"], "nrp") == [("nrp", "ridge")]
    mixture = "nrp+masked_ridge"
    names = ["ridge", "masked_ridge", "masked_kernel", "nrp", mixture]
    every = [*names, *(f"{name}_calibrated" for name in names)]
    plain = [
        ("nrp", "masked_ridge"), ("masked_kernel", "masked_ridge"), (mixture, "masked_ridge"),
        ("nrp", "ridge"), (mixture, "ridge"),
    ]  # fmt: skip
    twins = [(f"{first}_calibrated", f"{second}_calibrated") for first, second in plain]
    assert pairs_of_predictors(every, mixture) == plain + twins
    found = pairs_of_predictors(every, f"{mixture}_calibrated")
    assert (f"{mixture}_calibrated", "masked_ridge") in found
    assert (f"{mixture}_calibrated", "masked_ridge_calibrated") in found
    assert len(found) == len(set(found))


def _difference(value: float, half: float, p_holm: float = 0.001) -> dict[str, Any]:
    return {"difference": value, "ci95": [value - half, value + half], "p": 0.001, "p_holm": p_holm}


def _study(**differences: Mapping[str, Any]) -> dict[str, Any]:
    """What `answer` reads: differences from masked_ridge by the first predictor."""
    return {
        "headline": "nrp",
        "predictor_pairs": [
            {"first": first, "second": "masked_ridge", "mae": found, "mse": found}
            for first, found in differences.items()
        ],
    }


def test_the_answer_claims_no_more_than_the_intervals() -> None:
    better, worse, neither = (_difference(value, 0.01) for value in (-0.02, 0.02, 0.005))
    assert (
        verdict(_difference(-0.02, 0.01, p_holm=0.06)) == "first errs less, but not once corrected"
    )
    cases = {
        ("Yes, on these recordings",): _study(nrp=better, masked_kernel=better),
        ("Yes, on these recordings", "undecided"): _study(nrp=better, masked_kernel=neither),
        ("It depends on the map",): _study(nrp=worse, masked_kernel=better),
        ("No:",): _study(nrp=worse, masked_kernel=worse),
        ("No:", "undecided"): _study(nrp=worse, masked_kernel=neither),
        ("It is undecided",): _study(nrp=neither, masked_kernel=_difference(-0.02, 0.01, 0.06)),
    }
    for words, study in cases.items():
        opening, *rest = answer(study)
        for word in words:
            assert word in opening
        assert len(rest) == 2
        assert ("undecided" in opening) == ("undecided" in words or words[0] == "It is undecided")
    split = _study(nrp=better)
    split["predictor_pairs"][0]["mse"] = worse
    assert (
        "; in mean squared error, NRP network errs more than masked ridge: +0.02"
        in answer(split)[1]
    )
    (alone,) = answer({"headline": "nrp", "predictor_pairs": []})
    assert "not answered" in alone


def test_calibrated_twins_and_mixtures_have_names_and_a_place_in_the_answer() -> None:
    assert named("nrp") == "NRP network"
    assert named("masked_ridge") == "masked ridge"
    assert named("nrp+masked_ridge_calibrated") == "calibrated NRP + masked ridge"
    better, worse = _difference(-0.02, 0.01), _difference(0.02, 0.01)
    study = _study(nrp=better, masked_kernel=better) | {"headline": "nrp+masked_ridge"}
    plain = [*study["predictor_pairs"], *_study(**{"nrp+masked_ridge": worse})["predictor_pairs"]]
    twins = [
        of | {key: f"{of[key]}_calibrated" for key in ("first", "second")} for of in plain
    ]  # fmt: skip
    *_, headline, calibrated = answer(study | {"predictor_pairs": plain + twins})
    assert headline.startswith("The headline predictor: NRP + masked ridge errs more")
    assert calibrated.startswith("With every predictor calibrated: ")
    assert calibrated.count("calibrated masked ridge: ") == 3
    assert "Calibrated NRP + masked ridge errs more than" in calibrated


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    files = []
    for seed, name in enumerate(("wide", "narrow")):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(3, 4 + seed, 3, stride=4), nn.ReLU(), nn.Flatten()).eval()
        files.append(folder / f"{name}.onnx")
        convert(module, torch.zeros(1, 3, 32, 32), preprocessing=PRESETS["tf"]).save(files[-1])
    return files


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three sessions: two of animal m, whose sites.csv says so, and one that does not say."""
    folder = tmp_path_factory.mktemp("sessions")
    rng = np.random.default_rng(0)
    found = []
    for place, name in enumerate(("monday", "tuesday", "friday")):
        raw = folder / f"raw-{name}"
        (raw / "images").mkdir(parents=True)
        pixels = rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(raw / "images" / f"im{number:02d}.png")
        drive = pixels.reshape(24, -1).astype(float) @ rng.standard_normal((3072, 4)) / 4000
        noise = 0.3 * rng.standard_normal((4, 24, 3))
        np.save(raw / "rates.npy", drive.T[:, :, None] + noise)
        labels = ",animal" if place < 2 else ""
        rows = [f"s{i},V4{',m' if place < 2 else ''}" for i in range(4)]
        (raw / "sites.csv").write_text("\n".join([f"site_id,region{labels}", *rows]) + "\n")
        import_arrays(
            raw / "images", raw / "rates.npy", folder / name,
            axes=["site", "stimulus", "repetition"], sites=raw / "sites.csv", name="data",
            citation="Doe 2026", licence="CC0",
        )  # fmt: skip
        found.append(folder / name)
    return found


def _table_after(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its own two lines."""
    lines = iter(page.split(f"\n{heading}\n")[1].splitlines())
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return [rows[0], *rows[2:]]


def _numbers(text: str) -> list[float]:
    return [float(of.replace("−", "-")) for of in re.findall(r"[−+]?\d+\.\d+", text)]


@pytest.mark.slow
def test_every_model_meets_every_recordings_and_the_page_says_what_the_json_says(
    models: list[Path], sessions: list[Path], tmp_path: Path
) -> None:
    out, page = tmp_path / "arena", tmp_path / "results.md"
    command = [
        "study", "arena", *models, "--recordings", *sessions, "--animals", "friday=n",
        "--preprocess", "wide=raw", "--search", "quick", "--folds", "2", "-o", out, "--page", page,
    ]  # fmt: skip
    run = nrp_onnx(*command)
    assert run.returncode == 0, run.stderr
    study = json.loads((out / "arena.json").read_text())
    assert [of["model"] for of in study["models"]] == ["wide", "narrow"]
    assert [of["animals"] for of in study["recordings"]] == [["m"], ["m"], ["n"]]
    factor = [of["preprocessing"]["rescale_factor"] for of in study["models"]]
    assert factor == pytest.approx([1.0, 1 / 255])

    runs = {}
    for score in study["scores"]:
        folder = out / f"{score['model']}-{score['recordings']}"
        own = open_finished_run(folder)
        runs[score["model"], score["recordings"]] = own
        assert score["nrp_error"] == own.nrp_error
        assert score["ci95"] == list(own.ci95)
        assert score["predictors"]["ridge"]["mae"] == own.regions["V4"].predictors["ridge"].mae
    assert len(runs) == 6
    table = pd.read_csv(out / "arena.csv")
    assert table["predictors_ridge_mae"].tolist() == [
        of["predictors"]["ridge"]["mae"] for of in study["scores"]
    ]
    assert table[["model", "recordings"]].apply(tuple, axis=1).tolist() == list(runs)

    # Animals alike, and the sessions of each.
    def pooled(first: str, second: str, power: int) -> float:
        weight = {"monday": 0.25, "tuesday": 0.25, "friday": 0.5}
        return float(sum(
            weight[name] / 2 * np.mean(
                own.absolute_errors(first) ** power - own.absolute_errors(second) ** power
            )
            for (_, name), own in runs.items()
        ))  # fmt: skip

    (pair,) = (
        of for of in study["predictor_pairs"] if of["first"] == "nrp" and of["second"] == "ridge"
    )
    assert pair["mae"]["difference"] == pytest.approx(pooled("nrp", "ridge", 1))
    assert pair["mse"]["difference"] == pytest.approx(pooled("nrp", "ridge", 2))
    apart_at = [
        np.mean([
            own.absolute_errors("nrp")[:, site] - own.absolute_errors("ridge")[:, site]
            for (_, of), own in runs.items() if of == name
        ])
        for name in ("monday", "tuesday", "friday") for site in range(4)
    ]  # fmt: skip
    assert pair["wins"] == sum(of < 0 for of in apart_at)
    of_models = [of["difference"] for of in pair["models"].values()]
    assert np.mean(of_models) == pytest.approx(pair["mae"]["difference"])
    alone = np.mean([
        np.mean(own.absolute_errors("nrp") - own.absolute_errors("ridge"))
        for (_, name), own in runs.items() if name == "friday"
    ])  # fmt: skip
    assert pair["recordings"]["friday"]["difference"] == pytest.approx(alone)
    (apart,) = study["model_pairs"]
    pooled_of = study["pooled"]
    assert apart["mae"]["difference"] == pytest.approx(
        pooled_of["wide"][study["headline"]]["mae"] - pooled_of["narrow"][study["headline"]]["mae"]
    )
    assert [of["groups"] for of in study["pooling"]["levels"][:2]] == [2, 3]
    for records in (study["predictor_pairs"], study["model_pairs"]):
        for metric in ("mae", "mse"):
            raw = {str(at): of[metric]["p"] for at, of in enumerate(records)}
            assert [of[metric]["p_holm"] for of in records] == list(holm(raw).values())

    text = page.read_text()
    assert text.startswith("# Two networks on real V4\n")
    assert "SIMULATED" not in text
    assert "Doe 2026" in text
    assert "CC0" in text
    for sentence in (*answer(study), *caveats(study)):
        assert sentence in text
    shown = re.sub(r" \\\n +", " ", text)
    assert f"    nrp-onnx study arena {models[0]}" in shown
    names, *rows = _table_after(text, "## Errors")
    assert names == ["Model", "monday", "tuesday", "friday", "Pooled"]
    for row in rows[:2]:
        for name, cell in zip(names[1:4], row[1:4], strict=True):
            of = next(s for s in study["scores"] if (s["model"], s["recordings"]) == (row[0], name))
            assert _numbers(cell) == pytest.approx([of["nrp_error"], *of["ci95"]], abs=5e-4)
        whole = pooled_of[row[0]][study["headline"]]
        assert _numbers(row[4]) == pytest.approx([whole["mae"], *whole["ci95"]], abs=5e-4)
    _, *rows = _table_after(text, "## Predictors against each other")
    for row, of in zip(rows, study["predictor_pairs"], strict=True):
        mae, mse = of["mae"], of["mse"]
        expected = [mae["difference"], *mae["ci95"], mae["p"], mae["p_holm"]]
        expected += [mse["difference"], *mse["ci95"], mse["p"], mse["p_holm"]]
        assert _numbers(" ".join(row[3:6] + row[7:])) == pytest.approx(expected, abs=5e-5)
        assert row[6] == f"{of['wins']} of 12 sites"
        assert row[2] == verdict(mae)
    _, *rows = _table_after(text, "## Models against each other")
    assert _numbers(rows[0][3]) == pytest.approx(
        [apart["mae"]["difference"], *apart["mae"]["ci95"]], abs=5e-5
    )
    report = (out / "report.html").read_text()
    assert "Two networks on real V4" in report
    for name in ("arena_errors", "arena_predictors", "arena_models", "arena_reliability"):
        assert (out / f"{name}.svg").stat().st_size > 2000

    # The same command again scores nothing, and writes the same.
    stamps = [path.stat().st_mtime_ns for path in sorted(out.glob("*/result.json"))]
    again = nrp_onnx(*command)
    assert again.stderr.count("holds this very run, finished") == 6
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*/result.json"))] == stamps
    assert json.loads((out / "arena.json").read_text()) == study
    assert page.read_text() == text


@pytest.mark.slow
def test_a_pair_that_fails_is_named_and_only_whole_models_are_pooled(
    models: list[Path], sessions: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(models[0].read_bytes()[:500])
    shown = {path.stem: load_recordings(path) for path in sessions[:2]}
    shown["tuesday"] = replace(shown["tuesday"], simulated=True)
    page = tmp_path / "page.md"
    with pytest.raises(ModelError, match="2 of 4 models were not scored: broken-monday"):
        study_arena([broken, models[0]], shown, tmp_path / "out", QUICK, page=page)
    # One of them is enough to say so.
    assert page.read_text().startswith("# One network on simulated V4\n\n**SIMULATED:**")
    assert "tuesday (SIMULATED)" in page.read_text()
    assert "SIMULATED" in (tmp_path / "out" / "arena_errors.svg").read_text()
    assert 'class="simulated"' in (tmp_path / "out" / "report.html").read_text()
    study = json.loads((tmp_path / "out" / "arena.json").read_text())
    assert study["pooling"]["models"] == ["wide"]
    assert list(study["failed"]) == ["broken-monday", "broken-tuesday"]
    assert [of["model"] for of in study["scores"]] == ["wide", "wide"]
    assert study["model_pairs"] == []
    # Of one animal nothing is drawn.
    assert [of["resampled"] for of in study["pooling"]["levels"]] == [False, True, True, True]
    assert any("not over animals, as there is but one" in of for of in caveats(study))


def test_sessions_and_animals_are_those_of_the_sites(sessions: list[Path]) -> None:
    monday = load_recordings(sessions[0])
    (whole,) = site_groups("monday", monday, "")
    assert (whole.animal, whole.session, len(whole.sites)) == ("m", "monday", 4)
    friday = load_recordings(sessions[2])
    friday.site_labels["session"] = ("x", "y", "x", "")
    groups = site_groups("friday", friday, "n")
    assert [(of.animal, of.session, of.sites) for of in groups] == [
        ("n", "x", ("s0", "s2")), ("n", "y", ("s1",)), ("n", "friday", ("s3",)),
    ]  # fmt: skip


def test_what_cannot_be_pooled_is_an_error(
    models: list[Path], sessions: list[Path], tmp_path: Path
) -> None:
    shown = {path.stem: load_recordings(path) for path in sessions}
    with pytest.raises(OptionError, match=r"animal of some sites is not known.*friday"):
        study_arena(models, shown, tmp_path, QUICK)
    with pytest.raises(OptionError, match=r"--animals.*no such name.*sunday"):
        study_arena(models, shown, tmp_path, QUICK, animals={"sunday": "n"})
    with pytest.raises(OptionError, match=r"--preprocess.*no such name.*other"):
        study_arena(models, shown, tmp_path, QUICK, preprocess={"other": "tf"})
    with pytest.raises(OptionError, match="takes a model and recordings"):
        study_arena(models, {}, tmp_path, QUICK)
    alike = dict.fromkeys(("a b", "a-b"), shown["monday"])
    with pytest.raises(OptionError, match=r"one folder.*wide-a-b, wide-a-b"):
        study_arena(models[:1], alike, tmp_path, QUICK)
    run = nrp_onnx(
        "study", "arena", models[0], "--recordings", sessions[2], "-o", tmp_path, "--animals", "n"
    )
    assert_user_error(run, "--animals", "name=value with commas")
    run = nrp_onnx(
        "study", "arena", models[0], "--recordings", sessions[2], sessions[2], "-o", tmp_path
    )
    assert_user_error(run, "recordings of the same name", "last parts differ")
    assert not list(tmp_path.iterdir())
