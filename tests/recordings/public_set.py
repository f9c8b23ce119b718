"""Recordings with known numbers, to be served as a public set; small, or of the size of MajajHong2015."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from nrp_onnx.recordings import Recordings

ROLES = ("assembly", "stimuli", "images")


def make_recordings(
    folder: Path, counts: np.ndarray, n_sites: dict[str, int], pixels: int
) -> Recordings:
    """Images of noise, and rates that follow from them, with trial noise; presentations mixed.

    Args:
        folder: for the images.
        counts: the repetitions of each stimulus.
        n_sites: by region.
    """
    rng = np.random.default_rng(0)
    n_stimuli = len(counts)
    images = rng.integers(0, 256, (n_stimuli, pixels, pixels, 3), np.uint8)
    names = tuple(f"image_{place:04d}" for place in range(n_stimuli))
    paths = tuple(folder / f"{name}.png" for name in names)
    folder.mkdir(parents=True)
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path, compress_level=1)
    total = sum(n_sites.values())
    coarse = images.reshape(n_stimuli, 4, pixels // 4, 4, pixels // 4, 3).mean((2, 4)) - 127.5
    drive = coarse.reshape(n_stimuli, -1) @ rng.standard_normal((48, total)) * (0.01 * pixels)
    shown = np.repeat(np.arange(n_stimuli), counts)
    order = rng.permutation(len(shown))
    responses = rng.standard_normal((len(shown), total), np.float32)
    responses += drive.astype(np.float32)[shown[order]]
    return Recordings(
        name="public",
        stimulus_ids=names,
        stimulus_paths=paths,
        stimulus_labels={
            "object_name": tuple("abcd"[place % 4] for place in range(n_stimuli)),
            "texture_type": tuple("xy"[place // 4 % 2] for place in range(n_stimuli)),
        },
        site_ids=tuple(f"site_{place:03d}" for place in range(total)),
        regions=tuple(region for region, n in n_sites.items() for _ in range(n)),
        site_labels={"animal": ("Chabo",) * total},
        responses=responses,
        presentation_stimulus=shown[order],
        repetition=np.concatenate([np.arange(n, dtype=np.int32) for n in counts])[order],
        units="rate relative to a blank grey stimulus",
        normalised=True,
        time_window_ms=(70.0, 170.0),
    )


def registry_of(url: str, paths: dict[str, Path]) -> str:
    """A registry file that puts files by role, served under a URL, in the place of the public ones."""
    lines = []
    for role, path in paths.items():
        lines += [
            f"[majajhong2015.files.{role}]",
            f'url = "{url}/{path.name}"',
            f'hash = "sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"',
        ]
    return "\n".join(lines) + "\n"
