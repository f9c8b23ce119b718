"""What an importer is: a format that it recognises, and the parts of recordings that it reads.

Importers are entry points of the group ``nrp_onnx.importers``; other packages add theirs.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nrp_onnx.recordings.checks import Sources
from nrp_onnx.recordings.image_files import ImageSource
from nrp_onnx.recordings.recordings import Recordings


@dataclass(frozen=True, eq=False)
class Parts:
    """Recordings as they are read, before their images are copied.

    Attributes:
        recordings: ``stimulus_paths`` are names of ``images``, and places inside stimuli/ later.
        images: where the images come from, or what encodes them.
        sources: the files that an error is to name.
        reliability: float64 array (n_sites,) that the files give; None to compute it.
        reliability_is: what that is, in words.
        splits: by name, stimulus ids by ``train``, ``test`` and perhaps ``ood``. A split that is the
            only one is the label ``split`` of the stimuli instead.
    """

    recordings: Recordings
    images: ImageSource
    sources: Sources
    reliability: np.ndarray | None = None
    reliability_is: str = "reliability of averages over repetitions"
    splits: dict[str, dict[str, list[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Importer:
    """A format of recordings.

    Attributes:
        name: what ``--format`` calls it.
        looks_for: what `detect` looks for, in words.
        detect: what speaks for a path being of this format, in words, from names and headers only;
            None if nothing does. It raises nothing.
        read: opens a path as `Parts`. Its first two arguments are the path and the `Notes` that are
            told of choices; its further ones, by keyword only, are options of the command line
            with the same names.

    Example:
        >>> IMPORTER = Importer("ours", "a file .lab", detect, read)  # doctest: +SKIP
    """

    name: str
    looks_for: str
    detect: Callable[[Path], str | None]
    read: Callable[..., AbstractContextManager[Parts]]
