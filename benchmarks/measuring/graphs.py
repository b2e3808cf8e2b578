"""ONNX graphs as measurements need them: cut down to the logits, and open in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from edgekit.attribution.spec import OWN_CLASS

__all__ = ["logits_only", "runner"]


def logits_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of an explained graph that the logits depend on: what runs where nobody asks for a map."""
    producer = {name: node for node in model.graph.node for name in node.output if name}
    wanted, pending = set[str](), ["logits"]
    while pending:
        name = pending.pop()
        if name and name not in wanted:
            wanted.add(name)
            node = producer.get(name)
            if node is not None:
                wanted.update(output for output in node.output if output)
                pending.extend(node.input)
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    graph = cut.graph
    for field in (graph.node, graph.initializer, graph.value_info, graph.input, graph.output):
        kept = [item for item in field if _name(item) in wanted]
        del field[:]
        field.extend(kept)
    onnx.checker.check_model(cut)
    return cut


def _name(item: onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto) -> str:
    if isinstance(item, onnx.NodeProto):
        return next(name for name in item.output if name)
    return str(item.name)


def runner(model: onnx.ModelProto, images: npt.NDArray[np.float32], threads: int = 0) -> Callable[[], None]:
    """A function that runs `model` once on `images` [N, 3, H, W], for all outputs, own classes explained.

    The session has the settings of the engine that ships: every optimisation, the runtime's choice of threads.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed: dict[str, npt.NDArray[np.generic]] = {"image": images}
    if any(value.name == "class_index" for value in session.get_inputs()):
        feed["class_index"] = np.full(len(images), OWN_CLASS, dtype=np.int32)

    def run() -> None:
        session.run(None, feed)

    return run
