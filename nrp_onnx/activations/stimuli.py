"""What an extraction needs to know of images."""

from pathlib import Path
from typing import Protocol


class Stimuli(Protocol):
    """Images with ids, such as `nrp_onnx.recordings.Recordings`."""

    @property
    def stimulus_ids(self) -> tuple[str, ...]: ...

    @property
    def stimulus_paths(self) -> tuple[Path, ...]: ...

    @property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all images, in order."""
