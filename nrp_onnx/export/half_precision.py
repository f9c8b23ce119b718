"""A predictor whose weights are stored in half precision, and how far its rates move by that.

Each engine turns the weights back into float32, so that only their rounding differs: numbers are computed
as before, and in the same time.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from nrp_onnx.backbone.model import read_onnx
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.export.card import PREFIX, Card, Variant, read_card
from nrp_onnx.export.exported_fold import PREDICTOR, SCORER
from nrp_onnx.export.predict import Predictor
from nrp_onnx.export.scorer import Scorer
from nrp_onnx.files import exported_file, whole_file, write_json
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings

#: Rates may move so far, in standard deviations of each site, unless more is allowed.
TOLERANCE = 0.05
#: Tensors of fewer numbers stay as they are, as they take no room; so do those of one axis: means and
#: biases, whose rounding would move all rates alike.
_FEWEST = 256
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Smaller:
    """What was written.

    Attributes:
        path: of the model.
        bytes, bytes_before: its size, and that of the predictor that it was made of.
        variant: what was measured, as its card has it.
    """

    path: Path
    bytes: int
    bytes_before: int
    variant: Variant


def with_half_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large float32 weights are stored as float16 and cast back as the first nodes.

    Weights that are no float16 numbers, over 65,504 in size, stay as they are.
    """
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    graph, casts = found.graph, []
    for tensor in graph.initializer:
        large = np.prod(tensor.dims) >= _FEWEST
        if not large or len(tensor.dims) < 2 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if not np.abs(values).max() <= _LARGEST:
            continue
        name, half = tensor.name, f"{tensor.name}/half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(
            onnx.helper.make_node(
                "Cast", [half], [name], f"{name}/float", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def export_half(
    run: Path,
    recordings: Recordings,
    out: Path | None = None,
    tolerance: float = TOLERANCE,
    device: str = "cpu",
) -> Smaller:
    """Write the predictor of a run with half-precision weights, if its rates hardly move.

    Both are run on the images of the recordings that the predictor was not fitted to.

    Args:
        run: a run folder.
        recordings: those that were scored.
        out: the file; None: predictor_fp16.onnx in the run. Its card lies beside it.
        tolerance: how far a rate may move, in standard deviations of the site's rates.

    Raises:
        ModelError: if a rate moves further, or weights lie in another file.
        OptionError: if the recordings have none of the images that were held out.
    """
    path = exported_file(run, PREDICTOR)
    card, proto = read_card(path), read_onnx(path)
    if any(tensor.external_data for tensor in proto.graph.initializer):
        raise ModelError(
            "the weights lie in another file", where=path, expected="one file of at most 2 GB"
        )
    out = out or path.with_name("predictor_fp16.onnx")
    half = with_half_weights(proto)
    onnx.checker.check_model(half)
    with whole_file(out) as part:
        part.write_bytes(half.SerializeToString())
        variant = _measured(run, path, part, card, recordings, device)
        if not variant.largest_change_sd <= tolerance:
            raise ModelError(
                "half precision moves the rates too far",
                where=path,
                expected=f"at most {tolerance} standard deviations of a site",
                found=f"{variant.largest_change_sd:.2g}",
                fix="Keep predictor.onnx, or allow more with --tolerance.",
            )
        entry = half.metadata_props.add()
        entry.key, entry.value = f"{PREFIX}variant", json.dumps(asdict(variant))
        part.write_bytes(half.SerializeToString())
    write_json(out.with_suffix(".json"), asdict(replace(card, variant=variant)))
    return Smaller(out, out.stat().st_size, path.stat().st_size, variant)


def _measured(
    run: Path, path: Path, half: Path, card: Card, recordings: Recordings, device: str
) -> Variant:
    """How far rates and NRP-errors move, on images that the predictor did not see."""
    scorer = Scorer(exported_file(run, SCORER), device, Notes())
    order = scorer.order_of(recordings)
    not_seen = set(card.trained_on.not_seen)
    held_out = [place for place, x in enumerate(recordings.stimulus_ids) if x in not_seen]
    if not held_out:
        raise OptionError(
            "these recordings have none of the images that the predictor was not fitted to",
            where="--recordings",
            expected=f"{card.recordings.name}, or images of it",
            found=recordings.name,
        )
    images = [str(recordings.stimulus_paths[place]) for place in held_out]
    before, after = (Predictor(x, device).predict(images) for x in (path, half))
    recorded = recordings.averages[held_out][:, order]
    deviation = before.std(axis=0, dtype=np.float64)
    moved = np.abs(after - before) / np.where(deviation > 0, deviation, scorer.scale)

    def errors(rates: np.ndarray) -> dict[str, float]:
        apart = np.abs(rates - recorded) / scorer.scale
        regions = np.array(scorer.regions)
        return {x: float(np.nanmean(apart[:, regions == x])) for x in scorer.region_names}

    return Variant(
        what="weights stored in half precision",
        n_images=len(images),
        largest_change_sd=float(moved.max()),
        nrp_error_before=errors(before),
        nrp_error=errors(after),
    )
