"""Regions of the Algonauts 2023 challenge: what the numbers in its masks stand for.

The challenge keeps them in mapping_NAME.npy, which are pickled dictionaries; those are not read, as
reading a pickle runs whatever code it holds. These are the public numbers, 0 being no region.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.notes import Notes

_PUBLIC = {
    "prf-visualrois": "V1v V1d V2v V2d V3v V3d hV4",
    "floc-bodies": "EBA FBA-1 FBA-2 mTL-bodies",
    "floc-faces": "OFA FFA-1 FFA-2 mTL-faces aTL-faces",
    "floc-places": "OPA PPA RSC",
    "floc-words": "OWFA VWFA-1 VWFA-2 mfs-words mTL-words",
    "streams": "early midventral midlateral midparietal ventral lateral parietal",
}
#: By mask, in the order in which a vertex takes its region: narrow regions before wide ones.
PUBLIC_ROIS: dict[str, dict[int, str]] = {
    mask: dict(enumerate(names.split(), start=1)) for mask, names in _PUBLIC.items()
}
_SUFFIX = "_challenge_space.npy"


@dataclass(frozen=True)
class Masks:
    """The region that each mask gives each vertex, empty where it gives none.

    Attributes:
        names: of the masks, the one that counts most first.
        labels: by mask and hemisphere, one a vertex.
    """

    names: tuple[str, ...]
    labels: dict[str, dict[str, np.ndarray]]

    def regions(self, hemisphere: str) -> np.ndarray:
        """The region of each vertex: of the first mask that gives one, else empty."""
        regions = self.labels[self.names[0]][hemisphere].copy()
        for name in self.names[1:]:
            regions = np.where(regions == "", self.labels[name][hemisphere], regions)
        return regions


def read_masks(
    folder: Path,
    n_vertices: dict[str, int],
    chosen: Sequence[str] | None,
    roi_names: Path | None,
    notes: Notes,
) -> Masks:
    """Read the masks {lh,rh}.NAME_challenge_space.npy of a folder roi_masks.

    Args:
        n_vertices: of each hemisphere.
        chosen: the masks to use, the one that counts most first; None for all in the folder.
        roi_names: JSON of the names by number by mask, instead of the public ones.

    Raises:
        RecordingsError: if a mask is missing, does not fit, or has numbers without a name.
        OptionError: if a chosen mask is not there or its regions are not known.
    """
    tables = PUBLIC_ROIS if roi_names is None else _read_names(roi_names)
    there = sorted(
        path.name.removeprefix("lh.").removesuffix(_SUFFIX)
        for path in folder.glob(f"lh.*{_SUFFIX}")
    )
    if not there:
        raise RecordingsError(
            "no masks of regions", where=folder, expected=f"lh.NAME{_SUFFIX} and rh.NAME{_SUFFIX}"
        )
    names = [name for name in tables if name in there] if chosen is None else list(chosen)
    if strange := [name for name in names if name not in there]:
        raise OptionError(
            "there is no such mask",
            where="--rois",
            expected=f"some of {', '.join(there)}",
            found=", ".join(strange),
        )
    nameless = [name for name in (there if chosen is None else names) if name not in tables]
    if chosen is None and names and nameless:
        notes.say(f"masks whose regions have no names are left out: {', '.join(nameless)}")
    elif nameless or not names:
        raise OptionError(
            f"the regions of the mask {(nameless or there)[0]} have no names",
            where=folder,
            expected=f"one of {', '.join(tables)}, or --roi-names",
            found="mapping files, which hold pickled objects and are not read",
            fix='Give them in a JSON file: {"MASK": {"1": "REGION"}}, with --roi-names.',
        )
    return Masks(
        tuple(names),
        {
            name: {
                side: _labels(folder / f"{side}.{name}{_SUFFIX}", n, tables[name])
                for side, n in n_vertices.items()
            }
            for name in names
        },
    )


def load_mapped(path: Path) -> np.ndarray:
    """A .npy file of numbers, left on disk until it is used.

    Raises:
        RecordingsError: if it is missing, damaged, or holds other things than real numbers.
    """
    if not path.is_file():
        raise RecordingsError("no such file", where=path, expected="a .npy file")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RecordingsError(
            "this array cannot be read",
            where=path,
            expected="a whole .npy file of numbers, without pickled objects",
            found=error,
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise RecordingsError(
            "this is no array of numbers", where=path, found=getattr(array, "dtype", "another file")
        )
    return array


def _labels(path: Path, n_vertices: int, table: dict[int, str]) -> np.ndarray:
    numbers = load_mapped(path)
    if numbers.shape != (n_vertices,):
        raise RecordingsError(
            "the mask does not fit the responses",
            where=path,
            expected=f"{n_vertices} vertices",
            found=f"the shape {numbers.shape}",
        )
    unknown = [number for number in np.unique(numbers).tolist() if number and number not in table]
    if unknown:
        raise RecordingsError(
            "the mask has numbers without a name",
            where=path,
            expected=f"0 to {max(table, default=0)}",
            found=", ".join(map(str, unknown[:3])),
            fix="Give the names with --roi-names.",
        )
    return np.array([table.get(number, "") for number in numbers.tolist()], object)


def _read_names(path: Path) -> dict[str, dict[int, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(mask): {int(number): str(name) for number, name in names.items() if int(number)}
            for mask, names in content.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise OptionError(
            "these are no names of regions",
            where=path,
            expected='JSON such as {"prf-visualrois": {"1": "V1v"}}',
            found=error,
        ) from None
