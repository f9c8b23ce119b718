"""Converts the paper's networks, one file each: ``nrp-onnx convert --all-paper``."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import onnx

from nrp_onnx.backbone.layer_table import PARITY_KEY, SOURCE_KEY
from nrp_onnx.converters.paper_networks import PAPER_NETWORKS, PaperNetwork
from nrp_onnx.converters.parity import with_parity
from nrp_onnx.converters.request import Request
from nrp_onnx.converters.specs import convert_spec
from nrp_onnx.errors import ModelError, NrpOnnxError

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
