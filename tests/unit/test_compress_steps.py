"""The steps of compression together: which trainings there are, what stays true to the end, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import ARCH, ARGUMENTS, CARD, images, probe, write_teacher
from torch import nn

from edgekit.compress import steps
from edgekit.compress.cost import measure_cost
from edgekit.compress.options import (
    CompressOptions,
    DistilOptions,
    FinetuneOptions,
    MatchingOptions,
    PruneOptions,
    SparsifyOptions,
)
from edgekit.compress.outline import outline
from edgekit.compress.stage import HISTORY_NAME, STUDENT_NAME, CompressRequest, compress, student_load
from edgekit.compress.training.plan import EpochRecord, TrainPlan
from edgekit.compress.training.stage_folder import LOGS_NAME
from edgekit.compress.training.trainer import train
from edgekit.core.canonical import read_json
from edgekit.core.stages import StageRecord
from edgekit.errors import BadInputError, DefectError
from edgekit.teacher.architectures.construct import construct
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.surgery import apply_surgery

PRUNE = PruneOptions(rate=0.5, rounds=3)
SPARSIFY = SparsifyOptions(sparsity=0.45)
OTHER = DistilOptions(student="cifar_resnet", arguments={"depth": 14, "widths": [4, 8, 8]}, weight=0.9)
WHOLE, DENSE, TAUGHT, HELD = PruneOptions(rate=0), SparsifyOptions(), DistilOptions(), MatchingOptions()


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_teacher(tmp_path / "teacher.pt")


def options(
    prune: PruneOptions = WHOLE,
    sparsify: SparsifyOptions = DENSE,
    distil: DistilOptions = TAUGHT,
    matching: MatchingOptions = HELD,
    epochs: int = 1,
    **finetune: Any,
) -> CompressOptions:
    return CompressOptions(prune, FinetuneOptions(epochs=epochs, batch_size=20, **finetune), matching, distil, sparsify)


def run(teacher: Path, folder: Path, wanted: CompressOptions, **settings: Any) -> StageRecord:
    return compress(CompressRequest(teacher, options=wanted, **{"data": images(), "threads": 1, **settings}), folder)


def student_of(teacher: Path, folder: Path, student: str = "") -> Any:
    return load_model(folder / STUDENT_NAME, student_load(load_model(teacher), LoadOptions(), student))


def counted(model: nn.Module) -> tuple[int, int]:
    """Learned convolution weights, and how many of them are zero."""
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    learned = [weight for weight in weights if isinstance(weight, nn.Parameter)]
    return sum(item.numel() for item in learned), sum(int((item == 0).sum()) for item in learned)


class Plans:
    """Stands for `train`: remembers what it was asked, and does it."""

    def __init__(self) -> None:
        self.plans: list[TrainPlan] = []
        self.zeros: list[float] = []

    def __call__(self, student: nn.Module, *arguments: Any, **keywords: Any) -> tuple[EpochRecord, ...]:
        self.plans.append(arguments[2])
        total, zeros = counted(student)
        self.zeros.append(zeros / total)
        return train(student, *arguments, **keywords)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    found = Plans()
    monkeypatch.setattr(steps, "train", found)
    return found


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (options(), ["fine-tune"]),
        (options(PruneOptions(rate=0.5)), ["fine-tune"]),
        (options(PRUNE), ["prune-1", "prune-2", "fine-tune"]),
        (options(sparsify=SPARSIFY), ["sparsify-1", "sparsify-2", "fine-tune"]),
        (options(PRUNE, SPARSIFY), ["prune-1", "prune-2", "sparsify-1", "sparsify-2", "fine-tune"]),
        (options(PRUNE, SPARSIFY, epochs=0), ["prune-1", "prune-2", "sparsify-1", "sparsify-2"]),
        (options(dataclasses.replace(PRUNE, round_epochs=0)), ["fine-tune"]),
        (options(distil=OTHER), ["fine-tune"]),
        (options(PRUNE, distil=OTHER), ["student", "prune-1", "prune-2", "fine-tune"]),
        (options(sparsify=SPARSIFY, distil=OTHER), ["student", "sparsify-1", "sparsify-2", "fine-tune"]),
        (options(sparsify=SparsifyOptions(sparsity=0.5, pattern="2:4")), ["fine-tune"]),
    ],
)
def test_trainings_come_in_the_order_of_the_steps(
    teacher: Path, tmp_path: Path, plans: Plans, wanted: CompressOptions, names: list[str]
) -> None:
    record = run(teacher, tmp_path / "out", wanted)
    assert [plan.name for plan in plans.plans] == names
    history = read_json(tmp_path / "out" / HISTORY_NAME)
    assert [item["name"] for item in history["runs"]] == names
    assert record.facts["runs"] == [{"name": item["name"], "epochs": len(item["epochs"])} for item in history["runs"]]
    for item in history["runs"]:
        assert [epoch["epoch"] for epoch in item["epochs"]] == [1]
        assert all(epoch["matching"] > 0 for epoch in item["epochs"]), "maps are held in every training"
        assert all((epoch["distillation"] > 0) == (wanted.distil.weight > 0) for epoch in item["epochs"])
    assert record.facts["last_epoch"] == history["runs"][-1]["epochs"][-1]
    student = student_of(teacher, tmp_path / "out", wanted.distil.student)
    assert student.model(probe()).isfinite().all()
    assert record.facts["after"] == measure_cost(student.model, CARD.input.shape).to_dict()
    assert record.facts["before"] == measure_cost(load_model(teacher).model, CARD.input.shape).to_dict()


def test_epochs_are_those_of_their_kind_and_no_two_trainings_draw_alike(
    teacher: Path, tmp_path: Path, plans: Plans
) -> None:
    prune = dataclasses.replace(PRUNE, round_epochs=2)
    run(teacher, tmp_path / "out", options(prune, dataclasses.replace(SPARSIFY, round_epochs=3), epochs=4), seed=7)
    assert [plan.finetune.epochs for plan in plans.plans] == [2, 2, 3, 3, 4]
    seeds = [plan.seed for plan in plans.plans]
    assert len(set(seeds)) == len(seeds)
    assert seeds[-1] == 7, "what is trained once is trained as without rounds"


def test_zeros_grow_by_the_round_and_are_exact_in_the_file(teacher: Path, tmp_path: Path, plans: Plans) -> None:
    record = run(teacher, tmp_path / "out", options(sparsify=SPARSIFY, epochs=3))
    assert plans.zeros == pytest.approx([0.2, 0.36, 0.45], abs=2e-3)
    total, zeros = counted(student_of(teacher, tmp_path / "out").model)
    facts = record.facts["sparsity"]
    assert (facts["pattern"], facts["weights"], facts["zeros"]) == ("unstructured", total, zeros)
    assert zeros == round(0.45 * total)
    assert "zero" in record.facts["summary"]


def test_two_of_four_weights_are_zero_in_the_file(teacher: Path, tmp_path: Path) -> None:
    sparsify = SparsifyOptions(sparsity=0.5, pattern="2:4")
    record = run(teacher, tmp_path / "out", options(sparsify=sparsify, epochs=2))
    assert record.facts["sparsity"]["pattern"] == "2:4"
    # Of eight inputs at every position of a kernel: two groups of four.
    weight = student_of(teacher, tmp_path / "out").model.get_parameter("layer2.0.conv2.weight")
    groups = weight.movedim(1, -1).reshape(-1, 4)
    assert ((groups == 0).sum(dim=1) == 2).all()


def test_a_training_that_moves_a_masked_weight_is_a_defect(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(student: nn.Module, *arguments: Any, **keywords: Any) -> tuple[EpochRecord, ...]:
        found = train(student, *arguments, **keywords)
        with torch.no_grad():
            student.get_parameter("layer1.0.conv1.weight").add_(1e-6)
        return found

    monkeypatch.setattr(steps, "train", careless)
    with pytest.raises(DefectError, match="masked"):
        run(teacher, tmp_path / "out", options(sparsify=SPARSIFY))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("importance", ["l2", "taylor", "random"])
def test_a_surgery_of_several_rounds_can_be_replayed_on_the_teacher(
    teacher: Path, tmp_path: Path, importance: str
) -> None:
    record = run(teacher, tmp_path / "out", options(dataclasses.replace(PRUNE, importance=importance, images=10)))
    student, replayed = student_of(teacher, tmp_path / "out"), load_model(teacher)
    assert (student.arch, student.arguments) == (ARCH, ARGUMENTS)
    apply_surgery(replayed.model, student.surgery)
    shapes = {name: value.shape for name, value in replayed.model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in student.model.state_dict().items()}
    assert record.facts["channels"]["conv1"] == [6, 3]
    assert record.facts["channels"]["layer3.0.conv1"] == [10, 5]


def test_rounds_without_training_leave_the_weights_that_the_surgery_leaves(teacher: Path, tmp_path: Path) -> None:
    run(teacher, tmp_path / "out", options(dataclasses.replace(PRUNE, round_epochs=0), epochs=0))
    student, replayed = student_of(teacher, tmp_path / "out"), load_model(teacher).model
    apply_surgery(replayed, student.surgery)
    assert torch.equal(student.model(probe()), replayed(probe()))


def test_a_student_of_another_architecture_is_stored_as_its_own(teacher: Path, tmp_path: Path) -> None:
    record = run(teacher, tmp_path / "out", options(PRUNE, SPARSIFY, OTHER))
    student = student_of(teacher, tmp_path / "out", OTHER.student)
    assert student.arch == "cifar_resnet"
    assert student.arguments == {**OTHER.arguments, "classes": 3}
    assert student.card == dataclasses.replace(CARD, tap="layer3")
    fresh = construct(student.arch, student.arguments)
    apply_surgery(fresh, student.surgery)
    fresh.load_state_dict(student.model.state_dict())
    assert torch.equal(fresh.eval()(probe()), student.model(probe()))
    assert record.facts["student"] == {"arch": student.arch, "arguments": student.arguments, "taps": ["layer3"]}


def test_the_same_combination_gives_the_same_bytes(teacher: Path, tmp_path: Path) -> None:
    wanted = options(PRUNE, SPARSIFY, OTHER)
    first = run(teacher, tmp_path / "a", wanted)
    torch.rand(3)
    assert run(teacher, tmp_path / "b", wanted) == first
    assert run(teacher, tmp_path / "c", wanted, seed=1).outputs[STUDENT_NAME] != first.outputs[STUDENT_NAME]


def test_a_distilled_student_comes_closer_to_the_teachers_answers(teacher: Path, tmp_path: Path) -> None:
    distil = dataclasses.replace(OTHER, weight=1.0)
    run(teacher, tmp_path / "out", options(distil=distil, matching=MatchingOptions(loss="none"), epochs=6))
    (only,) = read_json(tmp_path / "out" / HISTORY_NAME)["runs"]
    losses = [epoch["distillation"] for epoch in only["epochs"]]
    assert losses[-1] < 0.5 * losses[0]
    assert all(epoch["loss"] == pytest.approx(epoch["distillation"]) for epoch in only["epochs"])


def test_the_teacher_is_not_changed(teacher: Path, tmp_path: Path, plans: Plans) -> None:
    before = load_model(teacher).model.state_dict()
    asked: list[nn.Module] = []

    def watched(student: nn.Module, theirs: nn.Module, *arguments: Any, **keywords: Any) -> tuple[EpochRecord, ...]:
        asked.append(theirs)
        return plans(student, theirs, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "train", watched)
        run(teacher, tmp_path / "out", options(PRUNE, SPARSIFY))
    assert len({id(model) for model in asked}) == 1
    assert all(torch.equal(value, before[name]) for name, value in asked[0].state_dict().items())


# What is refused before anything is trained

MULTI = dataclasses.replace(CARD, task="multi-label")


@pytest.mark.parametrize(
    ("card", "wanted", "where"),
    [
        (MULTI, options(distil=DistilOptions(weight=0.5, form="softmax")), "compress.distil.form"),
        (CARD, options(matching=MatchingOptions(classes="positive")), "compress.matching.classes"),
        (CARD, options(distil=OTHER, epochs=0), "compress.finetune.epochs"),
        (CARD, options(distil=dataclasses.replace(OTHER, arguments={"classes": 4})), "cifar_resnet"),
        (CARD, options(distil=dataclasses.replace(OTHER, arguments={"depht": 8})), "cifar_resnet"),
        (
            CARD,
            options(distil=dataclasses.replace(OTHER, arguments={"stem_stride": 2})),
            "compress.matching.student_taps",
        ),
        (
            CARD,
            options(
                distil=dataclasses.replace(OTHER, arguments={"stem_stride": 2}), matching=MatchingOptions(loss="none")
            ),
            "compress.matching.student_taps",
        ),
        (
            CARD,
            options(matching=MatchingOptions(taps=("layer3",), student_taps=("layer2",))),
            "compress.matching.student_taps",
        ),
        (
            CARD,
            options(distil=OTHER, matching=MatchingOptions(student_taps=("layer1",))),
            "compress.matching.student_taps",
        ),
    ],
)
def test_what_cannot_go_well_is_refused_before_anything_is_trained(
    tmp_path: Path, plans: Plans, card: Any, wanted: CompressOptions, where: str
) -> None:
    teacher = write_teacher(tmp_path / "teacher.pt", card)
    with pytest.raises(BadInputError) as caught:
        run(teacher, tmp_path / "out", wanted)
    assert where in (caught.value.where or "")
    assert not plans.plans
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher.pt"]


def test_sizes_of_maps_do_not_matter_where_no_map_is_compared(teacher: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(OTHER, arguments={"stem_stride": 2})
    wanted = options(distil=other, matching=MatchingOptions(loss="none"))
    run(teacher, tmp_path / "out", wanted, compares_taps=False)
    student = student_of(teacher, tmp_path / "out", other.student)
    assert student.card.tap is None
    assert student.arguments["stem_stride"] == 2


@pytest.mark.parametrize("form", ["auto", "sigmoid"])
def test_a_multi_label_teacher_is_learned_from_class_by_class(tmp_path: Path, form: str) -> None:
    teacher = write_teacher(tmp_path / "teacher.pt", MULTI)
    record = run(teacher, tmp_path / "out", options(distil=DistilOptions(weight=0.5, form=form)))
    assert record.facts["last_epoch"]["distillation"] > 0


# Code of somebody's

CODE = """
from edgekit.teacher.architectures.cifar_resnet import cifar_resnet

