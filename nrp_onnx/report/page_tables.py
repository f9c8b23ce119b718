"""The tables of a page, and the facts of a run as pairs of words."""

from dataclasses import dataclass
from typing import Any

from nrp_onnx.report.words import (
    NOT_BETWEEN_RECORDINGS,
    base_predictors,
    best_baseline,
    error_units,
    is_simulated,
    model_name,
    of_calibrated,
    predictor_name,
    uncalibrated,
)
from nrp_onnx.scoring.result import PredictorScore, Protocol, RegionScore
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import Interval, PairedDifference

Facts = list[tuple[str, str]]
#: Of silent sites, so many are named.
_MOST_SILENT = 10


def protocol_facts(run: FinishedRun) -> Facts:
    """How the images were split, the rates scaled, the heads searched."""
    result = run.result
    protocol, search = result.protocol, result.search
    stratified = protocol.stratified_on
    scaling = {
        "zscore": "each site divided by its standard deviation over the training images",
        "none": "rates as they were recorded",
    }
    facts = [
        ("Split", _split_words(protocol)),
        ("Stratified on", stratified or "nothing"),
        ("Validation", f"{100 * protocol.validation_share:g} % of the training images, to choose and stop by"),
        ("Rates", scaling.get(protocol.normalise, protocol.normalise)),
        ("Search", f"{search.preset}, {search.trials.count:,} heads trained"),
        ("Intervals", protocol.interval),
        ("Seed", str(protocol.seed)),
        ("Exported", f"the head of fold {protocol.exported_fold}, in head.onnx, predictor.onnx and scorer.onnx"),
    ]  # fmt: skip
    return facts


def _split_words(protocol: Protocol) -> str:
    split = protocol.split
    if split is None:
        return f"{protocol.name}, {_count(protocol.folds, 'fold')} over the images"
    ood = f", {split.n_ood:,} out of distribution" if split.n_ood else ""
    return (
        f"{split.name}, a fixed split of the recordings: {split.n_train:,} images train, "
        f"{split.n_test:,} test{ood}"
    )


def recordings_facts(run: FinishedRun) -> Facts:
    """The recordings, and whose they are."""
    kept = run.result.recordings
    facts = [
        ("Name", kept.name + (" (SIMULATED)" if is_simulated(run) else "")),
        ("Stimuli", f"{kept.n_stimuli:,}"),
        ("Sites", ", ".join(f"{found.n_sites:,} {region}" for region, found in run.regions.items())),
        ("Units", kept.units),
        ("Missing", f"{100 * kept.missing_share:.3g} % of the averaged responses"),
    ]  # fmt: skip
    if kept.silent_sites:
        names = ", ".join(kept.silent_sites[:_MOST_SILENT])
        more = len(kept.silent_sites) - _MOST_SILENT
        facts.append(
            (
                "Left out",
                f"{_count(len(kept.silent_sites), 'silent site')}: {names}"
                + (f" and {more} more" if more > 0 else ""),
            )
        )
    if kept.citation:
        facts.append(("Citation", kept.citation))
    if kept.visual_degrees:
        facts.append(("Shown at", f"{kept.visual_degrees:g}° of the visual field"))
    return facts


def model_facts(run: FinishedRun) -> Facts:
    """The backbone, and how it takes images."""
    model = run.result.model
    facts = [("File", model.file), ("Parameters", f"{model.n_parameters:,}")]
    facts += [
        (key.capitalize(), str(value))
        for key, value in (model.source or {}).items()
        if isinstance(value, str | int | float)
    ]
    facts.append(("Preprocessing", _preprocessing(model.preprocessing)))
    return facts


