"""What a command imports: help and errors come at once, and predicting needs no PyTorch."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from nrp_onnx.export.predict import SITES_KEY, UNITS_KEY

#: Each takes a tenth of a second or more to import.
HEAVY = (
    *("matplotlib", "numpy", "onnx", "onnx_ir", "onnxruntime", "pandas", "PIL", "pyarrow", "scipy"),
    *("sklearn", "torch"),
)


def imported(arguments: Iterable[object], cwd: Path) -> tuple[str, int, set[str]]:
    """What a command prints, its exit code, and the packages that its process has imported."""
    code = (
        "import json, sys\n"
        "from nrp_onnx.cli.app import main\n"
        "try: main()\n"
        "finally: print('\\n' + json.dumps(list({name.split('.')[0] for name in sys.modules})))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=120,
    )  # fmt: skip
    printed, packages = run.stdout.rstrip().rsplit("\n", 1)
    return printed + run.stderr, run.returncode, set(json.loads(packages))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--help"], 0, "recordings"),
        (["--version"], 0, "nrp-onnx 0."),
        (["score", "--help"], 0, "--recordings"),
        (["study", "table1", "--help"], 0, "--weights"),
        (["score", "model.onnx", "--recording", "x"], 2, "error: No such option: --recording"),
        (["scor", "model.onnx"], 2, "error: No such command 'scor'"),
        (["score", "missing.onnx"], 2, "error: missing.onnx: no such model file"),
        (["extract", "missing.onnx", "-o", "x"], 2, "error: missing.onnx: no such model file"),
        (["predict", "missing.onnx", "x.png"], 2, "error: missing.onnx: no such model file"),
        (["layers", "missing.onnx"], 2, "error: missing.onnx: no such model file"),
    ],
)
def test_help_and_errors_import_nothing_heavy(
    arguments: list[str], code: int, says: str, tmp_path: Path
) -> None:
    printed, exit_code, packages = imported(arguments, tmp_path)
    assert exit_code == code, printed
    assert says in printed
    assert packages.isdisjoint(HEAVY), packages & set(HEAVY)


def test_predict_imports_no_pytorch(tmp_path: Path) -> None:
    """With a predictor of one site, whose rate is the mean of the image."""
    images = ir.Value(
        name="images", shape=ir.Shape(["batch", "h", "w", 3]), type=ir.TensorType(ir.DataType.UINT8)
    )
    numbers = ir.node("Cast", [images], {"to": int(ir.DataType.FLOAT)})
    axes = ir.Value(name="axes", const_value=ir.tensor([1, 2, 3], ir.DataType.INT64))
    flat = ir.node("ReduceMean", [numbers.outputs[0], axes], {"keepdims": 0})
    shape = ir.Value(name="shape", const_value=ir.tensor([-1, 1], ir.DataType.INT64))
    rates = ir.node("Reshape", [flat.outputs[0], shape])
    rates.outputs[0].name = "rates"
    rates.outputs[0].shape = ir.Shape(["batch", 1])
    rates.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [images], rates.outputs, nodes=[numbers, flat, rates], initializers=[axes, shape],
        opset_imports={"": 18}, name="mean",
    )  # fmt: skip
    model = ir.Model(graph, ir_version=8)
    model.metadata_props.update({SITES_KEY: '["a"]', UNITS_KEY: "spikes"})
    ir.save(model, tmp_path / "predictor.onnx")
    Image.fromarray(np.full((4, 5, 3), 7, np.uint8)).save(tmp_path / "grey.png")
    printed, code, packages = imported(["predict", "predictor.onnx", "grey.png"], tmp_path)
    assert code == 0, printed
    assert "grey.png,7" in printed
    assert packages.isdisjoint({"torch", "sklearn", "scipy", "matplotlib"})
