"""Target files: strict reading, facts against their sources, and what a roofline is made of."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.engines.registry import ENGINES
from edgekit.errors import DefectError
from edgekit.export.operator_table import load_table
from edgekit.jetson.modules import MODULES
from edgekit.jetson.releases import numbers_of
from edgekit.targets.build_rules import operator_table_for
from edgekit.targets.loader import resolve_target, target_alias, target_aliases, target_names
from edgekit.targets.reading import read_alias, read_documents, read_target
from edgekit.targets.support import usable_releases
from edgekit.targets.target import PLANNED_ENGINES, JetsonFacts

JETSONS = [name for name in target_names() if resolve_target(name).jetson is not None]
FAMILIES = [name for name in target_aliases() if (alias := target_alias(name)) and alias.undecided == "common"]

# Modules for a roofline: SMs, INT8 operations a clock and SM, MHz, GPU and DLA TOPS (dense), GB/s, ridge. Written down
# from the published figures a second time, apart from the files.
ROOFLINES = {
    ("jetson-xavier-nx", "20W"): (6, 2048, 1100, 13.5, 9.0, 59.7, 226),
    ("jetson-agx-xavier", "MAXN"): (8, 2048, 1377, 22.6, 11.4, 136.5, 165),
    ("jetson-orin-nano-4gb", "10W"): (4, 4096, 625, 10.2, 0.0, 34.0, 301),
    ("jetson-orin-nano-4gb", "MAXN_SUPER"): (4, 4096, 1020, 16.7, 0.0, 51.0, 328),
    ("jetson-orin-nano-8gb", "15W"): (8, 4096, 625, 20.5, 0.0, 68.0, 301),
    ("jetson-orin-nano-super", "MAXN_SUPER"): (8, 4096, 1020, 33.4, 0.0, 102.0, 328),
    ("jetson-orin-nx-8gb", "MAXN"): (8, 4096, 765, 25.1, 10.0, 102.4, 245),
    ("jetson-orin-nx-8gb", "MAXN_SUPER"): (8, 4096, 1173, 38.4, 20.0, 102.4, 375),
    ("jetson-orin-nx-16gb", "MAXN"): (8, 4096, 918, 30.1, 20.0, 102.4, 294),
    ("jetson-orin-nx-16gb", "MAXN_SUPER"): (8, 4096, 1173, 38.4, 40.0, 102.4, 375),
    ("jetson-agx-orin-32gb", "MAXN"): (14, 4096, 930, 53.3, 46.0, 204.8, 260),
    ("jetson-agx-orin-64gb", "MAXN"): (16, 4096, 1300, 85.2, 52.5, 204.8, 416),
    ("jetson-thor-t4000", "MAXN"): (12, 16384, 1530, 301.0, 0.0, 273.0, 1100),
    ("jetson-thor-t5000", "MAXN"): (20, 16384, 1575, 517.0, 0.0, 273.0, 1890),
}


def facts_of(name: str) -> JetsonFacts:
    facts = resolve_target(name).jetson
    assert facts is not None
    return facts


@pytest.mark.parametrize("name", target_names())
def test_every_target_is_whole(name: str) -> None:
    target = resolve_target(name)
    assert target.name == name
    assert target.number_format in NUMBER_FORMATS
    assert all(engine in ENGINES or engine in PLANNED_ENGINES for engine in target.engines)
    assert target.status
    if not set(target.engines) & {"ort-cpu"}:
        assert "never run" in target.status, "no target but the processors has run"
    if target.operators is not None:
        low, high = load_table(target.operators).opset
        assert low <= target.opset <= high


def test_planned_engines_are_those_that_targets_name_and_the_registry_lacks() -> None:
    named = {engine for name in target_names() for engine in resolve_target(name).engines}
    assert named - set(ENGINES) == PLANNED_ENGINES


def test_every_module_that_can_be_told_has_a_target() -> None:
    told = {name for module in MODULES for name in (module.name, module.super_name) if name}
    assert told == set(JETSONS)
    jetson = target_alias("jetson")
    assert jetson is not None
    assert set(jetson.stands_for) == told
    for module in MODULES:
        assert facts_of(module.name).soc == module.soc


@pytest.mark.parametrize("name", JETSONS)
def test_the_graph_suits_the_oldest_tensorrt_that_can_be_used(name: str) -> None:
    target, facts = resolve_target(name), facts_of(name)
    releases = usable_releases(target) or facts.releases
    shipped = [numbers_of(release.tensorrt) for release in releases if release.tensorrt]
    assert target.operators == operator_table_for(min(shipped))
    assert "tensorrt" in target.engines
    assert target.number_format == "trt-s8s8"


@pytest.mark.parametrize("name", JETSONS)
def test_xavier_has_no_release_that_works_and_the_others_have(name: str) -> None:
    usable = usable_releases(resolve_target(name))
    assert bool(usable) == ("xavier" not in name)
    assert all(release.python >= (3, 10) for release in usable)


def test_every_peak_is_in_the_list_of_published_figures() -> None:
    assert {(name, peak.mode) for name in JETSONS for peak in facts_of(name).peaks} == set(ROOFLINES)


@pytest.mark.parametrize(("name", "mode"), ROOFLINES)
def test_a_peak_is_what_clocks_and_multiprocessors_give(name: str, mode: str) -> None:
    sms, operations, mhz, tops, dla, bandwidth, ridge = ROOFLINES[name, mode]
    facts = facts_of(name)
    (peak,) = (peak for peak in facts.peaks if peak.mode == mode)
    assert facts.sms == sms
    assert (peak.gpu_int8_tops, peak.dla_int8_tops, peak.bandwidth) == (tops, dla, bandwidth)
    assert peak.gpu_int8_tops == pytest.approx(sms * operations * mhz * 1e6 / 1e12, rel=0.005)
    assert peak.ridge == pytest.approx(ridge, rel=0.005)
    if facts.soc == "tegra264":
        assert peak.gpu_fp16_tops is None
    else:
        assert peak.gpu_fp16_tops == pytest.approx(tops / 2, abs=0.06)
    assert ("derived" in peak.basis) or ("data sheet" in peak.basis)


@pytest.mark.parametrize(
    ("name", "mode", "quoted"),
    [
        ("jetson-xavier-nx", "20W", 21 * 2),  # quoted dense, so doubled here as the others are
        ("jetson-agx-xavier", "MAXN", 32 * 2),
        ("jetson-orin-nano-8gb", "15W", 40),
        ("jetson-orin-nano-super", "MAXN_SUPER", 67),
        ("jetson-orin-nx-16gb", "MAXN", 100),
        ("jetson-orin-nx-16gb", "MAXN_SUPER", 157),
        ("jetson-agx-orin-64gb", "MAXN", 275),
        ("jetson-thor-t5000", "MAXN", 1035),
    ],
)
def test_doubled_for_sparsity_and_with_the_dlas_it_is_the_quoted_figure(name: str, mode: str, quoted: float) -> None:
    (peak,) = (peak for peak in facts_of(name).peaks if peak.mode == mode)
    assert 2 * (peak.gpu_int8_tops + peak.dla_int8_tops) == pytest.approx(
        quoted, rel=0.08 if "xavier" in name else 0.03
    )


@pytest.mark.parametrize("name", JETSONS)
def test_what_is_not_confirmed_is_said(name: str) -> None:
    facts = facts_of(name)
    unsure = [peak for peak in facts.peaks if "not confirmed" in peak.basis]
    assert bool(unsure) == any("peaks" in text for text in facts.unconfirmed)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_what_its_members_share(name: str) -> None:
    family = resolve_target(name)
    assert [member.name for member in family.members] == list(target_alias(name).stands_for)  # type: ignore[union-attr]
    assert family.opset == min(member.opset for member in family.members)
    assert family.operators in {member.operators for member in family.members}
    for member in family.members:
        assert load_table(str(family.operators)).opset[1] <= load_table(str(member.operators)).opset[1]
        assert family.channel_multiple % member.channel_multiple == 0
        assert (family.engines, family.number_format) == (member.engines, member.number_format)
    assert family.jetson is None


def test_documents_differ_in_nothing_but_known_keys() -> None:
    for raw in read_documents().values():
        assert (read_target(raw) is None) != (read_alias(raw) is None)


def _changed(name: str, path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    raw = deepcopy(dict(read_documents()[name]))
    place: Any = raw
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("colour",), "green"),
        (("opset",), None),
        (("opset",), "17"),
        (("opset",), True),
        (("engines",), "tensorrt"),
        (("engines",), ["nothing"]),
        (("engines",), [7]),
        (("operators",), "tensorrt-1.0"),
        (("jetson",), []),
        (("jetson", "colour"), "green"),
        (("jetson", "sms"), None),
        (("jetson", "sms"), 0),
        (("jetson", "sms"), 8.0),
        (("jetson", "soc"), "tegra999"),
        (("jetson", "dla_cores"), 0),
        (("jetson", "dla_cores"), -1),
        (("jetson", "compute_capability"), "1.0"),
        (("jetson", "jetpack_oldest"), "4.6"),
        (("jetson", "jetpack_newest"), "5.0"),
        (("jetson", "power_modes"), []),
        (("jetson", "power_modes"), [15]),
        (("jetson", "power_modes"), ["15W"]),
        (("jetson", "peaks"), []),
        (("jetson", "peaks"), ["fast"]),
        (("jetson", "peaks", 0, "colour"), "green"),
        (("jetson", "peaks", 0, "bandwidth"), None),
        (("jetson", "peaks", 0, "bandwidth"), 0.0),
        (("jetson", "peaks", 0, "bandwidth"), 102),
        (("jetson", "peaks", 0, "gpu_fp16_tops"), -1.0),
        (("jetson", "peaks", 0, "gpu_int8_tops"), 0.0),
        (("jetson", "peaks", 0, "dla_int8_tops"), 0.0),
        (("jetson", "peaks", 0, "mode"), "warp"),
        (("jetson", "peaks", 0, "basis"), ""),
    ],
)
def test_a_slip_in_a_target_file_is_a_defect(path: tuple[str | int, ...], value: Any) -> None:
    assert read_target(_changed("jetson-orin-nx-16gb", ("title",), "Another")) is not None
    with pytest.raises(DefectError, match="wrongly"):
        read_target(_changed("jetson-orin-nx-16gb", path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("colour",), "green"),
        (("stands_for",), ["jetson-orin-nx-8gb"]),
        (("stands_for",), [1, 2]),
        (("decided_by",), "dice"),
        (("undecided",), "guess"),
        (("undecided",), "ask"),
        (("status",), None),
    ],
)
def test_a_slip_in_an_alias_is_a_defect(path: tuple[str | int, ...], value: Any) -> None:
    with pytest.raises(DefectError, match="wrongly"):
        read_alias(_changed("jetson-orin-nx", path, value))


def test_a_family_holds_modules_only_and_no_module_is_a_family() -> None:
    family = resolve_target("jetson-orin-nx")
    with pytest.raises(DefectError, match="members"):
        replace(family, members=(resolve_target("cpu-x86"), resolve_target("cpu-arm")))
    with pytest.raises(DefectError, match="members"):
        replace(family, jetson=facts_of("jetson-orin-nx-8gb"))
