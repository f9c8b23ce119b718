"""Cuts a finished run back to the first trials of its search, and goes on with it on Ray.

Run as a program, for recordings, a folder to work in and a model; prints JSON with what happened.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import ray

from nrp_onnx.api import score_with
from nrp_onnx.scoring.options import ScoreOptions


def main(recordings: str, folder: str, model: str) -> None:
    whole, cut = Path(folder) / "whole", Path(folder) / "cut"
    options = {"search": "quick", "report": False, "device": "cpu"}
    for out in (whole, cut):
        score_with(model, recordings, out, ScoreOptions(**options))  # type: ignore[arg-type]
    trials = pq.read_table(cut / "trials.parquet")
    # A trial that was trained again would not have this error.
    marked = trials.slice(0, 1).to_pylist()
    marked[0]["validation_mae"] += 1000.0
    table = trials.from_pylist(marked, schema=trials.schema)
    pq.write_table(table, cut / "trials.parquet")
    (cut / "result.json").unlink()
    score_with(model, recordings, cut, ScoreOptions(**options, engine="ray"))  # type: ignore[arg-type]
    again = pq.read_table(cut / "trials.parquet").to_pylist()
    expected = trials.to_pylist()
    found = [row for row in again if row["validation_mae"] > 999]
    for row, other in zip(again, expected, strict=True):
        row["validation_mae"] %= 1000.0
        other["validation_mae"] = round(other["validation_mae"], 9)
        row["validation_mae"] = round(row["validation_mae"], 9)
    print(json.dumps({"found": len(found), "same": again == expected}))
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
