"""PyTorch models that come wrapped: the module inside, or one line that names the wrapping.

Wrappers that compute what their module computes are taken off: its layers keep the names that they
have without them. A program of ``torch.export`` is turned back into modules.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.export.unflatten import InterpreterModule
from torch.nn.modules.batchnorm import _BatchNorm

from nrp_converters.specs import quiet
from nrp_onnx.errors import ModelError

#: The part of a path that torch.compile puts between a module and its submodules.
COMPILED_PART = "_orig_mod"
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def plain_module(model: Any, where: str) -> Any:
    """The module inside ``DataParallel``, ``torch.compile`` and programs of ``torch.export``.

    Returns:
        An ``nn.Module``; what is none of these comes back as it is.

    Raises:
        ModelError: for a TorchScript module, and for a program whose batch size is fixed or whose
            submodules are gone.
    """
    while isinstance(model, _PARALLEL) or is_compiled(model):
        model = getattr(model, COMPILED_PART if is_compiled(model) else "module")
    for path, part in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(part, torch.jit.ScriptModule):
            raise _torch_script(part, f"{where}, submodule {path}" if path else where)
    if isinstance(model, torch.export.ExportedProgram):
        return _modules_of(model, where)
    if any(kind.__module__ == "torch.export._unlift" for kind in type(model).__mro__):
        raise ModelError(
            "the module calls no submodules, so it has no layers",
            where=where,
            expected="an nn.Module whose forward calls its submodules",
            found="the GraphModule of single operations that ExportedProgram.module() gives",
            fix="Give the ExportedProgram itself, exported with an open batch axis, or the "
            "nn.Module that it was made from.",
        )
    return model


def _modules_of(program: torch.export.ExportedProgram, where: str) -> nn.Module:
    """The program as modules under the paths of those that it was exported from."""
    names = set(program.graph_signature.user_inputs)
    given = [node.meta["val"] for node in program.graph.nodes if node.name in names]
    image = given[0] if given else None
    batch = image.shape[0] if isinstance(image, Tensor) and image.ndim > 0 else None
    if isinstance(batch, int):
        raise ModelError(
            "the program was exported for a fixed number of images",
            where=where,
            expected="an open batch axis",
            found=f"an ExportedProgram for {batch}",
            fix="Export it from 2 images with dynamic_shapes=({0: torch.export.Dim('batch')},).",
        )
    with quiet():
        return torch.export.unflatten(program)


def _torch_script(module: nn.Module, where: str) -> ModelError:
    traced = any(kind.__name__ == "TracedModule" for kind in type(module).__mro__)
    return ModelError(
        "a TorchScript module cannot be converted: torch.export does not trace it",
        where=where,
        expected="an nn.Module in Python",
        found=f"what torch.jit.{'trace' if traced else 'script'} made ({type(module).__name__})",
        fix="Give the nn.Module that it was made from.",
    )


def kind_of(module: nn.Module) -> str:
    """The name of a module's class; in a program of ``torch.export``, that of the original."""
    original = module.type_name() if isinstance(module, InterpreterModule) else None
    return original.rpartition(".")[2] if original else type(module).__name__


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` has wrapped the module."""
    return isinstance(module, OptimizedModule)


def path_of(path: str) -> str:
    """A submodule's path as it is without ``torch.compile``."""
    return ".".join(part for part in path.split(".") if part != COMPILED_PART)


def refuse_batch_statistics(path: str, module: nn.Module, where: str) -> None:
    """Refuse a batch norm that takes mean and variance of the batch in evaluation, too.

    Raises:
        ModelError: if this is one; it names the layer.
    """
    if (
        isinstance(module, _BatchNorm)
        and module.running_mean is None
        and module.running_var is None
    ):
        raise ModelError(
            "a batch norm without running statistics lets images see each other",
            where=f"{where}, layer {path}",
            expected="activations that do not depend on the other images of the batch",
            found=f"{type(module).__name__} with track_running_stats=False",
            fix="Give it running statistics, or replace it by GroupNorm or InstanceNorm.",
        )
