"""A subject's folder of the Algonauts 2023 challenge as recordings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.recordings import import_algonauts, validate_recordings
from tests.recordings.algonauts_folder import write_subject


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    write_subject(tmp_path / "subj01")
    return tmp_path / "subj01"


def fmri(subject: Path, side: str) -> np.ndarray:
    array: np.ndarray = np.load(
        subject / "training_split" / "training_fmri" / f"{side}_training_fmri.npy"
    )
    return array


def test_a_vertex_is_in_the_first_region_that_a_mask_gives_it(subject, tmp_path, caplog):
    read = import_algonauts(subject, tmp_path / "out")
    assert read.site_ids == ("lh_00001", "lh_00002", "lh_00003", "lh_00004", "rh_00000", "rh_00002")
    assert read.regions == ("V1v", "V2d", "FBA-2", "ventral", "hV4", "ventral")
    assert read.site_labels["hemisphere"] == ("lh",) * 4 + ("rh",) * 2
    assert read.site_labels["streams"] == (
        "early", "early", "ventral", "ventral", "early", "ventral",
    )  # fmt: skip
    assert read.site_labels["floc-bodies"] == ("", "EBA", "FBA-2", "", "", "")
    assert "2 of 8 vertices are in no region of prf-visualrois, floc-bodies, streams" in caplog.text
    expected = np.hstack([fmri(subject, "lh")[:, 1:], fmri(subject, "rh")[:, [0, 2]]])
    np.testing.assert_array_equal(read.averages.astype(np.float32), expected)


def test_rows_are_those_that_the_images_name(subject, tmp_path):
    read = import_algonauts(subject, tmp_path / "out")
    assert read.stimulus_ids == ("nsd-00013", "nsd-00007", "nsd-20001", "nsd-00005")
    assert [path.name.split("_")[0] for path in read.stimulus_paths] == [
        f"train-000{row}" for row in (1, 2, 3, 4)
    ]
    assert read.normalised
    assert read.units.startswith("beta, z-scored")
    assert read.name == "algonauts2023-subj01"
    assert "Gifford" in (read.citation or "")
    assert read.visual_degrees == 8.4, "as the images of NSD were shown"
    assert validate_recordings(tmp_path / "out") == []


def test_masks_are_chosen_in_an_order(subject, tmp_path):
    read = import_algonauts(subject, tmp_path / "out", rois=["streams", "floc-bodies"])
    assert read.regions == ("early", "early", "ventral", "ventral", "early", "ventral")
    read = import_algonauts(subject, tmp_path / "again", rois=["prf-visualrois"])
    assert read.regions == ("V1v", "V2d", "hV4")
    assert read.site_labels["vertex"] == ("1", "2", "0")


def test_names_of_regions_from_json(subject, tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"prf-visualrois": {"0": "none", "1": "A", "4": "B", "7": "C"}}))
    read = import_algonauts(subject, tmp_path / "out", rois=["prf-visualrois"], roi_names=names)
    assert read.regions == ("A", "B", "C")


def masks(subject: Path) -> Path:
    return subject / "roi_masks"


def images(subject: Path) -> Path:
    return subject / "training_split" / "training_images"


def save(name: str, array: Any) -> Callable[[Path], object]:
    return lambda subject: np.save(subject / name, array, allow_pickle=True)


LEFT = "training_split/training_fmri/lh_training_fmri.npy"
V1 = "roi_masks/lh.prf-visualrois_challenge_space.npy"


def delete_masks(subject: Path) -> None:
    for path in masks(subject).iterdir():
        path.unlink()


def empty_masks(subject: Path) -> None:
    for path in masks(subject).glob("*_challenge_space.npy"):
        np.save(path, np.zeros_like(np.load(path)))


ERRORS: dict[str, tuple[Callable[[Path], object], dict[str, Any], type[Exception], str]] = {
    "a missing image": (
        lambda s: (images(s) / "train-0003_nsd-20001.png").unlink(), {}, RecordingsError,
        r"training_images: the images do not fit the responses; expected 4 images, train-0001 to "
        r"train-0004, one a row; found 3 images, without or beyond row 3",
    ),
    "an image without a row": (
        lambda s: (images(s) / "train-0003_nsd-20001.png").rename(images(s) / "x.png"), {},
        RecordingsError, r"1 images do not name their row; .*found 'x\.png'",
    ),
    "an image twice": (
        lambda s: (images(s) / "train-0003_nsd-20001.png").rename(
            images(s) / "train-0003_nsd-00013.png"), {},
        RecordingsError, r"a nsd number comes twice; .*found 'nsd-00013'",
    ),
    "hemispheres of different length": (
        save(LEFT, np.ones((5, 5))), {}, RecordingsError,
        r"rh_training_fmri\.npy: the hemispheres do not have the same images; expected 5 rows",
    ),
    "pickled responses": (
        save(LEFT, np.array([{}], object)), {}, RecordingsError,
        r"lh_training_fmri\.npy: this array cannot be read; .*without pickled objects",
    ),
    "truncated responses": (
        lambda s: (s / LEFT).write_bytes((s / LEFT).read_bytes()[:-20]), {}, RecordingsError,
        r"lh_training_fmri\.npy: this array cannot be read; expected a whole \.npy",
    ),
    "a mask of another space": (
        save(V1, np.zeros(9, int)), {}, RecordingsError,
        r"lh\.prf-visualrois_challenge_space\.npy: the mask does not fit the responses; "
        r"expected 5 vertices; found the shape \(9,\)",
    ),
    "a number without a name": (
        save(V1, np.array([0, 1, 2, 3, 99])), {}, RecordingsError,
        r"the mask has numbers without a name; expected 0 to 7; found 99",
    ),
    "a mask of one hemisphere": (
        lambda s: (masks(s) / "rh.streams_challenge_space.npy").unlink(), {}, RecordingsError,
        r"rh\.streams_challenge_space\.npy: no such file",
    ),
    "no masks": (
        delete_masks, {}, RecordingsError,
        r"roi_masks: no masks of regions; expected lh\.NAME_challenge_space\.npy",
    ),
    "a mask that is not there": (
        lambda s: None, {"rois": ["floc-cars"]}, OptionError,
        r"--rois: there is no such mask; expected some of floc-bodies, prf-visualrois, streams",
    ),
    "a mask without names": (
        lambda s: [path.rename(path.with_name(path.name.replace("streams", "mine")))
                   for path in masks(s).glob("*streams*")],
        {"rois": ["mine"]}, OptionError,
        r"roi_masks: the regions of the mask mine have no names; .*pickled.*--roi-names",
    ),
    "no subject": (
        lambda s: (s / "training_split").rename(s / "training"), {}, RecordingsError,
        r"subj01: this is no subject of the Algonauts 2023 challenge; .*found no training_split",
    ),
    "no vertex in a region": (
        empty_masks, {}, RecordingsError, r"roi_masks: no vertex is in a region; .*found 0 for 8 vertices",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_folders_that_cannot_be_used_are_refused_in_one_line(subject, tmp_path, name):
    damage, options, kind, says = ERRORS[name]
    damage(subject)
    with pytest.raises(kind, match=says) as raised:
        import_algonauts(subject, tmp_path / "out", **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))
