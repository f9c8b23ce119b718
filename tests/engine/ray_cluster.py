"""Scores two models on a cluster of several nodes on this machine, one of which is killed meanwhile.

Run as a program, for its folder, models, recordings and outputs; prints JSON with what happened.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from nrp_onnx.notes import Notes
from nrp_onnx.recordings import open_recordings
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run_folder import RUN_FILE
from nrp_onnx.studies.scored_models import given_models, score_models


def main(recordings: str, out: str, *models: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in models]
    happened: dict[str, Any] = {}

    def kill_a_node() -> None:
        """When both models are on their way, each on a node."""
        runs = [Path(out) / Path(model).stem for model in models]
        while not all((run / RUN_FILE).is_file() for run in runs):
            time.sleep(0.01)
        happened["unfinished"] = [not (run / "result.json").is_file() for run in runs]
        cluster.remove_node(nodes[0])
        happened["nodes_left"] = sum(node["Alive"] for node in ray.nodes())

    killer = threading.Thread(target=kill_a_node, daemon=True)
    killer.start()
    options = ScoreOptions(
        search="quick", report=False, device="cpu", engine="ray", ray_address=cluster.address
    )
    scored = score_models(
        given_models([Path(model) for model in models], options),
        open_recordings(recordings, Notes()),
        Path(out),
    )
    killer.join()
    print(json.dumps({**happened, "scored": list(scored.results), "failed": scored.failed}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
