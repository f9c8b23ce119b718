"""The principal components of ``pca:K`` on disk, beside the activations that they give."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nrp_onnx.activations.store import StoredLayer, layer_path
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.principal_components import PrincipalComponents


def components_path(folder: Path, feature: Feature) -> Path:
    """Where the components of a layer are, under the folder of its activations."""
    return layer_path(folder / "components", feature.layer.name)


def component_names(k: int) -> tuple[str, ...]:
    """What stands in the place of the ids of stimuli."""
    return ("mean", *(f"component_{place:04d}" for place in range(k)))


def read_components(feature: Feature, folder: Path) -> Feature:
    """A feature of ``pca:K`` with the components that were fitted and stored in ``folder``."""
    names = component_names(feature.reduction.k)
    rows = StoredLayer(components_path(folder, feature), names).read(np.arange(len(names)))
    components = PrincipalComponents(rows[0], np.ascontiguousarray(rows[1:].T))
    return replace(feature, reduction=replace(feature.reduction, components=components))
