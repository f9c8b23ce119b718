"""Models made by a user's own function: package.module:factory, or file.py:factory."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from nrp_onnx.errors import ModelError, OptionError


def make_model(reference: str, kind: str) -> Any:
    """Import a module and call a function of it without arguments.

    Args:
        reference: ``package.module:factory`` or ``path/file.py:factory``.
        kind: the part of SPEC before the first colon, for errors.

    Raises:
        OptionError: if the reference imports nothing.
        ModelError: if the factory raises.
    """
    spec = f"{kind}:{reference}"
    home, colon, name = reference.rpartition(":")
    if not colon or not home or not name.isidentifier():
        raise OptionError(
            "this names no factory",
            where="SPEC",
            expected=f"{kind}:package.module:factory or {kind}:file.py:factory",
            found=repr(spec),
        )
    module = _module_of_file(Path(home), spec) if home.endswith(".py") else _module(home, spec)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise OptionError(
            f"{home} has no function {name}",
            where=spec,
            expected="a function without arguments that returns the model",
            found="nothing" if factory is None else type(factory).__name__,
        )
    try:
        return factory()
    except Exception as error:  # whatever the user's function raises
        raise ModelError(
            "the factory does not return a model", where=spec, found=_told(error)
        ) from error


def _module_of_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise OptionError("no such file", where=spec, expected="a Python file", found=str(path))
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module  # dataclasses and the like look their module up
    try:
        found.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        del sys.modules[path.stem]
        raise ModelError("the file cannot be imported", where=spec, found=_told(error)) from error
    return module


def _module(name: str, spec: str) -> ModuleType:
    # As `python -m` does; an installed command does not look where the user is.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except Exception as error:  # ImportError, or whatever the module raises
        raise OptionError(
            f"the module {name} cannot be imported",
            where=spec,
            expected="a module on the Python path, or in this folder",
            found=_told(error),
        ) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0] or 'no message'}"
