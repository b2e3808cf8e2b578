"""What every registered engine must do, whatever runtime is behind it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnxruntime_gpu_stand_in import gpu_stand_in
from tensorrt_stand_ins import PAIRS, stand_in

from edgekit.engines.protocol import Engine, EngineOptions, Runner
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, EdgekitError, IntegrityError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
GRAPH = ASSETS / "tiny_explained.onnx"

# Single-precision sums of at most 48 products of numbers near one.
TOLERANCE = 1e-5


# Engines whose runtime or device is not here, over stand-ins: what passes has run our code, no TensorRT and no GPU.
STAND_INS = [
    *(("tensorrt", version, interface) for version, interface in PAIRS),
    *((name, "stand-in", "") for name in ("ort-cuda", "ort-tensorrt")),
]


@pytest.fixture(
    params=[*((name, "", "") for name in ENGINES), *STAND_INS], ids=lambda each: "-".join(filter(None, each))
)
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    name, version, interface = request.param
    engine = ENGINES.load(name)
    with ExitStack() as stack:
        if version == "stand-in":
            stack.enter_context(gpu_stand_in(monkeypatch))
        elif version:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
            stack.enter_context(stand_in(version, interface, monkeypatch))
        availability = engine.availability()
        if not availability.available:
            assert not version, availability.reason
            pytest.skip(availability.reason)
        yield engine


@pytest.fixture
def artifact(engine: Engine, tmp_path: Path) -> Path:
    path = tmp_path / "engine.bin"
    engine.build(GRAPH, path)
    return path


@pytest.fixture
def runner(engine: Engine, artifact: Path) -> Iterator[Runner]:
    with engine.open(artifact, EngineOptions()) as runner:
        yield runner


def random_images(count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(count, 3, 4, 4)).astype(np.float32)


def classes(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def expected_answers(
    images: npt.NDArray[np.float32], chosen: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Grad-CAM from its definition in double precision, for the pooled linear head of the stored graph."""
    weight = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 2]], dtype=np.float64)
    logits = images.astype(np.float64).mean(axis=(2, 3)) @ weight.T + [0, 0, 0, 0.25]
    maps = np.zeros((len(images), 4, 4))
    for sample, wanted in enumerate(chosen):
        of_class = int(np.argmax(logits[sample])) if wanted == -1 else int(wanted)
        for channel in range(3):
            maps[sample] += weight[of_class, channel] / 16 * images[sample, channel]
    return logits, np.maximum(maps, 0)


def test_registry_names_are_the_engines_own() -> None:
    assert {name: ENGINES.load(name).name for name in ENGINES} == {name: name for name in ENGINES}


def test_an_unavailable_engine_says_why_and_what_to_do() -> None:
    for name in ENGINES:
        availability = ENGINES.load(name).availability()
        assert availability.available or (availability.reason and availability.hint)


def test_answers_worked_out_on_paper(runner: Runner) -> None:
    # Channel 0 is 2 in one cell, channel 1 is 1 everywhere, channel 2 is empty.
    image = np.zeros((1, 3, 4, 4), dtype=np.float32)
    image[0, 0, 1, 2] = 2.0
    image[0, 1] = 1.0
    output = runner.run(image, classes(0))
    # Means 2/16, 1, 0; class 3 is -2/16 - 1 + 0 + 0.25.
    np.testing.assert_allclose(output.logits, [[0.125, 1.0, 0.0, -0.875]], atol=TOLERANCE)
    only_cell = np.zeros((1, 4, 4))
    only_cell[0, 1, 2] = 2.0 / 16
    np.testing.assert_allclose(output.attribution, only_cell, atol=TOLERANCE)
    # Class 3 has only negative evidence here: the ReLU must leave nothing.
    np.testing.assert_array_equal(runner.run(image, classes(3)).attribution, np.zeros((1, 4, 4)))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_size_follows_the_definition(runner: Runner, count: int) -> None:
    images = random_images(count)
    chosen = np.arange(count, dtype=np.int32) % 5 - 1  # -1, 0, 1, 2, 3, -1, ...
    logits, maps = expected_answers(images, chosen)
    output = runner.run(images, chosen)
    assert (output.logits.dtype, output.attribution.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(output.logits, logits, atol=TOLERANCE)
    np.testing.assert_allclose(output.attribution, maps, atol=TOLERANCE)


def test_minus_one_is_the_engines_own_top_class(runner: Runner) -> None:
    images = random_images(16)
    own = runner.run(images, np.full(16, -1, dtype=np.int32))
    named = runner.run(images, np.argmax(own.logits, axis=1).astype(np.int32))
    np.testing.assert_array_equal(own.attribution, named.attribution)
    assert len(np.unique(np.argmax(own.logits, axis=1))) > 1


def test_a_sample_does_not_depend_on_its_batch(runner: Runner) -> None:
    images = random_images(5)
    together = runner.run(images, classes(-1, 0, 1, 2, 3))
    alone = runner.run(images[3:4], classes(2))
    np.testing.assert_allclose(together.attribution[3:4], alone.attribution, atol=TOLERANCE)
    np.testing.assert_allclose(together.logits[3:4], alone.logits, atol=TOLERANCE)


def test_answers_stay_when_the_engine_runs_again(runner: Runner) -> None:
    images = random_images(4)
    first = runner.run(images[:2], classes(-1, -1))
    kept = first.logits.copy(), first.attribution.copy()
    runner.run(images[2:], classes(-1, -1))
    np.testing.assert_array_equal(first.logits, kept[0])
    np.testing.assert_array_equal(first.attribution, kept[1])


def test_the_thread_count_changes_no_meaning(engine: Engine, artifact: Path) -> None:
    images = random_images(3)
    chosen = classes(-1, 2, 3)
    with engine.open(artifact, EngineOptions(threads=1)) as one, engine.open(artifact, EngineOptions(threads=2)) as two:
        np.testing.assert_allclose(
            one.run(images, chosen).attribution, two.run(images, chosen).attribution, atol=TOLERANCE
        )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 4, 4), dtype=np.float64),
        np.zeros((1, 3, 4, 4), dtype=np.uint8),
        np.zeros((3, 4, 4), dtype=np.float32),
        np.zeros((1, 4, 4, 3), dtype=np.float32),
        np.zeros((1, 3, 4, 5), dtype=np.float32),
        np.zeros((1, 1, 4, 4), dtype=np.float32),
        np.zeros((1, 3, 4, 4, 1), dtype=np.float32),
    ],
    ids=lambda array: f"{array.dtype}-{'x'.join(map(str, array.shape))}",
)
def test_images_of_another_form_are_refused(runner: Runner, images: npt.NDArray[np.float32]) -> None:
    with pytest.raises(BadInputError):
        runner.run(images, classes(-1))


