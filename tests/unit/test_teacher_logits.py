"""Which output is taken as the logits, for everything that heads return."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.logits import choose_logits, named_outputs, take_logits


@dataclass
class Output:
    loss: Any
    logits: torch.Tensor
    features: torch.Tensor


Pair = namedtuple("Pair", ["logits", "aux"])

LOGITS = torch.arange(6.0).reshape(2, 3)
OTHER = -LOGITS
MAP = torch.ones(2, 3, 4, 4)
INDEX = torch.zeros(2, 3, dtype=torch.int64)

CLEAR: dict[str, tuple[Any, str]] = {
    "dict": ({"aux": OTHER, "logits": LOGITS}, "logits"),
    "ordered": (OrderedDict(aux=OTHER, logits=LOGITS), "logits"),
    "dataclass": (Output(None, LOGITS, MAP), "logits"),
    "namedtuple": (Pair(LOGITS, OTHER), "logits"),
    "only one": ((MAP, LOGITS, INDEX), "1"),
    "list": ([LOGITS], "0"),
    "other key": ({"out": LOGITS, "map": MAP, "n": 3, "nothing": None}, "out"),
}
UNCLEAR: dict[str, Any] = {
    "two": (LOGITS, OTHER),
    "none": (MAP,),
    "empty": (),
    "whole numbers": [INDEX],
    "text": "cat",
    "nothing": None,
    "number": 3,
    "nested": ((LOGITS,),),
    "logits that are none": {"logits": None, "a": LOGITS, "b": OTHER},
}


class Head(nn.Module):
    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        self.inner(x)
        return self.answer()


@pytest.mark.parametrize("case", CLEAR)
def test_one_output_is_taken_and_said(case: str) -> None:
    answer, name = CLEAR[case]
    model = Head(lambda: answer)
    notes = take_logits(model, model(MAP), "file")
    assert torch.equal(model(MAP), LOGITS)
    assert len(notes) == 1
    assert repr(name) in notes[0]
    # Names stay, and a copy does as the original.
    assert [name for name, _ in model.named_modules()] == ["", "inner"]
    assert torch.equal(copy.deepcopy(model)(MAP), LOGITS)


def test_a_tensor_is_left_alone() -> None:
    model = Head(lambda: LOGITS)
    assert take_logits(model, LOGITS, "file") == ()
    assert not model._forward_hooks


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_not_clear_is_refused(case: str) -> None:
    with pytest.raises(BadInputError, match="which part") as caught:
        choose_logits(named_outputs(UNCLEAR[case]), "somewhere")
    assert caught.value.where == "somewhere"
    assert "'logits'" in (caught.value.hint or "")