KEPT = {}

def factory(classes, depth=8):
    return cifar_resnet(depth, classes=classes, widths=(3, 4, 5))

def kept():
    return KEPT.setdefault(0, factory(3))
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "code_of_a_test.py").write_text(CODE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "code_of_a_test", raising=False)
    importlib.invalidate_caches()
    return "code_of_a_test"


def test_a_recipe_alone_runs_no_code(teacher: Path, tmp_path: Path, code: str) -> None:
    wanted = options(distil=DistilOptions(student=f"{code}:factory"))
    with pytest.raises(BadInputError, match="code outside edgekit"):
        run(teacher, tmp_path / "out", wanted)
    with pytest.raises(BadInputError, match="differs from the recipe's"):
        run(teacher, tmp_path / "out", wanted, student_code=f"{code}:kept")
    assert code not in sys.modules


def test_code_that_the_user_named_makes_a_student_whose_file_needs_it_named_again(
    teacher: Path, tmp_path: Path, code: str
) -> None:
    arch = f"{code}:factory"
    run(teacher, tmp_path / "out", options(distil=DistilOptions(student=arch)), student_code=arch)
    student = student_of(teacher, tmp_path / "out", arch)
    assert (student.arch, student.arguments) == (arch, {"classes": 3})
    with pytest.raises(BadInputError, match="code outside edgekit"):
        load_model(tmp_path / "out" / STUDENT_NAME)
    # Named outside an open recipe: the same work, which is not done again.
    again = run(teacher, tmp_path / "out", options(), student_code=arch)
    assert again.facts["student"]["arch"] == arch


