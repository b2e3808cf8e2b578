"""Stopping early on what the gate would say: the number itself, the images it is taken from, and what is kept."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training_runs import CARD, Images, Net, Recorder, drawn_images, plan, weights_of

from edgekit.compress.options import FinetuneOptions
from edgekit.compress.training.batches import held_back
from edgekit.compress.training.feed import Feed
from edgekit.compress.training.monitor import GATE_METRIC, Monitor
from edgekit.compress.training.trainer import train
from edgekit.compress.training.weights import tensors_of
from edgekit.errors import BadInputError
from edgekit.interface.preprocess import preprocess
from edgekit.policy.document import load_preset, preset_names
from edgekit.teacher.explain import explain
from edgekit.teacher.methods.grad_cam import GRAD_CAM

IMAGES = drawn_images(30, 4)
HELD = np.arange(5, 30)


def monitored(teacher: nn.Module) -> Monitor:
    options = FinetuneOptions(batch_size=8)
    return Monitor(teacher, Feed(IMAGES, CARD.input, options, torch.device("cpu")), HELD, plan(batch_size=8))


def test_agreement_is_the_mean_cosine_of_the_maps_of_kept_answers() -> None:
    """Against maps by the function that the gate's golden set is made with, which differentiates in another way."""
    teacher, student = Net(seed=2).eval(), Net(seed=2).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        x = torch.from_numpy(preprocess(IMAGES.pixels[HELD], CARD.input))
        for model in (teacher, student):
            # An untrained network gives every image the same answer.
            model.fc.bias -= model(x).mean(dim=0)
    theirs = explain(teacher, "features", GRAD_CAM, x, torch.full((25,), -1, dtype=torch.int32))
    answers = theirs.logits.argmax(dim=1)
    ours = explain(student, "features", GRAD_CAM, x, answers.to(torch.int32))
    cosine = nn.functional.cosine_similarity(theirs.attribution.flatten(1), ours.attribution.flatten(1), dim=1)
    kept = ours.logits.argmax(dim=1) == answers
    assert 0 < int(kept.sum()) < 25
    expected = torch.where(kept, cosine, 0).detach().mean()
    assert monitored(teacher).agreement(student) == pytest.approx(float(expected), abs=1e-5)


def test_a_copy_agrees_entirely_and_a_vanished_map_not_at_all() -> None:
    teacher = Net(seed=2).eval()
    monitor = monitored(teacher)
    assert monitor.agreement(copy.deepcopy(teacher)) == pytest.approx(1)
    dark = copy.deepcopy(teacher)
    with torch.no_grad():
        dark.features[8].weight.zero_()
        dark.features[8].bias.fill_(-1)
    assert monitor.agreement(dark) == -1


def test_measuring_leaves_the_student_as_it_was() -> None:
    student = Net(seed=1).train()
    student.features[1].eval()
    modes, before = [module.training for module in student.modules()], weights_of(student)
    monitored(Net(seed=2)).agreement(student)
    assert [module.training for module in student.modules()] == modes
    assert weights_of(student) == before
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_shipped_policies_judge_single_samples_by_the_same_metric() -> None:
    for name in preset_names():
        shares = {clause.metric for clause in load_preset(name).clauses if clause.kind == "share"}
        assert shares == {GATE_METRIC}


class Swing:
    """Breaks the maps from a given call on, so that the best epoch is known."""

    def __init__(self, first: int) -> None:
        self.calls, self._first = 0, first
        self.seen: list[dict[str, torch.Tensor]] = []

    def apply(self, student: nn.Module) -> None:
        self.calls += 1
        if self.calls > self._first:
            student.get_parameter("features.8.weight").abs_().neg_()
        self.seen.append({name: tensor.clone() for name, tensor in tensors_of(student).items()})


