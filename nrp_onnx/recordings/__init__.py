"""Neural recordings: the type, its folder format, importers, simulation, trial noise, ceilings."""

from nrp_onnx.recordings.algonauts import import_algonauts
from nrp_onnx.recordings.array_import import import_arrays
from nrp_onnx.recordings.brainio import import_brainio
from nrp_onnx.recordings.description import describe_recordings
from nrp_onnx.recordings.folder import load_recordings, save_recordings
from nrp_onnx.recordings.noise import trial_noise
from nrp_onnx.recordings.reliability import site_reliability, split_half_reliability
from nrp_onnx.recordings.simulation import simulate_recordings
from nrp_onnx.recordings.sources import open_recordings
from nrp_onnx.recordings.types import Recordings
from nrp_onnx.recordings.validation import validate_recordings

__all__ = [
    "Recordings",
    "describe_recordings",
    "import_algonauts",
    "import_arrays",
    "import_brainio",
    "load_recordings",
    "open_recordings",
    "save_recordings",
    "simulate_recordings",
    "site_reliability",
    "split_half_reliability",
    "trial_noise",
    "validate_recordings",
]
