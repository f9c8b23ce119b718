"""Memory of full activations: by the number of images and the block, not by the features."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.activations.layer_writer import LayerWriter
from nrp_onnx.predictor.image_products import FEATURES_A_BLOCK

pytestmark = pytest.mark.slow

N_IMAGES, N_FEATURES, UNITS = 200, 200_000, 4

#: VmHWM is the peak of this process alone: what its parent once held is forgotten by exec.
CODE = """
import json, sys
from pathlib import Path
import numpy as np
from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.predictor.directions import fit_basis
from nrp_onnx.predictor.image_products import read_span

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

def run(name, n):
    layer = StoredLayer(folder / name, tuple(map(str, range(n))))
    basis = fit_basis(read_span(layer), np.arange(n - 20))
    basis.fold(np.ones((int(sys.argv[3]), basis.n_directions)), layer)

folder, n = Path(sys.argv[1]), int(sys.argv[2])
run("small.parquet", n)  # libraries take memory of their own once
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
run("large.parquet", n)
print(json.dumps(status("VmHWM") - before))
"""


def test_memory_of_a_wide_layer_is_bounded_by_images_and_block(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a process's memory")
    rng = np.random.default_rng(0)
    for name, n_features in (("small", FEATURES_A_BLOCK + 1), ("large", N_FEATURES)):
        writer = LayerWriter(tmp_path / f"{name}.parquet", n_features, {})
        for start in range(0, N_IMAGES, 10):
            ids = [str(i) for i in range(start, start + 10)]
            writer.write(ids, rng.standard_normal((10, n_features), dtype=np.float32))
        writer.close()
    run = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path, str(N_IMAGES), str(UNITS)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    peak = json.loads(run.stdout)
    of_span = 24 * N_IMAGES**2 + 16 * N_IMAGES * FEATURES_A_BLOCK
    a_group = 2**22
    folded = 8 * (UNITS + 1) * N_FEATURES
    assert peak < of_span + 16 * a_group + folded + 2**24
    # The bound says something: the activations alone are larger.
    assert (of_span + 16 * a_group + folded + 2**24) < 4 * N_IMAGES * N_FEATURES
