"""`e2i run`: the main job."""

from __future__ import annotations

import asyncio
import gc
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from e2i.cli.effect import effect_lines, effect_table, plan_lines
from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_json, print_line, print_paragraph
from e2i.errors import ConfigError

if TYPE_CHECKING:
    from e2i.app.study import StudyResult
    from e2i.domain.report import StudyReport

BLOCKED = 3


class EngineKind(StrEnum):
    """Where numerics run."""

    process = "process"
    local = "local"
    ray = "ray"


Engine = Annotated[
    EngineKind, typer.Option("--engine", help="Where numerics run; `local` cannot be stopped by a budget, `ray` is an extra.")
]


def run(
    study: Annotated[Path | None, typer.Argument(help="A study file; default: studies/speaker_program.yaml.")] = None,
    home: Home = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    engine: Engine = EngineKind.process,
) -> None:
    """Take a study from raw data to a governed, explained model and a refuted effect.

    An interrupted run goes on where it stopped. Exit codes: 0 done, 1 failed, 2 usage, 3 a gate blocked.
    """
    result = _carry_out(study, home=home, quiet=quiet, effect_alone=False, engine=engine)
    if as_json:
        print_json(result.report.to_dict())
    else:
        _summarise(result)
    if result.report.status == "blocked":
        raise typer.Exit(BLOCKED)


def effect(
    study: Annotated[Path | None, typer.Argument(help="A study file; default: studies/speaker_program.yaml.")] = None,
    home: Home = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    engine: Engine = EngineKind.process,
) -> None:
    """Answer a study's causal question alone: choose a design, estimate, try to refute, judge.

    Nothing is trained and no quality gate is asked; the causal part has its own checks of the data. Exit codes: 0 done (verdict
    proceed or review), 1 failed, 2 usage, 3 blocked or refused.
    """
    result = _carry_out(study, home=home, quiet=quiet, effect_alone=True, engine=engine)
    if as_json:
        print_json(result.report.to_dict())
    else:
        _summarise(result)
        print_line()
        for line in effect_table(result.report):
            print_paragraph(line)
    if result.report.status == "blocked":
        raise typer.Exit(BLOCKED)


def _carry_out(study: Path | None, *, home: Path | None, quiet: bool, effect_alone: bool, engine: EngineKind) -> StudyResult:
    from e2i import bootstrap
    from e2i.cli.progress import progress_display

    path = study or bootstrap.BUNDLED_STUDY
    if not path.is_file():
        raise ConfigError("no such study file.", where=str(path), advice="Give its path, or write one with `e2i init DATA`.")
    chosen = settings(home)
    gc.set_threshold(100_000, 20, 100)  # thousands of modules are imported; each full collection would go through all of them
    with progress_display(quiet=quiet) as display:
        work = bootstrap.run_study(
            path.absolute(), chosen, on_step=display.step, progress=display, effect_alone=effect_alone, engine=engine.value
        )
        result = asyncio.run(work)
    gc.freeze()  # nor does the interpreter go through them when it ends
    return result


def _summarise(result: StudyResult) -> None:
    report = result.report
    print_line()
    if report.synthetic:
        print_line("SYNTHETIC DATA: nothing here is about real people.")
    resumed = " (resumed)" if result.resumed else ""
    print_line(f"{report.study}: {report.status}{resumed}, run {report.run_id}")
    for line in (*_data_lines(report), *_model_lines(report), *effect_lines(report), *plan_lines(report), *report.warnings):
        print_paragraph(line)
    print_line(f"  Report: {result.html}")


def _data_lines(report: StudyReport) -> list[str]:
    lines = []
    if report.data is not None:
        lines.append(f"Data      {report.data.rows:,} rows, {report.data.columns} columns, sha256 {report.data.sha256[:12]}")
    if report.qc is not None:
        score = "unknown" if report.qc.score is None else f"{report.qc.score:.2f}"
        lines.append(f"Quality   {report.qc.status}, score {score}")
        lines += [
            f"  blocked by {item.check}{f' ({item.column})' if item.column else ''}: {item.detail} {item.advice}"
            for item in report.qc.blocking
        ]
    return lines


def _model_lines(report: StudyReport) -> list[str]:
    if report.model is None:
        return []
    trained, version = report.model.trained, report.model.version
    shown = []
    for name in ("roc_auc", "pr_auc", "brier", "calibration_slope", "rmse", "r2"):
        if name in trained.metrics:
            metric = trained.metrics[name]
            bounds = f" ({metric.low:.3f} to {metric.high:.3f})" if metric.low is not None and metric.high is not None else ""
            shown.append(f"{name} {metric.value:.3f}{bounds}")
    where = f"{version.name} version {version.version}, {version.stage}" if version is not None else "not registered"
    lines = [
        f"Model     {trained.algorithm}: {', '.join(shown[:3])}",
        f"          {where}; MLflow run {trained.mlflow_run_id or 'waiting'}",
    ]
    if report.explanation is not None:
        lines.append("Drivers   " + ", ".join(item.feature for item in report.explanation.explanation.top_features[:5]))
    return lines
