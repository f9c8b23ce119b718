"""Writes a small monkey's folder of TVSD in its layout: MATLAB v7.3, cells as references."""

from itertools import combinations
from pathlib import Path

import h5py
import numpy as np

from tests.recordings.scenes import coarse_images, follow, save_images

N_TRAIN, N_TEST, N_REPETITIONS, N_CHANNELS = 130, 110, 4, 1024


def write_tvsd(folder: Path, animal: str = "F", seed: int = 0) -> np.ndarray:
    """Write things/ and monkeyF/ into a folder; responses follow the images with noise.

    Channels from 900 on are noise only.

    Returns:
        The test responses, float64 (N_REPETITIONS, N_TEST, N_CHANNELS).
    """
    monkey = folder / f"monkey{animal}"
    (monkey / "_logs").mkdir(parents=True)
    images = coarse_images(N_TRAIN + N_TEST)
    names = [f"thing{place:03d}/thing{place:03d}_01b.jpg" for place in range(len(images))]
    if not (folder / "things").exists():
        save_images(folder / "things", names, images)
    rng = np.random.default_rng(seed)
    driven = follow(images, N_CHANNELS)
    driven[:, 900:] = 0
    train = driven[:N_TRAIN] + rng.normal(size=(N_TRAIN, N_CHANNELS))
    test = driven[N_TRAIN:] + rng.normal(size=(N_REPETITIONS, N_TEST, N_CHANNELS))
    with h5py.File(monkey / "THINGS_normMUA.mat", "w", userblock_size=512) as file:
        file["train_MUA"], file["test_MUA_reps"] = train, test
        file["test_MUA"] = test.mean(axis=0)
        file["reliab"] = pairwise(test)
        file["SNR_max"] = np.ones((N_CHANNELS, 1))
        file["tb"] = np.arange(-100.0, 200.0)[:, None]
    with h5py.File(monkey / "_logs" / "things_imgs.mat", "w", userblock_size=512) as file:
        for group, part in (("train_imgs", names[:N_TRAIN]), ("test_imgs", names[N_TRAIN:])):
            paths = [name.replace("/", "\\") for name in part]
            _cell(file, f"{group}/things_path", paths)
            _cell(file, f"{group}/local_path", [f"D:\\images\\{path}" for path in paths])
            _cell(file, f"{group}/class", [name.split("/")[0] for name in part])
    return np.asarray(test)


def pairwise(test: np.ndarray) -> np.ndarray:
    """Correlations of every two repetitions over the images: float64 (n_pairs, n_channels)."""
    z = (test - test.mean(axis=1, keepdims=True)) / test.std(axis=1, keepdims=True)
    return np.stack([(z[a] * z[b]).mean(axis=0) for a, b in combinations(range(len(z)), 2)])


def _cell(file: h5py.File, name: str, texts: list[str]) -> None:
    """A cell array of texts, as a column: references to arrays of UTF-16 codes in #refs#."""
    cells = file.create_dataset(name, (len(texts), 1), h5py.ref_dtype)
    cells.attrs["MATLAB_class"] = np.bytes_("cell")
    for row, text in enumerate(texts):
        codes = np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, None]
        inner = file.create_dataset(f"#refs#/{name.replace('/', '_')}_{row}", data=codes)
        inner.attrs["MATLAB_class"] = np.bytes_("char")
        cells[row, 0] = inner.ref
