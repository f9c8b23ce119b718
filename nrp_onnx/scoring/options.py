"""What a user can choose about a score or an extraction; the defaults are those of the command line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExtractOptions:
    """What a user can choose about an extraction.

    Attributes:
        layers: ``auto``, or names: separated by commas, or as a tuple.
        reduce: ``auto``, ``none``, ``avgpool:K``, ``mean``, ``cls``, ``sketch:D``, ``pca:K``, or rules a
            layer, such as ``layer4*=avgpool:2,fc=none``.
        preprocess: ``imagenet``, ``tf``, ``caffe``, ``raw`` or a JSON file; None: the model's own.
        device: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        skip_bad_stimuli: leave out images that do not open, instead of failing.
        overwrite: take the place of other activations in the folder.
        engine: ``local``, or ``ray``: parts as tasks of a cluster.
        ray_address: of the cluster, host:port.
    """

    layers: str | tuple[str, ...] = "auto"
    reduce: str = "auto"
    preprocess: str | None = None
    device: str = "auto"
    skip_bad_stimuli: bool = False
    overwrite: bool = False
    engine: str = "local"
    ray_address: str | None = None


@dataclass(frozen=True)
class ScoreOptions:
    """What a user can choose about a score.

    Attributes:
        layers, reduce, preprocess, device, skip_bad_stimuli, engine, ray_address: see
            `ExtractOptions`.
        visual_degrees: of the visual field that the model is to see; None: those that the images
            filled.
        regions: only these; empty: all.
        normalise: ``zscore`` or ``none``; None: ``none`` if the rates are normalised already.
        search: ``default``, ``quick``, ``paper``, ``thorough``, or a YAML or JSON file.
        protocol: ``k-fold``; ``paper``: a single fifth of the images is held out; ``split``: a fixed
            split of the recordings; None: ``split`` where they have one, else ``k-fold``.
        folds: outer folds over the images, for k-fold; None: 5.
        split: the name of the fixed split; None: ``default``, or the only one.
        seed: of folds, weights and bootstrap.
        seeds: search and train so often on the same folds.
        overwrite: replace another run, and other activations; what fits is kept.
        report: write report.html.
        all_images: leave a second set of models, ``*_all.onnx``, that is fitted to all images by the same
            search: to predict new images with, not to audit the score.
        memory: what fits may take, such as ``4GB``, which is the default. Where inner products of all
            images do not fit, or images are more than 4,000, fits are on features, as many as fit.
        activations: the folder of the activations, or its URI; None: one in the output folder. Models
            that are scored one after the other can share one: what is the same in the next is not
            computed again.
        replace_activations: replace other activations in that folder, but no run.
    """

    layers: str | tuple[str, ...] = "auto"
    reduce: str = "auto"
    preprocess: str | None = None
    visual_degrees: float | None = None
    regions: tuple[str, ...] = ()
    normalise: str | None = None
    search: str = "default"
    protocol: str | None = None
    folds: int | None = None
    split: str | None = None
    seed: int = 0
    seeds: int = 1
    device: str = "auto"
    skip_bad_stimuli: bool = False
    overwrite: bool = False
    report: bool = True
    all_images: bool = False
    memory: str | None = None
    activations: Path | str | None = None
    replace_activations: bool = False
    engine: str = "local"
    ray_address: str | None = None
