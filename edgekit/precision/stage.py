"""The precision stage: from an FP32 graph, images and a policy to the cheapest graph that keeps the policy."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from edgekit.calibrate.half_copy import refused
from edgekit.calibrate.stage import CALIBRATION_NAME
from edgekit.core.canonical import JsonValue, dump_canonical, write_json
from edgekit.core.digests import digest_array, digest_bytes
from edgekit.core.environment import environment_print
from edgekit.core.files import write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage, stage_key
from edgekit.core.workplace import kept_workplace
from edgekit.engines.tuning import Tuning, conditions_of
from edgekit.precision.budget import FULL_NAME, Budget, Prepared, budget_of, prepare
from edgekit.precision.document import PRECISION_NAME, budget_document, candidate_rows, plotted
from edgekit.precision.laboratory import Laboratory
from edgekit.precision.request import BudgetRequest
from edgekit.report.pareto import PARETO_PNG, PARETO_SVG, draw_png, draw_svg

__all__ = ["CANDIDATES_NAME", "find_budget"]

CANDIDATES_NAME = "candidates"
# 3: candidates are built as the recipe says.
_VERSION = 3


def find_budget(request: BudgetRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Find the cheapest assignment of precisions that keeps a policy, and fill `destination` with it.

    Written are `model.onnx`, `scales.json` and `calibration.json` as `calibrate` writes them, `precision.json`, and
    the plot `pareto.svg` and `pareto.png`. Where nothing holds there is no `model.onnx`, and the best candidates lie
    under `candidates/NAME`. Where only FP32 holds or FP32 is faster than all that holds, `model.onnx` is the FP32
    graph, there is no table, and the candidates are kept too.

    A process that was killed goes on where it stood: what was calibrated, ranked and measured is not done again.

    Args:
        request: What is wanted.
        destination: Folder of the results.
        observer: Told of the progress.

    Returns:
        The record; its facts hold "outcome", "pass", "fail" or "inconclusive", with "reason" and "candidates".

    Raises:
        BadInputError: As `calibrate`; or the cost table does not fit.
        UnavailableError: The engine is not here or stopped.
    """
    stage = _stage(request)

    def body(folder: Path, workplace: Path) -> Mapping[str, JsonValue]:
        prepared = prepare(request, workplace, observer)
        golden = request.yardstick.golden(observer)
        budget, laboratory = budget_of(request, prepared, golden, workplace, observer)
        write_json(folder / PRECISION_NAME, budget_document(request, prepared, golden, budget))
        chart = plotted(budget, request.policy.name)
        write_bytes(folder / PARETO_SVG, draw_svg(chart).encode("utf-8"))
        write_bytes(folder / PARETO_PNG, draw_png(chart))
        _keep(budget, laboratory, workplace, folder)
        return _facts(request, prepared, budget, len(golden))

    with kept_workplace(destination, stage_key(stage)) as workplace:
        return run_stage(stage, destination, lambda folder: body(folder, workplace), observer)


def _stage(request: BudgetRequest) -> Stage:
    described: dict[str, JsonValue] = {
        **asdict(request.calibration),
        "number_format": request.number_format,
        "input": asdict(request.input),
        "policy": request.policy.to_dict(),
        "engine": dict(vars(request.engine)),
        "budget": asdict(request.options),
        # Candidates are engines: of another power mode or other options they are others.
        "conditions": conditions_of(request.engine.name),
        "tensorrt": Tuning("int8", request.tensorrt).to_dict()["tensorrt"],
        "environment": environment_print(),
    }
    digests = {
        "images": digest_bytes(dump_canonical(list(request.images.digests))),
        "judged": request.yardstick.digest,
    }
    # The files do not say how they are prepared. Of no images there is no first batch; calibration refuses them.
    batch = next(iter(request.images.batches(request.calibration.batch_size)), None)
    if batch is not None:
        digests["prepared"] = digest_array(batch)
    inputs = {"graph": request.graph} | ({} if request.costs is None else {"costs": request.costs})
    return Stage("precision", _VERSION, described, inputs, digests)


def _keep(budget: Budget, laboratory: Laboratory, workplace: Path, folder: Path) -> None:
    chosen = None if budget.choice.name is None else budget.candidates[budget.choice.name]
    if chosen is not None:
        _copy(laboratory.files(chosen), folder)
    if chosen is None or chosen.is_fp32:
        for name in budget.kept:
            _copy(laboratory.files(budget.candidates[name]), folder / CANDIDATES_NAME / name)
    else:
        _copy([workplace / FULL_NAME / CALIBRATION_NAME], folder)


def _copy(files: tuple[Path, ...] | list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)


def _facts(request: BudgetRequest, prepared: Prepared, budget: Budget, judged: int) -> dict[str, JsonValue]:
    choice = budget.choice
    chosen = None if choice.name is None else budget.candidates[choice.name]
    lifted = [] if chosen is None else list(chosen.lifted)
    typed = None if chosen is None else chosen.fp16_types
    return {
        "outcome": choice.outcome,
        "chosen": choice.name,
        "reason": choice.reason,
        "notes": list(budget.notes),
        "policy": request.policy.name,
        "teacher": request.yardstick.teacher,
        "number_format": prepared.fmt.name,
        "images": len(request.images.digests),
        "judged": judged,
        "operations": len(prepared.operations),
        "lifted": lifted,
        "latency": {"source": budget.latency.source, "told": budget.latency.told},
        "candidates": candidate_rows(budget),
        "fp16_types": typed,
        "bytes_before": request.graph.stat().st_size,
        "summary": f"{choice.outcome}: {_in_short(choice.name, lifted, len(prepared.operations))}"
        f"{refused({'fp16_types': typed})}",
    }


def _in_short(name: str | None, lifted: list[str], operations: int) -> str:
    return (
        "nothing is chosen" if name is None else f"{name}, {len(lifted)} of {operations} operations lifted out of INT8"
    )
