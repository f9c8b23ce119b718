"""Importers: one module a file format of recordings."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.recordings.importers.algonauts import import_algonauts
    from nrp_onnx.recordings.importers.arrays import import_arrays
    from nrp_onnx.recordings.importers.brainio import import_brainio
    from nrp_onnx.recordings.importers.importer import Importer, Parts
    from nrp_onnx.recordings.importers.writing import import_path

__all__ = [
    "Importer",
    "Parts",
    "import_algonauts",
    "import_arrays",
    "import_brainio",
    "import_path",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "algonauts": ["import_algonauts"],
        "arrays": ["import_arrays"],
        "brainio": ["import_brainio"],
        "importer": ["Importer", "Parts"],
        "writing": ["import_path"],
    },
)
