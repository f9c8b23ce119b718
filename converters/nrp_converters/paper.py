"""The eight networks of the paper, and their conversion."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from nrp_converters.parity import with_parity
from nrp_converters.request import Request
from nrp_converters.specs import convert_spec
from nrp_onnx.backbone.layers import PARITY_KEY, SOURCE_KEY
from nrp_onnx.errors import ModelError, NrpOnnxError

_APACHE, _MIT, _BSD = "Apache-2.0", "MIT", "BSD-3-Clause"


@dataclass(frozen=True)
class PaperNetwork:
    """One network of the paper.

    Attributes:
        name: the paper's; the file that is made is ``NAME.onnx``.
        spec: what ``nrp-onnx convert`` takes.
        n_parameters: with everything that training changes or tracks, as Keras counts them.
        n_parameters_in_paper: the number printed there, where it is another.
        top5, top1: the paper's shares of ImageNet's validation images.
        nrp_error: the paper's, mean over V4 and IT.
        input_size: (height, width) in pixels.
        preprocessing: the preset.
        licence: of the weights, as their publishers state it.
    """

    name: str
    spec: str
    n_parameters: int
    top5: float
    top1: float
    nrp_error: float
    input_size: tuple[int, int]
    preprocessing: str
    licence: str
    n_parameters_in_paper: int | None = None


#: In the order of the paper's table.
PAPER_NETWORKS: tuple[PaperNetwork, ...] = (
    PaperNetwork(
        "MobileNet", "keras:MobileNet", 4_253_864, 0.895, 0.704, 0.237, (224, 224), "tf", _APACHE
    ),
    PaperNetwork(
        "MobileNetV2",
        "keras:MobileNetV2",
        3_538_984,
        0.901,
        0.713,
        0.249,
        (224, 224),
        "tf",
        _APACHE,
        n_parameters_in_paper=3_638_984,  # a slip of one digit
    ),
    PaperNetwork(
        "NASNetMobile",
        "keras:NASNetMobile",
        5_326_716,
        0.919,
        0.744,
        0.247,
        (224, 224),
        "tf",
        _APACHE,
    ),
    PaperNetwork(
        "ResNet50", "keras:ResNet50", 25_636_712, 0.921, 0.749, 0.290, (224, 224), "caffe", _MIT
    ),
    PaperNetwork(
        "Xception", "keras:Xception", 22_910_480, 0.945, 0.790, 0.257, (299, 299), "tf", _MIT
    ),
    PaperNetwork(
        "DenseNet121",
        "keras:DenseNet121",
        8_062_504,
        0.923,
        0.750,
        0.249,
        (224, 224),
        "imagenet",
        _BSD,
    ),
    PaperNetwork(
        "DenseNet169",
        "keras:DenseNet169",
        14_307_880,
        0.932,
        0.762,
        0.249,
        (224, 224),
        "imagenet",
        _BSD,
    ),
    PaperNetwork(
        "AlexNet",
        "zoo:AlexNet",
        60_965_224,
        0.803,
        0.570,
        0.226,
        (227, 227),
        "caffe",
        "unrestricted (Caffe), BSD (ONNX model zoo)",
        n_parameters_in_paper=60_954_656,  # without its 10,568 biases
    ),
)


_print_now = partial(print, flush=True)


def convert_paper_networks(
    folder: Path,
    request: Request,
    *,
    allow_mismatch: bool = False,
    say: Callable[[str], None] = _print_now,
    networks: Sequence[PaperNetwork] = PAPER_NETWORKS,
) -> list[Path]:
    """Make ``NAME.onnx`` of each network; whole files of the same weights are left as they are.

    A network that fails does not keep the others from being made.

    Args:
        say: is told how each network comes out, in a line.

    Returns:
        The files, in the order of the networks.

    Raises:
        ModelError: at the end, naming the networks that failed and why.
    """
    failed: dict[str, str] = {}
    files = []
    for network in networks:
        path = folder / f"{network.name}.onnx"
        if is_made(path, request):
            say(f"{path}: already there and whole, left as it is")
            files.append(path)
            continue
        start = time.monotonic()
        try:
            say(f"{network.name}: {_convert(network, path, request, allow_mismatch)}")
        except NrpOnnxError as error:
            failed[network.name] = str(error)
        except OSError:  # a full disk stops the others, too
            raise
        except Exception as error:  # whatever a framework raises must not lose the other networks
            failed[network.name] = f"{type(error).__name__}: {error}"
        if network.name in failed:
            say(f"{network.name}: not converted: {failed[network.name]}")
        else:
            say(f"{path}: made in {time.monotonic() - start:.0f} s")
            files.append(path)
    if failed:
        reasons = "; ".join(dict.fromkeys(failed.values()))
        raise ModelError(
            f"{len(failed)} of {len(networks)} networks were not converted: {', '.join(failed)}",
            where=folder,
            found=reasons if len(failed) == 1 else f"first of all: {next(iter(failed.values()))}",
        )
    return files


def is_made(path: Path, request: Request) -> bool:
    """Whether a file is a converted and checked model with the weights that are asked for."""
    if not path.is_file():
        return False
    try:
        metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        source = json.loads(metadata[SOURCE_KEY])
    except Exception:  # damaged, or not ours: it is made again
        return False
    if PARITY_KEY not in metadata:
        return False
    if request.weights == "none":
        return bool(source.get("weights") == "none" and source.get("seed") == request.seed)
    return bool(source.get("weights") != "none")


def _convert(network: PaperNetwork, path: Path, request: Request, allow_mismatch: bool) -> str:
    model = convert_spec(network.spec, request)
    source = next(entry.value for entry in model.onnx.metadata_props if entry.key == SOURCE_KEY)
    found = json.loads(source).get("n_parameters")
    if found != network.n_parameters:
        raise ModelError(
            "this is not the network of the paper",
            where=network.spec,
            expected=f"{network.n_parameters:,} parameters",
            found=f"{found:,}" if isinstance(found, int) else found,
        )
    summary: str = with_parity(model, allow_mismatch=allow_mismatch).summary()
    model.save(path)
    return summary
