"""Every format of the gate over every outcome: valid by its published schema, red where the gate is, and harmless."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from ci_bundles import HOSTILE, ci_bundle, damaged_graph, hostile_golden, report_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_golden import tiny_golden
from xsd_subset import Schema

from edgekit.ci.document import gate_dict
from edgekit.ci.escaping import escape_json, for_command, for_command_property, for_markdown, visible
from edgekit.ci.registry import GATE_FORMATS
from edgekit.ci.subject import GateReport, Group
from edgekit.cli.gate import FORMATS
from edgekit.cli.gate_table import render_gate
from edgekit.policy.clauses import AccuracyDropClause
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.verify.controls import ControlResult

SCHEMAS = Path(__file__).resolve().parents[1] / "assets" / "ci_schemas"
JUNIT = Schema(SCHEMAS / "junit-10.xsd")
SARIF = jsonschema.Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8")))
SILENT = Policy("only what cannot be measured", 0.95, (AccuracyDropClause(0.1, required=False),), 1)
KINDS = ("pass", "fail", "inconclusive", "nothing measured", "too weak", "controls caught", "hostile")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GateReport]:
    work = tmp_path_factory.mktemp("ci")
    graph = damaged_graph(work)
    sound = report_of(ci_bundle(work / "pass"))
    fail = report_of(ci_bundle(work / "fail", graph=graph))
    unlabelled = replace(tiny_golden(60), labels=np.full(60, -1))
    policy = replace(load_preset("default"), name="x".join(HOSTILE))
    weak = (ControlResult("centre-prior", sound.result.verdict), ControlResult("random-weights", fail.result.verdict))
    return {
        "pass": sound,
        "fail": fail,
        "inconclusive": report_of(ci_bundle(work / "few", golden=tiny_golden(20))),
        "nothing measured": report_of(ci_bundle(work / "silent", golden=unlabelled, policy=SILENT)),
        "too weak": replace(sound, result=replace(sound.result, controls=weak, controls_state="ran")),
        "controls caught": replace(sound, result=replace(sound.result, controls=weak[1:], controls_state="ran")),
        "hostile": report_of(ci_bundle(work / "hostile", graph=graph, golden=hostile_golden(), policy=policy)),
    }


def rendered(report: GateReport, name: str) -> str:
    return render_gate(report) if name == "table" else GATE_FORMATS.load(name)(report)


def test_the_cases_are_what_they_are_called(reports: dict[str, GateReport]) -> None:
    outcomes = {kind: report.result.outcome for kind, report in reports.items()}
    assert outcomes == {
        "pass": "pass",
        "fail": "fail",
        "inconclusive": "inconclusive",
        "nothing measured": "inconclusive",
        "too weak": "inconclusive",
        "controls caught": "pass",
        "hostile": "fail",
    }


def test_the_command_offers_every_registered_format() -> None:
    assert sorted(FORMATS) == sorted(["table", *GATE_FORMATS])


@pytest.mark.parametrize("kind", KINDS)
def test_junit_is_valid_by_jenkins_schema_and_red_where_the_gate_is(reports: dict[str, GateReport], kind: str) -> None:
    report = reports[kind]
    text = rendered(report, "junit")
    assert JUNIT.problems(text) == []
    suite = ElementTree.fromstring(text)[0]
    cases = suite.findall("testcase")
    red = suite.findall("testcase/failure") + suite.findall("testcase/error")
    assert bool(red) is (report.result.exit_code != 0)
    assert int(suite.attrib["tests"]) == len(cases) > len(report.clauses)
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error"))
    assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    for case, item in zip(cases, report.clauses, strict=False):
        element = case[0].tag if len(case) else None
        wanted = {"fail": "failure", "inconclusive": "error", "not-measured": "skipped"}
        assert element == wanted.get(item.result.outcome)


@pytest.mark.parametrize("kind", KINDS)
def test_sarif_is_valid_by_the_published_schema_and_speaks_where_the_gate_is_shut(
    reports: dict[str, GateReport], kind: str
) -> None:
    report = reports[kind]
    log = json.loads(rendered(report, "sarif"))
    SARIF.validate(log)
    (run,) = log["runs"]
    assert bool(run["results"]) is (report.result.exit_code != 0)
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    for result in run["results"]:
        assert result["ruleId"] in rules
        assert result["level"] == "error"
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert run["invocations"][0]["exitCode"] == report.result.exit_code


def test_sarif_names_the_worst_samples(reports: dict[str, GateReport]) -> None:
    report = reports["fail"]
    results = {result["ruleId"]: result for result in json.loads(rendered(report, "sarif"))["runs"][0]["results"]}
    item = next(item for item in report.clauses if item.identity == "share/cosine")
    related = results["share/cosine"]["relatedLocations"]
    assert [place["logicalLocations"][0]["fullyQualifiedName"] for place in related] == [s.digest for s in item.worst]
    assert related[0]["message"]["text"] == f"{item.worst[0].name}: {item.worst[0].value:.4f}"


@pytest.mark.parametrize(("kind", "rule"), [("too weak", "control/centre-prior"), ("nothing measured", "verdict")])
def test_sarif_says_why_a_gate_is_shut_though_no_clause_fails(
    reports: dict[str, GateReport], kind: str, rule: str
) -> None:
    results = json.loads(rendered(reports[kind], "sarif"))["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == [rule]


def test_the_junit_schema_is_interpreted_and_not_merely_parsed(reports: dict[str, GateReport]) -> None:
    text = rendered(reports["fail"], "junit")
    for broken in (
        text.replace('classname="', 'class="', 1),
        text.replace("<properties>", "<properties><testcase name='x'/>", 1),
        re.sub(r' failures="\d+"', "", text),
        text.replace("<failure ", "<broken ").replace("</failure>", "</broken>"),
        text.replace("<testsuites ", "<suites ").replace("</testsuites>", "</suites>"),
        text.replace("<testcase ", "text<testcase ", 1),
        text.replace('<testsuites name="', '<testsuites time="soon" name="', 1),
    ):
        assert broken != text
        assert JUNIT.problems(broken)


def test_the_json_document_is_a_contract(reports: dict[str, GateReport]) -> None:
    document = json.loads(rendered(reports["fail"], "json"))
    assert document == json.loads(json.dumps(gate_dict(reports["fail"])))
    assert document["format"] == "edgekit.gate/1"
    assert {"bundle", "status", "outcome", "exit_code", "verdict", "controls", "worst_samples"} < set(document)
    assert document["verdict"]["clauses"][0]["explanation"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_outcome_stands_in_every_format(reports: dict[str, GateReport], kind: str, name: str) -> None:
    text = rendered(reports[kind], name)
    assert reports[kind].result.outcome in text
    assert reports[kind].manifest.digest in text or name in ("sarif", "table")


@pytest.mark.parametrize("name", FORMATS)
def test_no_line_of_any_format_is_a_command_to_a_runner(reports: dict[str, GateReport], name: str) -> None:
    for line in re.split("[\r\n\u2028\u2029\x85]", rendered(reports["hostile"], name)):
        assert not line.lstrip().startswith(("::", "##["))


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_lets_through_what_terminals_obey(reports: dict[str, GateReport], name: str) -> None:
    text = rendered(reports["hostile"], name)
    # Of our own colours there are only those of the table.
    text = re.sub(r"\x1b\[\d*m", "", text) if name == "table" else text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]", text)


def test_json_and_junit_give_hostile_names_back(reports: dict[str, GateReport]) -> None:
    report = reports["hostile"]
    document = json.loads(rendered(report, "json"))
    assert document["verdict"]["policy"]["name"] == "x".join(HOSTILE)
    names = {sample["name"] for samples in document["worst_samples"].values() for sample in samples}
    assert {sample.name for item in report.clauses for sample in item.worst} == names
    suite = ElementTree.fromstring(rendered(report, "junit"))[0]
    policy = next(item for item in suite.iter("property") if item.attrib["name"] == "policy")
    assert policy.attrib["value"] == visible("x".join(HOSTILE))


@pytest.mark.parametrize("name", ["html", "junit", "markdown"])
def test_classes_that_do_not_hold_are_named_in_words_of_ours(reports: dict[str, GateReport], name: str) -> None:
    """Groups as results of clauses over classes carry them."""
    report = reports["fail"]
    groups = tuple(
        Group(hostile, outcome, 0.25, 0.125, 0.5, 20)
        for hostile, outcome in zip(HOSTILE, ["fail", "pass", "inconclusive"] * 3, strict=True)
    )
    clauses = (replace(report.clauses[0], groups=groups), *report.clauses[1:])
    text = rendered(replace(report, clauses=clauses), name)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert not [line for line in text.splitlines() if line.lstrip().startswith(("::", "##["))]
    assert "<script>" not in text
    if name == "junit":
        assert JUNIT.problems(text) == []
    held = "b code" if name == "markdown" else "c'd"
    assert held not in text.replace("&#x27;", "'"), "classes that hold are not listed"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_closed_to_hostile_names(reports: dict[str, GateReport]) -> None:
    pages = {}
    for kind in ("fail", "hostile"):
        pages[kind] = _Tags()
        pages[kind].feed(rendered(reports[kind], "html"))
    assert pages["hostile"].tags == pages["fail"].tags
    assert pages["hostile"].attributes == pages["fail"].attributes
    assert not pages["hostile"].tags & {"script", "img", "link", "iframe", "a"}
    assert "<script>alert(1)</script>" in pages["hostile"].text
    assert "default-src 'none'" in rendered(reports["hostile"], "html")


def test_markdown_rows_keep_their_cells(reports: dict[str, GateReport]) -> None:
    text = rendered(reports["hostile"], "markdown")
    widths = set()
    for part in text.split("\n\n"):
        rows = [line for line in part.splitlines() if line.startswith("|")]
        if rows:
            # Every row of a table is as wide as its header.
            (width,) = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}
            widths.add(width)
    assert widths == {3, 4, 5}
    inside = "".join(re.findall(r"<code>(.*?)</code>", text))
    for mark in ("<", "@", "://", "www."):
        assert mark not in inside
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]]", inside)


def test_a_markdown_reader_finds_no_markup_in_names(reports: dict[str, GateReport]) -> None:
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    pages = {}
    for kind in ("fail", "hostile"):
        pages[kind] = _Tags()
        pages[kind].feed(reader.render(rendered(reports[kind], "markdown")))
    assert pages["hostile"].tags == pages["fail"].tags
    assert not pages["hostile"].tags & {"script", "a", "img", "em", "h1"}
    shown = {sample.name for item in reports["hostile"].clauses for sample in item.worst if len(sample.name) < 200}
    assert all(visible(name) in pages["hostile"].text for name in shown)


@given(st.text())
def test_visible_text_is_one_line_and_prints(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable()
    assert shown == visible(shown)
    assert len(visible(text, 30)) <= max(len(shown), 30)


@given(st.text())
def test_a_workflow_command_is_one_line_that_reads_back(text: str) -> None:
    told = for_command(text)
    assert len(told.splitlines()) <= 1
    assert told.replace("%0A", "\n").replace("%25", "%") == "\n".join(visible(line) for line in text.split("\n"))
    held = for_command_property(text)
    assert ":" not in held
    assert "," not in held
    assert "\n" not in held


@given(st.text())
def test_markdown_text_holds_no_markup(text: str) -> None:
    told = for_markdown(text)
    assert not re.search(r"[<>@]|(?<!\\)(?:\\\\)*[`*_\[\]|]|://", told)
    assert len(told.splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_json_reads_back(text: str) -> None:
    assert json.loads(escape_json(json.dumps({text: text}, ensure_ascii=False))) == {text: text}
