"""trials.parquet: every trial of a search, one row each, written while the search runs.

An interrupted search finds its trials there and does not train them again.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.files import whole_file
from nrp_onnx.predictor.head import HeadConfig, Job, Trial

_SCHEMA = pa.schema(
    [
        ("fold", pa.int32()),
        ("layers", pa.list_(pa.string())),
        ("l1", pa.int32()),
        ("l2", pa.int32()),
        ("learning_rate", pa.float64()),
        ("dropout", pa.float64()),
        ("weight_decay", pa.float64()),
        ("loss", pa.string()),
        ("input_noise", pa.float64()),
        ("mask", pa.string()),
        ("components", pa.int32()),
        ("seed", pa.int64()),
        ("validation_mae", pa.float64()),
        ("epochs", pa.int32()),
        ("curve", pa.list_(pa.float32())),
        ("losses", pa.list_(pa.float32())),
        ("fingerprint", pa.string()),
    ]
)


class TrialRecord:
    """The trials of a run.

    Args:
        path: of the file; what it holds already is read.
        layer_names: of the candidate layers, in the order of the places in a config.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, layer_names: Sequence[str]) -> None:
        self.path, self._names = path, list(layer_names)
        self._held = _rows(path)
        self._rows: list[dict[str, Any]] = []

    @property
    def n_trials(self) -> int:
        """How many trials of this run there are."""
        return len(self._rows)

    def find(self, fold: int, fingerprint: str, jobs: Iterable[Job]) -> dict[Job, Trial]:
        """Trials of these jobs that the file held; from now on they belong to this run.

        Args:
            fingerprint: of all else that a job's result depends on.
        """
        wanted, found = set(jobs), {}
        for row in self._held:
            if (row["fold"], row["fingerprint"]) == (fold, fingerprint):
                trial = self._trial(row)
                job = Job(trial.config, trial.seed)
                if job in wanted and job not in found:
                    found[job] = trial
                    self._rows.append(row)
        return found

    def add(self, fold: int, fingerprint: str, trials: Iterable[Trial]) -> None:
        """Write trials to the file, beside the others of this run."""
        for trial in trials:
            self._rows.append(self.row(fold, trial) | {"fingerprint": fingerprint})
        # Rows of later folds stay in the file until these folds look for them.
        self._write([row for row in self._held if row["fold"] > fold])

    def beside(self, path: Path, fold: int) -> "TrialRecord":
        """A record for one fold with a file of its own; it also finds the fold's trials of this file."""
        record = TrialRecord(path, self._names)
        record._held = [row for row in record._held + self._held if row["fold"] == fold]
        return record

    def write(self) -> None:
        """Write the trials of this run, for a run that found all of them and added none."""
        self._write([])

    def take(self, path: Path) -> None:
        """Add the trials in the file of a record that `beside` made."""
        rows = _rows(path)
        self._rows += rows
        later = max((row["fold"] for row in rows), default=-1)
        self._write([row for row in self._held if row["fold"] > later])

    def _write(self, later: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as part:
            pq.write_table(pa.Table.from_pylist(self._rows + later, _SCHEMA), part)

    def row(self, fold: int, trial: Trial) -> dict[str, Any]:
        """A trial as a row of the file, without its fingerprint."""
        config = trial.config
        return {
            "fold": fold,
            **vars(config),
            "layers": [self._names[place] for place in config.layers],
            "seed": trial.seed,
            "validation_mae": trial.validation_mae,
            "epochs": trial.epochs,
            "curve": list(trial.curve),
            "losses": list(trial.losses),
        }

    def _trial(self, row: dict[str, Any]) -> Trial:
        config = {name: row[name] for name in HeadConfig.__dataclass_fields__}
        config["layers"] = tuple(self._names.index(name) for name in row["layers"])
        return Trial(
            HeadConfig(**config),
            row["seed"],
            row["validation_mae"],
            row["epochs"],
            tuple(row["curve"]),
            tuple(row["losses"]),
        )


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        return []  # not written by this class: it is replaced
    return table.to_pylist() if table.schema.equals(_SCHEMA) else []
