"""The layers models of TensorFlow.js: a configuration of Keras 2 and weights by the layers' names."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from nrp_converters.specs import quiet
from nrp_converters.tensorflow.graph import told
from nrp_converters.tensorflow.packages import keras
from nrp_converters.tensorflow.tfjs_weights import names_of
from nrp_onnx.errors import ModelError

_MODELS = {"Sequential": "Sequential", "Model": "Model", "Functional": "Model"}


def layers_model(topology: Mapping[str, Any], weights: dict[str, np.ndarray], where: str) -> Any:
    """The Keras model of a configuration, with its weights.

    Args:
        topology: with ``class_name`` and ``config``, alone or under ``model_config``.
        weights: by names such as ``conv/kernel``, nested ones ``outer/conv/kernel``.

    Raises:
        ModelError: if Keras does not know the configuration, it holds code, or the weights are not
            those of its layers.
    """
    config = topology.get("model_config", topology)
    kind = config.get("class_name") if isinstance(config, dict) else None
    if kind not in _MODELS or "config" not in config:
        raise ModelError(
            "its topology is no graph and no Keras model",
            where=where,
            expected=f"node, or class_name of {', '.join(_MODELS)}",
            found=kind or names_of(list(topology)),
        )
    _refuse_code(config, where)
    try:
        with quiet():
            model = getattr(keras, _MODELS[kind]).from_config(config["config"])
            if not model.built:
                raise ValueError("it does not say what it takes")
    except Exception as error:  # Keras raises ValueError, TypeError, KeyError and others
        raise ModelError("Keras cannot build the model", where=where, found=told(error)) from error
    _set_weights(model, weights, where)
    return model


def _refuse_code(config: Any, where: str) -> None:
    """Refuse what Keras would run or import while it builds a model."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            module = str(part.get("module") or "keras")
            name = str(part.get("class_name"))
            if module.partition(".")[0] != "keras" or name in ("Lambda", "__lambda__", "function"):
                raise ModelError(
                    "the file holds code of its own, which is not run",
                    where=where,
                    expected="a model of Keras's own layers",
                    found=name if module == "keras" else f"{module}.{name}",
                )
            waiting += part.values()


def _set_weights(model: Any, weights: dict[str, np.ndarray], where: str) -> None:
    """Give each layer the weights of its name; all must be there, and none be left."""
    groups: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, value in weights.items():
        path, _, own = name.rpartition("/")
        groups[path][own] = value
    for path, layer in _layers(model):
        if not layer.weights:
            continue
        found = [g for g in groups if g == path] or [
            g for g in groups if g.rpartition("/")[2] == layer.name
        ]
        given = groups.pop(found[0]) if len(found) == 1 else {}
        values = _in_order(given, [variable.name for variable in layer.weights])
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if [value.shape for value in values] != shapes:
            raise ModelError(
                f"the weights of the layer {path} do not fit it",
                where=where,
                expected=f"shapes {shapes}",
                found=", ".join(f"{k} {v.shape}" for k, v in given.items()) or "none of its name",
            )
        layer.set_weights(values)
    if groups:
        raise ModelError(
            "its manifest has weights of layers that the model lacks",
            where=where,
            expected="weights of its layers",
            found=names_of(list(groups)),
        )


def _in_order(given: dict[str, np.ndarray], names: list[str]) -> list[np.ndarray]:
    """By name where the names are Keras's of today, else in the order of the file."""
    return [given[name] for name in names] if set(names) == set(given) else list(given.values())


def _layers(model: Any, outer: str = "") -> list[tuple[str, Any]]:
    """Layers that are no models, with the names of the models around them."""
    found: list[tuple[str, Any]] = []
    for layer in model.layers:
        path = f"{outer}{layer.name}"
        if isinstance(layer, keras.Model):
            found += _layers(layer, f"{path}/")
        else:
            found.append((path, layer))
    return found
