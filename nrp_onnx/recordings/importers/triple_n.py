"""Triple-N: processed sessions of macaque recordings with the 1,000 shared images of NSD.

Li et al. (2025) recorded with Neuropixels in IT, V1, V2 and V4. Processed_sesNN_DATE_ANIMAL_N.mat
(MATLAB 5) holds averaged rates, unit x 1072: the shared images of NSD, then 72 of a localizer.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import scipy.io

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.image_files import ImageSource, open_images
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.stimulus_set import ImageNames
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.tables import read_table

N_SHARED, N_LOCALIZER = 1000, 72
CITATION = (
    "Li et al. (2025), Triple-N: non-human primate neural responses to natural scenes, bioRxiv"
)
_NAME = re.compile(r"Processed_(ses\d+)_(\d+)_([A-Za-z0-9]+)_(\w+)\.mat")
#: Which average is taken, and the reliability that belongs to it.
_KEYS = {"response_best": "reliability_best", "response_basic": "reliability_basic"}
_LABELS = ("UnitType", "pos", "snr", "best_t_time")
_UNIT_TYPES = {"1": "single unit", "2": "multi-unit", "3": "non-somatic", "4": "non-somatic"}


def _detect(path: Path) -> str | None:
    found = _NAME.fullmatch(path.name) and path.is_file()
    return "its name is that of a processed session" if found else None


@contextmanager
def _read(
    path: Path,
    notes: Notes,
    *,
    images: Path,
    stimuli: Path | None = None,
    region: str | None = None,
    sites: Path | None = None,
    key: str = "response_best",
) -> Iterator[Parts]:
    """Read a processed session.

    Args:
        images: the 1,000 shared images, or with the localizer's 72, as a folder or zip.
        stimuli: their stimulus_id and filename in the order of the responses; else the images pair
            in the order of their file names, and a note says so.
        region: of all units; or ``sites``, a CSV with site_id and region in the units' order.
        key: response_best, in the time window where a unit repeats best, or response_basic, in one
            window for all.
    """
    if key not in _KEYS:
        raise OptionError(
            "there are no such responses", where="--key", expected=" or ".join(_KEYS), found=key
        )
    wanted = [key, _KEYS[key], *_LABELS]
    content = _load(path, wanted)
    rates, reliability = _rates(content, key, path)
    labels = _labels(content, len(rates), path)
    match = _NAME.fullmatch(path.name)
    session, animal = (match[1], match[3]) if match else ("", "")
    notes.say(f"the rates are {key}; the other average is had with --key")
    with open_images(images) as source:
        ids, names = _images(source, stimuli, rates.shape[1], notes)
        if left_out := rates.shape[1] - len(ids):
            notes.say(f"{left_out} images of the localizer are left out: they are not in {images}")
        site_ids, regions = _sites(len(rates), session, region, sites)
        recordings = Recordings(
            name=f"triple-n-{session}" if session else path.stem,
            stimulus_ids=ids,
            stimulus_paths=tuple(map(Path, names)),
            stimulus_labels={},
            site_ids=site_ids,
            regions=regions,
            site_labels={
                "animal": (animal,) * len(rates),
                "session": (session,) * len(rates),
                **labels,
            },
            responses=np.ascontiguousarray(rates[:, : len(ids)].T, np.float32),
            presentation_stimulus=np.arange(len(ids)),
            repetition=np.zeros(len(ids), np.int32),
            units="firing rate",
            citation=CITATION,
            visual_degrees=11.0,
            provenance={
                "importer": "triple_n",
                "responses": {"file": path.name, "sha256": sha256_of_file(path)},
                "key": key,
                "images": Path(images).name,
                "stimulus_order": "file names" if stimuli is None else Path(stimuli).name,
                "n_stimuli_left_out": left_out,
            },
        )
        yield Parts(
            recordings, source, Sources(stimuli or images, sites or path, path), reliability,
            _KEYS[key].replace("_", " "),
        )  # fmt: skip


def _load(path: Path, names: list[str]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = scipy.io.loadmat(path, variable_names=names)
    # The reader of scipy meets damage in many ways, among them IndexError and zlib.error.
    except Exception as error:
        raise RecordingsError(
            "this session cannot be read",
            where=path,
            expected="a whole MATLAB 5 file",
            found=f"{type(error).__name__}: {error}",
            fix="If it was downloaded, download it again.",
        ) from None
    return content


def _rates(content: dict[str, Any], key: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rates (n_units, 1072), and reliabilities (n_units,)."""
    for name in (key, _KEYS[key]):
        if name not in content or getattr(content[name], "dtype", np.dtype("O")).kind not in "iuf":
            raise RecordingsError(
                f"the file has no numbers {name}",
                where=path,
                expected=", ".join((key, _KEYS[key])),
                found=some(name for name in content if not name.startswith("__")) or "nothing",
            )
    rates, reliability = content[key], content[_KEYS[key]].ravel()
    n = N_SHARED + N_LOCALIZER
    if rates.ndim != 2 or rates.shape[1] != n or len(rates) != len(reliability):
        turned = rates.ndim == 2 and rates.shape[0] == n and rates.shape[1] == len(reliability)
        raise RecordingsError(
            f"{key} is transposed" if turned else f"{key} does not fit",
            where=path,
            expected=f"{len(reliability)} units, as {_KEYS[key]} has, x {n} images",
            found=f"the shape {rates.shape}",
            fix="Take the file as it was published." if turned else None,
        )
    return rates, np.asarray(reliability, np.float64)


