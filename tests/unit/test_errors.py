"""The error family: frozen exit codes, and messages that say what to do."""

from __future__ import annotations

import pickle

import pytest

import edgekit.errors
from edgekit.errors import (
    BadInputError,
    DefectError,
    EdgekitError,
    EvidenceNeededError,
    ExitCode,
    IntegrityError,
    UnavailableError,
    UsageError,
)


def test_exit_codes_are_frozen() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "GATE_FAILED": 1,
        "USAGE": 2,
        "BAD_INPUT": 3,
        "INTEGRITY": 4,
        "UNAVAILABLE": 5,
        "INCONCLUSIVE": 6,
        "DEFECT": 70,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError, 2),
        (BadInputError, 3),
        (IntegrityError, 4),
        (UnavailableError, 5),
        (EvidenceNeededError, 6),
        (DefectError, 70),
    ],
)
def test_each_error_ends_the_process_with_its_own_code(error: type[EdgekitError], code: int) -> None:
    assert error("something").exit_code == code


def test_every_error_of_the_module_is_of_the_one_family() -> None:
    found = [item for item in vars(edgekit.errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert len(found) == 7
    assert all(issubclass(item, EdgekitError) for item in found)


def test_details_stand_below_the_message_one_a_line() -> None:
    error = BadInputError("The file is odd.", where="a.pt", expected="an even one", found="7 bytes", hint="add one")
    assert str(error).splitlines() == [
        "The file is odd.",
        "  where:    a.pt",
        "  expected: an even one",
        "  found:    7 bytes",
        "  hint:     add one",
    ]


def test_details_that_are_not_known_take_no_line() -> None:
    assert str(BadInputError("The file is odd.", hint="add one")) == "The file is odd.\n  hint:     add one"
    assert str(DefectError("Nothing else.")) == "Nothing else."


def test_details_are_keywords_only() -> None:
    with pytest.raises(TypeError):
        BadInputError("message", "expected")  # type: ignore[misc]


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnavailableError("No runtime.", found="nothing", hint="install one")))
    assert (type(error), error.message, error.found, error.hint) == (
        UnavailableError,
        "No runtime.",
        "nothing",
        "install one",
    )
