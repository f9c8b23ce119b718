"""The protocol of a run and where its numbers come from, as pairs of words for a page."""

from typing import Any

from nrp_onnx.report.run_words import is_simulated
from nrp_onnx.scoring.finished_run import FinishedRun

Facts = list[tuple[str, str]]


def protocol_facts(run: FinishedRun) -> Facts:
    """How the images were split, the rates scaled, the heads searched."""
    result = run.result
    protocol, search = result["protocol"], result["search"]
    stratified = protocol["stratified_on"]
    scaling = {
        "zscore": "each site divided by its standard deviation over the training images",
        "none": "rates as they were recorded",
    }
    facts = [
        ("Split", f"{protocol['name']}, {_count(protocol['folds'], 'fold')} over the images"),
        ("Stratified on", stratified or "nothing"),
        ("Validation", f"{100 * protocol['validation_share']:g} % of the training images, to choose and stop by"),
        ("Rates", scaling.get(protocol["normalise"], protocol["normalise"])),
        ("Search", f"{search['preset']}, {search['trials']['count']:,} heads trained"),
        ("Intervals", protocol["interval"]),
        ("Seed", str(protocol["seed"])),
        ("Exported", f"the head of fold {protocol['exported_fold']}, in head.onnx, predictor.onnx and scorer.onnx"),
    ]  # fmt: skip
    return facts


def recordings_facts(run: FinishedRun) -> Facts:
    """The recordings, and whose they are."""
    kept = run.result["recordings"]
    facts = [
        ("Name", kept["name"] + (" (SIMULATED)" if is_simulated(run) else "")),
        ("Stimuli", f"{kept['n_stimuli']:,}"),
        ("Sites", ", ".join(f"{found['n_sites']:,} {region}" for region, found in run.result["regions"].items())),
        ("Units", kept["units"]),
        ("Missing", f"{100 * kept['missing_share']:.3g} % of the averaged responses"),
    ]  # fmt: skip
    for key, words in (("citation", "Citation"), ("licence", "Licence")):
        if kept.get(key):
            facts.append((words, kept[key]))
    if kept.get("visual_degrees"):
        facts.append(("Shown at", f"{kept['visual_degrees']:g}° of the visual field"))
    return facts


def model_facts(run: FinishedRun) -> Facts:
    """The backbone, and how it takes images."""
    model = run.result["model"]
    facts = [("File", model["file"]), ("Parameters", f"{model['n_parameters']:,}")]
    facts += [
        (key.capitalize(), str(value))
        for key, value in (model["source"] or {}).items()
        if isinstance(value, str | int | float)
    ]
    facts.append(("Preprocessing", _preprocessing(model["preprocessing"])))
    return facts


def provenance_facts(run: FinishedRun) -> Facts:
    """Hashes, versions and times."""
    result = run.result
    return [
        ("Run", result["fingerprint"]),
        ("Model, SHA-256", result["model"]["sha256"]),
        ("Recordings, SHA-256", result["recordings"]["fingerprint"]),
        ("Activations by", result["provider"]),
        ("Exported head", f"within {result['export']['max_difference_sd']:.1e} standard deviations of what was scored"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in result["versions"].items())),
        ("Seconds", ", ".join(f"{name.removesuffix('_s')} {seconds:.1f}" for name, seconds in result["timings"].items())),
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
    steps.append(f"{spec['channel_order']}, {spec['layout']}, {spec['dtype']}")
    return "; ".join(steps)


def _few(values: list[float]) -> str:
    different = list(dict.fromkeys(values))
    return ", ".join(f"{value:.4g}" for value in (different if len(different) == 1 else values))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
