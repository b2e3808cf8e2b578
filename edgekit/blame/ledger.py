"""The hop ledger: the same images through every network from the teacher to the engine, and where the map was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from edgekit.blame.half import half_precision
from edgekit.blame.hop import Hop, compared, teacher_as_answers
from edgekit.blame.student import student_answers, students_of
from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.open import Bundle
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.core.files import foreign_os_errors, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.errors import IntegrityError, UnavailableError
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.verify.answers import EngineAnswers, answer_golden
from edgekit.verify.score import score_answers

__all__ = ["Ledger", "LedgerRequest", "ledger"]

_REFERENCE_ENGINE = "reference"

_Measured: TypeAlias = tuple[EngineAnswers, str]


@dataclass(frozen=True)
class Ledger:
    """Every hop, in order.

    Attributes:
        policy: Name of the policy.
        samples: SHA-256 of each image's pixels: all hops answered these.
        hops: The teacher first, the engine last.
    """

    policy: str
    samples: tuple[str, ...]
    hops: tuple[Hop, ...]

    @property
    def first_broken(self) -> Hop | None:
        """The first hop on the way that the policy fails."""
        return next((hop for hop in self.hops if hop.on_path and hop.outcome == "fail"), None)

    def in_words(self) -> str:
        """Where the map was lost, in a sentence or two."""
        broken = self.first_broken
        on_path = [hop for hop in self.hops if hop.on_path]
        if broken is None:
            open_hops = [hop.title for hop in on_path if hop.outcome == "inconclusive"]
            if not open_hops:
                return f"Every hop that was measured holds the policy {self.policy!r}."
            few = f"{len(self.samples)} images cannot decide it for: {', '.join(open_hops)}."
            return f"No hop is shown to break the policy {self.policy!r}, but {few}"
        before = on_path[: on_path.index(broken)]
        last_seen = max(at for at, hop in enumerate(before) if not hop.reason)
        unseen = ", ".join(hop.title for hop in before[last_seen + 1 :])
        text = f"{_capital(broken.title)} is the first hop that breaks the policy {self.policy!r}: "
        text += "; ".join(broken.failed) + "."
        if unseen:
            text += f" Not measured before it, so the map may have been lost there already: {unseen}."
        return text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        broken = self.first_broken
        return {
            "policy": self.policy,
            "samples": list(self.samples),
            "hops": [hop.to_dict() for hop in self.hops],
            "first_broken": None if broken is None else broken.name,
            "in_words": self.in_words(),
        }


@dataclass(frozen=True)
class LedgerRequest:
    """What is followed.

    Attributes:
        bundle: The opened bundle.
        policy: What every hop is judged by.
        build: The build's output folder, where the student lies; None leaves the student out.
        student_code: The student's architecture as the user named it, where it is code of the user's.
        options: How engines run.
    """

    bundle: Bundle
    policy: Policy
    build: Path | None = None
    student_code: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)


def ledger(
    request: LedgerRequest,
    golden: GoldenSet,
    graph: ExplainedGraph,
    table: ScaleTable | None,
    observer: Observer = NULL_OBSERVER,
) -> Ledger:
    """Let every hop answer the golden set with maps of the teacher's classes.

    Args:
        request: The bundle and how to judge.
        golden: Its golden set: images, and the teacher's answers.
        graph: Its FP32 graph.
        table: Its scale table, None where FP32 ships.
        observer: Told of the progress.

    Raises:
        BadInputError: The build folder is not the one that the bundle came from, or its student cannot be loaded.
        IntegrityError: A file does not fit the bundle.
    """
    book = _Book(golden, request.policy, observer)
    book.begin()
    students = students_of(request.bundle, request.build)
    for student in students:
        ask = partial(student_answers, student, golden, request.student_code, observer)
        book.follow(Hop(student.name, student.title, book.last, reason=student.reason), ask)
    book.follow(
        Hop("onnx", "the FP32 graph", book.last, note="ONNX Runtime, graph optimisations off"),
        lambda: book.run(serialise(graph.model)),
    )
    book.follow(
        Hop("fp16", "FP16", "onnx", on_path=False, note="FP16 emulated on the CPU, not run on TensorRT"),
        lambda: _half(graph, book),
    )
    if table is None:
        book.skip(Hop("qdq", "the Q/DQ graph", "onnx", on_path=False), "FP32 ships: nothing is rounded")
    else:
        book.follow(
            Hop("qdq", "the Q/DQ graph", "onnx", note="from the scale table, in float arithmetic"),
            lambda: book.run(serialise(write_qdq(graph, table))),
        )
    book.follow(
        Hop("engine", "the engine", "onnx" if table is None else "qdq", note="the bytes that ship"),
        lambda: book.engine(request.bundle.manifest.engine, request.bundle.model_path, request.options),
    )
    return Ledger(request.policy.name, golden.digests, tuple(book.hops))


class _Book:
    """Hops as they are written down."""

    def __init__(self, golden: GoldenSet, policy: Policy, observer: Observer) -> None:
        self.golden, self.policy, self.observer = golden, policy, observer
        self.hops: list[Hop] = []
        self._answers: dict[str, EngineAnswers] = {}

    @property
    def last(self) -> str:
        """Name of the hop that was written last."""
        return self.hops[-1].name

    def begin(self) -> None:
        """The teacher, whose answers are stored."""
        self.hops.append(Hop("teacher", "the teacher", None, ran_on="stored answers"))
        self._answers["teacher"] = teacher_as_answers(self.golden)

    def follow(self, hop: Hop, ask: Callable[[], _Measured]) -> None:
        """Measure a hop, or write down why that is not possible here."""
        if hop.reason:
            self.hops.append(hop)
            return
        try:
            answers, ran_on = ask()
        except UnavailableError as cause:
            self.skip(hop, " ".join(part for part in (cause.message, cause.found) if part))
            return
        self._answers[hop.name] = answers
        before = self._nearest(hop.source)
        verdict = judge(self.policy.of_scores(), score_answers(self.golden, answers))
        self.hops.append(
            replace(
                hop,
                ran_on=ran_on,
                against_teacher=compared(self._answers["teacher"], answers),
                against_source=compared(self._answers[before], answers),
                compared_with=before,
                outcome=verdict.outcome,
                failed=tuple(result.text for result in verdict.clauses if result.outcome == "fail"),
            )
        )

    def skip(self, hop: Hop, reason: str) -> None:
        """Write down that a hop was not measured."""
        self.hops.append(replace(hop, reason=reason))

    def run(self, data: bytes) -> _Measured:
        """What ONNX Runtime says with every graph optimisation off."""
        with _as_file(data) as path:
            return self.engine(_REFERENCE_ENGINE, path, EngineOptions())

    def engine(self, name: str, artifact: Path, options: EngineOptions) -> _Measured:
        """What an engine says."""
        with ENGINES.load(name).open(artifact, options) as runner:
            return answer_golden(runner, self.golden, self.observer), f"{runner.info.engine}, {runner.info.runtime}"

    def _nearest(self, name: str | None) -> str:
        """The nearest hop at or before `name` that was measured."""
        sources = {hop.name: hop.source for hop in self.hops}
        while name is not None and name not in self._answers:
            name = sources[name]
        return name or "teacher"


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    with foreign_os_errors(Path("edgekit-ledger"), "make a temporary folder"):
        temporary = TemporaryDirectory(prefix="edgekit-ledger-")
    with temporary as folder:
        path = Path(folder) / "model.onnx"
        write_bytes(path, data)
        yield path


def _half(graph: ExplainedGraph, book: _Book) -> _Measured:
    try:
        return book.run(serialise(half_precision(graph)))
    except IntegrityError as cause:
        raise UnavailableError("ONNX Runtime refuses the graph in FP16.", found=cause.found) from cause


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
