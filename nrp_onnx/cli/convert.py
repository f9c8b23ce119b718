"""The commands convert and prune."""

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nrp_onnx.cli.options import AsJson, Model
from nrp_onnx.errors import OptionError

if TYPE_CHECKING:
    from nrp_onnx.activations.classes import Photograph
    from nrp_onnx.notes import Notes


def convert_command(
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="The ONNX file to write; with --all-paper, the folder."),
    ],
    spec: Annotated[
        str | None,
        typer.Argument(
            help="torch:file.py:factory, torch:package.module:factory, torchvision:NAME, timm:NAME, "
            "hf:NAME, keras:NAME, keras:FILE.keras, keras:FILE.h5, keras:FILE.keras#LAYER, "
            "saved_model:DIR, graph_def:FILE.pb, tfjs:DIR, tflite:FILE, "
            "jax:package.module:factory, onnx:FILE or zoo:AlexNet."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="none (random, from the seed), a name the source knows, or a file."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="imagenet, tf, caffe, raw or a JSON file. [default: the source's own]"),
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH in pixels. [default: the source's own]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random weights.")] = 0,
    signature: Annotated[
        str | None, typer.Option(help="Of a SavedModel. [default: serving_default]")
    ] = None,
    allow_mismatch: Annotated[
        bool, typer.Option(help="Keep a model that differs from its source.")
    ] = False,
    all_paper: Annotated[
        bool,
        typer.Option(
            "--all-paper", help="Make the paper's eight networks; those already there are kept."
        ),
    ] = False,
    photo: Annotated[
        list[Path] | None,
        typer.Option(
            help="A photograph whose most likely classes are shown; can be given more than once."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Names of the classes for --photo: a text file with one a line, or JSON."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a model of any framework into an ONNX backbone with its layers exposed.

    Example: nrp-onnx convert torch:my_models.py:make_network -o network.onnx --preprocess tf
    """
    from nrp_onnx.backbone.preprocessing import read_preprocessing
    from nrp_onnx.notes import Notes

    if (spec is None) != all_paper:
        raise OptionError(
            "it is not clear what to convert",
            where="convert",
            expected="either a SPEC or --all-paper",
            found="neither" if spec is None else "both",
        )
    photographs = photo or []
    names = _labels_of(photographs, labels, all_paper)
    # Converters are plug-ins: core code reaches them by name only.
    parity = importlib.import_module("nrp_converters.parity")
    request = importlib.import_module("nrp_converters.request").Request(
        weights=weights,
        preprocessing=None if preprocess is None else read_preprocessing(preprocess),
        input_size=None if input_size is None else _height_width(input_size),
        seed=seed,
        signature=signature,
        notes=Notes(),
    )
    if all_paper:
        paper = importlib.import_module("nrp_converters.paper")
        paper.convert_paper_networks(out, request, allow_mismatch=allow_mismatch)
        return
    model = importlib.import_module("nrp_converters.specs").convert_spec(spec, request)
    proof = parity.with_parity(model, allow_mismatch=allow_mismatch)
    if not as_json:
        print(proof.summary())
    model.save(out)
    if not as_json:
        print(f"{out}: {len(model.layers)} layers; list them with: nrp-onnx layers {out}")
    seen = _classes(out, photographs, names, request.notes) if photographs else []
    if as_json:
        content = {
            "model": str(out),
            "layers": [layer.name for layer in model.layers],
            "parity": json.loads(proof.to_json()),
            "photographs": [one.to_json() for one in seen],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
    elif seen:
        from nrp_onnx.report.terminal import classes_table, print_table

        print_table(classes_table(seen))


def _labels_of(photographs: list[Path], labels: Path | None, all_paper: bool) -> list[str] | None:
    """The names of the classes; wrong options and files are refused before the conversion."""
    if photographs and all_paper:
        raise OptionError("--photo goes with one SPEC", where="--photo", found="--all-paper")
    if labels is not None and not photographs:
        raise OptionError("there is nothing to label", where="--labels", expected="--photo FILE")
    if not photographs:
        return None
    from nrp_onnx.activations.classes import read_labels
    from nrp_onnx.decoding import decode_image

    for path in photographs:
        decode_image(path)
    return None if labels is None else read_labels(labels)


def _classes(
    out: Path, photographs: list[Path], names: list[str] | None, notes: "Notes"
) -> "list[Photograph]":
    """What the model that was written sees, with the preprocessing that is in it."""
    from nrp_onnx.activations.classes import top_classes
    from nrp_onnx.backbone.model import load_backbone
    from nrp_onnx.scoring.choices import choose_preprocessing

    backbone = load_backbone(out)
    preprocessing = choose_preprocessing(backbone, None, notes)
    return top_classes(backbone, preprocessing, photographs, names, notes)


def _height_width(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    width = width or height
    if not (height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0):
        raise OptionError(
            "this is no image size",
            where="--input-size",
            expected="HEIGHTxWIDTH in pixels, such as 224x224",
            found=repr(text),
        )
    return int(height), int(width)


def prune_command(
    model: Model,
    sparsity: Annotated[
        float, typer.Option(help="The share of the weights to be zero, from 0 to 1.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The ONNX file to write.")],
    scope: Annotated[
        str, typer.Option(help="global: rank all weights together; layer: those of each layer.")
    ] = "global",
    random: Annotated[
        bool, typer.Option("--random", help="Drop random weights, as a control.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of --random.")] = 0,
) -> None:
    """Set the weights of least magnitude to zero: kernels and matrices, no biases, no normalisation.

    Example: nrp-onnx prune resnet50.onnx --sparsity 0.5 -o resnet50_half.onnx
    """
    from nrp_onnx.backbone.pruning import prune_model

    done = prune_model(model, out, sparsity, scope, seed if random else None)
    print(
        f"{out}: {done.sparsity:.4f} of its {done.n_weights:,} weights are zero ({done.n_zero:,})"
    )
