"""A causal finding in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2i.causal.narrative import levels_compared
from e2i.domain.effect_report import tells_estimate, untested

if TYPE_CHECKING:
    from e2i.domain.evidence import CausalFinding, Effect, Hazard, Refutation
    from e2i.domain.report import StudyReport


def effect_lines(report: StudyReport) -> list[str]:
    """The answer in one line; an estimate that may not be told is not told."""
    if report.effect is None:
        return []
    finding = report.effect.finding
    question = f"{report.effect.treatment} on {report.effect.outcome}"
    if finding.effect is None:
        return [f"Effect    {question}: refused. {finding.refusal}"]
    reasons = finding.verdict.reasons
    if finding.verdict.name != "proceed":
        head = f"Effect    {question}: {finding.verdict.name}."
        return [f"{head} {reasons[0]}"] if len(reasons) == 1 else [head, *(f"Reason    {_sentence(reason)}" for reason in reasons)]
    naive = finding.effect.naive_difference
    beside = "" if naive is None else f"; naive difference {naive:.3g}"
    levels = levels_compared(finding.effect.estimator)
    question = question if levels is None else f"{question}, {levels}"
    return [f"Effect    {question}: {finding.effect.estimand} {_with_interval(finding.effect)}{beside}; proceed"]


def plan_lines(report: StudyReport) -> list[str]:
    """Segments, gaps, allocation and experiment, a line each."""
    lines = []
    if report.segments is not None:
        lines.append(f"Segments  {report.segments.summary()}")
    if report.gaps is not None:
        lines.append(f"Gaps      {report.gaps.executive_summary}")
    if report.allocation is not None:
        lines.append(f"Plan      {report.allocation.summary_text}")
    if report.experiment is not None:
        lines.append(f"Experiment {report.experiment.summary()}")
    return lines


def effect_table(report: StudyReport) -> list[str]:
    """Design, tests and, for an effect that may be told, other estimators and periods; of a blocked one nothing that would tell it."""
    if report.effect is None:
        return []
    finding = report.effect.finding
    lines = [f"Design    {_sentence(reason)}" for reason in finding.reasons]
    is_withheld = finding.effect is not None and finding.verdict.name == "block"
    lines += [_check(hazard) for hazard in finding.hazards if not (is_withheld and hazard.code == "note")]
    if finding.effect is not None:
        lines.append(f"Method    {finding.effect.estimator}; interval: {finding.effect.interval_method}")
        if finding.effect.certificate:
            lines.append(f"          {finding.effect.certificate}")
    lines += [
        _test(item, is_withheld=is_withheld) for item in sorted(finding.refutations, key=lambda item: untested(item.test) is not None)
    ]
    return [*lines, *(_details(finding) if finding.verdict.name == "proceed" else [])]


def _check(hazard: Hazard) -> str:
    if hazard.code == "note":
        return f"Note      {_sentence(hazard.text)}"
    action = "" if hazard.action == "warn" else f" ({hazard.action})"
    return f"Check     {hazard.code}{action}: {hazard.text} {hazard.remedy}".rstrip()


def _test(item: Refutation, *, is_withheld: bool) -> str:
    """What ran with its result; what could not be tested says so and is no result. What passed would tell a withheld estimate."""
    name = untested(item.test)
    if name is not None:
        return f"Untested  {name}: {item.detail}"
    detail = "withheld with the estimate" if is_withheld and (item.passed or tells_estimate(item.test)) else item.detail
    return f"Test      {'told  ' if item.is_reported_only else 'passed' if item.passed else 'FAILED'} {item.test}: {detail}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _details(finding: CausalFinding) -> list[str]:
    lines = [f"Beside    {other.estimator}: {other.estimand} {_with_interval(other)}" for other in finding.alternatives]
    lines += [
        f"Period {point.period:+3d} {point.estimate:.3g} ({point.low:.3g} to {point.high:.3g})"
        for point in finding.event_study
        if not point.is_reference
    ]
    return lines


def _with_interval(effect: Effect) -> str:
    low, high = effect.interval()
    return f"{effect.estimate:.3g} (95 % {low:.3g} to {high:.3g})"
