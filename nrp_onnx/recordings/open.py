"""Opens the recordings that a user names, or the simulated ones where none are named."""

from pathlib import Path

from nrp_onnx.errors import OptionError, OutputError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.folder import FACTS, load_recordings
from nrp_onnx.recordings.public import open_public
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.registry import CACHE_VARIABLE, FolderPlugin, cache_folder, read_registry
from nrp_onnx.recordings.simulation.simulate import (
    N_STIMULI,
    SIMULATION_VERSION,
    simulate_recordings,
)

_FEWEST = 16
_SEED = 0


def open_recordings(choice: str | Path | None, notes: Notes) -> Recordings:
    """Open recordings by name.

    Args:
        choice: a recordings folder; a name of the registry, whose recordings are downloaded and
            imported once; ``simulated``, ``simulated:N`` for the first N stimuli of the
            simulation, or None for ``simulated``.
        notes: is told what was chosen, and that simulated recordings are simulated.

    Raises:
        RecordingsError, OptionError: if there are none of that name, or they cannot be used.
        OutputError: if the cache cannot be written.
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
            recordings = _named(choice, notes)
    if recordings.simulated:
        notes.say(
            f"the recordings {recordings.name} are SIMULATED: what follows says nothing of brains"
        )
    return recordings


def _named(choice: str | Path, notes: Notes) -> Recordings:
    """The recordings of a folder, or those of the registry."""
    path = Path(choice)
    if isinstance(choice, Path) or "/" in choice or "\\" in choice:
        return load_recordings(path)
    registry = read_registry(notes)
    known = registry.get(choice.lower())
    if known is None:
        if not path.exists():
            raise RecordingsError(
                "no such recordings",
                where=choice,
                expected=f"a recordings folder, simulated, simulated:N, {', '.join(registry)}",
                found="nothing",
                fix="See: nrp-onnx recordings list; or make one with: nrp-onnx recordings import",
            )
        return load_recordings(path)
    if path.exists():
        notes.say(f"{choice} is taken from the registry; for the folder here, write ./{choice}")
    return (
        load_recordings(known.folder())
        if isinstance(known, FolderPlugin)
        else open_public(known, notes)
    )


def simulated_folder(n_stimuli: int = N_STIMULI) -> Path:
    """Where the simulated recordings are, once they are rendered."""
    return cache_folder() / f"simulated-v{SIMULATION_VERSION}-{n_stimuli}-seed{_SEED}"


def _simulated(n_stimuli: int) -> Recordings:
    """The simulated recordings from the cache, rendered if they are not there."""
    folder = simulated_folder(n_stimuli)
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
