"""How much sooner a search ends when its heads train side by side than one by one in PyTorch.

Usage: python benchmarks/fused_search.py [--epochs 2] [--repeats 3] [--cpu]

24 kinds of head with 3 seeds each, on 2,560 simulated images, 5 layers of 1,024 features, 168 sites.
One by one means nn.Linear, autograd and torch.optim.Adam, with the number of threads and the kind of
Adam that are fastest. The sides take turns, and the best turn of each counts. The last ratio is of
whole searches with one seed: raw features one by one, against 256 directions of each layer and
successive halving. The seconds of ours are all that it takes, the directions too; those one by one are
the epochs that each head trains there, which `train_heads` finds as it computes the same, times the
milliseconds of an epoch. On a machine that others use, --cpu counts milliseconds of CPU, on one thread.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.predictor.directions import fit_basis
from nrp_onnx.predictor.head import HeadConfig, Job, TrainedHead, TrainingPlan
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.predictor.training import train_heads
from nrp_onnx.threads import map_on_cores

N_IMAGES, N_FIT, N_LAYERS, N_FEATURES, N_SITES = 2560, 2048, 5, 1024, 168
MAX_EPOCHS, PATIENCE, DIRECTIONS = 100, 10, 256
LAYERS = tuple(range(N_LAYERS))
CONFIGS = [
    HeadConfig(LAYERS, l1, l2, rate, dropout, decay)
    for (l1, l2), rate, dropout, decay in product(
        ((32, 64), (64, 128)), (1e-3, 5e-4, 2e-4), (0.0, 0.3), (0.0, 1e-2)
    )
]
SEEDS = range(3)
JOBS = [Job(config, seed) for config in CONFIGS for seed in SEEDS]
#: Each kind of head once: one by one, three seeds take three times as long.
ONCE = [job for job in JOBS if job.seed == 0]
FIT, VALIDATION = torch.arange(N_FIT), torch.arange(N_FIT, N_IMAGES)


def simulate() -> tuple[list[Tensor], Tensor]:
    """Rectified mixtures of 200 latent numbers of falling variance, and sites that depend on them."""
    rng = torch.Generator().manual_seed(0)
    latent = torch.randn(N_IMAGES, 200, generator=rng) * torch.arange(1, 201) ** -0.5
    inputs = []
    for _ in LAYERS:
        mixed = latent @ torch.randn(200, N_FEATURES, generator=rng)
        x = torch.relu(mixed + 0.5 * torch.randn(N_IMAGES, N_FEATURES, generator=rng))
        x -= x[FIT].mean(dim=0)
        inputs.append(x / x[FIT].square().mean().sqrt())
    rates = torch.relu(latent[:, :60] @ torch.randn(60, N_SITES, generator=rng))
    rates += torch.randn(N_IMAGES, N_SITES, generator=rng)
    return inputs, (rates - rates[FIT].mean(dim=0)) / rates[FIT].std(dim=0)


class Head(nn.Module):
    """The NRP network as one writes it in PyTorch."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.l1 = nn.ModuleList(nn.Linear(N_FEATURES, config.l1) for _ in LAYERS)
        self.l2 = nn.Linear(N_LAYERS * config.l1, config.l2)
        self.out = nn.Linear(config.l2, N_SITES)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Rates (batch, sites)."""
        local = [torch.relu(layer(x)) for layer, x in zip(self.l1, inputs, strict=True)]
        hidden = torch.relu(self.l2(self.dropout(torch.cat(local, dim=1))))
        rates: Tensor = self.out(self.dropout(hidden))
        return rates


def train_one_by_one(
    inputs: list[Tensor], targets: Tensor, jobs: list[Job], epochs: int, fused: bool
) -> None:
    """A plain loop: each head by itself, judged after every epoch."""
    x_fit, y_fit = [x[FIT] for x in inputs], targets[FIT]
    x_validation, y_validation = [x[VALIDATION] for x in inputs], targets[VALIDATION]
    for job in jobs:
        torch.manual_seed(job.seed)
        head, config = Head(job.config), job.config
        kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
        optimiser = kind(
            head.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=fused,
        )
        for _ in range(epochs):
            head.train()
            for batch in torch.randperm(N_FIT).split(64):
                optimiser.zero_grad()
                F.mse_loss(head([x[batch] for x in x_fit]), y_fit[batch]).backward()
                optimiser.step()
            head.eval()
            with torch.no_grad():
                (head(x_validation) - y_validation).abs().mean().item()


def train_side_by_side(
    inputs: list[Tensor], targets: Tensor, jobs: list[Job], plan: TrainingPlan
) -> list[TrainedHead]:
    """The same by `train_heads`."""
    regions = [torch.arange(N_SITES)]
    return train_heads(inputs, targets, FIT, VALIDATION, regions, jobs, plan, lambda _: None)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let PyTorch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Side:
    """One way to train: milliseconds a head and epoch, in its best turn."""

    name: str
    threads: int
    run: Callable[[], object]
    n_head_epochs: int
    clock: Callable[[], float]
    best: float = float("inf")

    def turn(self) -> None:
        """Run once."""
        with torch_threads(self.threads):
            start = self.clock()
            self.run()
            self.best = min(self.best, 1e3 * (self.clock() - start) / self.n_head_epochs)


def equal_epochs(
    epochs: int, repeats: int, cores: int, clock: Callable[[], float]
) -> dict[str, Side]:
    """Both sides on the same inputs for the same epochs."""
    inputs, targets = simulate()
    sides = {}
    for fused in (False, True):
        probes = [
            Side(
                "", n, lambda f=fused: train_one_by_one(inputs, targets, ONCE[-1:], 1, f), 1, clock
            )
            for n in sorted({1, cores})
        ]
        for probe in probes * 2:
            probe.turn()
        threads = min(probes, key=lambda probe: probe.best).threads
        sides["fused Adam" if fused else "Adam"] = Side(
            f"one by one, Adam{'(fused=True)' if fused else ''}",
            threads,
            lambda f=fused: train_one_by_one(inputs, targets, ONCE, epochs, f),
            epochs * len(ONCE),
            clock,
        )
    plan = TrainingPlan(epochs, epochs)
    for threads in sorted({1, cores}):
        sides[f"stacks {threads}"] = Side(
            "side by side",
            threads,
            lambda: train_side_by_side(inputs, targets, JOBS, plan),
            epochs * len(JOBS),
            clock,
        )
    for _ in range(repeats):
        for side in sides.values():
            side.turn()
    return sides


@dataclass
class WholeSearch:
    """Two searches to the end: what they chose, and what they took."""

    chosen_raw: float
    chosen_span: float
    epochs_raw: int
    epochs_span: int
    seconds_span: float
    seconds_directions: float


def whole_searches(clock: Callable[[], float]) -> WholeSearch:
    """The search on raw features with early stopping, and ours with directions and halving."""
    inputs, targets = simulate()
    plan = TrainingPlan(MAX_EPOCHS, PATIENCE)
    raw = train_side_by_side(inputs, targets, ONCE, plan)
    start = clock()
    spans = map_on_cores(read_span, [LoadedLayer(x.numpy()) for x in inputs])
    bases = map_on_cores(partial(fit_basis, train=FIT.numpy(), most=DIRECTIONS), spans)
    coordinates = [torch.from_numpy(basis.coordinates) for basis in bases]
    directions = clock() - start
    ours = train_side_by_side(coordinates, targets, ONCE, replace(plan, halving=True))
    return WholeSearch(
        min(trial.validation_mae for trial in raw),
        min(trial.validation_mae for trial in ours),
        sum(len(trial.curve) for trial in raw),
        sum(len(trial.curve) for trial in ours),
        clock() - start,
        directions,
    )


def main() -> None:
    """Measure and print Markdown tables, ratios first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    clock, cores = time.perf_counter, torch.get_num_threads()
    if given.cpu:
        clock, cores = time.process_time, 1
    sides = equal_epochs(given.epochs, given.repeats, cores, clock)
    plain, plain_fused, *stacks = sides.values()
    ours, alone = stacks[-1], stacks[0]
    with torch_threads(cores):
        found = whole_searches(clock)
    seconds_raw = found.epochs_raw * plain.best / 1e3
    print(
        f"\n{len(CONFIGS)} kinds of head x {len(SEEDS)} seeds; {N_IMAGES} images, {N_LAYERS} layers of "
        f"{N_FEATURES} features, {N_SITES} sites; {_machine()}\n"
    )
    print("| one by one in PyTorch / side by side | ratio |\n|---|---|")
    print(f"| equal epochs | {plain.best / ours.best:.2f} |")
    print(f"| equal epochs, Adam(fused=True) | {plain_fused.best / ours.best:.2f} |")
    print(f"| equal epochs, side by side on one core | {plain.best / alone.best:.2f} |")
    print(
        f"| whole search, {DIRECTIONS} directions, halving | {seconds_raw / found.seconds_span:.2f} |"
    )
    print(
        f"\n| side | threads | ms{' of CPU' if given.cpu else ''} a head and epoch |\n|---|---|---|"
    )
    for side in sides.values():
        print(f"| {side.name} | {side.threads} | {side.best:.1f} |")
    print(
        "\n| whole search | chosen validation MAE | epochs of all heads | seconds |\n|---|---|---|---|"
    )
    print(f"| one by one | {found.chosen_raw:.4f} | {found.epochs_raw} | {seconds_raw:.1f} |")
    print(f"| side by side | {found.chosen_span:.4f} | {found.epochs_span} ", end="")
    print(f"| {found.seconds_span:.1f}, of it directions {found.seconds_directions:.1f} |")


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, PyTorch {torch.__version__}"


if __name__ == "__main__":
    main()
