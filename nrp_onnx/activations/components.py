"""Fits the principal components that ``pca:K`` asks for, on a sample of the stimuli."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nrp_onnx.activations.compute import Request
from nrp_onnx.activations.images import Stimuli
from nrp_onnx.activations.layer_file import (
    STORE_VERSION,
    StoredLayer,
    component_names,
    components_path,
    fitting_facts,
    read_components,
)
from nrp_onnx.activations.layer_writer import LayerWriter
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.fingerprints import computation_digests
from nrp_onnx.backbone.reductions import PrincipalComponents, Reduction, fit_components
from nrp_onnx.decoding import RULES
from nrp_onnx.errors import OptionError
from nrp_onnx.files import sha256_of_json, whole_file
from nrp_onnx.image_sets import StoredImage

_SAMPLE = ".sample"
#: Images that are enough for few components; more components take twice as many images.
_LEAST = 256
_SEED = 0
#: The components become weights of the graph, which no message of protobuf over 2 GB can hold.
_MAXIMUM_BYTES = 2**30


@dataclass(frozen=True)
class _Sample:
    stimulus_ids: tuple[str, ...]
    stimulus_paths: tuple[Path | StoredImage, ...]
    stimuli_fingerprint: str


#: Gives the activations of a layer, of stimuli, by way of a folder.
Extract = Callable[[Request, Feature, Stimuli, Path], StoredLayer]


def fitted(
    request: Request, feature: Feature, stimuli: Stimuli, folder: Path, extract: Extract
) -> Feature:
    """A feature of ``pca:K`` with its components: fitted now, or read from ``folder``.

    Raises:
        OptionError: if there are too few images, or the layer is too large.
        OutputError: if the folder holds other components, which may not be overwritten.
    """
    k, full = feature.reduction.k, replace(feature, reduction=Reduction("none"))
    n_sample = min(len(stimuli.stimulus_ids), max(2 * k, _LEAST))
    where = f"--reduce pca:{k}, {feature.layer.name}"
    if 4 * k * full.n_features > _MAXIMUM_BYTES:
        raise OptionError(
            "these components are too large for a graph",
            where=where,
            expected=f"at most {_MAXIMUM_BYTES // (4 * full.n_features)} of {full.n_features:,} "
            "features",
            found=k,
            fix=f"Use sketch:{k}, or pool the layer.",
        )
    path = components_path(folder, feature)
    (computed,) = computation_digests(request.backbone, [feature.layer.tensor]).values()
    own = feature.fingerprint(computed, request.preprocessing)
    fingerprint = sha256_of_json([own, stimuli.stimuli_fingerprint, n_sample, _SEED, RULES])
    facts = {
        "store_version": STORE_VERSION,
        "layer": feature.layer.name,
        "shape": list(full.shape),
        "reduction": str(feature.reduction),
        "fingerprint": fingerprint,
        "seed": _SEED,
    }
    names = component_names(k)
    if fitting_facts(path, fingerprint, request.overwrite) is None:
        sample = extract(request, full, _sample(stimuli, n_sample), folder / _SAMPLE)
        components = _fit(sample, k, where)
        shutil.rmtree(folder / _SAMPLE)
        with whole_file(path) as part:
            writer = LayerWriter(part, full.n_features, facts)
            writer.write(names[:1], components.mean[None])
            for place, name in enumerate(names[1:]):
                writer.write([name], components.directions[:, place][None])
            writer.close()
    request.notes.say(
        f"--reduce pca:{k}: the components of {feature.layer.name} are fitted on {n_sample} images, "
        "some of which may be test images, without any response"
    )
    return read_components(feature, folder, fingerprint)


def _fit(sample: StoredLayer, k: int, where: str) -> PrincipalComponents:
    try:
        return fit_components(sample.read(np.arange(sample.shape[0])), k)
    except ValueError as error:
        raise OptionError(
            "too few components", where=where, expected=f"{k} or more", found=error
        ) from None


def _sample(stimuli: Stimuli, n_sample: int) -> _Sample:
    """Stimuli drawn at random, in their order; PCG64's own stream is kept by NumPy's versions."""
    draws = np.random.PCG64(_SEED).random_raw(len(stimuli.stimulus_ids))
    places = np.sort(np.argsort(draws, kind="stable")[:n_sample])
    return _Sample(
        tuple(stimuli.stimulus_ids[place] for place in places),
        tuple(stimuli.stimulus_paths[place] for place in places),
        sha256_of_json([stimuli.stimuli_fingerprint, places.tolist()]),
    )
