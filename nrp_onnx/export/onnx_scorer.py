"""The scorer as ONNX: images and what was recorded for them in, the NRP-error of each region out."""

import json
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.tape import Tape

from nrp_onnx.backbone.feature_graph import to_checked_proto
from nrp_onnx.export.onnx_head import RATES

RECORDED, NRP_ERROR, N_RECORDED = "recorded", "nrp_error", "n_recorded"
REGION_NAMES_KEY, SCORE_UNITS_KEY = "nrp_onnx.region_names", "nrp_onnx.score_units"


def scorer_model(
    predictor: onnx.ModelProto, regions: Sequence[str], scale: np.ndarray, units: str
) -> onnx.ModelProto:
    """Append the NRP-error to a predictor.

    The scorer takes the predictor's images and ``recorded``, float32 (batch, n_sites) in the
    recordings' units, NaN = missing. Beside ``rates`` it gives, for each region in the order of the
    metadata key ``nrp_onnx.region_names``, ``nrp_error``, the mean of |rate - recorded| / scale over
    all responses that are there (NaN where there is none), and ``n_recorded``, how many there are:
    the error of several batches is the mean of theirs weighted by it.

    Args:
        predictor: what `nrp_onnx.export.onnx_head.predictor_model` made.
        regions: of each site.
        scale: float array (n_sites,), from the recordings' units to those of the score.
        units: of the score.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(predictor)
    model = ir.from_proto(copy)
    graph = model.graph
    (rates,) = (value for value in graph.outputs if value.name == RATES)
    batch, n_sites = rates.shape  # type: ignore[misc]
    names = list(dict.fromkeys(regions))
    member = np.array([[region == name for name in names] for region in regions], np.float32)

    recorded = ir.Value(
        name=RECORDED, shape=ir.Shape([batch, n_sites]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    tape = Tape()

    def constant(array: np.ndarray) -> ir.Value:
        return tape.op("Constant", [], {"value": ir.tensor(array)})

    zero = constant(np.zeros((), np.float32))
    missing = tape.op("IsNaN", [recorded])
    error = tape.op("Abs", [tape.op("Sub", [rates, recorded])])
    error = tape.op("Div", [error, constant(scale.astype(np.float32))])
    error = tape.op("Where", [missing, zero, error])
    there = tape.op("Cast", [tape.op("Not", [missing])], {"to": ir.DataType.FLOAT})
    axis = constant(np.array([0]))
    of_region = constant(member)
    sums, counts = (
        tape.op("MatMul", [tape.op("ReduceSum", [x, axis], {"keepdims": 0}), of_region])
        for x in (error, there)
    )
    found = {NRP_ERROR: tape.op("Div", [sums, counts]), N_RECORDED: counts}
    for place, node in enumerate(tape.nodes):
        node.name = f"nrp/score_{place}"
        for output in node.outputs:
            output.name = f"nrp/score_value_{place}"
    graph.inputs.append(recorded)
    graph.extend(list(tape.nodes))
    for name, value in found.items():
        value.name = name
        value.shape = ir.Shape([len(names)])
        value.type = ir.TensorType(ir.DataType.FLOAT)
        graph.outputs.append(value)
    graph.name = "nrp_onnx_scorer"
    model.metadata_props[REGION_NAMES_KEY] = json.dumps(names)
    model.metadata_props[SCORE_UNITS_KEY] = units
    return to_checked_proto(model, "scorer")
