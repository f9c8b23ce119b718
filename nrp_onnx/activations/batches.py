"""How many images the session gets at a time: measured as it goes, halved where memory ends."""

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nrp_onnx.activations.images import of_one_size
from nrp_onnx.activations.space import memory
from nrp_onnx.errors import ModelError
from nrp_onnx.notes import Notes

#: Runs images of one size: uint8 (n, H, W, 3) to float32 (n, n_features) of each layer.
Run = Callable[[np.ndarray], list[np.ndarray]]

#: What is tried at most.
MAXIMUM = 256
#: Twice the size must be this much faster to be kept.
_FASTER = 1.1
#: Batches of a size until it is judged; the first in each worker allocates memory and is not timed.
_TRIES = 4
_OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|bad_?alloc|alloc_failed", re.I)


@dataclass(frozen=True, eq=False)
class StartedBatch:
    """A batch that a worker runs; ``proves``: it carries the reference image, to check its bits."""

    images: Sequence[np.ndarray]
    proves: bool
    found: "Future[tuple[list[np.ndarray], float]]"


class Batches:
    """Runs batches, as many at a time as there are workers, and finds the fastest size.

    One thread starts batches and finishes them, in the same order. The first image of the first batch
    is the reference image: it is run once more, alone. If that gives other bits, the first size
    stays, as the kernels of the model depend on the size. If it gives the same bits, twice the size is
    tried on the next images. It is kept if it is faster, if there is memory for it, and if the
    reference image, added to the batch, still has the same bits. So a run that was killed and
    resumed computes the same bits, whatever speeds were measured.

    Args:
        run: called from one thread a worker.
        reference: the first size.
        fixed: whether the model takes no other.
        where: the model, for messages.

    Attributes:
        size: how many images to start next.
        images_a_second: of all workers, by the fastest batch that was timed; 0 before that.
    """

    def __init__(
        self, run: Run, reference: int, fixed: bool, where: object, notes: Notes, workers: int = 1
    ) -> None:
        self.size, self.workers, self.images_a_second = reference, workers, 0.0
        self._run_one_size, self._where, self._notes = run, where, notes
        self._settled = fixed
        self._rates: list[float] = []
        self._smaller: tuple[int, float] | None = None
        self._proven = 0
        self._refused = MAXIMUM + 1
        self._reference_image: np.ndarray | None = None
        self._reference_rows: list[np.ndarray] = []
        self._too_large: deque[int] = deque()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="run")

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, images: Sequence[np.ndarray]) -> StartedBatch:
        """Start up to `size` images of any shapes."""
        proves = not self._settled and len(images) == self.size > self._proven
        if proves:
            self._proven = self.size
        along = [self._reference_image] if proves and self._reference_image is not None else []
        return StartedBatch(images, proves, self._pool.submit(self._clocked, [*images, *along]))

    def finish(self, batch: StartedBatch) -> list[np.ndarray]:
        """The activations of a batch: float32 (n, n_features) a layer.

        Raises:
            ModelError: if the model does not run, or there is no memory for one image.
        """
        rows, seconds = batch.found.result()
        size = len(batch.images)
        while self._too_large:
            failed = self._too_large.popleft()
            if failed // 2 < self.size:
                self._settle(failed // 2, f"{failed} need more memory than there is")
        if batch.proves and not self._keeps_bits(batch.images, rows):
            self._refused = 2 * self._smaller[0] if self._smaller else MAXIMUM + 1
            smaller = self._smaller[0] if self._smaller else self.size
            self._settle(smaller, "others change the last bits")
        if size >= self._refused:
            return _joined(
                [
                    self._pool.submit(self._by_shape, batch.images[i : i + self.size]).result()
                    for i in range(0, size, self.size)
                ]
            )
        if size == self.size:
            self._timed(len(rows[0]) / seconds)
        return [output[:size] for output in rows]

    def _clocked(self, images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], float]:
        start = time.perf_counter()
        rows = self._by_shape(images)
        return rows, time.perf_counter() - start

    def _keeps_bits(self, images: Sequence[np.ndarray], rows: list[np.ndarray]) -> bool:
        if self._reference_image is None:
            self._reference_image = images[0]
            self._reference_rows = [output[:1].copy() for output in rows]
            again = self._pool.submit(self._in_memory, self._reference_image[None]).result()
        else:
            again = [output[len(images) :] for output in rows]
        pairs = zip(again, self._reference_rows, strict=True)
        return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)

    def _timed(self, rate: float) -> None:
        """Take note of a batch's images a second, and judge its size when there are enough."""
        self._rates.append(rate)
        timed = self._rates[self.workers :]
        if timed:
            self.images_a_second = max(self.images_a_second, self.workers * timed[-1])
        if self._settled or len(timed) < _TRIES - 1:
            return
        # On a machine that does other work too, the slowest has to be faster than the fastest was.
        if self._smaller is not None and min(timed) < _FASTER * self._smaller[1]:
            self._settle(self._smaller[0], f"{self.size} are not faster")
        elif 2 * self.size > MAXIMUM or not _has_memory_for_more():
            self._settle(self.size, "more would not pay or not fit into memory")
        else:
            self._smaller = (self.size, max(timed))
            self.size, self._rates = 2 * self.size, []

    def _settle(self, size: int, why: str) -> None:
        self.size, self._settled = size, True
        self._notes.say(f"batches of {size} images: {why}")

    def _by_shape(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        groups = [(places, self._in_memory(batch)) for places, batch in of_one_size(images)]
        if len(groups) == 1:
            return groups[0][1]
        order = np.argsort(np.concatenate([places for places, _ in groups]))
        return [output[order] for output in _joined([outputs for _, outputs in groups])]

    def _in_memory(self, batch: np.ndarray) -> list[np.ndarray]:
        """Run images of one shape, in halves where there is no memory for all."""
        try:
            return self._run_one_size(batch)
        except Exception as error:  # ONNX Runtime has no public exception family
            if not (isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error))):
                raise ModelError(
                    "the model does not run", where=self._where, found=str(error).splitlines()[0]
                ) from None
        half = len(batch) // 2
        if half == 0:
            raise ModelError(
                "one image needs more memory than there is",
                where=self._where,
                fix="Choose fewer layers or a smaller reduction, or another --device.",
            )
        self._too_large.append(len(batch))
        return _joined([self._in_memory(batch[:half]), self._in_memory(batch[half:])])


def _joined(parts: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _has_memory_for_more() -> bool:
    """Whether a process that grows to twice its size still leaves as much free."""
    here = memory()
    return here is None or here.available > 2 * here.used
