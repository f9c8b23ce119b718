"""Neural recordings: the type, its folder format, importers, simulation, trial noise, ceilings."""

from nrp_onnx.recordings.describe import describe_recordings
from nrp_onnx.recordings.folder import load_recordings, save_recordings, validate_recordings
from nrp_onnx.recordings.importers.algonauts import import_algonauts
from nrp_onnx.recordings.importers.arrays import import_arrays
from nrp_onnx.recordings.importers.brainio import import_brainio
from nrp_onnx.recordings.importers.writing import import_path
from nrp_onnx.recordings.merge import merge_recordings
from nrp_onnx.recordings.noise_floor import notes_on_noise, trial_noise
from nrp_onnx.recordings.open import open_recordings
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.reliability import site_reliability, split_half_reliability
from nrp_onnx.recordings.simulation.simulate import simulate_recordings
from nrp_onnx.recordings.trial_variance import trial_variance

__all__ = [
    "Recordings",
    "describe_recordings",
    "import_algonauts",
    "import_arrays",
    "import_brainio",
    "import_path",
    "load_recordings",
    "merge_recordings",
    "notes_on_noise",
    "open_recordings",
    "save_recordings",
    "simulate_recordings",
    "site_reliability",
    "split_half_reliability",
    "trial_noise",
    "trial_variance",
    "validate_recordings",
]
