"""JetPack releases: the table's order, and what a Jetson Linux version stands for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import BadInputError
from edgekit.jetson.releases import RELEASES, numbers_of, release_named, release_of_l4t


def test_the_table_is_in_order_and_names_nothing_twice() -> None:
    names = [name for release in RELEASES for name in (release.jetpack, *release.also_called)]
    assert names == sorted(set(names), key=numbers_of)
    versions = [l4t for release in RELEASES for l4t in release.l4t]
    assert len(versions) == len(set(versions))
    for release in RELEASES:
        assert release.source
        assert release.tensorrt or release.also_tensorrt
        assert all(numbers_of(version) >= (8, 5) for version in (release.tensorrt, *release.also_tensorrt) if version)


@pytest.mark.parametrize(
    ("l4t", "jetpack", "tensorrt", "python"),
    [
        ("35.4.1", "5.1.2", "8.5.2", (3, 8)),
        ("35.5.0", "5.1.3", "8.5.2", (3, 8)),
        ("36.3.0", "6.0", "8.6.2", (3, 10)),
        ("36.3", "6.0", "8.6.2", (3, 10)),
        ("36.4.2", "6.1", "10.3.0", (3, 10)),
        ("36.4.3", "6.2", "10.3.0", (3, 10)),
        ("36.4.7", "6.2.1", "10.3.0", (3, 10)),
        ("36.5.0", "6.2.2", "10.3.0", (3, 10)),
        ("38.2.1", "7.0", "10.13", (3, 12)),
        ("38.4.0", "7.1", "10.13.3.9", (3, 12)),
        ("39.2.1", "7.2", "10.16.2", (3, 12)),
    ],
)
def test_jetson_linux_tells_the_release(l4t: str, jetpack: str, tensorrt: str, python: tuple[int, int]) -> None:
    release = release_of_l4t(l4t)
    assert release is not None
    assert (release.jetpack, release.tensorrt, release.python) == (jetpack, tensorrt, python)
    assert release_named(jetpack) is release


@pytest.mark.parametrize("l4t", ["32.7.1", "35.1.0", "36.4.1", "36.2.0", "39.0.0", "40.0.0"])
def test_other_jetson_linux_is_not_guessed(l4t: str) -> None:
    assert release_of_l4t(l4t) is None


def test_a_release_has_several_names() -> None:
    assert release_named("7.2.1") is release_named("7.2") is release_named("7.2.0")
    assert release_named("6") is release_named("6.0")
    assert release_named("4.6") is None


@given(st.text(max_size=60))
def test_any_text_is_a_version_or_refused(text: str) -> None:
    try:
        numbers = numbers_of(text)
    except BadInputError:
        assert re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6}){0,3}", text) is None
    else:
        assert 1 <= len(numbers) <= 4
        assert all(part < 10**6 for part in numbers)


@pytest.mark.parametrize(
    "text",
    ["", "10.", ".3", "10.3.0.26.1", "v10", "10.3.0-1+cuda12.5", "1" * 5000, "\u0661", "1 "],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="version") as raised:
        numbers_of(text)
    assert raised.value.expected
    assert raised.value.hint
    assert len(str(raised.value)) < 400
