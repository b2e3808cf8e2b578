"""The support table: each rule is broken by a setting of its own, and holds its tongue where nothing is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.engines import installation
from edgekit.errors import BadInputError, UnavailableError
from edgekit.jetson.releases import RELEASES, numbers_of
from edgekit.targets.build_rules import BUILD_RULES, operator_table_for
from edgekit.targets.feature_rules import FEATURE_RULES
from edgekit.targets.loader import resolve_target, target_names
from edgekit.targets.setting import DEVICE_PYTHON
from edgekit.targets.support import RULES, limits_of, problems_of, require_support, usable_releases

# Rule, target, JetPack, Python, TensorRT: the rule speaks.
BROKEN = [
    ("jetpack-unknown", "jetson-orin-nx-16gb", "4.6", None, None),
    ("jetpack-unknown", "jetson-orin-nx-16gb", "9.9", None, None),
    ("jetpack-board", "jetson-xavier-nx", "6.0", None, None),
    ("jetpack-board", "jetson-orin-nx-16gb", "7.0", None, None),
    ("jetpack-board", "jetson-orin-nano-8gb", "7.2.2", None, None),
    ("jetpack-board", "jetson-thor-t5000", "6.2", None, None),
    ("jetpack-board", "jetson-thor-t4000", "7.0", None, None),
    ("jetpack-board", "jetson-orin-nano-super", "6.1", None, None),
    ("jetpack-board", "cpu-arm", "6.2", None, None),
    ("python-floor", "jetson-orin-nx-16gb", "5.1.2", None, None),
    ("python-floor", "jetson-agx-xavier", "5.1.6", None, None),
    ("python-floor", "jetson-orin-nx-16gb", None, "3.9.18", None),
    ("python-floor", "cpu-arm", None, "3.8", None),
    ("python-of-jetpack", "jetson-orin-nx-16gb", "6.2", "3.11.9", None),
    ("python-of-jetpack", "jetson-thor-t5000", "7.1", "3.10", None),
    ("python-of-jetpack", "jetson-orin-nx-16gb", "5.1", "3.10", None),
    ("tensorrt-floor", "tensorrt", None, None, "8.4.1.5"),
    ("tensorrt-floor", "jetson-xavier-nx", None, None, "7.1.3"),
    ("tensorrt-11-jetpack", "jetson-orin-nx-16gb", "6.2", None, "11.0.0"),
    ("tensorrt-11-jetpack", "jetson-agx-orin-64gb", "7.2.2", None, "11.4.0"),
    ("tensorrt-11-jetpack", "jetson-agx-orin-64gb", "7.2", None, "11.4.1"),
    ("tensorrt-11-jetpack", "jetson-orin-nx-16gb", None, None, "11.4.1"),
    ("tensorrt-11-jetpack", "jetson-thor-t5000", "7.1", None, "11.4.1"),
    ("tensorrt-of-jetpack", "jetson-orin-nx-16gb", "6.2", None, "10.13.3.9"),
    ("tensorrt-of-jetpack", "jetson-orin-nx-16gb", "6.0", None, "10.3.0"),
    ("volta", "jetson-xavier-nx", None, None, "10.5.0"),
    ("plan-elsewhere", "jetson-orin-nx-16gb", None, None, None),
    ("dla-none", "jetson-orin-nano-4gb", None, None, None),
    ("dla-none", "jetson-thor-t5000", "7.1", None, None),
    ("dla-version", "jetson-orin-nx-16gb", "7.2", None, None),
    ("dla-version", "jetson-agx-orin-64gb", None, None, "11.3.0"),
    ("dla-version", "jetson-orin-nx-16gb", None, None, "11.4.1"),
    ("dla-version", "jetson-agx-orin-64gb", None, None, "11.4.0"),
    ("dla-version", "jetson-xavier-nx", None, None, "10.8"),
    ("dla-qdq", "jetson-xavier-nx", "5.1", None, None),
    ("dla-qdq", "jetson-agx-orin-32gb", "6.2", None, None),
    ("dla-qdq", "jetson-agx-orin-32gb", "6.2", None, "10.7.0"),
    ("calibrators", "tensorrt", None, None, "11.0.0"),
    ("calibrators", "jetson-agx-orin-64gb", "7.2.2", None, "11.4.1"),
    ("weak-typing", "tensorrt", None, None, "11.4.0"),
    ("fp8", "jetson-xavier-nx", None, None, None),
    ("fp8", "jetson-agx-orin-64gb", None, None, None),
    ("fp8-flags", "jetson-thor-t5000", "7.1", None, None),
    ("version-compatible", "jetson-xavier-nx", "5.1", None, None),
]

# The same, one step away: the rule is silent.
KEPT = [
    ("jetpack-unknown", "jetson-orin-nx-16gb", "6.2", None, None),
    ("jetpack-board", "jetson-orin-nx-16gb", "7.2.1", None, None),
    ("jetpack-board", "jetson-agx-orin-64gb", "7.2.2", None, None),
    ("jetpack-board", "jetson-orin-nano-super", "6.2", None, None),
    ("python-floor", "jetson-orin-nx-16gb", "6.0", "3.10", None),
    ("python-of-jetpack", "jetson-orin-nx-16gb", "6.2", "3.10.12", None),
    ("python-of-jetpack", "jetson-orin-nx-16gb", None, "3.11", None),
    ("python-of-jetpack", "jetson-orin-nx-16gb", "5.1", "3.9", None),  # the floor says it already
    ("tensorrt-floor", "tensorrt", None, None, "8.5.2"),
    ("tensorrt-floor", "cuda", None, None, "8.4"),
    ("tensorrt-11-jetpack", "jetson-agx-orin-64gb", "7.2.2", None, "11.4.1"),
    ("tensorrt-11-jetpack", "jetson-thor-t4000", None, None, "11.5"),
    ("tensorrt-11-jetpack", "tensorrt", None, None, "11.0"),
    ("tensorrt-of-jetpack", "jetson-orin-nx-16gb", "6.2", None, "10.3.0.26"),
    ("tensorrt-of-jetpack", "jetson-orin-nx-16gb", "6.2", None, "10.7.0"),
    ("tensorrt-of-jetpack", "jetson-thor-t5000", "7.1", None, "10.16.1"),
    ("volta", "jetson-xavier-nx", None, None, "10.4"),
    ("volta", "jetson-orin-nx-16gb", None, None, "10.5"),
    ("plan-elsewhere", "tensorrt", None, None, "10.3"),
    ("dla-none", "jetson-orin-nx-8gb", None, None, None),
    ("dla-version", "jetson-orin-nx-16gb", "6.2", None, "10.7.0"),
    ("dla-version", "jetson-agx-orin-64gb", "7.2.2", None, "11.4.1"),
    ("dla-version", "jetson-orin-nano-8gb", "7.2", None, None),
    ("dla-qdq", "jetson-agx-orin-64gb", "7.2.2", None, "11.4.1"),
    ("dla-qdq", "jetson-agx-orin-64gb", None, None, "10.8"),
    ("calibrators", "tensorrt", None, None, "10.16"),
    ("weak-typing", "cuda", None, None, "11.0"),
    ("fp8", "jetson-thor-t4000", None, None, None),
    ("fp8-flags", "jetson-thor-t5000", "7.2", None, None),
    ("version-compatible", "jetson-orin-nx-16gb", "6.0", None, None),
]


def rules_of(target: str, jetpack: str | None, python: str | None, tensorrt: str | None) -> set[str]:
    problems = problems_of(resolve_target(target), jetpack=jetpack, python=python, tensorrt=tensorrt)
    return {problem.rule for problem in problems}


@pytest.mark.parametrize(("rule", "target", "jetpack", "python", "tensorrt"), BROKEN)
def test_a_rule_that_is_broken_speaks(
    rule: str, target: str, jetpack: str | None, python: str | None, tensorrt: str | None
) -> None:
    assert rule in rules_of(target, jetpack, python, tensorrt)


@pytest.mark.parametrize(("rule", "target", "jetpack", "python", "tensorrt"), KEPT)
def test_a_rule_that_is_kept_is_silent(
    rule: str, target: str, jetpack: str | None, python: str | None, tensorrt: str | None
) -> None:
    assert rule not in rules_of(target, jetpack, python, tensorrt)


def test_the_operator_set_is_held_to_the_parser() -> None:
    new = replace(resolve_target("tensorrt"), opset=19, operators="tensorrt-10.0")
    assert "opset" in {problem.rule for problem in problems_of(new, tensorrt="8.6.1")}
    assert "opset" not in {problem.rule for problem in problems_of(new, tensorrt="10.0.1")}
    assert "opset" not in {problem.rule for problem in problems_of(replace(new, opset=17), tensorrt="8.6.1")}


def test_every_rule_is_broken_once_and_kept_once() -> None:
    spoken = {entry[0] for entry in BROKEN} | {"opset"}
    assert spoken == {entry[0] for entry in KEPT} | {"opset"} == set(RULES)


@pytest.mark.parametrize(("rule", "target", "jetpack", "python", "tensorrt"), BROKEN)
def test_a_problem_says_what_why_what_instead_and_whence(
    rule: str, target: str, jetpack: str | None, python: str | None, tensorrt: str | None
) -> None:
    problems = problems_of(resolve_target(target), jetpack=jetpack, python=python, tensorrt=tensorrt)
    assert [problem.blocks for problem in problems] == sorted((problem.blocks for problem in problems), reverse=True)
    for problem in problems:
        assert problem.what
        assert problem.why
        assert problem.remedy
        assert problem.source
        assert problem.blocks == (problem.rule in BUILD_RULES) != (problem.rule in FEATURE_RULES)


@pytest.mark.parametrize(
    ("tensorrt", "table"),
    [
        ((8, 4), None),
        ((8, 5, 2), "tensorrt-8.5"),
        ((8, 6, 2), "tensorrt-8.6"),
        ((10, 3, 0, 26), "tensorrt-10.3"),
        ((10, 7), "tensorrt-10.6"),
        ((10, 13, 3), "tensorrt-10.13"),
        ((11, 4, 1), "tensorrt-10.15"),
    ],
)
def test_the_table_of_operators_is_the_newest_that_is_no_newer(tensorrt: tuple[int, ...], table: str | None) -> None:
    assert operator_table_for(tensorrt) == table


def test_the_floor_is_that_of_the_device_side() -> None:
    assert installation._PYTHON_FLOORS["device"] == DEVICE_PYTHON


@pytest.mark.parametrize(
    ("name", "releases"),
    [
        ("jetson-xavier-nx", []),
        ("jetson-orin-nx-16gb", ["6.0", "6.1", "6.2", "6.2.1", "6.2.2", "7.2"]),
        ("jetson-agx-orin-64gb", ["6.0", "6.1", "6.2", "6.2.1", "6.2.2", "7.2", "7.2.2"]),
        ("jetson-orin-nano-super", ["6.2", "6.2.1", "6.2.2", "7.2"]),
        ("jetson-thor-t4000", ["7.1", "7.2", "7.2.2"]),
        ("jetson-thor-t5000", ["7.0", "7.1", "7.2", "7.2.2"]),
        ("cpu-x86", []),
    ],
)
def test_usable_releases(name: str, releases: list[str]) -> None:
    assert [release.jetpack for release in usable_releases(resolve_target(name))] == releases


@pytest.mark.parametrize("name", ["jetson-xavier-nx", "jetson-agx-xavier"])
def test_xavier_is_refused_with_what_can_be_done(name: str) -> None:
    with pytest.raises(UnavailableError, match=r"Python 3\.10") as raised:
        require_support(resolve_target(name))
    assert "Python 3.8" in str(raised.value.found)
    assert "Orin" in str(raised.value.hint)
    assert raised.value.expected


def test_a_family_is_refused_only_where_every_module_is() -> None:
    nano = resolve_target("jetson-orin-nano")
    require_support(nano)
    require_support(nano, jetpack="6.0")  # too old for the Super alone
    with pytest.raises(UnavailableError):
        require_support(nano, jetpack="5.1")
    with pytest.raises(UnavailableError, match="pip"):
        require_support(nano, jetpack="6.2", python="3.10", tensorrt="10.13.3")
    require_support(nano, jetpack="6.2", python="3.10", tensorrt="10.3.0.26")


@pytest.mark.parametrize("name", [name for name in target_names() if "xavier" not in name])
def test_every_other_target_can_work_somehow(name: str) -> None:
    require_support(resolve_target(name))


@pytest.mark.parametrize("name", target_names())
def test_limits_are_told_once_with_releases_that_follow_each_other(name: str) -> None:
    target = resolve_target(name)
    limits = limits_of(target)
    assert len({limit.problem for limit in limits}) == len(limits)
    known = [release.jetpack for release in target.jetson.releases] if target.jetson else []
    for limit in limits:
        assert limit.modules == (name,)
        # A range is shown, so it must have no holes.
        start = known.index(limit.releases[0]) if limit.releases else 0
        assert list(limit.releases) == known[start : start + len(limit.releases)]


def test_limits_of_a_family_name_the_modules() -> None:
    limits = {limit.problem.rule: limit for limit in limits_of(resolve_target("jetson-orin-nano"))}
    assert limits["python-floor"].modules == ("jetson-orin-nano-4gb", "jetson-orin-nano-8gb")
    assert len(limits["dla-none"].modules) == 3
    assert limits["tensorrt-of-jetpack"].releases[-1] == "6.2.2"
    assert limits["tensorrt-11-jetpack"].problem.blocks


_VERSIONS = st.sampled_from(
    ["8.4", "8.5.2", "8.6", "10.0", "10.3.0.26", "10.7", "10.13", "10.16", "11.0", "11.4.1", "12"]
)


@given(
    name=st.sampled_from(target_names()),
    jetpack=st.none() | st.sampled_from([release.jetpack for release in RELEASES]) | st.just("3.1"),
    python=st.none() | st.sampled_from(["3", "3.8", "3.10.12", "3.12", "3.14"]),
    tensorrt=st.none() | _VERSIONS,
)
def test_any_setting_is_judged_and_a_refusal_agrees_with_the_problems(
    name: str, jetpack: str | None, python: str | None, tensorrt: str | None
) -> None:
    target = resolve_target(name)
    problems = problems_of(target, jetpack=jetpack, python=python, tensorrt=tensorrt)
    blocked = any(problem.blocks for problem in problems)
    if jetpack is None:
        return
    if blocked:
        with pytest.raises(UnavailableError):
            require_support(target, jetpack=jetpack, python=python, tensorrt=tensorrt)
    else:
        require_support(target, jetpack=jetpack, python=python, tensorrt=tensorrt)


@given(st.text(max_size=30))
def test_text_that_is_no_version_is_our_error(text: str) -> None:
    target = resolve_target("jetson-orin-nx-16gb")
    for asked in ({"jetpack": text}, {"python": text}, {"tensorrt": text}):
        try:
            problems_of(target, **asked)  # type: ignore[arg-type]
        except BadInputError:
            continue
        assert numbers_of(text)
