"""What a study says of a scored model, as JSON and as a row of a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from nrp_onnx.files import whole_file
from nrp_onnx.scoring.comparison import nrp_error_interval

#: The linear predictors beside the NRP head: the paper's, and stronger ones.
LINEAR = ("ols", "ridge", "pls")


def record_of(name: str, result: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """A model's errors with intervals, beside those of linear predictors on the same activations.

    Args:
        result: the content of its result.json and ``folder``, as `nrp_onnx.main_job.score`
            returns it.
        seed: of the bootstrap for the mean over regions.
    """
    model = result["model"]
    regions = {}
    for region, found in result["regions"].items():
        predictors = found["predictors"]
        regions[region] = {
            "nrp_error": found["nrp_error"]["value"],
            "ci95": found["nrp_error"]["ci95"],
            "noise_floor": found["noise_floor"],
            "explainable_removed": predictors["nrp"]["explainable_removed"],
            "pearson_r": predictors["nrp"]["pearson_r"],
            "pearson_r_normalised": predictors["nrp"]["pearson_r_normalised"],
            "brainscore": found["brainscore"]["score"],
            **{
                linear: {
                    "mae": predictors[linear]["mae"],
                    "ci95": predictors[linear]["mae_ci95"],
                    "r2": predictors[linear]["r2"],
                }
                for linear in LINEAR
            },
        }
    return {
        "model": name,
        "run": result["folder"],
        "sha256": model["sha256"],
        "n_parameters": model["n_parameters"],
        "weights": (model["source"] or {}).get("weights"),
        "layers": [layer["name"] for layer in model["layers"]],
        "reductions": [layer["reduction"] for layer in model["layers"]],
        "nrp_error": result["nrp_error"],
        "ci95": list(nrp_error_interval(Path(result["folder"]), seed)),
        "regions": regions,
    }


def study_facts(study: str, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What holds for all models of a study: the recordings and the protocol."""
    first = next(iter(results.values()))
    recordings, protocol = first["recordings"], first["protocol"]
    return {
        "study": study,
        "recordings": {key: recordings[key] for key in ("name", "simulated", "fingerprint")},
        "units": first["units"],
        "protocol": protocol,
        "search": first["search"]["preset"],
        "versions": first["versions"],
    }


def write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one row a record; keys of nested ones are joined by ``_``, intervals are two columns."""
    rows = [_flat(record) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = pa.table({key: pa.array([row.get(key) for row in rows]) for key in columns})
    with whole_file(path) as part:
        pa.csv.write_csv(table, part)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if key == "ci95":
            flat["low"], flat["high"] = value
        elif isinstance(value, Mapping):
            inner = _flat(value).items()
            flat |= {name if key == "regions" else f"{key}_{name}": found for name, found in inner}
        elif isinstance(value, list):
            flat[key] = " ".join(map(str, value))
        else:
            flat[key] = value
    return flat
