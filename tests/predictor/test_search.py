"""The search: which heads it trains, what it records, and how it goes on after an interruption."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from nrp_onnx.errors import OptionError
from nrp_onnx.predictor import search
from nrp_onnx.predictor.head import HeadConfig, TrainedHead, TrainingPlan
from nrp_onnx.predictor.search import SearchImages, search_head, with_heads
from nrp_onnx.predictor.search_file import read_search
from nrp_onnx.predictor.search_space import PRESETS, LayerSet, SearchSpace
from nrp_onnx.predictor.trials import TrialRecord

NAMES = ["early", "middle", "late"]
SMALL = SearchSpace(
    layers=("each",),
    sizes=((8, 8), (16, 8)),
    learning_rates=(1e-2,),
    dropouts=(0.0, 0.2),
    losses=("mse", "mae"),
    plan=TrainingPlan(6, 2),
)


@pytest.fixture
def images() -> SearchImages:
    """Three layers of 200 images; the sites depend on the first and on the last."""
    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(200, n, generator=rng) for n in (6, 9, 7)]
    weights = [torch.randn(x.shape[1], 4, generator=rng) for x in inputs]
    targets = inputs[0] @ weights[0] + 0.7 * inputs[2] @ weights[2]
    targets[3, 1] = float("nan")
    fit, validation = torch.arange(150), torch.arange(150, 200)
    return SearchImages(inputs, targets / 3, fit, validation, [torch.arange(4)])


def _record(folder: Path) -> TrialRecord:
    return TrialRecord(folder / "trials.parquet", NAMES)


def _refuse_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def train_heads(*arguments: Any) -> list[TrainedHead]:
        assert not arguments[5], "this was trained already"
        return []

    monkeypatch.setattr(search, "train_heads", train_heads)


def test_every_combination_is_tried_once_and_kept(images: SearchImages, tmp_path: Path) -> None:
    done: list[int] = []
    space = replace(SMALL, layers=("all", "each"), seeds=2)
    trials = search_head(space, images, 5, done.append, _record(tmp_path), fold=3)
    assert len(trials) == sum(done) == space.n_jobs(3) == 4 * 2 * 2 * 2 * 2
    assert trials[0].validation_mae == min(trial.validation_mae for trial in trials)

    table = pd.read_parquet(tmp_path / "trials.parquet")
    assert len(table) == len(trials)
    keys = ["l1", "l2", "learning_rate", "dropout", "loss", "weight_decay", "input_noise", "seed"]
    tried = table[keys].assign(layers=table["layers"].map(tuple))
    assert not tried.duplicated().any()
    assert set(tried["layers"]) == {tuple(NAMES), *((name,) for name in NAMES)}
    assert set(tried["seed"]) == {5, 6}
    assert set(table["fold"]) == {3}
    for row in table.itertuples():
        assert row.curve[row.epochs - 1] == pytest.approx(row.validation_mae) == min(row.curve)
        assert len(row.curve) == len(row.losses) <= 6


def test_a_search_that_was_killed_goes_on_where_it_was(
    images: SearchImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search_head(SMALL, images, 1, lambda n: None, _record(tmp_path / "whole"))

    # Killed after the first fold, and after the single layers of the second.
    cut, space = _record(tmp_path / "cut"), replace(SMALL, layers=("greedy",))
    search_head(space, images, 1, lambda n: None, cut, fold=0)
    search_head(SMALL, images, 2, lambda n: None, cut, fold=1)
    n_rows = len(pd.read_parquet(tmp_path / "cut" / "trials.parquet"))

    again = _record(tmp_path / "cut")
    with monkeypatch.context() as patched:
        _refuse_to_train(patched)
        search_head(space, images, 1, lambda n: None, again, fold=0)
    done: list[int] = []
    second = search_head(space, images, 2, done.append, again, fold=1)
    assert sum(done) == space.n_jobs(3)
    n_singles = len(SMALL.jobs([(0,), (1,), (2,)], 2))
    assert sum(isinstance(trial, TrainedHead) for trial in second) == len(second) - n_singles > 0
    table = pd.read_parquet(tmp_path / "cut" / "trials.parquet")
    assert len(table[table["fold"] == 0]) == n_rows - n_singles

    # Nothing at all is left to train of the whole one.
    with monkeypatch.context() as patched:
        _refuse_to_train(patched)
        resumed = search_head(SMALL, images, 1, lambda n: None, _record(tmp_path / "whole"))
    assert [t.config for t in resumed] == [t.config for t in whole]
    assert [t.curve for t in resumed] == [t.curve for t in whole]
    # The chosen head gets its weights again, and another that did not end at its best epoch.
    chosen = [0, max(range(len(whole)), key=lambda n: len(whole[n].curve) - whole[n].epochs)]
    assert len(whole[chosen[1]].curve) > whole[chosen[1]].epochs
    for trial, found in zip(
        [whole[n] for n in chosen],
        with_heads(
            [resumed[n] for n in chosen],
            images,
            SMALL.plan,
            SMALL.jobs({resumed[n].config.layers for n in chosen}, 1),
        ),
        strict=True,
    ):
        assert isinstance(trial, TrainedHead)
        assert found.validation_mae == trial.validation_mae
        assert (found.epochs, found.curve) == (trial.epochs, trial.curve)
        for ours, theirs in zip(found.head.parameters(), trial.head.parameters(), strict=True):
            assert torch.equal(ours, theirs), "a resumed search gives the same bits"


@pytest.mark.parametrize("change", ["targets", "inputs", "split", "plan", "seed", "fold"])
def test_trials_of_something_else_are_not_taken(
    change: str, images: SearchImages, tmp_path: Path
) -> None:
    space, seed, fold = SMALL, 1, 0
    first = search_head(space, images, seed, lambda n: None, _record(tmp_path), fold)
    if change == "targets":
        images = replace(images, targets=images.targets + 1e-3)
    elif change == "inputs":
        images = replace(
            images,
            inputs=[
                *images.inputs[:2],
                torch.from_numpy(np.asarray(images.inputs[2]) * np.float32(1.001)),
            ],
        )
    elif change == "split":
        images = replace(images, fit=images.fit[1:])
    elif change == "plan":
        space = replace(space, plan=replace(space.plan, patience=3))
    elif change == "seed":
        seed = 2
    else:
        fold = 1
    found = search_head(space, images, seed, lambda n: None, _record(tmp_path), fold)
    assert len(found) == len(first)
    assert all(isinstance(trial, TrainedHead) for trial in found)
    # The last fold of a run leaves only its own trials in the file.
    assert len(pd.read_parquet(tmp_path / "trials.parquet")) == len(found)


def test_with_halving_only_the_same_company_is_taken(images: SearchImages, tmp_path: Path) -> None:
    space = replace(SMALL, layers=("all",), plan=TrainingPlan(8, 8, halving=True))
    wider = replace(space, learning_rates=(1e-2, 3e-3))
    search_head(space, images, 1, lambda n: None, _record(tmp_path))
    for again, taken in ((space, True), (wider, False)):
        found = search_head(again, images, 1, lambda n: None, _record(tmp_path))
        assert all(isinstance(trial, TrainedHead) is not taken for trial in found)


def test_greedy_selection_adds_the_layer_that_helps_most() -> None:
    space = SearchSpace(layers=("greedy",))
    errors: dict[LayerSet, float] = {(0,): 0.5, (1,): 0.7, (2,): 0.6, (3,): 0.9}
    rounds = []
    outcomes: dict[LayerSet, float] = {
        (0, 1): 0.4, (0, 2): 0.3, (0, 3): 0.45, (0, 1, 2): 0.35, (0, 2, 3): 0.3,
    }  # fmt: skip
    assert space.next_layer_sets(4, {}) == [(0,), (1,), (2,), (3,)]
    while layer_sets := space.next_layer_sets(4, errors):
        rounds.append(layer_sets)
        errors |= {layers: outcomes[layers] for layers in layer_sets}
    # From the best single layer to (0, 2); no third layer lowers the error.
    assert rounds == [[(0, 1), (0, 2), (0, 3)], [(0, 1, 2), (0, 2, 3)]]
    assert space.n_jobs(4) == len(space.jobs([(0,)], 0)) * (4 + 3 + 2 + 1)


def test_greedy_selection_finds_the_two_layers_that_count(images: SearchImages) -> None:
    space = SearchSpace(
        layers=("greedy",), sizes=((16, 16),), learning_rates=(1e-2,), plan=TrainingPlan(60, 15)
    )
    done: list[int] = []
    best = search_head(space, images, 0, done.append)[0]
    assert set(best.config.layers) >= {0, 2}
    assert sum(done) == space.n_jobs(3)


def test_presets() -> None:
    paper, quick = PRESETS["paper"], PRESETS["quick"]
    sets = paper.next_layer_sets(5, {})
    assert sorted(sets) == sorted([(0, 1, 2, 3, 4), *((n,) for n in range(5))])
    configs = {job.config for job in paper.jobs(sets, 0)}
    assert configs == {
        HeadConfig(layers, l1, l2, rate)
        for layers in sets for l1, l2 in ((64, 128), (256, 256)) for rate in (1e-3, 3e-4)
    }  # fmt: skip
    assert not paper.plan.halving
    (job,) = quick.jobs(quick.next_layer_sets(5, {}), 0)
    assert (job.config.mask, job.config.l2) == ("gaussian", 0)
    assert [name for name, space in PRESETS.items() if not space.kernel_ridge] == ["quick"]


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    expected = SearchSpace(
        layers=("each", "greedy"),
        sizes=((32, 64), (128, 128)),
        learning_rates=(1e-3, 1e-4),
        dropouts=(0.3,),
        losses=("huber", "mae"),
        seeds=2,
        kernel_ridge=False,
        plan=TrainingPlan(max_epochs=30, halving=True),
    )
    (tmp_path / "mine.yaml").write_text(
        "layers: [each, greedy]\nsizes: [[32, 64], [128, 128]]\nlearning_rates: [1e-3, 0.0001]\n"
        "dropouts: 0.3  # one value\nlosses:\n  - huber\n  - mae\nseeds: 2\n"
        "max_epochs: 30\nhalving: true\nkernel_ridge: false\n"
    )
    (tmp_path / "mine.json").write_text(
        '{"layers": ["each", "greedy"], "sizes": [[32, 64], [128, 128]], "dropouts": [0.3],'
        '"learning_rates": [1e-3, 1e-4], "losses": ["huber", "mae"], "seeds": 2,'
        '"max_epochs": 30, "halving": true, "kernel_ridge": false}'
    )
    for name in ("mine.yaml", "mine.json"):
        assert read_search(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("learning_rate: 0.1", ["'learning_rate'", "learning_rates"]),
        ("sizes: [64, 128]", ["key sizes", "pairs", "[64, 128]"]),
        ("sizes: [[0, 64]]", ["key sizes", "from 1"]),
        ("learning_rates: [fast]", ["key learning_rates", "over 0", "['fast']"]),
        ("learning_rates: [0]", ["key learning_rates", "over 0"]),
        ("dropouts: [1.0]", ["key dropouts", "less than 1", "[1.0]"]),
        ("weight_decays: [.nan]", ["key weight_decays", "from 0"]),
        ("losses: [rmse]", ["key losses", "mse, mae, huber", "rmse"]),
        ("layers: first", ["key layers", "all, each, greedy", "'first'"]),
        ("layers: []", ["key layers"]),
        ("seeds: [1]", ["key seeds", "whole number", "[1]"]),
        ("halving: 1", ["key halving", "true or false"]),
        ("kernel_ridge: no thanks", ["key kernel_ridge", "true or false"]),
        ("max_epochs: 1.5", ["key max_epochs", "whole number", "1.5"]),
        (f"losses: [{'x' * 5000}]", ["key losses", "xxx..."]),
        ("seeds: null", ["key seeds", "whole number", "None"]),
        ("learning_rates: [.inf]", ["key learning_rates", "over 0", "inf"]),
        ("losses: [mse, mse]", ["key losses", "mse, mae, huber"]),
        ("- layers", ["no table of keys", "keys out of", "list"]),
        ("", ["no table of keys", "nothing"]),
        ("layers: [", ["does not open", "YAML"]),
    ],
)
def test_a_wrong_file_is_told_by_key(line: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(line)
    with pytest.raises(OptionError) as raised:
        read_search(str(path))
    for part in ["mine.yaml", *parts]:
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_no_such_search(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("seeds = 1")
    for choice in ("papre", str(tmp_path / "none.yaml"), str(tmp_path / "mine.toml")):
        with pytest.raises(OptionError, match=r"--search: no such search; expected paper, quick"):
            read_search(choice)


def test_a_head_whose_error_is_never_a_number_is_last(images: SearchImages, tmp_path: Path) -> None:
    space = replace(SMALL, layers=("all",), losses=("mse",), learning_rates=(1e-2, 1e30))
    trials = search_head(space, images, 0, lambda n: None, _record(tmp_path))
    broken = [trial for trial in trials if trial.config.learning_rate == 1e30]
    assert trials[len(trials) // 2 :] == broken
    assert all(math.isinf(trial.validation_mae) and trial.epochs == 0 for trial in broken)
    resumed = search_head(space, images, 0, lambda n: None, _record(tmp_path))
    jobs = space.jobs([resumed[-1].config.layers], 0)
    (head,) = with_heads(resumed[-1:], images, space.plan, jobs)
    assert all(bool(value.isfinite().all()) for value in head.head.state_dict().values())
