"""Small recordings with known numbers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nrp_onnx.recordings import Recordings, save_recordings, simulate_recordings
from tests.recordings.array_parts import N_REPETITIONS, N_SITES, N_STIMULI, ROWS

IDS = ("cat", "dog", "owl", "eel")


def write_images(folder: Path, names: list[str]) -> list[Path]:
    """PNG images of noise, each another."""
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return [folder / name for name in names]


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    """4 stimuli, 3 repetitions, 3 sites, 2 regions; presentations in no order, a number lost."""
    paths = write_images(tmp_path / "images", [f"{name}.png" for name in IDS])
    rng = np.random.default_rng(7)
    order = rng.permutation(12)
    responses = rng.normal(5, 2, (12, 3)).astype(np.float32)
    responses[4, 1] = np.nan
    return Recordings(
        name="small",
        stimulus_ids=IDS,
        stimulus_paths=tuple(paths),
        stimulus_labels={"object_name": ("mammal", "mammal", "bird", "fish")},
        site_ids=("a", "b", "c"),
        regions=("V4", "IT", "V4"),
        site_labels={"animal": ("one", "two", "two")},
        responses=responses,
        presentation_stimulus=np.repeat(np.arange(4), 3)[order],
        repetition=np.tile(np.arange(3, dtype=np.int32), 4)[order],
        units="spikes",
        normalised=False,
        time_window_ms=(70.0, 170.0),
        licence="CC0-1.0",
        citation="Someone (2020)",
        simulated=True,
        provenance={"from": "a test"},
        visual_degrees=8,
        stratify_on="animate",
        noise_free=rng.normal(5, 2, (4, 3)).astype(np.float32),
    )


@pytest.fixture
def folder(recordings: Recordings, tmp_path: Path) -> Path:
    """The small recordings as a folder."""
    save_recordings(recordings, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def changed(recordings: Recordings) -> Callable[..., Recordings]:
    """Makes the small recordings with some fields changed."""

    def change(**fields: Any) -> Recordings:
        return replace(recordings, **fields)

    return change


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """240 simulated stimuli."""
    return simulate_recordings(tmp_path_factory.mktemp("simulated") / "s", 240)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder with images, two tables and rates.npy; the array, (site, stimulus, repetition)."""
    write_images(tmp_path / "pictures", [file for _, file in ROWS])
    lines = ["stimulus_id,filename,object_name", *(f"{i},{file},thing" for i, file in ROWS)]
    (tmp_path / "stimuli.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "sites.csv").write_text("site_id,region,animal\nx,IT,m\ny,V4,m\nz,IT,n\n")
    array = np.random.default_rng(3).normal(5, 1, (N_SITES, N_STIMULI, N_REPETITIONS))
    array[:, 1, 3] = np.nan  # a presentation that was not
    array[2, 0, 0] = np.nan
    np.save(tmp_path / "rates.npy", array)
    return tmp_path, array
