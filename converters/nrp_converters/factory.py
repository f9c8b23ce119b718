"""Models made by a user's own function: package.module:factory, or file.py:factory."""

import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from nrp_onnx.errors import ModelError, OptionError

#: A user's file is a module of a name that no other has, so that json.py does not replace json.
_PREFIX = "nrp_onnx_file_"
#: Modules of the last user's folder; the next user's file may have others of these names beside it.
_siblings: set[str] = set()


def make_model(reference: str, kind: str) -> Any:
    """Import a module and call a function of it without arguments.

    While both run, modules beside the file, or in the working folder, can be imported. Modules of
    the standard library come before them, installed packages after them.

    Args:
        reference: ``package.module:factory`` or ``path/file.py:factory``.
        kind: the part of SPEC before the first colon, for errors.

    Raises:
        OptionError: if the reference imports nothing.
        ModelError: if the file or the factory raises.
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
    is_file = home.endswith(".py")
    with _importable(Path(home).resolve().parent if is_file else Path.cwd()):
        module = _module_of_file(Path(home), spec) if is_file else _module(home, spec)
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


def class_name(model: object) -> str:
    """The full name of a model's class, as it would be if its file were imported as usual."""
    kind = type(model)
    return f"{kind.__module__.removeprefix(_PREFIX)}.{kind.__qualname__}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Find modules in a folder, between the standard library and installed packages."""
    for name in list(sys.modules):
        if name.partition(".")[0] in _siblings:
            del sys.modules[name]
    _siblings.clear()
    before, entry = set(sys.modules), str(folder)
    if entry in sys.path:
        yield
        return
    sys.path.insert(_behind_the_standard_library(), entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's own code may take it off
            sys.path.remove(entry)
        for name in set(sys.modules) - before:
            if folder in Path(getattr(sys.modules[name], "__file__", None) or "/").parents[:2]:
                _siblings.update({name.partition(".")[0]} - before)


def _behind_the_standard_library() -> int:
    paths = sysconfig.get_paths()
    own = (paths["stdlib"], paths["platstdlib"], str(Path(paths["platstdlib"]) / "lib-dynload"))
    return max((place + 1 for place, path in enumerate(sys.path) if path in own), default=0)


def _module_of_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise OptionError("no such file", where=spec, expected="a Python file", found=str(path))
    name = _PREFIX + path.stem
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and the like look their module up
    try:
        found.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        del sys.modules[name]
        raise ModelError("the file cannot be imported", where=spec, found=_told(error)) from error
    return module


def _module(name: str, spec: str) -> ModuleType:
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
