"""Extracts activations alone: a backbone and images in, one Parquet file a layer out."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from nrp_onnx.activations.extraction import extract_activations
from nrp_onnx.activations.remote_folder import folder_of
from nrp_onnx.activations.stimuli import Stimuli
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.engine import open_engine
from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import sha256_of_file, sha256_of_json
from nrp_onnx.notes import Notes
from nrp_onnx.scoring.choices import choose_features, choose_preprocessing


@dataclass(frozen=True)
class ExtractOptions:
    """What a user can choose about an extraction; the defaults are those of the command line."""

    layers: str = "auto"
    reduce: str = "auto"
    preprocess: str | None = None
    device: str = "auto"
    skip_bad_stimuli: bool = False
    overwrite: bool = False
    engine: str = "local"
    ray_address: str | None = None


def extract(
    model: str | Path,
    stimuli: Stimuli | str | Path,
    out: str | Path,
    options: ExtractOptions | None = None,
    notes: Notes | None = None,
) -> dict[str, Any]:
    """Write the activations of images.

    Args:
        model: path of an ONNX file.
        stimuli: `Recordings`, or a folder of images, whose ids are their paths in it.
        out: the folder of the Parquet files, a path or a URI such as ``s3://bucket/folder``. An extraction that was interrupted goes on there.

    Returns:
        ``folder``, ``provider``, ``n_stimuli``, ``skipped_stimuli`` and ``layers``: of each ``name``,
        ``file``, ``shape``, ``reduction``.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options, notes = options or ExtractOptions(), notes or Notes()
    folder = folder_of(out)
    engine = open_engine(options.engine, options.ray_address)
    if isinstance(stimuli, str | Path):
        stimuli = ImageFolder(Path(stimuli))
    backbone = load_backbone(Path(model))
    preprocessing = choose_preprocessing(backbone, options.preprocess, notes)
    n_stimuli = len(stimuli.stimulus_ids)
    features = choose_features(backbone, options.layers, options.reduce, n_stimuli, notes)
    done = extract_activations(
        backbone,
        preprocessing,
        features,
        stimuli,
        folder,
        options.device,
        notes,
        skip_bad_stimuli=options.skip_bad_stimuli,
        overwrite=options.overwrite,
        engine=engine,
    )
    return {
        "folder": str(folder),
        "provider": done.provider,
        "n_stimuli": n_stimuli - len(done.skipped),
        "skipped_stimuli": done.skipped,
        "layers": [
            {
                "name": feature.layer.name,
                "file": path.name,
                "shape": list(feature.shape),
                "reduction": str(feature.reduction),
            }
            for feature, path in zip(done.features, done.paths, strict=True)
        ],
    }


class ImageFolder:
    """All images in a folder and its subfolders, in the order of their paths."""

    def __init__(self, folder: Path) -> None:
        known = Image.registered_extensions()
        found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in known]
        if not found:
            raise RecordingsError(
                "there are no images here",
                where=folder,
                expected="a folder with image files (PNG, JPEG, ...)",
                found="no such folder" if not folder.is_dir() else "none",
            )
        self.stimulus_paths = tuple(found)
        self.stimulus_ids = tuple(path.relative_to(folder).as_posix() for path in found)

    @cached_property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all images, in order."""
        hashes = map(sha256_of_file, self.stimulus_paths)
        return sha256_of_json([list(pair) for pair in zip(self.stimulus_ids, hashes, strict=True)])
