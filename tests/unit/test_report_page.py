"""The page: every number from the JSON, every word escaped, whole without anything beside it, whatever the build."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from test_report_example import Case, example_report, scores
from test_report_numbers import read_back

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import DefectError, UnavailableError
from edgekit.metrics.agreement import METRICS
from edgekit.policy.clauses import AgreementClause, MeanClause, ShareClause
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.report import page
from edgekit.report.data import ReportData
from edgekit.report.page_environment import page_environment
from edgekit.report.samples import place_in_words
from edgekit.report.write import write_report

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "rect", "line", "circle", "stop"}
LARGEST_PAGE = 5_000_000


class Page(HTMLParser):
    """A page taken apart: elements with attributes, text with the elements around it, problems of nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[tuple[str, dict[str, str]]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, list[tuple[str, dict[str, str]]]]] = []
        self.problems: list[str] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag, _ in self.stack]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1][0] != tag:
            self.problems.append(f"</{tag}> closes {self.stack[-1][0] if self.stack else 'nothing'}")
            return
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((" ".join(data.split()), list(self.stack)))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(text for text, around in self.texts if all(tag != "style" for tag, _ in around))


def written(data: ReportData, folder: Path) -> tuple[Page, Any, str]:
    write_report(data, folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    return Page(html), parse_strict((folder / "report.json").read_bytes(), where="report.json"), html


def at(document: Any, path: str) -> Any:
    for part in path.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key) if isinstance(document, list) else key]
    return document


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (str(key), *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [" ".join(value.split())] if isinstance(value, str) else []


def words_with_digits(text: str) -> set[str]:
    return {word.strip(',.;:()"“”') for word in text.split() if re.search(r"\d", word)}


def untied_numbers(found: Page, document: Any) -> list[str]:
    """Words with a digit that are neither tied to a path nor words of the JSON or of the fixed text."""
    templates = resources.files("edgekit.report").joinpath("templates")
    fixed = [part.read_text(encoding="utf-8") for part in templates.iterdir() if part.name.endswith(".j2")]
    fixed += [*page._STAGE_WORDS.values(), *page._STATE_WORDS.values(), *(m.description for m in METRICS.values())]
    # Of the digests of stages the page shows the beginning.
    keys = {record["key"][:12] for record in document["stages"]}
    allowed = words_with_digits(" ".join(re.sub(r"<[^>]*>", " ", part) for part in fixed)) | keys
    for text in strings(document):
        allowed |= words_with_digits(text)
    loose = []
    for text, around in found.texts:
        tied = any("data-path" in attributes for _, attributes in around)
        if not tied and not {tag for tag, _ in around} & {"style", "pre"}:
            loose += sorted(words_with_digits(text) - allowed)
    return loose


def many_classes() -> ReportData:
    return example_report(Case(classes=tuple(f"class {index}" for index in range(300)), samples=150))


def all_empty() -> ReportData:
    data = example_report(Case(samples=40, degenerate=False))
    empty = np.zeros_like(data.golden.maps)
    golden = replace(data.golden, maps=empty)
    assert data.engine_logits is not None
    table = scores(golden, data.engine_logits, empty, empty)
    policy = load_preset("lenient")
    return replace(
        data,
        status="blocked",
        golden=golden,
        table=table,
        verdict=judge(policy, table),
        engine_maps=empty,
        own_maps=empty,
        candidates=tuple(replace(item, means=dict.fromkeys(item.means, float("nan"))) for item in data.candidates),
    )


def all_broken() -> ReportData:
    data = example_report(Case(samples=40, degenerate=False))
    broken = np.full_like(data.golden.maps, np.nan)
    logits = np.full_like(data.golden.logits, np.nan)
    table = scores(data.golden, logits, broken, broken)
    return replace(
        data,
        status="blocked",
        table=table,
        verdict=judge(load_preset("lenient"), table),
        engine_maps=broken,
        own_maps=broken,
        engine_logits=logits,
    )


def multi_label() -> ReportData:
    data = example_report()
    return replace(data, golden=replace(data.golden, card=replace(data.golden.card, task="multi-label")))


def several_maps() -> ReportData:
    data = example_report()
    better = {
        name: np.where(np.isnan(values), values, METRICS[name].best) for name, values in data.table.metrics.items()
    }
    return replace(data, table=replace(data.table, views={"layer3": data.table.metrics, "layer2, class 2": better}))


CASES = {
    "usual": example_report,
    "several maps": several_maps,
    "perfect": lambda: example_report(Case(noise=0, flips=0, degenerate=False)),
    "failing": lambda: example_report(
        Case(noise=0.9, flips=0.3),
        load_preset("strict"),
        findings=({"fault": "map-shifted", "text": "The maps are shifted by one row.", "before": 0.61, "after": 0.95},),
    ),
    "no masks, no labels": lambda: example_report(Case(masks=False, labels=False)),
    "one sample": lambda: example_report(Case(samples=1)),
    "nothing measured beside": lambda: example_report(
        latency=None, candidates=(), stages=(), environment={}, recipe={}, engine={}, engine_logits=None,
        compression={"skipped": "no training data"},
    ),
    "all maps empty": all_empty,
    "all maps and logits broken": all_broken,
    "300 classes": many_classes,
    "multi-label": multi_label,
}  # fmt: skip


@cache
def made(name: str) -> tuple[Page, Any, str, ReportData]:
    """Each case once: tests run in a random order, which would make a module's fixtures again and again."""
    data = CASES[name]()
    with TemporaryDirectory() as folder:
        return (*written(data, Path(folder)), data)


@pytest.fixture(params=sorted(CASES))
def report(request: pytest.FixtureRequest) -> tuple[Page, Any, str, ReportData]:
    return made(request.param)


Report = tuple[Page, Any, str, ReportData]


def test_every_shown_number_is_the_jsons(report: Report) -> None:
    found, document, _, _ = report
    tied = [attributes for _, attributes in found.elements if "data-path" in attributes]
    assert len(tied) > 50
    for attributes in tied:
        value = at(document, attributes["data-path"])
        assert float(attributes.get("value", attributes.get("data-value", "nan"))) == value, attributes
    shown = [(text, around[-1][1]["data-path"]) for text, around in found.texts if "data-path" in around[-1][1]]
    assert len(shown) > 30
    for text, path in shown:
        number, tolerance = read_back(text.replace(" ", "\u202f"))
        assert abs(number - at(document, path)) <= tolerance * 1.001, (text, path)


def test_no_number_is_shown_outside_the_json(report: Report) -> None:
    found, document, _, _ = report
    assert untied_numbers(found, document) == []


def test_a_stray_number_would_be_noticed(tmp_path: Path) -> None:
    _, document, html = written(example_report(), tmp_path)
    spoiled = html.replace("</main>", "<p>Mean cosine 0.98765</p></main>")
    assert untied_numbers(Page(spoiled), document) == ["0.98765"]


def test_the_page_needs_nothing_else(report: Report) -> None:
    found, _, html, _ = report
    assert len(html.encode("utf-8")) < LARGEST_PAGE
    assert not {tag for tag, _ in found.elements} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in found.all("img"))
    assert all(link["href"].startswith("#") for link in found.all("a"))
    assert not re.search(r"(?i)\b(?:https?:)?//[a-z]|@import|\burl\((?!#)", re.sub(r"base64,[^\"]*", "", html))
    policy = next(meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode("utf-8")).digest()).decode("ascii")
    assert policy.startswith("default-src 'none';")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [attributes for _, attributes in found.elements if "style" in attributes], "the policy would block them"


