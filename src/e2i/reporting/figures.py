"""The page's plots by name, and which of them cannot be drawn because their files are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.domain.disclosure import SMALL_CELL
from e2i.reporting.numbers import plain_name

if TYPE_CHECKING:
    from e2i.domain.report import ReportEvidence


def figures(content: dict[str, Any], evidence: ReportEvidence) -> tuple[dict[str, Any], list[str]]:
    """SVG by name (None where there is nothing to draw), and the evidence files that are gone."""
    from e2i.reporting import plots

    drawn: dict[str, Any] = {}
    missing: list[str] = []
    qc, effect, model = content["qc"], content["effect"], content["model"]
    if qc:
        drawn["quality"] = plots.quality(qc["scores"] or {}, total=qc["score"])
    if evidence.curves_ref is not None:
        drawn |= _curves(Path(evidence.curves_ref), model, missing)
    if evidence.shap_ref is not None:
        drawn["beeswarm"] = _beeswarm(Path(evidence.shap_ref), missing)
    if model and model["fairness"]:
        drawn["fairness"] = {
            name: plots.fairness(name, groups, index=index)
            for index, (name, values) in enumerate(model["fairness"].items())
            if values and (groups := fairness_groups(values))
        }
    if evidence.overlap is not None:
        drawn["overlap"] = _overlap(content, evidence)
    if effect and effect["balance"]:
        drawn["balance"] = plots.balance(effect["balance"])
    if effect and effect["verdict"] != "block" and effect["estimate"] is not None:
        drawn |= _estimates(effect)
    if content["segments"] and is_told(content):
        drawn |= _segments(content["segments"])
    return drawn, missing


def _estimates(effect: dict[str, Any]) -> dict[str, Any]:
    """What shows an estimate; never called for a blocked one."""
    from e2i.reporting import causal_plots, plots

    drawn: dict[str, Any] = {}
    outcome = effect["outcome"]
    if None not in effect["interval"] and effect["scale"] == "outcome":
        drawn["effect"] = plots.effect(effect["estimate"], effect["interval"], naive=effect["naive_difference"], outcome=outcome)
    drawn["forest"] = causal_plots.forest([effect, *(effect["alternatives"] or ())], outcome=outcome)
    drawn["event_study"] = causal_plots.event_study(effect["event_study"] or (), outcome=outcome)
    drawn["specifications"] = causal_plots.specification_curve(effect["specifications"] or (), outcome=outcome)
    drawn["path"] = causal_plots.path(effect["path"] or (), outcome=outcome)
    return drawn


def fairness_groups(values: dict[str, float | None]) -> list[dict[str, Any]]:
    """`{"n[old]": 40, "tpr[old]": 0.5, …}` by group: name, n, selection_rate, tpr."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        measure, bracket, rest = key.partition("[")
        if bracket:
            name = rest.removesuffix("]")
            groups.setdefault(name, {"name": name, "n": None, "selection_rate": None, "tpr": None})[measure] = value
    return list(groups.values())


def is_told(content: dict[str, Any]) -> bool:
    """Whether the segments' effects may be shown: nothing is, of an average effect that is blocked."""
    segments, effect = content["segments"], content["effect"]
    return bool(segments) and not segments["refusal"] and not (effect and effect["verdict"] == "block")


def _segments(segments: dict[str, Any]) -> dict[str, Any]:
    from e2i.reporting import segment_plots

    outcome, overall = segments["outcome"], (segments["overall_ate"] or {}).get("estimate")
    drawn: dict[str, Any] = {
        "modifiers": {
            name: segment_plots.modifier(name, rows, overall=overall, outcome=outcome, index=index)
            for index, (name, rows) in enumerate(segments["cate_by_segment"].items())
        }
    }
    if segments["calibration"]:
        drawn["cate_groups"] = segment_plots.groups(segments["calibration"]["groups"], outcome=outcome)
    if segments["uplift"]:
        drawn["uplift"] = segment_plots.gain(segments["uplift"]["curve"], outcome=outcome)
    if segments["policy"]:
        drawn["policies"] = segment_plots.policies(segments["policy"]["values"], unit=_unit(segments))
    return drawn


def _unit(segments: dict[str, Any]) -> str:
    unit = str(segments["policy"]["unit"])
    return plain_name(segments["outcome"]) if unit == "outcome" else unit


def _curves(path: Path, model: dict[str, Any] | None, missing: list[str]) -> dict[str, Any]:
    from e2i.reporting import plots

    if not path.is_file():
        missing.append("ROC, precision-recall and calibration curves")
        return {}
    curves = json.loads(path.read_text(encoding="utf-8"))
    area = ((model or {}).get("metrics") or {}).get("roc_auc", {}).get("value")
    return {
        "roc": plots.roc(curves, area=area),
        "pr": plots.precision_recall(curves),
        "calibration": plots.calibration(curves, smallest=SMALL_CELL + 1),
    }


def _beeswarm(path: Path, missing: list[str]) -> Any:
    import numpy as np

    from e2i.reporting.beeswarm import beeswarm

    if not path.is_file():
        missing.append("SHAP values by row")
        return None
    with np.load(path, allow_pickle=False) as kept:
        return beeswarm({name: kept[name] for name in kept.files})


def _overlap(content: dict[str, Any], evidence: ReportEvidence) -> Any:
    from e2i.reporting import plots

    found, effect = evidence.overlap, content["effect"] or {}
    if found is None:
        return None
    width = found.bin_edges[1] - found.bin_edges[0]

    def few(densities: tuple[float, ...], people: int | None) -> list[bool]:
        # Without a count that may be shown, every bar could be one of few people.
        return [people is None or 0 < round(density * width * people) <= SMALL_CELL for density in densities]

    hidden = [few(found.treated_density, effect.get("treated")), few(found.untreated_density, effect.get("untreated"))]
    return plots.overlap(found.bin_edges, found.treated_density, found.untreated_density, hidden=hidden)
