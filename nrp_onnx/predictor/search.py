"""The search over layer sets, sizes and training; selection sees training images only."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

import numpy as np
from torch import Tensor

from nrp_onnx.files import sha256_of_json
from nrp_onnx.predictor.head import Job, TrainedHead, TrainingPlan, Trial
from nrp_onnx.predictor.readouts.spatial import Grid
from nrp_onnx.predictor.rows_on_disk import RowsOnDisk
from nrp_onnx.predictor.search_space import LayerSet, SearchSpace
from nrp_onnx.predictor.training import TrainingData, stacks_of, train_heads, train_parts
from nrp_onnx.predictor.trials import TrialRecord

#: Images whose bytes are hashed at a time.
_ROWS = 1024


@dataclass(frozen=True)
class SearchImages:
    """The images that the heads of a search are trained and chosen on; see `train_heads`.

    Attributes:
        parts: of a search that is cross-fitted: places of the images of each part that heads train on,
            and of those that they leave out.
        device: where heads train.
    """

    inputs: Sequence[Tensor | RowsOnDisk]
    targets: Tensor
    fit: Tensor
    validation: Tensor
    regions: Sequence[Tensor]
    grids: Sequence[Grid] = ()
    parts: Sequence[tuple[Tensor, Tensor]] = ()
    device: str = "cpu"

    def train(
        self, jobs: Sequence[Job], plan: TrainingPlan, advance: Callable[[int], None]
    ) -> list[TrainedHead]:
        """Train heads on these images."""
        return train_heads(
            self.inputs,
            self.targets,
            self.fit,
            self.validation,
            self.regions,
            jobs,
            plan,
            advance,
            self.grids,
            self.device,
        )

    def fingerprint(self) -> str:
        """SHA-256 of these tensors and of the versions of the code that trains."""
        digest = hashlib.sha256()
        parts = [places for part in self.parts for places in part]
        split = (self.fit, self.validation, *parts, *self.regions)
        for tensor in (*self.inputs, self.targets, *split):
            array = tensor if isinstance(tensor, RowsOnDisk) else tensor.numpy()
            digest.update(f"{array.dtype}{array.shape}".encode())
            for start in range(0, len(array), _ROWS):
                digest.update(np.ascontiguousarray(array[start : start + _ROWS]).data)
        versions = [f"{name} {version(name)}" for name in ("nrp-onnx", "torch")]
        return sha256_of_json([digest.hexdigest(), list(self.grids), *versions])


def search_head(
    space: SearchSpace,
    images: SearchImages,
    seed: int,
    advance: Callable[[int], None],
    record: TrialRecord | None = None,
    fold: int = 0,
) -> list[Trial]:
    """Train the heads of a search; the best by validation error comes first.

    Args:
        seed: of the first head of each configuration.
        advance: called with the number of heads that have ended, `SearchSpace.n_jobs` in total.
        record: trials of this ``fold`` that it holds are not trained again; the others are added.

    Returns:
        All trials. Only those trained now have their heads; `with_heads` trains the others again.
    """
    n_layers, n_left = len(images.inputs), space.n_jobs(len(images.inputs))
    shared = images.fingerprint() if record is not None else ""
    trials: dict[Job, Trial] = {}
    errors: dict[LayerSet, float] = {}
    while layer_sets := space.next_layer_sets(n_layers, errors):
        jobs = space.jobs(layer_sets, seed)
        fingerprint = _fingerprint(shared, space.plan, jobs)
        found = record.find(fold, fingerprint, jobs) if record is not None else {}
        advance(len(found))
        new = images.train([job for job in jobs if job not in found], space.plan, advance)
        if record is not None and new:
            record.add(fold, fingerprint, new)
        trials |= found | {Job(trial.config, trial.seed): trial for trial in new}
        for job in jobs:
            error = trials[job].validation_mae
            errors[job.config.layers] = min(error, errors.get(job.config.layers, error))
        n_left -= len(jobs)
    advance(n_left)  # greedy selection may stop before it has all layers
    return sorted(trials.values(), key=lambda trial: trial.validation_mae)


def cross_fit(
    space: SearchSpace,
    images: SearchImages,
    seed: int,
    advance: Callable[[int], None],
    record: TrialRecord | None = None,
    fold: int = 0,
) -> list[list[TrainedHead]]:
    """Train every head of a search once for each part of the training images, on all others.

    Args:
        seed: of the first head; those of the parts count on.
        record: gets the trials of this ``fold``. A head of an earlier run is trained again: its weights
            are not kept.

    Returns:
        For each part its heads; they are judged on the part.
    """
    layer_sets = space.next_layer_sets(len(images.inputs), {})
    jobs = [space.jobs(layer_sets, seed + n * space.seeds) for n in range(len(images.parts))]
    data = [
        TrainingData.of(
            images.inputs,
            images.targets,
            fit,
            left_out,
            images.regions,
            images.grids,
            images.device,
        )
        for fit, left_out in images.parts
    ]
    found = train_parts(list(zip(data, jobs, strict=True)), space.plan, advance)
    if record is not None:
        every = [job for of_part in jobs for job in of_part]
        record.add(fold, _fingerprint(images.fingerprint(), space.plan, every), found)
    heads = iter(found)
    return [[next(heads) for _ in of_part] for of_part in jobs]


def with_heads(
    trials: Sequence[Trial], images: SearchImages, plan: TrainingPlan, searched: Sequence[Job]
) -> list[TrainedHead]:
    """The trials with their heads; those without one are trained again to their best epoch.

    Args:
        searched: the jobs that the trials were trained beside, in their order.
    """
    heads = {place: trial for place, trial in enumerate(trials) if isinstance(trial, TrainedHead)}
    missing = [place for place in range(len(trials)) if place not in heads]
    # With a falling learning rate, the best epoch depends on the planned number of epochs.
    whole = plan.epochs(len(images.fit)) if plan.schedule == "cosine" else None
    for epochs in {whole or trials[place].epochs for place in missing}:
        places = [place for place in missing if epochs in (whole, trials[place].epochs)]
        jobs = [Job(trials[place].config, trials[place].seed) for place in places]
        # Where no epoch was the best (0), one epoch gives the initial head again.
        until = replace(plan, max_epochs=max(epochs, 1), patience=max(epochs, 1), halving=False)
        beside = stacks_of(searched, jobs)
        trained = dict(zip(beside, images.train(beside, until, lambda _: None), strict=True))
        for place, job in zip(places, jobs, strict=True):
            trial = trials[place]
            heads[place] = replace(trained[job], curve=trial.curve, losses=trial.losses)
    return [heads[place] for place in range(len(trials))]


def _fingerprint(shared: str, plan: TrainingPlan, jobs: Sequence[Job]) -> str:
    """SHA-256 of what a job's result depends on; with successive halving, also on the other jobs."""
    others = [asdict(job) for job in jobs] if plan.halving else None
    return sha256_of_json([shared, asdict(plan), others])
