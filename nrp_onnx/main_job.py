"""The main job: score a backbone on recordings, and report it."""

import time
from pathlib import Path
from typing import Any

from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.engine import open_engine
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.search_file import read_search
from nrp_onnx.recordings import Recordings, open_recordings
from nrp_onnx.report.page import write_report
from nrp_onnx.report.shown_images import keep_shown_images
from nrp_onnx.scoring.model_file import backbone_file
from nrp_onnx.scoring.pipeline import ScoreOptions, run_score
from nrp_onnx.scoring.run_folder import REPORT_FILE, THUMBNAILS_FILE

__all__ = ["ScoreOptions", "score"]


def score(
    model: str | Path | Any,
    recordings: Recordings | str | Path | None = None,
    out: str | Path | None = None,
    options: ScoreOptions | None = None,
) -> dict[str, Any]:
    """Score a backbone on recordings.

    Args:
        model: path of an ONNX file; or a ``torch.nn.Module`` or ``keras.Model``, which is converted
            first (see `nrp_onnx.convert`) and left in the output folder as backbone.onnx.
        recordings: a recordings folder, ``simulated``, ``simulated:N``, or `Recordings`; None
            takes the simulated ones.
        out: the output folder; None makes one under ``runs`` from the names of model and
            recordings.

    Returns:
        The content of result.json, and ``folder``, where the files are.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options, notes = options or ScoreOptions(), Notes()
    with backbone_file(model, options.preprocess, notes) as path:
        # Before the recordings, which may take minutes to make or to fetch.
        backbone, space = load_backbone(path), read_search(options.search)
        engine = open_engine(options.engine, options.ray_address)
        start = time.perf_counter()
        if not isinstance(recordings, Recordings):
            recordings = open_recordings(recordings, notes)
        seconds = round(time.perf_counter() - start, 3)
        keep_model = not isinstance(model, str | Path)
        timings = {"recordings_s": seconds}
        result = run_score(
            backbone, space, engine, recordings, out, options, notes, timings, keep_model
        )
    folder = Path(result["folder"])
    if not (folder / THUMBNAILS_FILE).is_file():
        keep_shown_images(folder, recordings)
    if options.report and not (folder / REPORT_FILE).is_file():
        write_report([folder], folder / REPORT_FILE)
    return result
