"""What is chosen for the user where an option is left open; each choice is said and recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nrp_onnx.backbone.choose_layers import select_layers
from nrp_onnx.backbone.feature_graph import Feature, with_known_shapes
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, read_preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.backbone.reductions import choose_reductions
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.recordings.fixed_splits import DEFAULT
from nrp_onnx.recordings.recordings import check_degrees
from nrp_onnx.scoring.splits import Fold, fixed_split, held_out_split, outer_folds

PROTOCOLS = ("k-fold", "paper", "split")
#: Of k-fold, where their number is left open.
FOLDS = 5
#: A head needs images to train and to validate on; a correlation needs three to be tested on.
_FEWEST = {"train": 8, "test": 3}


def choose_preprocessing(backbone: Backbone, choice: str | None, notes: Notes) -> Preprocessing:
    """The user's preprocessing, else the model's own, else ``imagenet``; fitted to the input.

    Raises:
        OptionError: if it does not give what the model takes.
    """
    where: object = "--preprocess"
    if choice is not None:
        spec = read_preprocessing(choice)
    elif backbone.preprocessing is not None:
        spec, where = backbone.preprocessing, f"{backbone.path}, metadata"
    else:
        spec = PRESETS["imagenet"]
        notes.say(
            "the model does not say how its images are preprocessed: taking imagenet (RGB 0-1, "
            "ImageNet mean and std); set it with --preprocess imagenet|tf|caffe|raw|FILE.json"
        )
    given = backbone.input
    spec = spec.for_input(given.height, given.width, given.layout, given.dtype, given.channels)
    check_fits(spec, given.height, given.width, given.layout, given.dtype, where, given.channels)
    if spec.channel_order == "L":
        notes.say(
            "the model takes one channel: it gets luminance (ITU-R 601: 0.299 R + 0.587 G + 0.114 B)"
        )
    return spec


def choose_visual_degrees(
    choice: float | None, recordings: Recordings, spec: Preprocessing, notes: Notes
) -> Preprocessing:
    """How much of the model's input an image fills: ``spec`` with the ratio that ``choice`` means.

    Args:
        choice: degrees of the visual field that the model is to see; None: as many as ``spec`` says,
            which are those that the images filled unless it has another ratio.

    Raises:
        OptionError: if these are no degrees, or those of the recordings are not known.
    """
    check_degrees(choice)
    shown = recordings.visual_degrees
    if choice is not None and shown is None:
        raise OptionError(
            "the recordings do not say how large their images were shown",
            where="--visual-degrees",
            expected="visual_degrees in their recordings.json",
            found=choice,
            fix="Add it there, or import them again with --visual-degrees.",
        )
    if shown is None:
        return spec
    if choice is not None:
        spec = replace(spec, visual_degrees_ratio=choice / shown)
    seen = shown * spec.visual_degrees_ratio
    if spec.visual_degrees_ratio > 1:
        how = f"images of {shown:g} degrees are shown in the middle of a grey field of {seen:g}"
    elif spec.visual_degrees_ratio < 1:
        how = f"of images of {shown:g} degrees the middle {seen:g} are shown"
    else:
        how = f"the model sees the {shown:g} degrees that the images filled"
    notes.say(f"--visual-degrees {seen:g}: {how}")
    return spec


def choose_features(
    backbone: Backbone,
    layer_choice: str | Sequence[str],
    reduce_choice: str,
    n_images: int,
    notes: Notes,
) -> list[Feature]:
    """The layers and their reductions.

    Raises:
        OptionError: for a layer or a reduction that does not exist.
    """
    layers = with_known_shapes(backbone, select_layers(backbone, layer_choice, notes))
    if layer_choice == "auto":
        notes.say(f"--layers auto: {', '.join(layer.name for layer in layers)}")
    reductions = choose_reductions(reduce_choice, layers, n_images, backbone.path)
    features = [Feature(layer, r) for layer, r in zip(layers, reductions, strict=True)]
    kinds = ", ".join(dict.fromkeys(map(str, reductions)))
    total = sum(feature.n_features for feature in features) * 4
    notes.say(
        f"--reduce {reduce_choice}: {kinds}, {total:,} bytes an image, "
        f"{total * n_images / 2**20:,.0f} MiB for {n_images:,} images"
    )
    return features


def choose_normalisation(choice: str | None, recordings: Recordings, notes: Notes) -> str:
    """``zscore`` or ``none``; left open, ``none`` for rates that the recorder normalised.

    Raises:
        OptionError: for anything else.
    """
    if choice is None:
        choice = "none" if recordings.normalised else "zscore"
        why = "are" if recordings.normalised else "are not"
        notes.say(f"--normalise {choice}: the recorded rates {why} normalised already")
    if choice not in ("zscore", "none"):
        raise OptionError(
            "no such normalisation",
            where="--normalise",
            expected="zscore or none",
            found=repr(choice),
        )
    return choice


@dataclass(frozen=True)
class Splitting:
    """How images are held out.

    Attributes:
        protocol: ``k-fold``, ``paper`` or ``split``.
        n_folds: of ``k-fold``; 1 of the others.
        split: the name of the fixed split.
    """

    protocol: str
    n_folds: int = 1
    split: str | None = None

    def folds(self, recordings: Recordings, seed: int) -> list[Fold]:
        """The folds over the images.

        Raises:
            OptionError: if there are too few images.
        """
        if self.split is not None:
            return fixed_split(recordings, recordings.splits[self.split], seed)
        if self.protocol == "paper":
            return held_out_split(recordings, seed)
        return outer_folds(recordings, self.n_folds, seed)


def choose_splitting(
    protocol: str | None,
    n_folds: int | None,
    split: str | None,
    recordings: Recordings,
    notes: Notes,
) -> Splitting:
    """How images are held out: as asked, else a fixed split of the recordings, else five folds.

    Raises:
        OptionError: for a protocol or a split that does not exist, or options that contradict.
    """
    if protocol not in (None, *PROTOCOLS):
        raise OptionError(
            "no such protocol",
            where="--protocol",
            expected=", ".join(PROTOCOLS),
            found=repr(protocol),
        )
    if protocol is None:
        fixed = split is not None or (n_folds is None and recordings.splits)
        protocol = "split" if fixed else "k-fold"
    if split is not None and protocol != "split":
        raise OptionError(
            "a fixed split has no folds",
            where="--split",
            expected="--split alone, or --protocol k-fold without it",
            found=f"--protocol {protocol}",
        )
    if n_folds is not None and protocol != "k-fold":
        raise OptionError(
            "only k-fold has folds",
            where="--folds",
            expected="--folds alone, or --split or --protocol paper without it",
            found=f"--folds {n_folds} with --protocol {protocol}",
        )
    if protocol != "split":
        return Splitting(protocol, (n_folds or FOLDS) if protocol == "k-fold" else 1)
    name = _choose_split(split, recordings)
    chosen = recordings.splits[name]
    for part, ids in (("train", chosen.train), ("test", chosen.test)):
        if len(ids) < _FEWEST[part]:
            raise OptionError(
                "the split is too small to be scored",
                where=f"--split {name}",
                expected=f"{_FEWEST[part]} {part} stimuli or more",
                found=len(ids),
                fix="Take another split, or folds over all images with --folds 5.",
            )
    counts = {"train": chosen.train, "test": chosen.test, "are out of distribution": chosen.ood}
    counted = ", ".join(f"{len(ids):,} {what}" for what, ids in counts.items() if ids)
    asked = "" if split else "; --folds 5 takes five folds over all images in its place"
    notes.say(f"--split {name}: of {recordings.n_stimuli:,} images {counted}{asked}")
    return Splitting(protocol, split=name)


def _choose_split(name: str | None, recordings: Recordings) -> str:
    known = recordings.splits
    if name is None and DEFAULT in known:
        return DEFAULT
    if name is None and len(known) == 1:
        return next(iter(known))
    if name is None or name not in known:
        raise OptionError(
            "the recordings have no such split" if name else "which split is not said",
            where="--split",
            expected=" or ".join(known)
            or "recordings with a column split in stimuli.csv, or splits.json",
            found=repr(name) if name else f"{len(known)} splits",
        )
    return name
