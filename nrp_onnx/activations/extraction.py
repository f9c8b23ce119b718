"""Runs the feature graph over the stimuli and streams the activations to Parquet."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrp_onnx.activations.images import image_batches
from nrp_onnx.activations.session import open_session
from nrp_onnx.activations.store import LayerWriter, layer_path, stored_facts
from nrp_onnx.backbone.computation import computation_digests
from nrp_onnx.backbone.feature_graph import IMAGES, Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError
from nrp_onnx.files import sha256_of_json, whole_file
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings import Recordings

_BATCH = 16


@dataclass(frozen=True)
class Extraction:
    """What an extraction left behind.

    Attributes:
        paths: the Parquet file of each feature.
        provider: ONNX Runtime's execution provider that computed them, now or when they were stored;
            several with commas where the layers were computed on several.
        n_extracted: how many layers were computed, the others being there already.
    """

    paths: list[Path]
    provider: str
    n_extracted: int


def extract_activations(
    backbone: Backbone,
    preprocessing: Preprocessing,
    features: Sequence[Feature],
    recordings: Recordings,
    folder: Path,
    device: str,
    notes: Notes,
) -> Extraction:
    """Write the activations of all stimuli, one Parquet file a layer, unless they are there.

    A file is there if its fingerprint fits: of all that the layer is computed from in the model, the
    preprocessing, the reduction and the stimuli. So a model that differs later on finds it, too.

    Raises:
        ModelError, DeviceError, RecordingsError: if the model or an image cannot be used.
    """
    paths = [layer_path(folder, feature.layer.name) for feature in features]
    computed = computation_digests(backbone, [feature.layer.tensor for feature in features])
    facts = [
        {
            "layer": feature.layer.name,
            "shape": list(feature.shape),
            "layout": feature.reduction.layout(feature.layer),
            "reduction": str(feature.reduction),
            "fingerprint": sha256_of_json(
                [
                    feature.fingerprint(computed[feature.layer.tensor], preprocessing),
                    recordings.stimuli_fingerprint,
                ]
            ),
        }
        for feature in features
    ]
    stored = [stored_facts(path) or {} for path in paths]
    todo = [
        i for i, held in enumerate(stored) if held.get("fingerprint") != facts[i]["fingerprint"]
    ]
    providers = {held["provider"] for i, held in enumerate(stored) if i not in todo}
    if not todo:
        notes.say("the activations are there already: nothing is extracted")
        return Extraction(paths, ",".join(sorted(providers)), 0)
    asked = [features[i] for i in todo]
    graph = build_feature_graph(backbone, preprocessing, asked)
    proto = to_checked_proto(graph, "feature graph")
    session = open_session(
        proto.SerializeToString(), device, notes, backbone.path, backbone.path.parent
    )
    provider = session.get_providers()[0]
    names = [feature.layer.name for feature in asked]
    with ExitStack() as stack:
        writers = []
        for i, feature in zip(todo, asked, strict=True):
            part = stack.enter_context(whole_file(paths[i]))
            writer = LayerWriter(part, feature.n_features, {**facts[i], "provider": provider})
            stack.callback(writer.close)
            writers.append(writer)
        advance = stack.enter_context(
            progress_bar(f"Extracting {len(todo)} layers", recordings.n_stimuli)
        )
        batch_size = backbone.input.batch or _BATCH
        for places, images in image_batches(recordings.stimulus_paths, batch_size):
            try:
                outputs = session.run(names, {IMAGES: images})
            except Exception as error:  # ONNX Runtime has no public exception family
                raise ModelError(
                    "the model does not run", where=backbone.path, found=str(error).splitlines()[0]
                ) from None
            ids = [recordings.stimulus_ids[place] for place in places]
            for writer, output, name in zip(writers, outputs, names, strict=True):
                if not np.isfinite(output).all():
                    raise ModelError(
                        f"the layer {name} is not finite for the image {ids[0]} or near it",
                        where=backbone.path,
                        expected="numbers",
                        found="NaN or infinity",
                        fix="Check --preprocess, or leave the layer out.",
                    )
                writer.write(ids, output)
            advance(len(ids))
    return Extraction(paths, ",".join(sorted(providers | {provider})), len(todo))