def test_a_student_that_is_the_teacher_is_refused(tmp_path: Path, code: str) -> None:
    arch = f"{code}:kept"
    torch.save(importlib.import_module(code).factory(3).state_dict(), tmp_path / "weights.pt")
    load = LoadOptions(arch=arch, card=CARD.to_dict())
    with pytest.raises(BadInputError, match="in use already") as caught:
        run(
            tmp_path / "weights.pt",
            tmp_path / "out",
            options(distil=DistilOptions(student=arch)),
            load=load,
            student_code=arch,
        )
    assert caught.value.where == arch
    assert not (tmp_path / "out").exists()


# Work in progress


def test_an_interrupt_keeps_work_in_progress_and_an_error_does_not(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path | None] = []

    def stopped_by(cause: BaseException) -> Any:
        def run_of(training: steps.Training, *arguments: Any, **keywords: Any) -> None:
            seen.append(training.workplace)
            assert training.workplace is not None
            training.workplace.mkdir(parents=True)
            raise cause

        return run_of

    for cause, left in (
        (KeyboardInterrupt(), ["out.work", "teacher.pt"]),
        (BadInputError("diverged"), ["teacher.pt"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(steps.Training, "run", stopped_by(cause))
            with pytest.raises(type(cause)):
                run(teacher, tmp_path / "out", options(epochs=2 + len(seen)))
        assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert seen[0] != seen[1], "other options are other work"
    run(teacher, tmp_path / "out", options())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "teacher.pt"]


def test_tables_of_the_trainings_are_kept_and_their_checkpoints_are_not(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_of(training: steps.Training, student: nn.Module, name: str, *arguments: Any, **keywords: Any) -> None:
        place = training.place(name)
        assert place is not None
        place.mkdir(parents=True)
        (place / "steps.csv").write_text(f"loss\n{len(name)}\n")
        (place / "checkpoint.pt").write_text("weights")

    monkeypatch.setattr(steps.Training, "run", run_of)
    record = run(teacher, tmp_path / "out", options(PRUNE))
    logs = {f"{LOGS_NAME}/{name}.steps.csv" for name in ("prune-1", "prune-2", "fine-tune")}
    assert set(record.outputs) == {STUDENT_NAME, HISTORY_NAME, *logs}
    assert (tmp_path / "out" / LOGS_NAME / "prune-2.steps.csv").read_text() == "loss\n7\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "teacher.pt"]


# In words


def test_a_plan_says_what_will_be_done() -> None:
    text = outline(options(PRUNE, SPARSIFY, OTHER), has_images=True)
    for part in (
        "a new cifar_resnet",
        "50% of the channels in 3 rounds",
        "45% of the weights",
        "90% distillation",
        "swa",
    ):
        assert part in text
    assert outline(options(), has_images=False) == "nothing: no training data"
    assert outline(options(epochs=0), has_images=True).startswith("nothing: ")
