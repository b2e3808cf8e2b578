"""`edgekit build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.model_options import model_options
from edgekit.cli.options import (
    baseline_option,
    calib_option,
    calib_root_option,
    controls_option,
    data_option,
    dla_option,
    dry_run_option,
    engine_option,
    json_option,
    model_argument,
    output_option,
    policy_option,
    quiet_option,
    recipe_option,
    seed_option,
    set_option,
    student_option,
    target_option,
    threads_option,
)
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["command"]


@click.command("build")
@model_argument
@target_option
@engine_option
@data_option
@calib_option
@calib_root_option("the folder of --data")
@recipe_option
@set_option
@dla_option
@student_option
@policy_option
@baseline_option
@controls_option
@output_option("edgekit-build", "Folder for the stages and the bundle; run again with the same one to go on.")
@seed_option
@threads_option
@model_options
@dry_run_option
@quiet_option
@json_option
def command(
    model: Path,
    target: str,
    engine: str | None,
    data: Path,
    calib: Path | None,
    calib_root: Path | None,
    recipe: str,
    assignments: tuple[str, ...],
    dla: int | None,
    student_code: str | None,
    policy: str | None,
    baseline: Path | None,
    controls: bool | None,
    output: Path,
    seed: int,
    threads: int,
    load: LoadOptions,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Compress a classifier, verify its maps on the engine that ships, and bundle it.

    Runs golden, compress, export, calibrate, qat where the recipe asks for it, build, verify and bundle; what is
    unchanged since the last run is not done again. The bundle goes to OUTPUT/release when the policy passed, else to
    OUTPUT/candidate, and the exit code is the verdict: 0 pass, 1 fail, 6 inconclusive.

    For a Jetson target on another machine, OUTPUT/device-candidate is made, which 'edgekit device build' on the device
    and 'edgekit attach' here complete; the exit code is 6, for what is still to be shown.
    """
    from dataclasses import replace

    from edgekit.cli.progress import make_observer
    from edgekit.cli.results import exit_code_of, print_candidate, print_plan, print_result
    from edgekit.config.overrides import overridden
    from edgekit.config.recipe import read_recipe
    from edgekit.engines.protocol import EngineOptions
    from edgekit.pipeline.build import BuildRequest, build, plan
    from edgekit.pipeline.device_candidate import CandidateResult

    chosen = overridden(read_recipe(recipe), assignments)
    if dla is not None:
        chosen = replace(chosen, tensorrt=replace(chosen.tensorrt, dla_core=dla))
    if controls is not None:
        chosen = replace(chosen, verify=replace(chosen.verify, controls=controls))
    request = BuildRequest(
        model=model,
        data=data,
        output=output,
        recipe=chosen if policy is None else replace(chosen, policy=policy),
        target=target,
        load=load,
        calib=calib,
        calib_root=calib_root,
        student_code=student_code,
        seed=seed,
        engine=EngineOptions(threads=threads),
        engine_name=engine,
        baseline=baseline,
    )
    with make_observer(quiet) as observer:
        if dry_run:
            print_plan(plan(request, observer), as_json=as_json)
            return ExitCode.OK
        result = build(request, observer)
    if isinstance(result, CandidateResult):
        print_candidate(result, as_json=as_json)
    else:
        print_result(result, as_json=as_json)
    return exit_code_of(result)
