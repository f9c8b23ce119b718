"""An exported scorer on recordings that it was not made from: their NRP-error, without training."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nrp_onnx.activations.images import of_one_size
from nrp_onnx.backbone.feature_graph import IMAGES
from nrp_onnx.backbone.model import read_onnx
from nrp_onnx.bootstrap import Interval, bootstrap_means, nested_levels, percentile_interval
from nrp_onnx.decoding_pool import DecodedImages
from nrp_onnx.errors import ModelError, RecordingsError, words_of_python
from nrp_onnx.export.card import SCORES_KEY, TRAINED_ON_KEY
from nrp_onnx.export.exported_fold import SCORER
from nrp_onnx.export.onnx_models import (
    N_RECORDED,
    NRP_ERROR,
    RECORDED,
    REGION_NAMES_KEY,
    SCORE_UNITS_KEY,
)
from nrp_onnx.export.predict import (
    RATES,
    REGIONS_KEY,
    SITES_KEY,
    UNITS_KEY,
    batch_size,
    open_exported,
)
from nrp_onnx.files import exported_file
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar, shown_progress
from nrp_onnx.recordings import Recordings
from nrp_onnx.recordings import open_recordings as open_named
from nrp_onnx.recordings.checks import some

#: The scorer sums in float32; its error must be that of its rates to this part.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RegionScored:
    """What a scorer finds in a region.

    Attributes:
        nrp_error: mean of |rate - recorded| / scale over all averaged responses that are there.
        ci95: its 95 % interval, by the bootstrap over images and sites that a score has, too.
        n_sites: in the region.
        n_recorded: how many averaged responses there are.
    """

    nrp_error: float
    ci95: Interval
    n_sites: int
    n_recorded: int


@dataclass(frozen=True)
class ScorerResult:
    """The NRP-error of an exported scorer on recordings.

    Attributes:
        scorer: path of the file.
        recordings: their name.
        simulated: whether they are.
        units: of all errors: ``z`` (standard deviations over the images that the scorer was fitted to)
            or those of the recordings.
        n_images: of the recordings.
        seed: of the bootstrap.
        provider: ONNX Runtime's execution provider.
        nrp_error: mean over regions of their NRP-errors.
        ci95: its 95 % interval.
        regions: by name, in the order of the scorer.
        notes: what is to be known of these numbers.
    """

    scorer: str
    recordings: str
    simulated: bool
    units: str
    n_images: int
    seed: int
    provider: str
    nrp_error: float
    ci95: Interval
    regions: dict[str, RegionScored]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@words_of_python()
def score_with(
    scorer: str | Path,
    recordings: Recordings | str | Path,
    *,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> ScorerResult:
    """Score recordings with the scorer.onnx of a run: nothing is trained.

    The recordings have the sites of the scorer, in any order, and any images. Of images that the
    scorer was fitted to, the error says little.

    Example:
        >>> import nrp_onnx as nrp
        >>> found = nrp.score_with("runs/a/scorer.onnx", "monday")  # doctest: +SKIP
        >>> found.regions["IT"].nrp_error, found.regions["IT"].ci95, found.units  # doctest: +SKIP

    Args:
        scorer: the file, or the folder of its run.
        recordings: a recordings folder, a name, or `Recordings`.
        device: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        seed: of the bootstrap.
        progress: show a bar on stderr.

    Raises:
        ModelError: if the file is no scorer that ``score`` exported, or of a newer version.
        RecordingsError: if the recordings have other sites or units, or an image does not open.
        DeviceError: if the device does not work.
    """
    with shown_progress(progress):
        return scored_recordings(Path(scorer), recordings, device, seed, Notes())


def scored_recordings(
    path: Path, recordings: Recordings | str | Path | None, device: str, seed: int, notes: Notes
) -> ScorerResult:
    """`score_with` as the command line has it; the recordings that None stands for are simulated."""
    scorer = Scorer(path, device, notes)
    if not isinstance(recordings, Recordings):
        recordings = open_named(recordings, notes)
    order = scorer.order_of(recordings)
    scorer.note_on_known_images(recordings, notes)
    errors = scorer.errors(recordings, order)
    regions, resampled = {}, []
    for name in scorer.region_names:
        sites = np.flatnonzero(np.array(scorer.regions) == name)
        of_region = errors[:, sites]
        levels = tuple(nested_levels(recordings.site_labels, order[sites]).values())
        resampled.append(bootstrap_means(of_region, seed, levels=levels))
        regions[name] = RegionScored(
            nrp_error=float(np.nanmean(of_region)),
            ci95=percentile_interval(resampled[-1]),
            n_sites=len(sites),
            n_recorded=int((~np.isnan(of_region)).sum()),
        )
    return ScorerResult(
        scorer=str(scorer.path),
        recordings=recordings.name,
        simulated=recordings.simulated,
        units=scorer.score_units,
        n_images=recordings.n_stimuli,
        seed=seed,
        provider=scorer.provider,
        nrp_error=float(np.mean([found.nrp_error for found in regions.values()])),
        ci95=percentile_interval(np.mean(resampled, axis=0)),
        regions=regions,
        notes=notes.said,
    )


class Scorer:
    """The scorer.onnx of a run.

    Attributes:
        path: of the file.
        sites, regions: ids and regions of the sites, in the order of the rates.
        region_names: in the order of its errors.
        units: of the responses that it takes.
        score_units: of its errors.
        scale: float64 (n_sites,); errors are divided by it to be in units of the score.
        provider: ONNX Runtime's execution provider.
    """

    def __init__(self, path: Path, device: str = "auto", notes: Notes | None = None) -> None:
        self.path = path = exported_file(path, SCORER)
        self._session, metadata = open_exported(
            path,
            "scorer",
            (IMAGES, RECORDED),
            (RATES, NRP_ERROR, N_RECORDED),
            (SITES_KEY, REGIONS_KEY, UNITS_KEY, REGION_NAMES_KEY, SCORE_UNITS_KEY),
            device,
            notes or Notes(),
        )
        self.sites: tuple[str, ...] = tuple(json.loads(metadata[SITES_KEY]))
        self.regions: tuple[str, ...] = tuple(json.loads(metadata[REGIONS_KEY]))
        self.region_names: tuple[str, ...] = tuple(json.loads(metadata[REGION_NAMES_KEY]))
        self.units, self.score_units = metadata[UNITS_KEY], metadata[SCORE_UNITS_KEY]
        self.scale = _scale_of(read_onnx(path), path)
        self.provider: str = self._session.get_providers()[0]
        self._trained_on = json.loads(metadata.get(TRAINED_ON_KEY, "{}"))
        self._known = {
            found.get("recordings") for found in json.loads(metadata.get(SCORES_KEY, "{}")).values()
        }

    def order_of(self, recordings: Recordings) -> np.ndarray:
        """The places of the scorer's sites in the recordings, int64 (n_sites,).

        Raises:
            RecordingsError: if their sites, regions or units are not those of the scorer.
        """
        place_of = {name: place for place, name in enumerate(recordings.site_ids)}
        missing = [name for name in self.sites if name not in place_of]
        extra = sorted(place_of.keys() - set(self.sites), key=place_of.__getitem__)
        if missing or extra:
            apart = ((missing, "missing"), (extra, "not of the scorer"))
            raise RecordingsError(
                "the sites are not those of the scorer",
                where=recordings.name,
                expected=f"the {len(self.sites)} sites of {self.path}, in any order",
                found="; ".join(f"{len(n)} {what}: {some(n)}" for n, what in apart if n),
                fix="Take recordings of the same sites, or score the model on these.",
            )
        order = np.array([place_of[name] for name in self.sites], np.int64)
        moved = [
            f"{name} in {recordings.regions[place]} instead of {region}"
            for name, region, place in zip(self.sites, self.regions, order, strict=True)
            if recordings.regions[place] != region
        ]
        if moved:
            raise RecordingsError(
                f"{len(moved)} sites are in other regions than those of the scorer",
                where=recordings.name,
                expected=f"the regions of {self.path}",
                found=some(moved),
            )
        if recordings.units != self.units:
            raise RecordingsError(
                "the responses have other units than those that the scorer was fitted to",
                where=recordings.name,
                expected=self.units,
                found=recordings.units,
                fix="Import the recordings in these units.",
            )
        return order

    def note_on_known_images(self, recordings: Recordings, notes: Notes) -> None:
        """Say it where the scorer was fitted to recordings of this name, and to which of the images."""
        if recordings.name not in self._known:
            return
        known = set(recordings.stimulus_ids) - set(self._trained_on.get("not_seen", ()))
        if known:
            notes.say(
                f"the scorer was fitted to recordings that are called {recordings.name}, too, and may "
                f"have seen {len(known)} of these {recordings.n_stimuli} images: their error is smaller than that of new ones"
            )

    def errors(self, recordings: Recordings, order: np.ndarray) -> np.ndarray:
        """Absolute errors in units of the score, float64 (n_images, n_sites); NaN = not recorded.

        Args:
            order: of the sites, see `order_of`.

        Raises:
            RecordingsError: if an image does not open, or a region has no response.
            ModelError: if the scorer's own error is not that of its rates.
        """
        recorded = recordings.averages[:, order].astype(np.float32)
        rates = np.empty_like(recorded)
        sums, counts = np.zeros(len(self.region_names)), np.zeros(len(self.region_names))
        done, size = 0, batch_size(self._session)
        with (
            DecodedImages(recordings.stimulus_paths) as decoded,
            progress_bar("Scoring the images", recordings.n_stimuli) as advance,
        ):
            while taken := decoded.take(size):
                for places, pixels in of_one_size([image for _, image in taken]):
                    rows = done + np.array(places)
                    given = {IMAGES: pixels, RECORDED: recorded[rows]}
                    rates[rows], error, count = self._session.run(None, given)
                    sums += np.where(count > 0, np.nan_to_num(error) * count, 0)
                    counts += count
                done += len(taken)
                advance(len(taken))
        errors: np.ndarray = np.abs(rates.astype(np.float64) - recorded) / self.scale
        self._check(errors, sums, counts, recordings.name)
        return errors

    def _check(
        self, errors: np.ndarray, sums: np.ndarray, counts: np.ndarray, where: object
    ) -> None:
        """The errors, averaged by region, are the numbers that the graph gives."""
        for name, total, count in zip(self.region_names, sums, counts, strict=True):
            of_region = errors[:, np.array(self.regions) == name]
            if np.isnan(of_region).all():
                raise RecordingsError(
                    f"the region {name} has no response to any image",
                    where=where,
                    expected="one or more",
                    found="none",
                )
            if not np.isclose(np.nansum(of_region), total, rtol=_TOLERANCE):
                raise ModelError(
                    f"the scorer's error in {name} is not that of its rates",
                    where=self.path,
                    expected=float(np.nanmean(of_region)),
                    found=float(total / max(count, 1)),
                    fix="Please report this.",
                )


def _scale_of(proto: onnx.ModelProto, path: Path) -> np.ndarray:
    """What the graph divides errors by, float64 (n_sites,): rates, less ``recorded``, |.|, over it."""

    def user(value: str, op: str) -> onnx.NodeProto | None:
        users = (node for node in proto.graph.node if value in node.input and node.op_type == op)
        return next(users, None)

    node = user(RECORDED, "Sub")
    for op in ("Abs", "Div"):
        node = user(node.output[0], op) if node else None
    made = {node.output[0]: node for node in proto.graph.node if node.op_type == "Constant"}
    constant = made.get(node.input[1]) if node else None
    if constant is None:
        raise ModelError(
            "this scorer does not say what it divides errors by",
            where=path,
            expected="a constant of its graph",
            found="none",
            fix="Give the scorer.onnx that nrp-onnx score made.",
        )
    return onnx.numpy_helper.to_array(constant.attribute[0].t).astype(np.float64)
