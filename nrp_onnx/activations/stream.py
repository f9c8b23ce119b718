"""From image files to Parquet files: decoding threads, lanes of the session, a writer thread.

Between any two of them a bounded number of images waits, so that memory stays flat in the number of
images. An error in any of them ends the run.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from nrp_onnx.activations.batches import Batches, StartedBatch
from nrp_onnx.activations.images import DecodedImages, PlacedImage
from nrp_onnx.activations.layer_parts import LayerParts
from nrp_onnx.activations.stimuli import Stimuli
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
