"""What a user calls from Python: score, extract, compare, and what opens their results.

Each function is a thin call of the modules below it; the command line calls the same.
"""

import html
import importlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.images import Stimuli, open_stimuli
from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.activations.remote import RemoteFile, folder_of
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.engine import open_engine
from nrp_onnx.errors import ModelError, words_of_python
from nrp_onnx.notebook import html_table
from nrp_onnx.notes import Notes
from nrp_onnx.progress import shown_progress
from nrp_onnx.recordings import Recordings
from nrp_onnx.recordings import open_recordings as open_named
from nrp_onnx.report.words import base_predictors, error_units, of_calibrated, predictor_name
from nrp_onnx.scoring.choices import choose_features, choose_preprocessing
from nrp_onnx.scoring.comparison import Comparison, compare_runs
from nrp_onnx.scoring.options import ExtractOptions, ScoreOptions
from nrp_onnx.scoring.run import FinishedRun, open_finished_run
from nrp_onnx.scoring.run_folder import REPORT_FILE, THUMBNAILS_FILE


@dataclass(frozen=True, eq=False, repr=False)
class Run(FinishedRun):
    """A finished run, as `score` and `open_run` give it; a notebook shows its table.

    Example:
        >>> import nrp_onnx as nrp
        >>> run = nrp.open_run("runs/a")  # doctest: +SKIP
        >>> run.regions["IT"].predictors["ridge"].mae  # doctest: +SKIP
    """

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, one HTML page that needs no network.

        Args:
            path: of the page; None: report.html in the folder of the run.

        Returns:
            The path of the page.
        """
        from nrp_onnx.report.page import write_report

        out = self.folder / REPORT_FILE if path is None else Path(path)
        write_report([self.folder], out)
        return out

    def _repr_html_(self) -> str:
        """The table that a notebook shows, with a link to the report where there is one."""
        low, high = self.ci95
        name = self.result.recordings.name
        simulated = " (SIMULATED)" if self.result.recordings.simulated else ""
        rows = [
            (
                f"{region} ({found.n_sites} sites)" if place == 0 else "",
                predictor_name(key),
                f"{score.mae:.3f}",
                f"{score.mae_ci95[0]:.3f} to {score.mae_ci95[1]:.3f}",
                f"{also.mae:.3f}" if (also := of_calibrated(found.predictors, key)) else "–",
                "–" if score.mse is None else f"{score.mse:.3f}",
                "–" if score.r2 is None else f"{score.r2:.3f}",
                "–" if score.pearson_r is None else f"{score.pearson_r:.3f}",
            )
            for region, found in self.regions.items()
            for place, (key, score) in enumerate(base_predictors(found.predictors).items())
        ]
        report = self.folder / REPORT_FILE
        link = f'<p><a href="{html.escape(report.resolve().as_uri())}">report.html</a></p>'
        return (
            f"<p><b>{html.escape(self.result.model.file)} on {html.escape(name)}{simulated}</b>: "
            f"NRP-error {self.nrp_error:.3f} [{low:.3f}, {high:.3f}], the mean absolute error of "
            f"{html.escape(predictor_name(self.headline))} in {html.escape(error_units(self))}</p>"
            + html_table(
                ("region", "predictor", "MAE", "95 %", "calibrated", "MSE", "R²", "r"), rows
            )
            + (link if report.is_file() else "")
        )


@words_of_python()
def score(
    model: Any,
    recordings: Recordings | str | Path | None = None,
    *,
    out: str | Path | None = None,
    layers: str | Sequence[str] = "auto",
    reduce: str = "auto",
    preprocess: str | None = None,
    visual_degrees: float | None = None,
    regions: Sequence[str] = (),
    normalise: str | None = None,
    search: str = "default",
    protocol: str | None = None,
    folds: int | None = None,
    split: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    device: str = "auto",
    skip_bad_stimuli: bool = False,
    overwrite: bool = False,
    report: bool = True,
    all_images: bool = False,
    memory: str | None = None,
    activations: str | Path | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    progress: bool = True,
) -> Run:
    """Score a backbone on neural recordings: the NRP-error of Anand, Sen & Roy (2021).

    Example:
        >>> import nrp_onnx as nrp
        >>> run = nrp.score("resnet50.onnx", "my_recordings", search="quick")  # doctest: +SKIP
        >>> run.nrp_error, run.ci95  # doctest: +SKIP

    Args:
        model: path of an ONNX file; or a ``torch.nn.Module``, ``keras.Model`` or flax module, which is
            converted first (see `convert`) and left in the output folder as backbone.onnx.
        recordings: a recordings folder, a name, ``simulated``, ``simulated:N``, or `Recordings`; None
            takes the simulated ones.
        out: the output folder; None: one under ``runs``, from the names of model and recordings. A
            finished run of the same is not computed again; a killed one goes on.
        progress: show bars on stderr.

    The other arguments are those of `ScoreOptions`.

    Returns:
        The run: its numbers, its held-out predictions, its files.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options = ScoreOptions(
        layers=layers if isinstance(layers, str) else tuple(layers),
        reduce=reduce,
        preprocess=preprocess,
        visual_degrees=visual_degrees,
        regions=tuple(regions),
        normalise=normalise,
        search=search,
        protocol=protocol,
        folds=folds,
        split=split,
        seed=seed,
        seeds=seeds,
        device=device,
        skip_bad_stimuli=skip_bad_stimuli,
        overwrite=overwrite,
        report=report,
        all_images=all_images,
        memory=memory,
        activations=activations,
        engine=engine,
        ray_address=ray_address,
    )
    with shown_progress(progress):
        return score_with(model, recordings, out, options)


