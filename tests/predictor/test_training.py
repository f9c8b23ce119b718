"""Heads that train in stacks, against a plain PyTorch loop and against themselves alone."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nrp_onnx.predictor.head import HeadConfig, Job, NrpHead, TrainedHead, TrainingPlan
from nrp_onnx.predictor.readouts.stacked import RandomStreams
from nrp_onnx.predictor.training import train_heads

FIT, VALIDATION = torch.arange(220), torch.arange(220, 300)
REGIONS = [torch.arange(2), torch.arange(2, 6)]
SMALL = HeadConfig((0, 1), 24, 16, 3e-3)


def _problem() -> tuple[list[Tensor], Tensor]:
    """Two layers of 300 images, and 6 sites that depend on the first; some rates are missing."""
    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(300, n, generator=rng) for n in (10, 13)]
    targets = torch.relu(inputs[0] @ torch.randn(10, 6, generator=rng)) / 3
    targets += 0.2 * torch.randn(300, 6, generator=rng)
    targets[0, 0] = targets[64:90, 3] = targets[250, 5] = float("nan")
    return inputs, targets


def _train(
    jobs: list[Job], plan: TrainingPlan, validation: Tensor | None = VALIDATION
) -> list[TrainedHead]:
    inputs, targets = _problem()
    return train_heads(inputs, targets, FIT, validation, REGIONS, jobs, plan, lambda n: None)


def _mae(head: nn.Module, inputs: list[Tensor], targets: Tensor) -> float:
    """Over the recorded sites of each region, then over regions."""
    with torch.no_grad():
        error = (head(inputs) - targets).abs()
    regions = [error[:, sites] for sites in REGIONS]
    return sum(float(e[~e.isnan()].mean()) for e in regions) / len(regions)


def _plain_loop(job: Job, n_epochs: int) -> tuple[NrpHead, list[float]]:
    """What `train_heads` computes, as one writes it for one head in PyTorch."""
    inputs, targets = _problem()
    config, losses = job.config, {"mse": nn.MSELoss(), "mae": nn.L1Loss(), "huber": nn.HuberLoss()}
    inputs = [inputs[place] for place in config.layers]
    torch.manual_seed(job.seed)
    head = NrpHead([x.shape[1] for x in inputs], config.l1, config.l2, 6)
    weights = [value for name, value in head.named_parameters() if name.endswith("weight")]
    biases = [value for name, value in head.named_parameters() if name.endswith("bias")]
    optimiser: torch.optim.Optimizer = torch.optim.Adam(head.parameters(), lr=config.learning_rate)
    if config.weight_decay:
        optimiser = torch.optim.AdamW(
            [
                {"params": weights, "weight_decay": config.weight_decay},
                {"params": biases, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )
    streams, curve = RandomStreams(job.seed), []
    for _ in range(n_epochs):
        for batch in streams.minibatches(len(FIT), 64):
            there = ~targets[FIT[batch]].isnan()
            predicted = head([x[FIT[batch]] for x in inputs])[there]
            optimiser.zero_grad()
            losses[config.loss](predicted, targets[FIT[batch]][there]).backward()
            optimiser.step()
        curve.append(_mae(head, [x[VALIDATION] for x in inputs], targets[VALIDATION]))
    return head, curve


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, layers=(1,)),
        replace(SMALL, loss="mae"),
        replace(SMALL, loss="huber", weight_decay=0.1),
    ],
    ids=lambda config: f"{config.layers}-{config.loss}-{config.weight_decay}",
)
def test_a_head_trains_as_in_a_plain_loop(config: HeadConfig) -> None:
    job = Job(config, seed=3)
    others = [Job(replace(config, learning_rate=rate), seed=4) for rate in (1e-2, 1e-3)]
    found = _train([others[0], job, others[1]], TrainingPlan(8, 8))[1]
    head, curve = _plain_loop(job, 8)
    assert found.curve == pytest.approx(curve, abs=1e-5)
    if found.epochs == 8:
        for ours, theirs in zip(found.head.parameters(), head.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_head_is_the_same_alone_as_among_others_that_stop() -> None:
    choices: list[dict[str, Any]] = [
        {},
        {"dropout": 0.3},
        {"dropout": 0.1, "input_noise": 0.2, "weight_decay": 0.1},
        {"loss": "mae"},
        {"layers": (1,)},
        {"l1": 8, "l2": 33},
    ]
    configs = [
        replace(SMALL, learning_rate=rate, **choice) for rate in (3e-3, 3e-2) for choice in choices
    ]
    jobs = [Job(config, seed) for config in configs for seed in (5, 6)]
    plan = TrainingPlan(40, 4)
    together = _train(jobs, plan)
    assert len({len(found.curve) for found in together}) > 5  # they stop at different times
    for job, found in zip(jobs, together, strict=True):
        assert (found.config, found.seed) == (job.config, job.seed)
        (alone,) = _train([job], plan)
        assert alone.curve == pytest.approx(found.curve, abs=1e-5), job
        assert alone.epochs == found.epochs
        for ours, theirs in zip(found.head.parameters(), alone.head.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_what_is_kept_is_the_best_epoch() -> None:
    inputs, targets = _problem()
    jobs = [Job(SMALL, 1), Job(replace(SMALL, dropout=0.5), 1), Job(replace(SMALL, layers=(1,)), 2)]
    for found in _train(jobs, TrainingPlan(60, 5)):
        assert found.validation_mae == min(found.curve) == found.curve[found.epochs - 1]
        assert len(found.curve) == min(found.epochs + 5, 60) == len(found.losses)
        held_out = [inputs[place][VALIDATION] for place in found.config.layers]
        assert _mae(found.head, held_out, targets[VALIDATION]) == pytest.approx(
            found.validation_mae, abs=1e-5
        )
    constant = float((targets[VALIDATION] - targets[FIT].nanmean(dim=0)).abs().nanmean())
    assert _train(jobs[:1], TrainingPlan(60, 5))[0].validation_mae < 0.7 * constant


def test_without_validation_images_it_trains_for_the_given_epochs() -> None:
    (watched,) = _train([Job(SMALL, 7)], TrainingPlan(12, 12))
    plan = TrainingPlan(watched.epochs, 1, halving=True)
    for nothing in (None, FIT[:0]):
        blind, _ = _train([Job(SMALL, 7), Job(SMALL, 8)], plan, nothing)
        assert (blind.epochs, blind.curve) == (watched.epochs, ())
        assert math.isnan(blind.validation_mae)
        assert blind.losses == pytest.approx(watched.losses[: watched.epochs], abs=1e-5)
        for ours, theirs in zip(blind.head.parameters(), watched.head.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_halving_ends_the_worse_half_at_each_rung() -> None:
    rates = [3e-3 * 1.3**n for n in range(-6, 2)]
    jobs = [Job(replace(SMALL, learning_rate=rate), 1) for rate in rates]
    whole = _train(jobs, TrainingPlan(32, 32))
    halved = _train(jobs, TrainingPlan(32, 32, halving=True))
    # Eight heads are halved three times, after 1/8, 1/4 and 1/2 of the epochs.
    standing = list(range(8))
    expected = dict.fromkeys(standing, 32)
    for rung in (4, 8, 16):
        standing.sort(key=lambda place: min(whole[place].curve[:rung]))
        for place in standing[len(standing) // 2 :]:
            expected[place] = rung
        standing = standing[: len(standing) // 2]
    assert [len(found.curve) for found in halved] == [expected[place] for place in range(8)]
    for found, reference in zip(halved, whole, strict=True):
        assert found.curve == pytest.approx(reference.curve[: len(found.curve)], abs=1e-5)
        assert found.validation_mae == min(found.curve)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """With the inputs all the same, the mean training output is that of the whole head."""
    shares = (0.0, 0.25, 0.5)
    n_images = 4000
    inputs, targets = [torch.ones(n_images, 3)], torch.zeros(n_images, 2)
    jobs = [Job(HeadConfig((0,), 40, 40, 0.0, dropout=share), 1) for share in shares]
    plan = TrainingPlan(1, 1, batch_size=n_images)
    found = train_heads(
        inputs, targets, torch.arange(n_images), None, [torch.arange(2)], jobs, plan, lambda n: None
    )
    # A learning rate of 0 leaves the weights, so that the loss is the mean square of the outputs:
    # computed here from the head's own weights and masks drawn by PyTorch.
    torch.manual_seed(0)
    for share, trained in zip(shares, found, strict=True):
        with torch.no_grad():
            head = trained.head
            assert isinstance(head, NrpHead)
            l1 = F.dropout(torch.relu(head.l1[0](inputs[0])), share, training=True)
            l2 = F.dropout(torch.relu(head.l2(l1)), share, training=True)
            expected = float(head.out(l2).square().mean())
        assert trained.losses[0] == pytest.approx(expected, rel=0.03), share
    assert found[0].losses[0] < found[1].losses[0] < found[2].losses[0]


def test_input_noise_has_its_standard_deviation() -> None:
    """Compared with noise that the test adds to the inputs itself, of the same and twice the size."""
    n_images, noise = 40_000, 0.5
    inputs, targets = [torch.full((n_images, 5), 0.5)], torch.zeros(n_images, 1)
    job = Job(HeadConfig((0,), 30, 30, 0.0, input_noise=noise), 1)
    (found,) = train_heads(
        inputs, targets, torch.arange(n_images), None, [torch.arange(1)], [job],
        TrainingPlan(1, 1, batch_size=n_images), lambda n: None,
    )  # fmt: skip
    drawn = torch.randn(n_images, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, twice = (
            float(found.head([inputs[0] + size * drawn]).square().mean())
            for size in (noise, 2 * noise)
        )
    assert found.losses[0] == pytest.approx(expected, rel=0.02)
    assert twice != pytest.approx(expected, rel=0.1)


def test_the_number_of_cores_changes_no_bit() -> None:
    config = replace(SMALL, dropout=0.2)
    jobs = [Job(replace(config, learning_rate=x), seed) for x in (1e-3, 3e-3) for seed in range(5)]
    threads = torch.get_num_threads()
    try:
        found = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append([trained.head for trained in _train(jobs, TrainingPlan(4, 4))])
    finally:
        torch.set_num_threads(threads)
    for heads in found[1:]:
        for head, expected in zip(heads, found[0], strict=True):
            for name, value in head.state_dict().items():
                assert torch.equal(value, expected.state_dict()[name]), name


def test_every_head_that_ends_is_told_once() -> None:
    told: list[int] = []
    inputs, targets = _problem()
    jobs = [Job(replace(SMALL, learning_rate=rate), 1) for rate in (1e-3, 1e-2, 3e-2)]
    threads = torch.get_num_threads()
    for halving in (False, True):
        told.clear()
        plan = TrainingPlan(20, 3, halving=halving)
        train_heads(inputs, targets, FIT, VALIDATION, REGIONS, jobs, plan, told.append)
        assert sum(told) == 3
    assert torch.get_num_threads() == threads


def test_a_region_without_a_validation_image_is_left_out() -> None:
    inputs, targets = _problem()
    targets[VALIDATION[:, None], REGIONS[0]] = float("nan")
    (found,) = train_heads(
        inputs, targets, FIT, VALIDATION, REGIONS, [Job(SMALL, 1)], TrainingPlan(5, 5), lambda n: None
    )  # fmt: skip
    with torch.no_grad():
        error = found.head([x[VALIDATION] for x in inputs]) - targets[VALIDATION]
    assert found.validation_mae == pytest.approx(float(error[:, 2:].abs().nanmean()), abs=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
@pytest.mark.parametrize("mask", [None, "gaussian", "free"])
def test_a_gpu_trains_the_heads_of_the_cpu(mask: str | None) -> None:
    """Random numbers are those of the CPU; rounding differs."""
    rng = np.random.default_rng(0)
    shape = (80, 6) if mask is None else (80, 9, 4)
    inputs = [torch.from_numpy(rng.standard_normal(shape).astype(np.float32))]
    targets = torch.from_numpy(rng.standard_normal((80, 5)).astype(np.float32))
    config = HeadConfig((0,), 8, 0 if mask else 8, 1e-3, dropout=0.2, input_noise=0.1, mask=mask)
    fit, validation = torch.arange(60), torch.arange(60, 80)
    rates = []
    for device in ("cpu", "cuda"):
        (head,) = train_heads(
            inputs, targets, fit, validation, [torch.arange(5)], [Job(config, 3)],
            TrainingPlan(max_epochs=4), lambda _: None, [(3, 3)], device,
        )  # fmt: skip
        rates.append(head.head([inputs[0]]).detach().numpy())
    np.testing.assert_allclose(rates[1], rates[0], atol=1e-3)