def test_the_page_is_sound_and_can_be_used_by_everybody(report: Report) -> None:
    found, _, html, _ = report
    assert found.problems == []
    assert html.startswith("<!doctype html>")
    assert found.all("html")[0]["lang"] == "en"
    identifiers = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for link in found.all("a"):
        assert link["href"].removeprefix("#") in identifiers
    assert len(found.all("table")) == len(found.all("caption"))
    assert all(cell.get("scope") in ("col", "row") for cell in found.all("th"))
    assert all(image.get("alt") and int(image["width"]) and int(image["height"]) for image in found.all("img"))
    for drawing in found.all("svg"):
        named = drawing.get("aria-label") or drawing.get("aria-labelledby") in identifiers
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and named)
    # A box that scrolls must be reached and named without a mouse.
    boxes = [element for element in found.all("div") if element.get("class") == "scroll"]
    assert boxes
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_verdict_comes_first_in_words_and_shape(report: Report) -> None:
    found, document, _, data = report
    assert document["status"] == data.status
    words = found.words
    assert words.index(document["headline"]) < words.index("What was demanded")
    sign = next(element for element in found.all("svg") if element.get("class") == "sign")
    assert sign["aria-label"] == data.status
    assert data.status in [text for text, around in found.texts if around[-1][1].get("class") == "status"]
    for result in data.verdict.clauses:
        assert " ".join(result.text.split()) in words
    expected = {"released": "Released:", "blocked": "Blocked:", "inconclusive": "Not released:"}[data.status]
    assert document["headline"].startswith(expected)


