"""Computes layers of stimuli in this process: decoding threads, a session, a writer thread.

Between any two of them a bounded number of images waits, so that memory stays flat in the number of
images. An error in any of them ends the run.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.activations.batches import Batches, StartedBatch
from nrp_onnx.activations.images import DecodedImages, PlacedImage, Stimuli, n_cores
from nrp_onnx.activations.layer_writer import LayerParts
from nrp_onnx.activations.session import BoundSession, open_session
from nrp_onnx.activations.space import check_space
from nrp_onnx.backbone.feature_graph import IMAGES, Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.errors import ModelError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar


def stream_activations(
    batches: Batches,
    parts: LayerParts,
    names: Sequence[str],
    stimuli: Stimuli,
    start: int,
    skip_bad: bool,
    where: Path,
    notes: Notes,
) -> None:
    """Compute and write what the files lack.

    Args:
        names: of the layers.
        start: the place of the first stimulus to do.
        skip_bad: leave out images that do not open.
        where: the model, for messages.

    Raises:
        ModelError, RecordingsError: if the model or an image cannot be used.
        OSError: if the files cannot be written.
    """
    ids = stimuli.stimulus_ids
    begun, estimated = time.perf_counter(), False
    with ExitStack() as stack:
        images = stack.enter_context(
            DecodedImages(stimuli.stimulus_paths, start, skip_bad, 2 * batches.lanes)
        )
        stack.enter_context(batches)
        writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
        advance = stack.enter_context(
            progress_bar(f"Extracting {len(names)} layers", len(ids), start)
        )
        written: Future[None] | None = None
        started: deque[tuple[list[str], StartedBatch]] = deque()
        while True:
            # One batch waits for each lane, so that none waits for a slower one or for this thread.
            while len(started) < 2 * batches.lanes and (batch := _taken(images, batches.size)):
                batch_ids = [ids[place] for place, _ in batch]
                started.append((batch_ids, batches.start([image for _, image in batch])))
            if not started:
                break
            batch_ids, running = started.popleft()
            outputs = batches.finish(running)
            _check_finite(outputs, names, batch_ids, where)
            if written is not None:
                written.result()
            # On disk before any more batches are started, but for the steps of the files.
            parts.write(batch_ids, outputs)
            written = writer.submit(parts.write_steps)
            advance(len(batch_ids))
            if batches.images_a_second and not estimated:
                estimated, rate = True, batches.images_a_second
                left = _duration((len(ids) - start) / rate)
                notes.log(f"{rate:,.1f} images a second: about {left} in all")
        if written is not None:
            written.result()
        parts.finish()
    notes.log(f"extracted {len(ids) - start:,} images in {_duration(time.perf_counter() - begun)}")


def _taken(images: DecodedImages, count: int) -> list[PlacedImage]:
    try:
        return images.take(count)
    except RecordingsError as error:
        raise RecordingsError(
            error.what,
            where=error.where,
            expected=error.expected,
            found=error.found,
            fix="Mend it, or leave such images out with --skip-bad-stimuli.",
        ) from None


def _check_finite(
    outputs: Sequence[np.ndarray], names: Sequence[str], ids: Sequence[str], where: Path
) -> None:
    for output, name in zip(outputs, names, strict=True):
        if not np.isfinite(output).all():
            first = int(np.argmin(np.isfinite(output).all(axis=1)))
            raise ModelError(
                f"the layer {name} is not finite for the image {ids[first]}",
                where=where,
                expected="numbers",
                found="NaN or infinity",
                fix="Check --preprocess, or leave the layer out.",
            )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


#: The batch sizes to begin with. On the CPU, the activations of few images stay in its caches.
_BATCH, _BATCH_ON_GPU = 4, 64
#: Batches that run at a time on the CPU, one on each core: none waits for the slowest share of a core.
_MOST_LANES = 16


@dataclass(frozen=True)
class Request:
    """What to extract, and how; see `nrp_onnx.activations.extract.extract_activations`."""

    backbone: Backbone
    preprocessing: Preprocessing
    device: str
    notes: Notes
    skip_bad_stimuli: bool
    overwrite: bool
    engine: Engine = field(default_factory=LocalEngine)


def compute_layers(
    request: Request,
    features: Sequence[Feature],
    files: Sequence[tuple[Path, dict[str, Any]]],
    stimuli: Stimuli,
    folder: Path,
) -> str:
    """Compute layers and write their files; the provider that computed them.

    Args:
        files: where the file of each layer goes, and what it says of itself.
        folder: that holds them.
    """
    backbone, notes = request.backbone, request.notes
    lanes = min(n_cores(), _MOST_LANES)
    # Nothing refers to the graph once the session has its own copy: it may be large.
    session = open_session(
        to_checked_proto(
            build_feature_graph(backbone, request.preprocessing, features), "feature graph"
        ).SerializeToString(),
        request.device, notes, backbone.path, backbone.path.parent, n_cores() // lanes,
    )  # fmt: skip
    provider: str = session.get_providers()[0]
    on_cpu = provider == "CPUExecutionProvider"
    reference = backbone.input.batch or (_BATCH if on_cpu else _BATCH_ON_GPU)
    names = [feature.layer.name for feature in features]
    parts = LayerParts(
        [path for path, _ in files],
        [feature.n_features for feature in features],
        [{**facts, "provider": provider} for _, facts in files],
        reference,
    )
    with parts:
        ids, done = stimuli.stimulus_ids, parts.stimulus_ids
        start = ids.index(done[-1]) + 1 if done else 0
        if done:
            notes.log(f"going on after {start:,} of {len(ids):,} images: an earlier run left them")
        if start != len(done) and not request.skip_bad_stimuli:
            held = set(done)
            raise bad_stimuli(folder, [name for name in ids[:start] if name not in held])
        check_space(folder, features, len(ids), len(done), notes)
        batches = Batches(
            BoundSession(session, IMAGES, names).run,
            reference,
            backbone.input.batch is not None,
            backbone.path,
            notes,
            lanes if on_cpu else 1,
        )
        stream_activations(
            batches, parts, names, stimuli, start, request.skip_bad_stimuli, backbone.path, notes
        )
    return provider


def bad_stimuli(folder: object, names: Sequence[str]) -> RecordingsError:
    """The error for stimuli that an earlier run left out, and this one is not to."""
    return RecordingsError(
        f"the images of {len(names)} stimuli did not open in an earlier run",
        where=folder,
        found=some(names),
        fix="Mend them, or pass --skip-bad-stimuli.",
    )


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