def score_with(
    model: Any,
    recordings: Recordings | str | Path | None,
    out: str | Path | None,
    options: ScoreOptions,
) -> Run:
    """`score` with its options as one object, as the command line and studies have them."""
    # PyTorch takes seconds and 230 MiB, which an extraction does not need.
    from nrp_onnx.predictor.search_file import read_search
    from nrp_onnx.report.sites import keep_shown_images
    from nrp_onnx.scoring.pipeline import run_score
    from nrp_onnx.scoring.steps import Inputs

    notes = Notes()
    with _backbone_file(model, options.preprocess, notes) as path:
        # Before the recordings, which may take minutes to make or to fetch.
        backbone, space = load_backbone(path), read_search(options.search)
        engine = open_engine(options.engine, options.ray_address)
        start = time.perf_counter()
        if not isinstance(recordings, Recordings):
            recordings = open_named(recordings, notes)
        inputs = Inputs(
            backbone=backbone,
            recordings=recordings,
            space=space,
            engine=engine,
            options=options,
            notes=notes,
            keep_model=not isinstance(model, str | Path),
            timings={"recordings_s": round(time.perf_counter() - start, 3)},
        )
        finished = run_score(inputs, out)
    run = Run(finished.folder, finished.result)
    if not (run.folder / THUMBNAILS_FILE).is_file():
        keep_shown_images(run.folder, recordings)
    if options.report and not (run.folder / REPORT_FILE).is_file():
        run.report()
    return run


@dataclass(frozen=True, eq=False)
class ExtractedLayer:
    """The activations of one layer on disk.

    Attributes:
        name: of the layer.
        path: of its Parquet file.
        shape: of an image's activations as they are stored, after the reduction.
        reduction: that was applied in the graph.
        stimulus_ids: of the images, in the order of `array`.
        stored: reads the file a few images or a few features at a time.
    """

    name: str
    path: Path | RemoteFile
    shape: tuple[int, ...]
    reduction: str
    stimulus_ids: tuple[str, ...]
    stored: StoredLayer

    def array(self) -> np.ndarray:
        """All of them in memory, float32 (n_images, *shape).

        Raises:
            OutputError: if the file holds other activations by now.
        """
        rows = self.stored.read(np.arange(len(self.stimulus_ids)))
        return rows.reshape(len(rows), *self.shape)


@dataclass(frozen=True, eq=False)
class Activations(Mapping[str, ExtractedLayer]):
    """What `extract` wrote: its layers by name.

    Attributes:
        folder: of the Parquet files.
        provider: ONNX Runtime's execution provider.
        layers: by name, in order of depth.
        stimulus_ids: of the images.
        skipped_stimuli: ids of images that do not open.
    """

    folder: str
    provider: str
    layers: dict[str, ExtractedLayer]
    stimulus_ids: tuple[str, ...]
    skipped_stimuli: list[str]

    def __getitem__(self, name: str) -> ExtractedLayer:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def to_json(self) -> dict[str, Any]:
        """The facts as plain JSON values."""
        return {
            "folder": self.folder,
            "provider": self.provider,
            "n_stimuli": len(self.stimulus_ids),
            "skipped_stimuli": self.skipped_stimuli,
            "layers": [
                {
                    "name": layer.name,
                    "file": layer.path.name,
                    "shape": list(layer.shape),
                    "reduction": layer.reduction,
                }
                for layer in self.layers.values()
            ],
        }


