"""What is watched while the experiment runs: looks with spent alpha, and rules with thresholds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from e2i.domain.sample_ratio import SAMPLE_RATIO_ALPHA
from e2i.domain.trials import InterimLook, MonitoringPlan, MonitoringRule
from e2i.ml.power.spending import boundaries
from e2i.ml.power.threats import ATTRITION, CONTAMINATION

if TYPE_CHECKING:
    from e2i.ml.power.planning import Draft

ENROLMENT = 0.5
"""share of the planned enrolment below which recruitment is mended"""


def duration_weeks(draft: Draft) -> int:
    """Enrolment plus follow-up, in whole weeks; a period of a panel without dates counts as one week."""
    spec = draft.spec
    enrol = draft.power.planned_n / spec.accrual_per_week if spec.accrual_per_week is not None and draft.design != "geo" else 0.0
    return math.ceil(enrol + spec.follow_up * _period(draft) - 1e-9)


def monitoring_plan(draft: Draft) -> MonitoringPlan:
    """Looks at equal steps of information, and the rules. Test markets are read at the end alone: their evidence does not enrol."""
    spec, power = draft.spec, draft.power
    count = 1 if draft.design == "geo" else spec.interim_looks + 1
    limits = boundaries([(k + 1) / count for k in range(count)], alpha=spec.alpha, spending=spec.spending)
    looks = tuple(
        InterimLook(
            look=k + 1,
            information=time,
            n=math.ceil(power.analysed_n * time - 1e-9),
            week=_week(draft, time),
            z_boundary=z,
            nominal_p=2.0 * _tail(z),
            alpha_spent=spent,
        )
        for k, (time, z, spent) in enumerate(zip(limits.information, limits.z, limits.spent, strict=True))
    )
    shares = {"treatment": spec.treated_share, "control": 1.0 - spec.treated_share}
    return MonitoringPlan(
        spending=spec.spending,
        looks=looks,
        rules=_rules(draft),
        expected_shares={} if draft.design == "geo" else shares,
        sample_ratio_alpha=SAMPLE_RATIO_ALPHA,
    )


def final_look(draft: Draft) -> InterimLook:
    """The last look, which decides."""
    return monitoring_plan(draft).looks[-1]


def _rules(draft: Draft) -> tuple[MonitoringRule, ...]:
    spec = draft.spec
    pace = f"{spec.accrual_per_week:g} a week" if spec.accrual_per_week is not None else f"{draft.power.planned_n} at the start"
    rules = [
        MonitoringRule(name="enrolment", threshold=f"below {ENROLMENT:.0%} of plan ({pace})", action="Mend recruitment before going on."),
        MonitoringRule(
            name="attrition", threshold=f"above {ATTRITION:.0%} in either arm", action="Stop enrolling; compare who left by arm."
        ),
        MonitoringRule(
            name="contamination", threshold=f"above {CONTAMINATION:.0%} of controls treated", action="Stop the leak; analyse as assigned."
        ),
    ]
    if draft.design != "geo":
        counted = "clusters" if draft.design == "cluster_rct" else "units"
        rules.append(
            MonitoringRule(
                name="sample_ratio",
                threshold=f"chi-square p < {SAMPLE_RATIO_ALPHA} on enrolled {counted}",
                action="Stop: the assignment is broken.",
            )
        )
    if spec.interim_looks and draft.design != "geo":
        rules.append(MonitoringRule(name="efficacy", threshold="|z| at or above the look's boundary", action="Stop for efficacy."))
    return tuple(rules)


def _week(draft: Draft, information: float) -> float | None:
    """When so much of the information is in: enrolment so far plus follow-up; unknown where all start at once and a look falls inside."""
    spec = draft.spec
    if information >= 1.0:
        return float(duration_weeks(draft))
    if spec.accrual_per_week is None or draft.design == "geo":
        return None
    return round(information * draft.power.planned_n / spec.accrual_per_week + spec.follow_up * _period(draft), 1)


def _period(draft: Draft) -> float:
    return draft.facts.period_weeks if draft.facts.period_weeks is not None else 1.0


def _tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2.0))