def test_training_stops_after_patience_and_keeps_the_best_epoch() -> None:
    swing, student, images = Swing(first=1 + 2 * 4), Net(seed=3), drawn_images(70, 0)
    teacher = copy.deepcopy(student)
    options = plan("swa", epochs=9, patience=2, held_back=0.1, constraints=(swing,), learning_rate=1e-4)
    history = train(student, teacher, images, options)
    found = [record.agreement for record in history]
    best = max(range(len(found)), key=lambda index: found[index] or -1)
    assert len(history) == best + 1 + 2 < 9
    assert best < 2
    steps = 4 * (best + 1)
    kept = swing.seen[steps]
    assert all(torch.equal(own, kept[name]) for name, own in tensors_of(student).items())


def test_agreement_in_the_records_is_of_the_weights_that_are_kept() -> None:
    """With an average as well: what is measured, kept and left are the same weights."""
    student, teacher, images = Net(seed=2), Net(seed=2).eval(), drawn_images(60, 0)
    history = train(student, teacher, images, plan(epochs=3, patience=3, held_back=0.2, ema_decay=0.8))
    source = torch.Generator().manual_seed(0)
    members = [np.flatnonzero(images.labels == label) for label in range(3)]
    for member in members:
        torch.randperm(len(member), generator=source)
    _, held = held_back(images.labels, np.arange(60), 0.2, source)
    feed = Feed(images, CARD.input, FinetuneOptions(), torch.device("cpu"))
    again = Monitor(teacher, feed, held, plan()).agreement(student)
    assert 0 < again < 1
    assert again == pytest.approx(max(record.agreement or -1 for record in history), abs=1e-6)


def test_without_patience_nothing_is_held_back_or_measured() -> None:
    (record,) = train(Net(seed=1), Net(seed=2), drawn_images(32, 0), plan())
    assert record.agreement is None
    assert record.images == 32


def test_held_back_images_are_never_trained_on() -> None:
    """Poisoned in training, they would change the weights; only the agreement may change."""
    images, source = drawn_images(60, 0), torch.Generator().manual_seed(0)
    for label in range(3):
        torch.randperm(int((images.labels == label).sum()), generator=source)
    trained, held = held_back(images.labels, np.arange(60), 0.2, source)
    pixels = images.pixels.copy()
    pixels[held] = 255 - pixels[held]
    weights = []
    for shown in (images, Images(pixels, images.labels)):
        student = Net(seed=2)
        history = train(student, Net(seed=2), shown, plan("none", patience=9, held_back=0.2, flip=False, shift=0))
        assert history[0].images == len(trained)
        weights.append((weights_of(student), history[0].agreement))
    assert weights[0][0] == weights[1][0]
    assert weights[0][1] != weights[1][1]


@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 3), min_size=4, max_size=60).filter(lambda found: len(set(found) - {-1}) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_every_class_gives_its_share_and_keeps_one(labels: list[int], share: float, seed: int) -> None:
    array = np.array(labels)
    indices = np.flatnonzero(array >= 0)
    trained, judged = held_back(array, indices, share, torch.Generator().manual_seed(seed))
    assert sorted([*trained, *judged]) == sorted(indices)
    for label in range(4):
        there, given_away = int((array == label).sum()), int((array[judged] == label).sum())
        assert given_away == (min(max(1, round(share * there)), there - 1) if there else 0)


def test_a_dead_tap_is_named_before_training() -> None:
    teacher, observer = Net(2).eval(), Recorder()
    with torch.no_grad():
        teacher.features[8].weight.zero_()
        teacher.features[8].bias.fill_(-1)
    with pytest.raises(BadInputError, match="zero on every held-back image"):
        train(Net(1), teacher, drawn_images(30, 0), plan("none", patience=1), observer)
    assert observer.steps == []


def test_maps_that_cannot_be_compared_are_named_before_training_even_without_matching() -> None:
    student, observer = Net(1), Recorder()
    student.features[4].stride = (2, 2)
    with pytest.raises(BadInputError, match="different sizes"):
        train(student, Net(2), drawn_images(30, 0), plan("none", patience=1), observer)
    assert observer.steps == []


def test_classes_of_one_image_leave_nothing_to_judge_by() -> None:
    with pytest.raises(BadInputError, match="too few images to hold back"):
        train(Net(1), Net(2), Images(drawn_images(3, 0).pixels, np.arange(3)), plan(patience=1))
