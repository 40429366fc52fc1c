"""Plans that rest on what was found: gaps and what closing them is worth, allocation, the next experiment."""

from __future__ import annotations

from e2i.agents.causal_analytics import gap_analyzer
from e2i.agents.ml_predictions import resource_optimizer
from e2i.agents.monitoring import experiment_designer
from e2i.app.study_progress import Progress, table_of
from e2i.app.study_steps import StudyPorts, run_agent
from e2i.domain.allocation import SegmentResponse
from e2i.domain.evidence import CausalFinding


async def make_plans(progress: Progress, ports: StudyPorts) -> None:
    """Gaps and what closing them is worth, then who gets how much; both use the effect only where it passed the gate."""
    study, base, table = progress.study, str(progress.base), table_of(progress)
    ref = table.ref if table is not None else None
    if study.gaps is not None:
        findings = await _findings(progress, ports)
        compared = gap_analyzer.State(spec=study.gaps, seed=study.seed, base=base, table=ref, findings=findings)
        progress.compared = await run_agent(progress, ports, gap_analyzer.SPEC, compared)
    if study.allocation is not None:
        allocated = resource_optimizer.State(
            spec=study.allocation, seed=study.seed, base=base, table=ref, responses=_responses(progress), refusal=_refusal(progress)
        )
        progress.allocated = await run_agent(progress, ports, resource_optimizer.SPEC, allocated)
    if study.experiment is not None:
        designed = experiment_designer.State(spec=study.experiment, name=study.name, seed=study.seed, base=base, table=ref)
        progress.designed = await run_agent(progress, ports, experiment_designer.SPEC, designed)


async def _findings(progress: Progress, ports: StudyPorts) -> dict[str, CausalFinding]:
    """The study's own finding as `effect`, and under a treatment's name what an earlier study proved of it on the metric."""
    own = progress.caused.finding if progress.caused is not None else None
    found = {} if own is None else {"effect": own}
    gaps = progress.study.gaps
    for proven in gaps.proven if gaps is not None else ():
        if proven.finding not in found:
            earlier = await ports.evidence.proven(proven.metric, brand=progress.study.brand)
            found |= {one.treatment: one.as_finding() for one in earlier if one.treatment == proven.finding}
    return found


def _responses(progress: Progress) -> tuple[SegmentResponse, ...]:
    """Measured effects of the segments that the allocation names, when the average effect passed the gate."""
    allocation, divided = progress.study.allocation, progress.divided
    by = allocation.response.effect_by if allocation is not None else None
    report = divided.report if divided is not None else None
    if by is None or report is None or _refusal(progress) is not None:
        return ()
    return tuple(
        SegmentResponse(segment=found.segment_value, estimate=found.estimate, low=found.low, high=found.high)
        for found in report.cate_by_segment.get(by, ())
    )


def _refusal(progress: Progress) -> str | None:
    """Why the allocation may not use the measured effect by segment that it asks for; None where it may, or asks for none."""
    allocation, divided = progress.study.allocation, progress.divided
    if allocation is None or allocation.response.effect_by is None or progress.caused is None:
        return None
    finding = progress.caused.finding
    if finding is None or finding.verdict.name != "proceed":
        told = "could not be estimated" if finding is None else f"has the verdict {finding.verdict.name}"
        return f"its responses are the effects by {allocation.response.effect_by}, and the effect {told}."
    report = divided.report if divided is not None else None
    return None if report is None or report.refusal is None else f"the effect is not divided into segments: {report.refusal}"