@words_of_python()
def extract(
    model: Any,
    stimuli: Stimuli | str | Path,
    out: str | Path,
    *,
    layers: str | Sequence[str] = "auto",
    reduce: str = "auto",
    preprocess: str | None = None,
    device: str = "auto",
    skip_bad_stimuli: bool = False,
    overwrite: bool = False,
    engine: str = "local",
    ray_address: str | None = None,
    progress: bool = True,
) -> Activations:
    """Write the activations of images, one Parquet file a layer.

    Example:
        >>> import nrp_onnx as nrp
        >>> found = nrp.extract("resnet50.onnx", "photos", "activations")  # doctest: +SKIP
        >>> found["layer4"].array().shape  # doctest: +SKIP

    Args:
        model: path of an ONNX file; or what `convert` takes.
        stimuli: a folder of images, whose ids are their paths in it; a file of many images
            (``FILE.h5``, ``FILE.h5:KEY``, ``FILE.parquet``: see `nrp_onnx.image_sets`); or `Recordings`.
        out: the folder of the Parquet files, a path or a URI such as ``s3://bucket/folder``. An
            extraction that was killed goes on there.
        progress: show bars on stderr.

    The other arguments are those of `ExtractOptions`.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options = ExtractOptions(
        layers=layers if isinstance(layers, str) else tuple(layers),
        reduce=reduce,
        preprocess=preprocess,
        device=device,
        skip_bad_stimuli=skip_bad_stimuli,
        overwrite=overwrite,
        engine=engine,
        ray_address=ray_address,
    )
    notes = Notes()
    with shown_progress(progress), _backbone_file(model, preprocess, notes) as path:
        return extract_with(path, stimuli, out, options, notes)


def extract_with(
    model: str | Path,
    stimuli: Stimuli | str | Path,
    out: str | Path,
    options: ExtractOptions,
    notes: Notes | None = None,
) -> Activations:
    """`extract` with its options as one object, as the command line has them."""
    notes = notes or Notes()
    folder = folder_of(out)
    engine = open_engine(options.engine, options.ray_address)
    if isinstance(stimuli, str | Path):
        stimuli = open_stimuli(Path(stimuli))
    backbone = load_backbone(Path(model))
    preprocessing = choose_preprocessing(backbone, options.preprocess, notes)
    n_stimuli = len(stimuli.stimulus_ids)
    features = choose_features(backbone, options.layers, options.reduce, n_stimuli, notes)
    done = extract_activations(
        backbone,
        preprocessing,
        features,
        stimuli,
        folder,
        options.device,
        notes,
        skip_bad_stimuli=options.skip_bad_stimuli,
        overwrite=options.overwrite,
        engine=engine,
    )
    skipped = set(done.skipped)
    ids = tuple(name for name in stimuli.stimulus_ids if name not in skipped)
    extracted = {
        feature.layer.name: ExtractedLayer(
            name=feature.layer.name,
            path=path,
            shape=feature.shape,
            reduction=str(feature.reduction),
            stimulus_ids=ids,
            stored=stored,
        )
        for feature, path, stored in zip(done.features, done.paths, done.layers(ids), strict=True)
    }
    return Activations(str(folder), done.provider, extracted, ids, list(done.skipped))


@words_of_python()
def open_run(folder: str | Path) -> Run:
    """Open the folder of a finished run.

    Example:
        >>> import nrp_onnx as nrp
        >>> nrp.open_run("runs/a").nrp_error  # doctest: +SKIP

    Raises:
        RunError: if it holds no finished run.
    """
    finished = open_finished_run(folder)
    return Run(finished.folder, finished.result)


@words_of_python()
def open_recordings(name_or_folder: str | Path | None = None) -> Recordings:
    """Open recordings.

    Args:
        name_or_folder: a recordings folder; a name of the registry, whose recordings are downloaded
            once; ``simulated`` or ``simulated:N``; None: ``simulated``.

    Raises:
        RecordingsError, OptionError: if there are none of that name, or they cannot be used.
    """
    return open_named(name_or_folder, Notes())


@words_of_python()
def compare(runs: Sequence[Run | str | Path], seed: int = 0) -> Comparison:
    """Compare runs on the same recordings, image by image and site by site.

    Example:
        >>> import nrp_onnx as nrp
        >>> nrp.compare(["runs/a", "runs/b"]).pairs[0].ci95  # doctest: +SKIP

    Args:
        runs: two or more, or their folders.
        seed: of the bootstrap.

    Raises:
        OptionError: for fewer than two.
        RunError: if one cannot be read, or they were scored on different recordings.
    """
    opened = [run if isinstance(run, FinishedRun) else open_run(run) for run in runs]
    return compare_runs(opened, seed)


@contextmanager
def _backbone_file(model: Any, preprocess: str | None, notes: Notes) -> Iterator[Path]:
    """The ONNX file of a model; one that is made from an object is gone after the block.

    Raises:
        ModelError: if the model is neither a path nor an object that can be converted.
    """
    if isinstance(model, str | Path):
        yield Path(model)
        return
    # Converters are plug-ins: core code reaches them by name only.
    conversion = importlib.import_module("nrp_converters.convert")
    if not conversion.is_model(model):
        raise ModelError(
            "this is no model",
            expected="the path of an ONNX file, a torch.nn.Module or a keras.Model",
            found=type(model).__name__,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{type(model).__name__}.onnx"
        conversion.convert(model, preprocessing=preprocess, notes=notes).save(path)
        yield path
