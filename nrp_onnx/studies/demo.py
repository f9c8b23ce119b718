"""The demo: a small network learns the simulated objects and is scored beside its untrained twin."""

import copy
import importlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nrp_onnx.api import score_with
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.decoding import decode_image
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings import Recordings, open_recordings
from nrp_onnx.recordings.recordings import STRATIFY_ON
from nrp_onnx.report.page import write_report
from nrp_onnx.report.terminal import print_table, score_table
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.scoring.run_folder import REPORT_FILE

_WIDTHS = (16, 32, 64, 96)
_EPOCHS = 16
_PIXELS = 64
_SEED = 0


class SmallCnn(nn.Module):
    """Four stages of convolution, batch norm, ReLU and pooling, then a linear classifier."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        stages = []
        for before, width in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            stages.append(
                nn.Sequential(
                    nn.Conv2d(before, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
            )
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(_WIDTHS[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (batch, n_classes) from images (batch, 3, H, W)."""
        scores: Tensor = self.classifier(self.stages(x).amax(dim=(2, 3)))
        return scores


def run_demo(out: Path, choice: str) -> dict[str, FinishedRun]:
    """Train, convert both twins, score both; print two tables and where the files are.

    Raises:
        OptionError: if the recordings have no object names to train on.
    """
    notes = Notes()
    recordings = open_recordings(choice, notes)
    labels = recordings.stimulus_labels.get(STRATIFY_ON)
    if labels is None:
        raise OptionError(
            "the demo needs names of objects to learn",
            where="--recordings",
            expected=f"a column {STRATIFY_ON} in stimuli.csv",
            found=recordings.name,
        )
    images = _images(recordings)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        untrained = SmallCnn(len(set(labels)))
    trained = copy.deepcopy(untrained)
    accuracy = _train(trained, images, np.unique(labels, return_inverse=True)[1])
    print(
        f"Trained on the objects: {accuracy:.0%} of new images right (chance {1 / len(set(labels)):.0%})"
    )
    # Converters are plug-ins: core code reaches them by name only.
    converter = importlib.import_module("nrp_converters.torch.modules")
    results: dict[str, FinishedRun] = {}
    for name, network in (("trained", trained), ("untrained", untrained)):
        path = out / f"{name}.onnx"
        converter.convert(
            network,
            images[:1],
            preprocessing=PRESETS["tf"],
            source={"name": f"demo CNN, {name}", "seed": _SEED},
        ).save(path)
        options = ScoreOptions(reduce="avgpool:2", search="quick", overwrite=True, report=False)
        results[name] = score_with(path, recordings, out / name, options)
        print_table(score_table(results[name].result))
    better = results["untrained"].nrp_error - results["trained"].nrp_error
    for name, run in results.items():
        parts = ", ".join(
            f"{region} {found.nrp_error.value:.3f} "
            f"[{found.nrp_error.ci95[0]:.3f}, {found.nrp_error.ci95[1]:.3f}]"
            for region, found in run.regions.items()
        )
        print(f"{name:10} NRP-error {run.nrp_error:.3f} ({parts})")
    verdict = "predicts better" if better > 0 else "does not predict better"
    print(f"The trained network {verdict}: by {better:.3f} (SIMULATED recordings)")
    print(f"Files: {out / 'trained'} and {out / 'untrained'}")
    write_report([out / name for name in results], out / REPORT_FILE)
    print(f"Report: {out / REPORT_FILE}")
    return results


def _images(recordings: Recordings) -> Tensor:
    """All stimuli as the network takes them: float32 (n, 3, H, W) from -1 to 1."""
    size = (_PIXELS, _PIXELS)
    pixels = np.stack(
        [
            np.asarray(Image.fromarray(decode_image(path)).resize(size, Image.Resampling.BILINEAR))
            for path in recordings.stimulus_paths
        ]
    )
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _train(network: SmallCnn, images: Tensor, labels: np.ndarray) -> float:
    """Train on nine tenths of the images; the share of the last tenth that it names right."""
    targets = torch.from_numpy(labels)
    n_train = len(images) * 9 // 10
    order = torch.Generator().manual_seed(_SEED)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    steps = _EPOCHS * -(-n_train // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    network.train()
    with progress_bar("Training the demo network", _EPOCHS) as advance:
        for _ in range(_EPOCHS):
            for batch in torch.randperm(n_train, generator=order).split(64):
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(network(images[batch]), targets[batch])
                loss.backward()
                optimiser.step()
                schedule.step()
            advance(1)
    network.eval()
    with torch.no_grad():
        right = network(images[n_train:]).argmax(dim=1) == targets[n_train:]
    return float(right.float().mean())
