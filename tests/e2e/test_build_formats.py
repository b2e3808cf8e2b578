"""The main job on files without an architecture: what cannot be done is refused first, the rest ends in a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_files import exported, save_script, traced

from edgekit import api
from edgekit.cli.main import run
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.config.recipe import Recipe, read_recipe
from edgekit.core.digests import digest_file
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.errors import BadInputError, ExitCode
from edgekit.pipeline.build import BuildRequest, plan
from edgekit.teacher.loading import load_model
from edgekit.teacher.options import GoldenOptions

FORMS = ("program", "script", "pickle")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "images"
    write_demo_dataset(folder, DemoSizes(train=60, val=60), seed=11)
    return folder


@pytest.fixture(params=FORMS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The demo's teacher without its architecture; its card beside it."""
    loaded = load_model(teacher_path())
    probe = torch.rand(2, *loaded.card.input.shape)
    (tmp_path / "card.json").write_text(json.dumps(loaded.card.to_dict()))
    path = tmp_path / f"{request.param}.bin"
    if request.param == "program":
        torch.export.save(exported(loaded.model, probe), path)
    elif request.param == "script":
        save_script(traced(loaded.model, probe), path)
    else:
        torch.save(loaded.model, path)
    return path


def _arguments(model: Path, images: Path, recipe: str) -> list[str]:
    card = ["--card", str(model.with_name("card.json")), "--tap", "" if model.stem != "script" else "relu_6"]
    trust = ["--trust-pickle"] if model.stem == "pickle" else []
    output = ["--output", str(model.with_name("build"))]
    return ["build", str(model), "--data", str(images), "--recipe", recipe, *card, *trust, *output, "-q"]


@pytest.mark.parametrize("dry", [True, False])
def test_compression_is_refused_before_anything_is_done(
    model: Path, images: Path, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(model, images, "default") + (["--dry-run"] if dry else [])
    assert run(arguments) == ExitCode.BAD_INPUT
    assert "--recipe quantise-only" in capsys.readouterr().err
    assert not (model.with_name("build") / "stages").exists()


def test_each_kind_of_compression_counts(model: Path, images: Path) -> None:
    from edgekit.teacher.load_options import LoadOptions

    card = json.loads(model.with_name("card.json").read_text())
    tap = "relu_6" if model.stem == "script" else card.get("tap")
    load = LoadOptions(card={**card, "tap": tap}, trust_pickle=True)
    for rate, epochs in ((0.1, 0), (0.0, 1)):
        compress = CompressOptions(PruneOptions(rate=rate), FinetuneOptions(epochs=epochs))
        request = BuildRequest(model, images, model.with_name("build"), Recipe(compress=compress), load=load)
        with pytest.raises(BadInputError, match="cannot be pruned or fine-tuned") as caught:
            plan(request)
        assert (f"rate {rate:g}" in (caught.value.found or "")) == (rate > 0)


def test_quantising_alone_runs_through_to_a_bundle(model: Path, images: Path) -> None:
    from edgekit.teacher.load_options import LoadOptions

    card = json.loads(model.with_name("card.json").read_text())
    if model.stem == "script":
        card["tap"] = "relu_6"
    recipe = replace(read_recipe("quantise-only"), golden=GoldenOptions(samples=60), policy="lenient")
    result = api.build(
        model,
        data=images,
        output=model.with_name("build"),
        recipe=recipe,
        load=LoadOptions(card=card, trust_pickle=model.stem == "pickle"),
    )
    assert result.manifest.status == "released", result.verdict.to_dict_in_words()
    assert result.manifest.card.classes == tuple(card["classes"])
    student = model.with_name("build") / "stages" / "compress" / "student.pt"
    assert digest_file(student) == digest_file(model)
