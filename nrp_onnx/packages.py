"""Packages that only an extra installs, imported when they are needed."""

import importlib
from typing import Any

from nrp_onnx.errors import OptionError

#: What to do without h5py, which reads BrainIO's assemblies, HDF5 and MATLAB v7.3.
HDF5_FIX = "Run: pip install 'nrp-onnx[hdf5]'."


def imported(package: str, fix: str) -> Any:
    """Import a package.

    Args:
        fix: what to install, as a sentence.

    Raises:
        OptionError: if that fails, for whatever reason.
    """
    try:
        return importlib.import_module(package)
    except Exception as error:  # a missing package, or a compiled one that does not fit
        reason = str(error).strip().partition("\n")[0] or "no message"
        raise OptionError(
            f"this needs the package {package}, which cannot be imported",
            found=f"{type(error).__name__}: {reason}",
            fix=fix,
        ) from error