def _labels(content: dict[str, Any], n_units: int, path: Path) -> dict[str, tuple[str, ...]]:
    """What the file says of each unit, as columns of sites.csv; what does not fit is left out."""
    labels = {}
    for name in _LABELS:
        values = np.asarray(content.get(name, ())).ravel()
        if len(values) == n_units and values.dtype.kind in "iuf":
            texts = tuple(f"{value:g}" for value in values.tolist())
            labels[name] = (
                tuple(_UNIT_TYPES.get(text, text) for text in texts)
                if name == "UnitType"
                else texts
            )
    return labels


def _images(
    source: ImageSource, stimuli: Path | None, n_columns: int, notes: Notes
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and file names in the order of the columns, of all images or the shared ones."""
    if stimuli is None:
        names = tuple(source.images())
        ids = tuple(PurePosixPath(name).stem for name in names)
        if names:
            notes.say(
                f"the columns pair with the {len(names)} images of {source.path} in the order of "
                f"their file names, {names[0]} first (for another order, --stimuli)"
            )
    else:
        table = read_table(stimuli, ("stimulus_id", "filename"))
        assert table is not None, "problems are raised"
        ids, lookup = table.columns["stimulus_id"], ImageNames(source)
        found = [lookup.find(name) for name in table.columns["filename"]]
        if missing := [
            name for name, file in zip(table.columns["filename"], found, strict=True) if not file
        ]:
            raise RecordingsError(
                f"{len(missing)} of the {len(ids)} images that {stimuli} names are missing",
                where=source.path,
                expected=some(missing),
                found=f"{len(source.names)} files",
            )
        names = tuple(file for file in found if file)
    if len(names) not in (N_SHARED, n_columns):
        raise RecordingsError(
            "the images do not fit the responses",
            where=stimuli or source.path,
            expected=f"{N_SHARED} shared images of NSD, or {n_columns} with the localizer",
            found=len(names),
        )
    return ids, names


def _sites(
    n_units: int, session: str, region: str | None, table_path: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if bool(region) == (table_path is not None):
        raise OptionError(
            "the regions of the units are not clear",
            where="--region, --sites",
            expected="exactly one of them",
            found="both" if region else "neither",
            fix="The file does not tell them: see exclude_area.xls of the data set.",
        )
    if region:
        prefix = f"{session}_" if session else ""
        return tuple(f"{prefix}{place:04d}" for place in range(n_units)), (region,) * n_units
    table = read_table(Path(table_path or ""), ("site_id", "region"))
    assert table is not None, "problems are raised"
    if len(table.columns["site_id"]) != n_units:
        raise RecordingsError(
            "the table of sites does not fit the units",
            where=table_path,
            expected=f"{n_units} rows, one a unit",
            found=len(table.columns["site_id"]),
        )
    return table.columns["site_id"], table.columns["region"]


IMPORTER = Importer("triple_n", "a file Processed_sesNN_DATE_ANIMAL_N.mat", _detect, _read)