def provenance_facts(run: FinishedRun) -> Facts:
    """Hashes, versions and times."""
    result = run.result
    return [
        ("Run", result.fingerprint),
        ("Model, SHA-256", result.model.sha256),
        ("Recordings, SHA-256", result.recordings.fingerprint),
        ("Activations by", result.provider),
        ("Exported head", f"within {result.export.max_difference_sd:.1e} standard deviations of what was scored"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
        ("Seconds", ", ".join(f"{name.removesuffix('_s')} {seconds:.1f}" for name, seconds in result.timings.items())),
    ]  # fmt: skip


def _preprocessing(spec: dict[str, Any]) -> str:
    steps = []
    if spec.get("do_resize"):
        size = spec["size"]
        steps.append("resized to " + " × ".join(str(side) for side in size.values()))
    if spec.get("do_center_crop"):
        steps.append("the centre cropped to " + " × ".join(map(str, spec["crop_size"].values())))
    if spec.get("do_rescale"):
        steps.append(f"times {spec['rescale_factor']:.6g}")
    if spec.get("do_normalize"):
        steps.append(f"less {_few(spec['image_mean'])}, divided by {_few(spec['image_std'])}")
    order = "luminance" if spec["channel_order"] == "L" else spec["channel_order"]
    steps.append(f"{order}, {spec['layout']}, {spec['dtype']}")
    return "; ".join(steps)


def _few(values: list[float]) -> str:
    different = list(dict.fromkeys(values))
    return ", ".join(f"{value:.4g}" for value in (different if len(different) == 1 else values))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


@dataclass(frozen=True)
class Cell:
    """A cell: its text, and by what its column sorts (a number, or None for words and gaps)."""

    text: str
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table: headings (with a flag for columns of numbers), rows, what it shows."""

    caption: str
    headings: list[tuple[str, bool]]
    rows: list[list[Cell]]


def number(value: float | None, form: str = ".3f", strong: bool = False) -> Cell:
    """A number; a dash where it cannot be computed."""
    if value is None:
        return Cell("–", strong=strong)
    return Cell(format(value, form).replace("-", "−"), float(value), strong)


def with_interval(value: float, bounds: Interval, form: str = ".3f", strong: bool = False) -> Cell:
    """A number with its interval behind it, sorted by the number."""
    low, high = (number(bound, form).text for bound in bounds)
    return Cell(f"{number(value, form).text} ({low} to {high})", float(value), strong)


def predictors_table(run: FinishedRun) -> PageTable:
    """Every predictor of every region; columns that the run does not have are left out.

    A predictor that was also calibrated has that error beside its own.
    """
    regions = run.regions
    every = [numbers for found in regions.values() for numbers in found.predictors.values()]
    explained = any(numbers.explainable_removed is not None for numbers in every)
    normalised = any(numbers.pearson_r_normalised is not None for numbers in every)
    squared = any(numbers.mse is not None for numbers in every)
    corrected = any(numbers.r2_normalised is not None for numbers in every)
    compared = any(found.comparisons for found in regions.values())
    some_calibrated = any(
        name != uncalibrated(name) for found in regions.values() for name in found.predictors
    )
    own = predictor_name(run.headline)
    headings = [("Region", False), ("Predictor", False), ("Error (95 %)", True)]
    headings += [("Calibrated (95 %)", True)] * some_calibrated + [("MSE (95 %)", True)] * squared
    headings += [("Explained", True)] * explained + [("R²", True), ("r", True)]
    headings += [("r / ceiling", True)] * normalised + [
        ("r² / reliability (95 %)", True)
    ] * corrected
    headings += [("Less it (95 %)", True), ("Better at", True)] * compared
    rows = []
    for region, found in regions.items():
        for name, numbers in base_predictors(found.predictors).items():
            strong = uncalibrated(name) == uncalibrated(run.headline)
            row = [
                Cell(region, strong=strong),
                Cell(predictor_name(name), strong=strong),
                with_interval(numbers.mae, numbers.mae_ci95, strong=strong),
            ]
            if some_calibrated:
                also = of_calibrated(found.predictors, name)
                row.append(_error_of(also, strong))
            if squared:
                row.append(_perhaps(numbers.mse, numbers.mse_ci95))
            if explained:
                row.append(number(numbers.explainable_removed, ".0%"))
            row += [number(numbers.r2), number(numbers.pearson_r)]
            if normalised:
                row.append(number(numbers.pearson_r_normalised))
            if corrected:
                row.append(_perhaps(numbers.r2_normalised, numbers.r2_normalised_ci95))
            if compared:
                row += _compared(found.comparisons.get(name))
            rows.append(row)
    caption = (
        f"Mean absolute error in {error_units(run)}, on held-out images; R² and r are medians over sites."
        + " Explained: of the error between the mean response and the noise floor, the share removed; "
        f"{NOT_BETWEEN_RECORDINGS}."
        * explained
        + " r / ceiling: r / √reliability, the correlation with the true rates." * normalised
        + " r² / reliability: the share of the variance that comes from the images, median over sites."
        * corrected
        + f" Less it: the error of {own} less that of the row, on the same images and sites."
        * compared
    )
    return PageTable(caption, headings, rows)


def ood_table(run: FinishedRun) -> PageTable | None:
    """Every predictor on the test images and on those out of distribution; None without such a split."""
    split = run.result.protocol.split
    if split is None or not any(found.ood for found in run.regions.values()):
        return None
    headings = [("Region", False), ("Predictor", False), ("Test (95 %)", True)]
    headings += [("Out of distribution (95 %)", True), ("Drop (95 %)", True)]
    headings += [("MSE", True), ("r", True)]
    rows = []
    for region, found in run.regions.items():
        for name, numbers in (found.ood or {}).items():
            test, strong = found.predictors[name], name == run.headline
            rows.append(
                [
                    Cell(region, strong=strong),
                    Cell(predictor_name(name), strong=strong),
                    with_interval(test.mae, test.mae_ci95, strong=strong),
                    with_interval(numbers.mae, numbers.mae_ci95, strong=strong),
                    with_interval(numbers.drop, numbers.drop_ci95, "+.3f", strong=strong),
                    number(numbers.mse),
                    number(numbers.pearson_r),
                ]
            )
    caption = (
        f"Mean absolute error in {error_units(run)} on the {split.n_test:,} test images and on the "
        f"{split.n_ood:,} that are out of distribution. Drop: the second less the first, over the same "
        "sites. MSE, r: out of distribution."
    )
    return PageTable(caption, headings, rows)


def _error_of(numbers: PredictorScore | None, strong: bool) -> Cell:
    if numbers is None:
        return number(None, strong=strong)
    return with_interval(numbers.mae, numbers.mae_ci95, strong=strong)


def _perhaps(value: float | None, bounds: Interval | None, strong: bool = False) -> Cell:
    """A number with its interval where there is one."""
    if value is None or bounds is None:
        return number(value, strong=strong)
    return with_interval(value, bounds, strong=strong)


def regions_table(run: FinishedRun) -> PageTable:
    """What the errors of each region are to be seen beside: noise, reliability, Brain-Score."""
    regions = run.regions
    headings = [("Region", False), ("Sites", True), ("Noise floor", True), ("Reliability", True)]
    headings += [("Brain-Score", True), ("its r", True), ("its ceiling", True)]
    rows, reasons = [], []
    for region, found in regions.items():
        brainscore = found.brainscore
        rows.append(
            [
                Cell(region),
                number(found.n_sites, ",d"),
                number(found.noise_floor),
                number(found.reliability),
                number(brainscore.score if brainscore else None),
                number(brainscore.r if brainscore else None),
                number(brainscore.ceiling if brainscore else None),
            ]
        )
        reasons += [found.noise_floor_reason, found.reliability_reason]
        reasons.append(brainscore.reason if brainscore else None)
    missing = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    caption = (
        "Noise floor: the error of a predictor that knows the true rates. Reliability: of the averaged "
        "responses, median over sites. Brain-Score: r² / ceiling of its own PLS on the same activations."
    )
    return PageTable(caption + f" Missing numbers: {missing}." * bool(missing), headings, rows)


def chosen_heads_table(run: FinishedRun) -> PageTable | None:
    """The head that the search chose in each fold; None if the run does not say."""
    best = run.result.search.best
    if not best:
        return None
    shares = [region for region in run.regions if region in (best[0].get("shares") or {})]
    headings = [("Fold", True), ("Layers", False), ("L1", True), ("L2", True)]
    headings += [("Learning rate", True), ("Validation error", True), ("Epoch", True)]
    headings += [(f"Share of the network, {region}", True) for region in shares]
    rows = [
        [
            number(record["fold"], "d"),
            Cell(", ".join(record["layers"])),
            number(record["l1"], "d"),
            number(record["l2"], "d"),
            number(record["learning_rate"], "g"),
            number(record["validation_mae"]),
            number(record["epochs"], "d"),
            *(number(record["shares"][region]["nrp"], ".0%") for region in shares),
        ]
        for record in best
    ]
    caption = "The head that had the lowest validation error in each fold." + (
        " Share of the network: how much of the mixture the NRP network makes." * bool(shares)
    )
    return PageTable(caption, headings, rows)


def layers_table(run: FinishedRun) -> PageTable:
    """The layers that the score used."""
    return PageTable(
        "Layers of the backbone that the predictors see, from the image inwards.",
        [("Layer", False), ("Shape", False), ("Reduction", False), ("Features", True)],
        [
            [
                Cell(layer.name),
                Cell(" × ".join(map(str, layer.shape)) or "?"),
                Cell(layer.reduction),
                number(layer.n_features, ",d"),
            ]
            for layer in run.result.model.layers
        ],
    )


def comparison_table(runs: list[FinishedRun]) -> PageTable:
    """All runs side by side, lowest NRP-error first."""
    regions = list(dict.fromkeys(region for run in runs for region in run.regions))
    headings = [("Model", False), ("Run", False), ("Recordings", False), ("Parameters", True)]
    headings += [("Predictor", False), ("NRP-error", True)]
    for region in regions:
        headings += [(f"{region} (95 %)", True), (f"{region}, best baseline", True)]
    rows = []
    for run in sorted(runs, key=lambda run: float(run.result.nrp_error)):
        result = run.result
        simulated = " (SIMULATED)" if is_simulated(run) else ""
        row = [
            Cell(model_name(run), strong=True),
            Cell(run.folder.name),
            Cell(result.recordings.name + simulated),
            number(result.model.n_parameters, ",d"),
            Cell(predictor_name(run.headline)),
            number(result.nrp_error, strong=True),
        ]
        for region in regions:
            row += _of_region(result.regions.get(region), run.headline)
        rows.append(row)
    units = ", ".join(dict.fromkeys(error_units(run) for run in runs))
    return PageTable(f"NRP-error in {units}; lower is better.", headings, rows)


def _compared(paired: PairedDifference | None) -> list[Cell]:
    if paired is None:
        return [Cell("")] * 2
    return [
        with_interval(paired.difference, paired.ci95, "+.3f"),
        Cell(f"{paired.wins} of {paired.n_sites}", paired.wins / max(paired.n_sites, 1)),
    ]


def _of_region(found: RegionScore | None, headline: str) -> list[Cell]:
    if found is None:
        return [number(None)] * 2
    best = best_baseline(found.predictors, headline)
    mae = None if best is None else found.predictors[best].mae
    return [
        with_interval(found.nrp_error.value, found.nrp_error.ci95),
        number(None) if best is None else Cell(f"{mae:.3f} ({predictor_name(best)})", mae),
    ]
