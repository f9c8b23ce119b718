"""Opens the recordings that a user names, or the simulated ones where none are named."""

import os
from pathlib import Path

import platformdirs

from nrp_onnx.errors import OptionError, OutputError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.folder import FACTS, load_recordings
from nrp_onnx.recordings.simulation import N_STIMULI, SIMULATION_VERSION, simulate_recordings
from nrp_onnx.recordings.types import Recordings

CACHE_VARIABLE = "NRP_ONNX_CACHE"
_FEWEST = 16
_SEED = 0


def cache_folder() -> Path:
    """Where simulated recordings are kept; the environment variable NRP_ONNX_CACHE moves it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("nrp_onnx")


def open_recordings(choice: str | Path | None, notes: Notes) -> Recordings:
    """Open recordings by name.

    Args:
        choice: a recordings folder, ``simulated``, ``simulated:N`` for the first N stimuli of the
            simulation, or None for ``simulated``.
        notes: is told what was chosen, and that simulated recordings are simulated.

    Raises:
        RecordingsError, OptionError: if there are none of that name, or they cannot be used.
        OutputError: if the simulation cannot be kept in the cache.
    """
    if choice is None:
        notes.say(
            "no recordings are named: taking simulated ones (for real ones, --recordings FOLDER)"
        )
        choice = "simulated"
    match str(choice).split(":"):
        case ["simulated"]:
            recordings = _simulated(N_STIMULI)
        case ["simulated", n]:
            if not (n.isascii() and n.isdecimal() and int(n) >= _FEWEST):
                raise OptionError(
                    "this is no number of simulated stimuli",
                    where="--recordings",
                    expected=f"simulated:N with N of {_FEWEST} or more",
                    found=str(choice),
                )
            recordings = _simulated(int(n))
        case _:
            recordings = load_recordings(Path(choice))
    if recordings.simulated:
        notes.say(
            f"the recordings {recordings.name} are SIMULATED: what follows says nothing of brains"
        )
    return recordings


def _simulated(n_stimuli: int) -> Recordings:
    """The simulated recordings from the cache, rendered if they are not there."""
    folder = cache_folder() / f"simulated-v{SIMULATION_VERSION}-{n_stimuli}-seed{_SEED}"
    if not (folder / FACTS).is_file():
        try:
            return simulate_recordings(folder, n_stimuli, _SEED)
        except (OSError, OutputError) as error:
            # Else another process was the first to have it ready.
            if not (folder / FACTS).is_file():
                raise OutputError(
                    "the simulated recordings cannot be kept",
                    where=folder,
                    expected="a place to write to",
                    found=error,
                    fix=f"Delete what is there, or set {CACHE_VARIABLE} to another folder.",
                ) from None
    try:
        return load_recordings(folder)
    except RecordingsError as error:
        raise RecordingsError(
            "the cached simulation is damaged",
            where=folder,
            found=error,
            fix="Delete this folder; it is rendered anew.",
        ) from None
