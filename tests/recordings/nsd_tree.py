"""Writes a small subject of NSD in the data set's tree: betas, design, masks, images."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import scipy.io

from tests.recordings.scenes import coarse_images, follow

SHAPE = (2, 3, 4)  # x, y, z
N_IMAGES = 600
V1V, HV4, FFA1 = 1, 7, 2


def bold_images() -> np.ndarray:
    """The image of each trial of two sessions: 300 images of the subject, each five times."""
    return np.random.default_rng(3).permutation(np.repeat(np.arange(300), 5))


def write_nsd(root: Path) -> Path:
    """Write a tree in which subj02 sees images 301 to 600.

    Returns:
        The folder of its betas.
    """
    bold = bold_images()
    rng = np.random.default_rng(0)
    images = coarse_images(N_IMAGES)
    stimuli = root / "nsddata_stimuli/stimuli/nsd"
    design = root / "nsddata/experiments/nsd"
    roi = root / "nsddata/ppdata/subj02/func1pt8mm/roi"
    folder = root / "nsddata_betas/ppdata/subj02/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    for made in (stimuli, design, roi, folder):
        made.mkdir(parents=True)
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = images
    subjectim = np.ones((8, 10000))
    subjectim[1, :300] = np.arange(301, 601)
    order = np.ones((1, 30000))
    order[0, :1500] = bold + 1
    content = {"masterordering": order, "subjectim": subjectim, "sharedix": np.arange(551.0, 601)}
    scipy.io.savemat(design / "nsd_expdesign.mat", content)
    visual = np.full(SHAPE, -1.0)
    visual[0, 0, 0], visual[0, 1, 2], visual[1, 2, 3], visual[1, 0, 0] = V1V, 0, HV4, V1V
    faces = np.zeros(SHAPE)
    faces[0, 0, 0], faces[1, 1, 1] = FFA1, FFA1
    for name, mask in (("prf-visualrois", visual), ("floc-faces", faces)):
        image = nibabel.Nifti1Image(mask, np.eye(4))
        nibabel.save(image, roi / f"{name}.nii.gz")
    driven = follow(images[300:], 24)[bold].reshape(1500, *SHAPE)
    volumes = (driven + rng.normal(size=driven.shape) + 2) * 300
    volumes[:, 1, 0, 0] = 0  # outside the brain
    for session in (1, 2):
        part = volumes[(session - 1) * 750 : session * 750].round().astype(np.int16)
        with h5py.File(folder / f"betas_session{session:02d}.hdf5", "w") as file:
            file["betas"] = part.transpose(0, 3, 2, 1)  # as MATLAB's X x Y x Z x trials looks here
    return folder
