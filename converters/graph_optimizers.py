"""tf2onnx's optimisers, less what takes minutes in a network of hundreds of layers."""

from collections import OrderedDict
from typing import Any

from nrp_onnx.converters.tensorflow_package import tf2onnx

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
