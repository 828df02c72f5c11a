"""Smaller variants of an exported ONNX file: float16 weights, and int8 by dynamic quantisation."""

import os
import tempfile
from typing import Any, List

from .formats import stamp
from .metadata import Signature


def write_fp16(source: str, signature: Signature, path: str) -> None:
    """Weights and arithmetic in float16; input and output stay as they are.

    The L2 normalisation is cut off before and put back afterwards, in float32: a sum of squares overflows
    float16 from a length of 256 on.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(source)
    outputs, tail = list(model.graph.output), _l2_tail(model.graph, signature)
    if tail:
        before = onnx.helper.make_tensor_value_info(
            tail[0].input[0], onnx.TensorProto.FLOAT, ["batch", signature.dim]
        )
        _replace(model.graph, list(model.graph.node)[: -len(tail)], [before])
    model = convert_float_to_float16(model, keep_io_types=True)
    _replace(model.graph, [*model.graph.node, *tail], outputs)
    del model.graph.value_info[:]  # optional, and wrong where it speaks of what had been cut off
    OnnxModel(model).topological_sort()  # casts come last
    stamp(model, signature, path)


def _l2_tail(graph: Any, signature: Signature) -> List[Any]:
    """The last nodes of the graph, from the norm of the features on."""
    if not signature.l2_output:
        return []
    nodes = list(graph.node)
    start = max(index for index, node in enumerate(nodes) if node.op_type == "ReduceL2")
    return nodes[start:]


def _replace(graph: Any, nodes: List[Any], outputs: List[Any]) -> None:
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(outputs)


def write_int8(source: str, signature: Signature, path: str) -> None:
    """Weights as uint8 with a scale each, activations quantised batch by batch (onnxruntime).

    Unsigned, because onnxruntime has integer convolutions on the CPU for unsigned weights only.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, path, weight_type=QuantType.QUInt8)
    stamp(onnx.load(path), signature, path)
