"""What is chosen for the user where an option is left open; each choice is said and recorded."""

from collections.abc import Sequence
from dataclasses import replace

from nrp_onnx.backbone.choose_layers import select_layers
from nrp_onnx.backbone.feature_graph import Feature, with_known_shapes
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, read_preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.backbone.reductions import choose_reductions
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.recordings.recordings import check_degrees
from nrp_onnx.scoring.splits import Fold, held_out_split, outer_folds


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
    layers = with_known_shapes(backbone, select_layers(backbone, layer_choice))
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


def choose_folds(protocol: str, recordings: Recordings, n_folds: int, seed: int) -> list[Fold]:
    """The folds of a protocol: ``k-fold``, or ``paper``, a single held-out split.

    Raises:
        OptionError: for another protocol, or too few images.
    """
    if protocol == "k-fold":
        return outer_folds(recordings, n_folds, seed)
    if protocol == "paper":
        return held_out_split(recordings, seed)
    raise OptionError(
        "no such protocol", where="--protocol", expected="k-fold or paper", found=repr(protocol)
    )
