"""TensorFlow functions to ONNX with tf2onnx, layers kept from its optimisers.

A graph output for each layer makes tf2onnx slow (two minutes for 770 layers): its optimisers walk
the graph once for every output. So one node takes in all layers while they run, which keeps them
alive as well, and is taken out afterwards.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from nrp_converters.specs import quiet
from nrp_converters.tensorflow.packages import convert_to_constants, tf, tf2onnx
from nrp_onnx.errors import ModelError, NrpOnnxError

transposes = tf2onnx.optimizer.transpose_optimizer


class TransposesInSweeps(transposes.TransposeOptimizer):  # type: ignore[misc,name-defined]
    """Pushes all transposes a step, then all another; its parent starts from the first node again
    after each of thousands of steps."""

    def _optimize_at_current_graph_level(self, graph: Any) -> Any:
        self._g = graph
        self._force_stop: dict[str, int] = {}
        self.pre_optimize_action()
        changed = True
        while changed:
            changed = False
            for node in list(self.nodes):
                if graph.get_node_by_name(node.name) is not node:
                    continue  # an earlier step of this sweep has removed it
                if transposes.is_transpose(node) and self._handle_nhwc_tranpose(node):
                    changed = self.graph_been_opt = True
                elif transposes.is_useless_transpose(node):
                    self._remove_useless_tranpose(node)
                    changed = True
        self.merge_duplicated_transposes()
        self.post_optimize_action()
        return graph


def _optimizers() -> OrderedDict[str, Any]:
    known = dict(tf2onnx.optimizer._get_optimizers()) | {"optimize_transpose": TransposesInSweeps}
    # Constants first: the transposes would fold each constant reshape and then sort the whole graph.
    folding = known.pop("fold_constants")
    return OrderedDict(fold_constants=folding, **known)


OPTIMIZERS = _optimizers()


#: The last that tf2onnx writes, and the first that the preprocessing nodes can be joined to.
OPSET = 18
_KEEPER, _KEEPER_DOMAIN = "KeepLayers", "nrp_onnx.converters"
#: What one protobuf message can hold.
MAXIMUM_BYTES = 2**31 - 1


def frozen(function: Any) -> Any:
    """A concrete function with its variables as constants and its calls inlined."""
    with quiet():
        return convert_to_constants.convert_variables_to_constants_v2(
            function, lower_control_flow=False, aggressive_inlining=True
        )


def graph_to_onnx(
    function: Any, given: Any, tensors: Sequence[Any], where: str
) -> tuple[ir.Model, list[ir.Value]]:
    """A frozen function as ONNX.

    Args:
        function: from `frozen`.
        given: its input tensor.
        tensors: of its graph, to be kept; each may come more than once.
        where: the model, for errors.

    Returns:
        The model, without outputs, and its value for each of the tensors.

    Raises:
        ModelError: if it is over 2 GB or has operators that ONNX lacks.
    """
    names = list(dict.fromkeys(tensor.name for tensor in tensors))

    def parse() -> Any:
        definition = function.graph.as_graph_def(add_shapes=True)
        if definition.ByteSize() > MAXIMUM_BYTES:
            raise too_large(definition.ByteSize(), where)
        definition = tf2onnx.tf_loader.fix_freezing_errors_part2(definition)
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph):
            tf.import_graph_def(definition, name="")
            definition = tf2onnx.tf_loader.tf_optimize([given.name], names, definition)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(definition, name="")
            return tf2onnx.tfonnx.graphs_from_tf(graph, [given.name], list(names))

    model, values = to_onnx(parse, where)
    value_of = dict(zip(names, values, strict=True))
    return model, [value_of[tensor.name] for tensor in tensors]


def to_onnx(
    parse: Callable[[], tuple[Any, list[Any]]], where: str, tflite: bool = False
) -> tuple[ir.Model, list[ir.Value]]:
    """What tf2onnx has parsed, optimised, as ONNX without outputs, and the values of its outputs.

    Args:
        parse: makes tf2onnx's own graph, whose outputs are the layers, and the graphs inside it.
        where: the model, for errors.

    Raises:
        ModelError: if it has operators that ONNX lacks.
    """
    try:
        with quiet(), tf.device("/cpu:0"):
            graph, inner = parse()
            graph.make_node(
                _KEEPER,
                list(graph.outputs),
                outputs=["kept"],
                shapes=[[1]],
                dtypes=[onnx.TensorProto.FLOAT],
                domain=_KEEPER_DOMAIN,
            )
            graph.outputs[:] = ["kept"]
            tf2onnx.tf_loader.clear_functions()
            for part in (graph, *inner):
                part.set_config(None, OPSET, None)
            graph = tf2onnx.tfonnx.process_graphs(
                graph,
                inner,
                custom_op_handlers=None,
                inputs_as_nchw=[],
                outputs_as_nchw=[],
                continue_on_error=False,
                custom_rewriter=None,
                initialized_tables=None,
                tensors_to_rename=None,
                is_tflite=tflite,
            )
            graph = tf2onnx.optimizer.optimize_graph(
                graph, catch_errors=False, optimizers=OPTIMIZERS
            )
            proto = graph.make_model("")
    except NrpOnnxError:
        raise
    except Exception as error:  # tf2onnx lets through whatever its rewriters raise
        raise ModelError(
            "tf2onnx cannot express the model in ONNX", where=where, found=told(error)
        ) from error
    _refuse_unknown_operators(proto, where)
    del proto.graph.value_info[:]  # their shapes name unknown axes, and some are wrong
    model = ir.from_proto(proto)
    (keeper,) = (node for node in model.graph if node.op_type == _KEEPER)
    values = [value for value in keeper.inputs if value is not None]
    model.graph.outputs.clear()
    model.graph.remove(keeper, safe=True)
    used = {"", *(node.domain for node in model.graph.all_nodes())}
    for domain in [domain for domain in model.opset_imports if domain not in used]:
        del model.opset_imports[domain]
    return model, values


def too_large(n_bytes: int, where: str) -> ModelError:
    return ModelError(
        "the model is too large for one ONNX file",
        where=where,
        expected="weights of at most 2.1 GB",
        found=f"{n_bytes / 1e9:.1f} GB",
    )


def told(error: BaseException) -> str:
    """An exception of a framework in one line: its type and the first line that says something."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # Keras prints in bold
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return f"{type(error).__name__}: {(telling or lines or ['no message'])[0].rstrip('.')}"


def _refuse_unknown_operators(proto: onnx.ModelProto, where: str) -> None:
    unknown = {
        node.op_type
        for node in proto.graph.node
        if node.op_type != _KEEPER
        and not onnx.defs.has(node.op_type, domain=node.domain, max_inclusive_version=OPSET)
    }
    if unknown:
        raise ModelError(
            "the model has operators that tf2onnx cannot express in ONNX",
            where=where,
            expected="operators of ONNX",
            found=", ".join(sorted(unknown)),
            fix="Replace them in the model.",
        )