def test_each_part_is_there_or_says_why_not(report: Report) -> None:
    found, document, _, data = report
    words = found.words
    sections = {element["id"] for element in found.all("section")}
    wanted = {"demands", "done", "cost", "candidates", "distributions", "samples", "classes", "localisation"}
    assert wanted | {"degenerate", "own", "environment", "reproduce", "words"} <= sections
    assert ("findings" in sections) == bool(data.findings)
    if data.golden.masks is None:
        assert "no golden sample has a mask" in words
    if not data.candidates:
        assert "No candidates were recorded" in words
    if not document["samples"]["worst"]:
        assert "No sample's maps could be compared" in words
    if not document["engines"]["measured"] and document["engines"]["rows"]:
        assert "Latency was not measured" in words
    if "skipped" in data.compression:
        assert "not compressed: no training data" in words
    pictured = [int(key) for key in document["samples"]["shown"]]
    for index in pictured:
        assert f"sample-{index}" in [attributes.get("id") for attributes in found.all("article")]
        flipped = data.table.teacher_class[index] != data.table.engine_class[index]
        assert sum(image["src"].startswith("data:") for image in found.all("img")) >= 4 + flipped


def test_the_json_is_canonical_and_agrees_with_its_sources(report: Report) -> None:
    _, document, _, data = report
    assert document["format"] == "edgekit.report/1"
    assert parse_strict(dump_canonical(document), where="again") == document
    table = data.table
    assert document["answers"]["agreement"]["successes"] == int((table.teacher_class == table.engine_class).sum())
    assert {row["state"]: row["count"] for row in document["states"]} == dict(data.verdict.states)
    assert document["samples"]["wrong_evidence_total"]["count"] == data.verdict.right_label_wrong_evidence
    assert [clause["outcome"] for clause in document["verdict"]["clauses"]] == [r.outcome for r in data.verdict.clauses]
    for name, described in document["distributions"].items():
        present = table.metrics[name][~np.isnan(table.metrics[name])]
        if described["summary"] is None:
            assert present.size == 0
        else:
            assert described["summary"]["mean"] == pytest.approx(present.mean())
            assert described["summary"]["count"] == present.size
    assert document["own_class"]["flipped"] == int((table.teacher_class != table.engine_class).sum())
    assert sum(row["support"] for row in document["classes"]["rows"]) + document["classes"]["unlabelled"] == len(table)


HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}\"'&amp;"


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    names = tuple(f"{HOSTILE}{index}" for index in range(4))
    data = example_report(
        Case(classes=names),
        title=HOSTILE,
        target=HOSTILE,
        findings=({"fault": HOSTILE, "text": HOSTILE, "before": 0.5, "after": 0.9},),
        environment={HOSTILE: {HOSTILE: [HOSTILE, 1]}, "processor": HOSTILE},
        recipe={HOSTILE: HOSTILE, "seed": HOSTILE},
        engine={"device": HOSTILE, "runtime": HOSTILE},
        latency={HOSTILE: {"p50": 1.0}},
        compression={"skipped": HOSTILE},
    )
    data = replace(
        data,
        golden=replace(data.golden, names=tuple(f"{HOSTILE}{index}.png" for index in range(len(data.golden)))),
        stages=tuple(replace(record, stage=HOSTILE, facts={"summary": HOSTILE}) for record in data.stages),
        candidates=tuple(replace(item, name=HOSTILE, reason=HOSTILE) for item in data.candidates),
        judged=HOSTILE,
    )
    found, _, html = written(data, tmp_path)
    assert found.problems == []
    assert "script" not in {tag for tag, _ in found.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:image/jpeg") for image in found.all("img"))
    assert "<script" not in html
    assert found.words.count(" ".join(HOSTILE.split())) > 40


def test_the_same_build_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(example_report(), tmp_path / name)
    for file in ("report.html", "report.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["report.html", "report.json"]


def test_large_noisy_images_stay_within_the_pages_limit(tmp_path: Path) -> None:
    data = example_report(Case(samples=30, side=300, flips=0.5))
    noise = np.random.default_rng(0).integers(0, 256, data.golden.pixels.shape, dtype=np.uint8)
    golden = replace(data.golden, pixels=noise)
    data = replace(data, golden=golden, table=replace(data.table, sample=golden.digests))
    _, _, html = written(data, tmp_path)
    assert 1_000_000 < len(html) < LARGEST_PAGE


@pytest.mark.parametrize(
    ("engine", "environment", "said"),
    [
        (
            {"runtime": "onnxruntime 1.22.0", "device": "Chip", "details": {"providers": ["CPUExecutionProvider"]}},
            {},
            "Measured on: Chip, ONNX Runtime 1.22.0; the engine ran on neither TensorRT nor a GPU.",
        ),
        (
            {
                "runtime": "onnxruntime 1.22.0",
                "device": "Card",
                "details": {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
            },
            {"packages": {"onnxruntime-gpu": "1.22.0"}},
            "Measured on: Card, ONNX Runtime 1.22.0.",
        ),
        (
            {"runtime": "openvino 2026.4.1", "device": "Chip", "details": {"devices": ["CPU"]}},
            {},
            "Measured on: Chip, OpenVINO 2026.4.1; the engine ran on neither TensorRT nor a GPU.",
        ),
        ({"engine": "tensorrt", "runtime": "tensorrt 10.3", "device": "Orin"}, {}, "Measured on: Orin, TensorRT 10.3."),
        (
            {},
            {"processor": "Chip", "packages": {"onnxruntime": "1.22.0"}},
            "Measured on: Chip, ONNX Runtime 1.22.0; the engine ran on neither TensorRT nor a GPU.",
        ),
        (
            {},
            {"processor": "Chip", "packages": {"onnxruntime": "1.22.0", "tensorrt": "10.3"}},
            "Measured on: Chip, ONNX Runtime 1.22.0.",
        ),
        ({}, {}, "Measured on: a machine that was not recorded, a runtime that was not recorded."),
    ],
)  # fmt: skip
def test_what_was_measured_where_is_told_from_the_record_alone(
    engine: dict[str, Any], environment: dict[str, Any], said: str, tmp_path: Path
) -> None:
    found, document, _ = written(example_report(Case(samples=2), engine=engine, environment=environment), tmp_path)
    assert document["measured_on"] == said
    assert said in found.words


def test_speed_and_size_are_told_against_fp32(tmp_path: Path) -> None:
    data = example_report()
    _, document, _ = written(data, tmp_path / "medians")
    int8, fp32 = document["engines"]["rows"]
    assert int8["speed_up"] == pytest.approx(0.934 / 0.412)
    assert int8["size_ratio"] == pytest.approx(162_344 / 551_201)
    assert (fp32["speed_up"], fp32["size_ratio"]) == (1.0, 1.0)
    # The ratio that the bench found round by round outweighs that of two medians.
    timed = tuple(replace(item, latency_ratio=0.5 if item.name == "int8" else 1.0) for item in data.candidates)
    _, document, _ = written(replace(data, candidates=timed, latency={"int8": {"p50_ms": 3.0}}), tmp_path / "ratio")
    assert document["engines"]["rows"][0]["speed_up"] == 2.0
    assert document["engines"]["rows"][0]["p50"] == 3.0
    assert document["engines"]["rows"][1]["p50"] == 0.934, "the candidate's own median where latency has none"


def test_power_energy_and_memory_are_told_where_any_engine_has_them(tmp_path: Path) -> None:
    data = example_report()
    found, document, html = written(data, tmp_path / "none")
    assert document["engines"]["further"] == []
    assert "Peak memory</th>" not in html
    times = {name: dict(stats) for name, stats in (data.latency or {}).items()}
    times["int8"] |= {"power_w": 8.25, "energy_mj": 61.5, "peak_memory_bytes": 50_000_000.0}
    found, document, html = written(replace(data, latency=times), tmp_path / "some")
    int8, fp32 = document["engines"]["rows"]
    assert document["engines"]["further"] == ["power_w", "energy_mj", "peak_memory_bytes"]
    assert (int8["power_w"], int8["energy_mj"], int8["peak_memory_bytes"]) == (8.25, 61.5, 5e7)
    assert (fp32["power_w"], fp32["energy_mj"], fp32["peak_memory_bytes"]) == (None, None, None)
    assert all(heading in html for heading in ("Power</th>", "Energy</th>", "Peak memory</th>"))
    assert all(part in found.words for part in ("8.25", "61.5", "50"))


def test_engines_that_competed_and_engines_that_were_not_there_are_told(tmp_path: Path) -> None:
    data = example_report()
    own = tuple(replace(item, engine="ort-cpu") for item in data.candidates)
    other = tuple(
        replace(item, name=f"{item.name}-openvino", engine="openvino", shipped=False, latency_ratio=0.4)
        for item in data.candidates
    )
    absent = ({"engine": "tensorrt", "reason": "<b>tensorrt</b> is not installed"},)
    whole = replace(data, candidates=own + other, engines_absent=absent, engine={**data.engine, "engine": "ort-cpu"})
    found, document, html = written(whole, tmp_path / "two")
    assert "The engine tensorrt did not compete: <b>tensorrt</b> is not installed." in found.words
    assert "<b>tensorrt" not in html
    assert [item["engine"] for item in document["candidates"]] == ["ort-cpu"] * 2 + ["openvino"] * 2
    # One baseline for the whole column, whichever engine it is of.
    assert document["engines"]["baseline"] == "fp32"
    assert document["engines"]["rows"][2]["speed_up"] == 2.5
    assert "--engine ort-cpu" in document["reproduce"]["commands"][1]["command"]
    found, document, _ = written(data, tmp_path / "one")
    assert document["engines_absent"] == []
    assert "did not compete" not in found.words
    assert "--engine" not in document["reproduce"]["commands"][1]["command"]


@pytest.mark.parametrize(
    ("policy", "samples", "said"),
    [
        (Policy("p", 0.95, (AgreementClause(0.5),), 10), 90, "(int8) for cpu meets the one demand of the policy “p”"),
        (Policy("p", 0.95, (AgreementClause(0.96),), 10), 90, "Not released: 90 golden samples cannot decide the dem"),
        (Policy("p", 0.95, (MeanClause("cosine", 0.99),), 10), 90, "misses the demand “mean cosine >= 0.99” of the po"),
        (Policy("p", 0.95, (MeanClause("cosine", 0.1),), 500), 90, "about shapes-resnet (int8) for cpu; 500 samples w"),
        (Policy("p", 0.95, (AgreementClause(0.5),), 10), 1, "1 golden sample cannot decide"),
        (
            Policy("p", 0.95, (ShareClause("cosine", 0.999999, 0.99), MeanClause("ssim", 0.999999)), 10),
            90,
            "Blocked: shapes-resnet (int8) for cpu misses 2 of 2 demands of the policy “p” on 90 golden samples.",
        ),
    ],
)  # fmt: skip
def test_the_headline_says_what_decided(policy: Policy, samples: int, said: str, tmp_path: Path) -> None:
    _, document, _ = written(example_report(Case(samples=samples), policy), tmp_path)
    assert said in document["headline"]


def test_a_blocked_build_says_which_candidate_it_is_about(tmp_path: Path) -> None:
    data = example_report(Case(noise=0.9, flips=0.3), load_preset("strict"))
    candidates = tuple(replace(item, shipped=False) for item in data.candidates)
    found, document, _ = written(replace(data, candidates=candidates, judged="fp32"), tmp_path / "judged")
    assert document["judged"] == "fp32"
    assert "The rest of this page is about “fp32”" in found.words
    assert found.words.count("judged here, not released") == 2
    found, document, _ = written(replace(data, candidates=candidates, judged=None), tmp_path / "unknown")
    assert document["judged"] is None
    assert "not released" not in found.words
    with pytest.raises(DefectError, match="judged candidate"):
        replace(data, judged="int4")


def test_a_release_without_a_verdict_that_passes_cannot_be_reported() -> None:
    data = example_report(Case(noise=0.9, flips=0.3), load_preset("strict"))
    with pytest.raises(DefectError, match="status"):
        replace(data, status="released")


def test_scores_of_other_samples_cannot_be_reported() -> None:
    data = example_report()
    with pytest.raises(DefectError, match="score table"):
        replace(data, golden=replace(data.golden, pixels=data.golden.pixels[::-1]))
    with pytest.raises(DefectError, match="maps"):
        replace(data, engine_maps=data.engine_maps[:, :4])


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        (0, 0, "upper left"), (0, 4, "upper middle"), (4, 4, "centre"), (4, 8, "right middle"), (8, 8, "lower right"),
    ],
)  # fmt: skip
def test_alternative_texts_say_where_a_map_is_strongest(row: int, column: int, words: str) -> None:
    values = np.full((9, 9), 0.1)
    values[row, column] = 1
    assert place_in_words(values) == f"strongest in the {words}"
    assert place_in_words(np.zeros((2, 2))) == "it is empty"
    assert "not finite" in place_in_words(np.array([[np.nan, 1.0]]))


@pytest.mark.parametrize(("package", "extra"), [("PIL", "images"), ("jinja2", "host")])
def test_a_missing_package_is_named_with_its_remedy(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    page_environment.cache_clear()
    with pytest.raises(UnavailableError) as caught:
        write_report(example_report(Case(samples=2)), tmp_path)
    assert caught.value.hint == f"pip install 'edgekit[{extra}]'"
    assert list(tmp_path.iterdir()) == []


def test_importing_the_report_loads_neither_pillow_nor_jinja() -> None:
    code = (
        "import sys, edgekit.report.write, edgekit.report.sheet, edgekit.report.explain;"
        "print([name for name in ('PIL', 'jinja2', 'markupsafe', 'torch', 'onnx', 'pydantic') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_words_stand_out_from_what_they_stand_on(scheme: str) -> None:
    style = resources.files("edgekit.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[("light", "dark", "paper").index(scheme)]))

    def contrast(ink: str, paper: str) -> float:
        # Relative luminance and contrast ratio by WCAG 2.2.
        lights = []
        for colour in (ink, paper):
            channels = np.array([int(colours[colour][place : place + 2], 16) for place in (1, 3, 5)]) / 255
            linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
            lights.append(float(linear @ np.array([0.2126, 0.7152, 0.0722])))
        return (max(lights) + 0.05) / (min(lights) + 0.05)

    for ink in ("ink", "quiet", "pass", "fail", "open", "link"):
        assert contrast(ink, "page") >= 4.5, ink
        assert contrast(ink, "soft") >= 4.5, ink
    for mood in ("pass", "fail", "open"):
        assert contrast(mood, f"{mood}-soft") >= 4.5, mood
        assert contrast("ink", f"{mood}-soft") >= 4.5, mood
    for ink in ("ink", "quiet"):
        assert contrast(ink, "good") >= 4.5, ink
    # What is drawn: bars, bounds, dots and whiskers, and the frame of what is focused.
    for shape in ("bar", "missed", "link", "quiet"):
        assert contrast(shape, "page") >= 3, shape
    assert contrast("missed", "good") >= 3


def test_the_recipe_on_the_page_is_the_one_in_the_json(report: Report) -> None:
    found, document, _, _ = report
    shown = next(text for text, around in found.texts if around[-1][1].get("class") == "recipe")
    assert json.loads(shown) == document["recipe"]
