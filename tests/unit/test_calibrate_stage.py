"""The stage: what it writes, when it does it again, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from explained_graphs import GRAPHS, ArrayImages, GraphBuilder, random_images
from onnx import TensorProto, helper, numpy_helper

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.graph import read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import read_scales
from edgekit.calibrate.stage import CALIBRATION_NAME, MODEL_NAME, CalibrateRequest, calibrate
from edgekit.core.canonical import read_json
from edgekit.core.digests import digest_file
from edgekit.core.progress import NullObserver
from edgekit.core.stages import StageRecord
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, EdgekitError


@dataclass
class Listening(NullObserver):
    notes: list[str] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)

    def noted(self, message: str) -> None:
        self.notes.append(message)

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        self.skipped.append(skipped)


def request(folder: Path, model: onnx.ModelProto | None = None, **changes: Any) -> CalibrateRequest:
    graph = folder / "fp32.onnx"
    graph.write_bytes((model or GRAPHS["residual"]()).SerializeToString())
    wanted = CalibrateRequest(graph, random_images(), "x86-u8s8", CalibrateOptions(method="percentile", bins=512))
    return replace(wanted, **changes)


def files(folder: Path) -> dict[str, str]:
    return {path.name: digest_file(path) for path in folder.iterdir()}


@pytest.fixture
def record(tmp_path: Path) -> StageRecord:
    return calibrate(request(tmp_path), tmp_path / "out")


def test_it_writes_table_graph_and_manifest(tmp_path: Path, record: StageRecord) -> None:
    assert set(record.outputs) == {"scales.json", "model.onnx", "calibration.json"}
    out = tmp_path / "out"
    table = read_scales(out / "scales.json")
    assert (out / MODEL_NAME).read_bytes() == serialise(write_qdq(read_graph(tmp_path / "fp32.onnx"), table))
    manifest = read_json(out / CALIBRATION_NAME)
    assert manifest["images"] == list(random_images().digests)
    assert manifest["graph"] == digest_file(tmp_path / "fp32.onnx") == table.provenance.graph
    assert manifest["method"]["name"] == "percentile"


def test_its_graph_is_what_the_cpu_engine_opens(tmp_path: Path, record: StageRecord) -> None:
    images = random_images().pixels
    with ENGINES.load("ort-cpu").open(tmp_path / "out" / MODEL_NAME, EngineOptions(threads=1)) as runner:
        answer = runner.run(images, np.full(len(images), OWN_CLASS, dtype=np.int32))
    assert np.isfinite(answer.logits).all()
    assert np.isfinite(answer.attribution).all()


def test_its_facts_account_for_every_operation(tmp_path: Path, record: StageRecord) -> None:
    facts = record.facts
    assert facts["quantised_operations"] == {"Add": 2, "Conv": 8, "Gemm": 1, "MaxPool": 1}
    assert {item["operation"] for item in facts["float_operations"]} == {"Add", "Relu", "ReduceMean", "Reshape"}
    assert all(item["reason"] and item["count"] == 1 for item in facts["float_operations"])
    table = read_scales(tmp_path / "out" / "scales.json")
    assert facts["quantised_tensors"] == len(table.activations)
    assert facts["images"] == 12
    assert facts["bytes_before"] == (tmp_path / "fp32.onnx").stat().st_size
    assert facts["bytes_after"] == (tmp_path / "out" / MODEL_NAME).stat().st_size < facts["bytes_before"]
    assert all(0 <= share <= 1e-5 + 1e-9 for share in facts["clipped_share"].values())


def test_the_same_request_is_not_done_again(tmp_path: Path) -> None:
    observer = Listening()
    wanted = request(tmp_path)
    assert calibrate(wanted, tmp_path / "out", observer) == calibrate(wanted, tmp_path / "out", observer)
    assert observer.skipped == [False, True]


def test_two_runs_write_equal_bytes(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    for name in ("one", "two"):
        calibrate(wanted, tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


class SameFilesOtherCard(ArrayImages):
    """The digests of image files do not change when they are normalised differently."""

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(len(self.pixels)))


@pytest.mark.parametrize(
    "change",
    [
        lambda old: replace(old, images=ArrayImages(random_images().pixels[::-1].copy())),
        lambda old: replace(old, images=SameFilesOtherCard(random_images().pixels * 2)),
        lambda old: replace(old, number_format="arm-s8s8"),
        lambda old: replace(old, options=replace(old.options, method="minmax")),
        lambda old: replace(old, options=replace(old.options, percentile=99.0)),
        lambda old: replace(old, options=replace(old.options, exclude=("node_Conv_0",))),
        lambda old: request(old.graph.parent, GRAPHS["residual"](seed=1)),
    ],
    ids=["order", "preparation", "format", "method", "parameter", "exclude", "graph"],
)
def test_a_change_is_noticed(tmp_path: Path, change: Callable[[CalibrateRequest], CalibrateRequest]) -> None:
    observer = Listening()
    first = request(tmp_path, images=SameFilesOtherCard(random_images().pixels))
    calibrate(first, tmp_path / "out", observer)
    calibrate(change(first), tmp_path / "out", observer)
    assert observer.skipped == [False, False]


def test_weights_left_in_float_are_told(tmp_path: Path) -> None:
    observer = Listening()
    g = GraphBuilder()
    weight = g.op("Mul", g.weight(16, 3, 3, 3), g.constant(2.0))
    x = g.relu(g.op("Conv", "image", weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    g.pooled_head(g.relu(g.conv(x, 16, 16)), 16, 5, 256)
    options = CalibrateOptions(method="minmax", exclude=("node_Gemm_*",))
    calibrate(request(tmp_path, g.model(), options=options), tmp_path / "out", observer)
    assert len(observer.notes) == 1
    assert "weights are not stored" in observer.notes[0]


# Refusals


def quantised_already(folder: Path) -> CalibrateRequest:
    first = request(folder)
    calibrate(first, folder / "first")
    return replace(first, graph=folder / "first" / MODEL_NAME)


def old_opset(folder: Path) -> CalibrateRequest:
    model = GRAPHS["residual"]()
    del model.graph.node[:]
    for op_type, inputs, output in (
        ("GlobalAveragePool", ["image"], "pooled"),
        ("Flatten", ["pooled"], "logits"),
        ("GlobalMaxPool", ["image"], "peak"),
        ("Squeeze", ["peak"], "attribution"),
    ):
        model.graph.node.append(helper.make_node(op_type, inputs, [output]))
    model.opset_import[0].version = 12
    return request(folder, model)


def with_file(data: bytes) -> Callable[[Path], CalibrateRequest]:
    def make(folder: Path) -> CalibrateRequest:
        wanted = request(folder)
        wanted.graph.write_bytes(data)
        return wanted

    return make


def missing_file(folder: Path) -> CalibrateRequest:
    return replace(request(folder), graph=folder / "nothing.onnx")


def external_weights(folder: Path) -> CalibrateRequest:
    model = GRAPHS["residual"]()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    item = tensor.external_data.add()
    item.key, item.value = "location", "/etc/passwd"
    return request(folder, model)


def other_outputs(folder: Path) -> CalibrateRequest:
    model = GRAPHS["residual"]()
    del model.graph.output[1]
    return request(folder, model)


def logits_of_the_class(folder: Path) -> CalibrateRequest:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    asked = g.op("Unsqueeze", g.op("Cast", "class_index", to=TensorProto.FLOAT), g.constant([1], np.int64))
    logits = g.op("Add", g.op("ReduceMean", x, g.constant([2, 3], np.int64), keepdims=0), asked)
    g.finish(logits, g.op("ReduceMax", x, g.constant([1], np.int64), keepdims=0))
    return request(folder, g.model())


def any_size(folder: Path) -> CalibrateRequest:
    model = GRAPHS["residual"]()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return request(folder, model)


def not_finite_weight(folder: Path) -> CalibrateRequest:
    model = GRAPHS["residual"]()
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    tensor = next(item for item in model.graph.initializer if item.name == gemm.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return request(folder, model)


def overflowing(folder: Path) -> CalibrateRequest:
    model = GRAPHS["residual"]()
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e38), tensor.name))
    return request(folder, model)


def images(change: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]) -> Callable[[Path], CalibrateRequest]:
    return lambda folder: request(folder, images=ArrayImages(change(random_images().pixels)))


def with_nan(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    pixels[3, 0, 2, 2] = np.nan
    return pixels


class Short(ArrayImages):
    """Fewer images than digests, as when a file vanishes."""

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        yield self.pixels[:2]


class Empty(ArrayImages):
    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        return iter(())


def options(**changes: Any) -> Callable[[Path], CalibrateRequest]:
    return lambda folder: request(folder, options=CalibrateOptions(**changes))


REFUSED: dict[str, tuple[Callable[[Path], CalibrateRequest], str]] = {
    "quantised already": (quantised_already, "quantised already"),
    "old opset": (old_opset, "opset"),
    "text": (with_file(b"this is not a model\n"), "not a valid ONNX"),
    "empty file": (with_file(b""), "not a valid ONNX"),
    "missing file": (missing_file, "no such file"),
    "external weights": (external_weights, "other files"),
    "other outputs": (other_outputs, "not an explained graph"),
    "logits of the class": (logits_of_the_class, "depend on class_index"),
    "any size": (any_size, "no fixed size"),
    "weight not finite": (not_finite_weight, "weight is not finite"),
    "activation not finite": (overflowing, "not finite"),
    "image not finite": (images(with_nan), "'image'"),
    "no images": (images(lambda pixels: pixels[:0]), "no calibration images"),
    "other size": (images(lambda pixels: pixels[:, :, :8, :8]), "does not fit"),
    "other type": (images(lambda pixels: pixels.astype(np.float64)), "does not fit"),
    "fewer than said": (lambda folder: request(folder, images=Short(random_images().pixels)), "another number"),
    "none after all": (lambda folder: request(folder, images=Empty(random_images().pixels)), "another number"),
    "too many": (options(images=11), "more calibration images"),
    "unknown method": (options(method="guess"), "no calibrator called"),
    "unknown format": (lambda folder: request(folder, number_format="fp4"), "no number format"),
    "misspelt exclusion": (options(exclude=("node_Convv",)), "matches no node"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    wanted = make(tmp_path)
    with pytest.raises(BadInputError) as raised:
        calibrate(wanted, tmp_path / "out")
    assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_refusal_is_one_of_ours_for_every_byte_of_damage(tmp_path: Path) -> None:
    # Whatever is cut off a file, the answer is an error of ours: no traceback of protobuf or of the checker.
    data = GRAPHS["flattened"]().SerializeToString()
    for end in range(0, len(data), len(data) // 12):
        wanted = with_file(data[:end])(tmp_path)
        with pytest.raises(EdgekitError):
            calibrate(wanted, tmp_path / "out")
