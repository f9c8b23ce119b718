"""Opens the recordings that a user names, or the simulated ones where none are named."""

import os
from pathlib import Path

import platformdirs

from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.folder import load_recordings
from nrp_onnx.recordings.simulation import N_STIMULI, SIMULATION_VERSION, simulate_recordings
from nrp_onnx.recordings.types import Recordings

CACHE_VARIABLE = "NRP_ONNX_CACHE"
_FEWEST = 32


def cache_folder() -> Path:
    """Where rendered stimuli are kept; the environment variable ``NRP_ONNX_CACHE`` moves it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("nrp_onnx")


def open_recordings(choice: str | Path | None, notes: Notes) -> Recordings:
    """Recordings by folder, or ``simulated`` or ``simulated:N``; None is simulated, and says so.

    Raises:
        RecordingsError, OptionError: if there are none of that name, or they cannot be used.
    """
    if choice is None:
        notes.say("no --recordings named: taking simulated ones (name a folder for real ones)")
        choice = "simulated"
    match str(choice).split(":"):
        case ["simulated"]:
            recordings = _simulated(N_STIMULI)
        case ["simulated", n]:
            if not (n.isdecimal() and int(n) >= _FEWEST):
                raise OptionError(
                    "this is no number of stimuli",
                    where="--recordings",
                    expected=f"simulated:N with N of {_FEWEST} or more",
                    found=repr(str(choice)),
                )
            recordings = _simulated(int(n))
        case _:
            recordings = load_recordings(Path(choice))
    if recordings.simulated:
        notes.say(f"the recordings {recordings.name} are SIMULATED: no claim about brains follows")
    return recordings


def _simulated(n_stimuli: int, seed: int = 0) -> Recordings:
    folder = cache_folder() / f"simulated-v{SIMULATION_VERSION}-{n_stimuli}-seed{seed}"
    if not folder.is_dir():
        try:
            return simulate_recordings(folder, n_stimuli, seed)
        except OSError:
            if not folder.is_dir():  # else another process made it meanwhile
                raise
    return load_recordings(folder)
