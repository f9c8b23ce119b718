"""Computes layers of stimuli in this process: decoding threads, an ONNX Runtime session, a writer thread.

Between any two of them a bounded number of images waits, so memory stays flat in the number of images.
An error in any of them ends the run.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nrp_onnx.activations.batches import Batches, StartedBatch
from nrp_onnx.activations.images import StimulusRange
from nrp_onnx.activations.layer_writer import LayerRanges, Range, RangeWriter
from nrp_onnx.activations.session import BoundSession, open_session
from nrp_onnx.backbone.feature_graph import IMAGES, Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.decoding_pool import DecodedImages, PlacedImage, n_cores
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.errors import ModelError, RecordingsError
from nrp_onnx.notes import Notes

#: The batch sizes to begin with. On the CPU, the activations of few images stay in its caches.
_BATCH, _BATCH_ON_GPU = 4, 64
#: Batches that run at a time on the CPU, one on each core: none waits for the slowest share of a core.
_MOST_WORKERS = 16


@dataclass(frozen=True)
class Request:
    """What to extract, and how; see `nrp_onnx.activations.extract.extract_activations`.

    ``device`` is not ``auto`` any more.
    """

    backbone: Backbone
    preprocessing: Preprocessing
    device: str
    notes: Notes
    skip_bad_stimuli: bool
    overwrite: bool
    engine: Engine = field(default_factory=LocalEngine)


class Computation:
    """Layers of a backbone, ready to run.

    Args:
        features: the layers, with the components of ``pca:K``.

    Raises:
        ModelError, DeviceError: if the model or the device cannot be used.
    """

    def __init__(self, request: Request, features: Sequence[Feature]) -> None:
        backbone = request.backbone
        on_cpu = request.device == "cpu"
        self._workers = min(n_cores(), _MOST_WORKERS) if on_cpu else 1
        # Nothing refers to the graph once the session has its own copy: it may be large.
        session = open_session(
            to_checked_proto(
                build_feature_graph(backbone, request.preprocessing, features), "feature graph"
            ).SerializeToString(),
            request.device,
            request.notes,
            backbone.path,
            backbone.path.parent,
            n_cores() // self._workers,
        )
        self._names = [feature.layer.name for feature in features]
        self._run = BoundSession(session, IMAGES, self._names).run
        self._batch = backbone.input.batch or (_BATCH if on_cpu else _BATCH_ON_GPU)
        self._request = request

    def run(
        self,
        layers: Sequence[LayerRanges],
        stimuli: StimulusRange,
        seconds: float,
        advance: Callable[[int], None],
    ) -> list[Range]:
        """Compute some stimuli and write them.

        Args:
            layers: where the ranges of each layer go.
            seconds: of work in a range, about.
            advance: is told how many images were computed.

        Returns:
            The ranges, which are on disk.

        Raises:
            ModelError, RecordingsError: if the model or an image cannot be used.
            OSError: if the ranges cannot be written.
        """
        notes, where = self._request.notes, self._request.backbone.path
        fixed = self._request.backbone.input.batch is not None
        skip_bad = self._request.skip_bad_stimuli
        ids, start = stimuli.stimulus_ids, stimuli.start
        estimated = False
        with ExitStack() as stack:
            ranges = stack.enter_context(RangeWriter(layers, start, self._batch, seconds))
            images = stack.enter_context(
                DecodedImages(stimuli.stimulus_paths, skip_bad, 2 * self._workers)
            )
            batches = stack.enter_context(
                Batches(self._run, self._batch, fixed, where, notes, self._workers)
            )
            writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
            written: Future[None] | None = None
            started: deque[tuple[list[int], StartedBatch]] = deque()
            while True:
                # Twice as many batches as workers: no worker waits for this thread or for a slower one.
                while len(started) < 2 * self._workers and (taken := _taken(images, batches.size)):
                    running = batches.start([image for _, image in taken])
                    started.append(([place for place, _ in taken], running))
                if not started:
                    break
                places, running = started.popleft()
                outputs = batches.finish(running)
                batch_ids = [ids[place] for place in places]
                _check_finite(outputs, self._names, batch_ids, where)
                if written is not None:
                    written.result()
                written = writer.submit(ranges.write, batch_ids, outputs, start + places[-1] + 1)
                advance(len(places))
                if batches.images_a_second and not estimated:
                    estimated, rate = True, batches.images_a_second
                    notes.log(
                        f"{rate:,.1f} images a second: about {duration(len(ids) / rate)} in all"
                    )
            if written is not None:
                written.result()
            ranges.finish(start + len(ids))
            for note in images.notes():
                notes.say(note)
        return ranges.finished


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


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