@pytest.mark.parametrize(
    "class_index",
    [
        np.zeros(2, dtype=np.int64),
        np.zeros(2, dtype=np.float32),
        np.zeros(1, dtype=np.int32),
        np.zeros(3, dtype=np.int32),
        np.zeros((2, 1), dtype=np.int32),
        np.int32(0).reshape(()),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_class_indices_of_another_form_are_refused(runner: Runner, class_index: npt.NDArray[np.int32]) -> None:
    with pytest.raises(BadInputError):
        runner.run(random_images(2), class_index)


def test_a_class_the_network_does_not_have_is_refused(runner: Runner) -> None:
    with pytest.raises(EdgekitError):
        runner.run(random_images(1), classes(4))


def test_closing_twice_is_fine_and_running_afterwards_is_not(engine: Engine, artifact: Path) -> None:
    runner = engine.open(artifact, EngineOptions())
    with runner as entered:
        assert entered is runner
        runner.close()
    runner.close()
    with pytest.raises(BadInputError):
        runner.run(random_images(1), classes(-1))


def test_info_tells_what_ran(engine: Engine, runner: Runner) -> None:
    raw = runner.info.to_dict()
    assert raw["engine"] == engine.name
    assert all(isinstance(raw[key], str) and raw[key] for key in ("engine", "runtime", "device"))
    assert json.loads(json.dumps(raw)) == raw


def broken_graphs(folder: Path) -> dict[str, Path]:
    whole = GRAPH.read_bytes()
    contents = {
        "text": b"this is a shopping list: eggs, milk\n",
        "empty": b"",
        "truncated": whole[: len(whole) * 2 // 3],
        "other-signature": (ASSETS / "other_signature.onnx").read_bytes(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize("fault", ["text", "empty", "truncated", "other-signature"])
def test_a_file_that_is_no_artifact_is_not_opened(engine: Engine, tmp_path: Path, fault: str) -> None:
    with pytest.raises(IntegrityError):
        engine.open(broken_graphs(tmp_path)[fault], EngineOptions())


@pytest.mark.parametrize("fault", ["text", "empty", "truncated", "other-signature"])
def test_a_file_that_is_no_explained_graph_is_not_built(engine: Engine, tmp_path: Path, fault: str) -> None:
    artifact = tmp_path / "artifact.bin"
    with pytest.raises(BadInputError):
        engine.build(broken_graphs(tmp_path)[fault], artifact)
    assert not artifact.exists()


def test_a_missing_file_is_the_users_to_correct(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        engine.open(tmp_path / "absent.onnx", EngineOptions())
    with pytest.raises(BadInputError):
        engine.build(tmp_path / "absent.onnx", tmp_path / "artifact.bin")


def test_weights_in_another_file_are_refused(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the refusal ONNX Runtime opens this graph with whatever "weight.bin" lies in the working directory.
    onnx = pytest.importorskip("onnx")
    model = onnx.load(GRAPH)
    weight = model.graph.initializer[0]
    (tmp_path / "weight.bin").write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, "weight.bin", offset=0, length=len(weight.raw_data))
    weight.ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match="another file"):
        engine.build(tmp_path / "model.onnx", tmp_path / "artifact.bin")
    with pytest.raises(IntegrityError):
        engine.open(tmp_path / "model.onnx", EngineOptions())


def test_the_stored_graphs_are_what_their_script_writes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runpy.run_path(str(ASSETS / "build_graphs.py"))["write_graphs"](tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in ASSETS.glob("*.onnx")}
    assert written
