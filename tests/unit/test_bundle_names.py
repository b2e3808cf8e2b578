"""Names that are safe on every system, judged by the systems' own path rules in the standard library."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bundle import layout
from edgekit.bundle.names import check_names
from edgekit.errors import IntegrityError

LAYOUT = sorted(
    {
        value
        for name, value in vars(layout).items()
        if name.isupper() and isinstance(value, str) and value not in (layout.GOLDEN, "GOLDEN_NAME")
    }
)

names = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="aA./\\ :~\0\u00e9\u0301", max_size=8),
    st.lists(st.sampled_from(["a", "B", "con", "..", ".", "", "x.y", "-z"]), max_size=4).map("/".join),
)


def accepted(*candidates: str) -> bool:
    try:
        check_names(candidates, where="test")
    except IntegrityError:
        return False
    return True


def test_every_name_of_the_layout_is_accepted() -> None:
    assert layout.MANIFEST in LAYOUT
    check_names(LAYOUT, where="layout")


@settings(max_examples=500, derandomize=True, deadline=None)
@given(names)
def test_an_accepted_name_stays_inside_on_posix_and_windows(name: str) -> None:
    if not accepted(name):
        return
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert not path.is_absolute()
        assert not path.drive
        assert ".." not in path.parts
        assert path.as_posix() == name
    assert not any(part.startswith(".") or part.endswith((".", " ")) for part in name.split("/"))
    assert unicodedata.normalize("NFKC", name) == name
    assert name.isprintable()


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(names, max_size=4))
def test_accepted_names_never_fold_into_one(candidates: list[str]) -> None:
    if accepted(*candidates):
        folded = {unicodedata.normalize("NFKC", name).casefold() for name in candidates}
        assert len(folded) == len(candidates)


@pytest.mark.parametrize(
    "pair",
    [("a.json", "A.json"), ("a/x", "A/y"), ("a", "a/x"), ("a/x", "A"), ("a", "a"), ("e/b/c", "E/B/d")],
)
def test_names_that_are_sound_alone_and_collide_together(pair: tuple[str, str]) -> None:
    assert all(accepted(name) for name in pair)
    assert not accepted(*pair)
    assert not accepted(*reversed(pair))


def test_names_that_share_folders_do_not_collide() -> None:
    assert accepted("a/x", "a/y", "a/b/x", "b/a/x", "b.a", "ab")
