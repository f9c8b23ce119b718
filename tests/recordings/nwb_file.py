"""Writes a small NWB file with pynwb: spikes, presentations, images."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.base import Images
from pynwb.file import Subject
from pynwb.image import ImageSeries, RGBImage

from tests.recordings.scenes import coarse_images

N_IMAGES, N_UNITS, N_REPETITIONS = 6, 3, 4
REGIONS = ("V4", "IT", "V4")


def spikes_and_starts() -> tuple[list[np.ndarray], np.ndarray, list[int]]:
    """Spike times of each unit, starts of the presentations, and the image of each; in seconds."""
    rng = np.random.default_rng(0)
    shown = list(rng.permutation(np.repeat(np.arange(N_IMAGES), N_REPETITIONS)))
    starts = 1 + 0.3 * np.arange(len(shown))
    spikes = [np.sort(rng.uniform(0, starts[-1] + 1, 400)) for _ in range(N_UNITS)]
    return spikes, starts, [int(image) for image in shown]


def write_nwb(
    path: Path,
    column: str = "stimulus_id",
    values: list[Any] | None = None,
    templates: str = "images",
    regions: bool = True,
    second_table: bool = False,
) -> None:
    """Write a file whose presentations name images in a column, by default as im0 to im5."""
    spikes, starts, shown = spikes_and_starts()
    file = NWBFile(
        session_description="images", identifier="x", session_id="day1",
        session_start_time=datetime(2024, 1, 1, tzinfo=UTC),
        subject=Subject(subject_id="monkey A", species="Macaca mulatta"),
    )  # fmt: skip
    if regions:
        file.add_unit_column("location", "area")
    for unit, times in enumerate(spikes):
        place = {"location": REGIONS[unit]} if regions else {}
        file.add_unit(spike_times=times, id=10 + unit, **place)
    tables = ["image_presentations", *(["other"] if second_table else [])]
    for name in tables:
        file.create_time_intervals(name, "presentations")
        table = file.intervals[name]
        table.add_column(column, "the image")
        for start, value in zip(starts, values or [f"im{s}" for s in shown], strict=True):
            table.add_row(start_time=start, stop_time=start + 0.1, **{column: value})
    pixels = coarse_images(N_IMAGES)
    if templates == "images":
        pictures = [RGBImage(name=f"im{i}", data=pixels[i]) for i in range(N_IMAGES)]
        file.add_stimulus_template(Images(name="scenes", images=pictures, description="shown"))
    elif templates == "series":
        file.add_stimulus_template(
            ImageSeries(name="scenes", data=pixels, unit="n.a.", rate=1.0, format="raw")
        )
    with NWBHDF5IO(str(path), "w") as opened:
        opened.write(file)
