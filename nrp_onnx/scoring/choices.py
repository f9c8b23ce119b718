"""What is chosen for the user where an option is left open; each choice is said and recorded."""

from nrp_onnx.backbone.feature_graph import Feature, with_known_shapes
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, read_preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.backbone.reductions import choose_reductions
from nrp_onnx.backbone.selection import select_layers
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings


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
    spec = spec.for_input(given.height, given.width, given.layout, given.dtype)
    check_fits(spec, given.height, given.width, given.layout, given.dtype, where)
    return spec


def choose_features(
    backbone: Backbone, layer_choice: str, reduce_choice: str, n_images: int, notes: Notes
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
