"""Write a run's report: `report.json` for programs, and `report.html`, one file that can be mailed, for people."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.causal.narrative import levels_compared
from e2i.domain.disclosure import SMALL_CELL
from e2i.domain.effect_report import tells_estimate, untested
from e2i.domain.quality import GATE_SCORE
from e2i.domain.report import ReportEvidence, StudyReport
from e2i.errors import StorageError
from e2i.reporting.figures import fairness_groups, figures, is_told
from e2i.reporting.numbers import (
    COUNTS,
    DIAGNOSTICS,
    GAP_REFERENCES,
    METRICS,
    POLICIES,
    SCENARIOS,
    Style,
    criterion_label,
    diagnostic_label,
    format_number,
    in_order,
    is_harmless,
    metric_label,
    plain_name,
    readable,
)
from e2i.reporting.plots import is_weighted
from e2i.whole_files import replace_text, replacing

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
_ACTIONS = {
    "refuse": ("Refused", "bad"),
    "override": ("Refused", "bad"),
    "block": ("Blocks", "bad"),
    "review": ("Review", "warn"),
    "warn": ("Warning", "warn"),
}
"""what a check did -> its word and colour on the page"""
_TOP_FEATURES = 15
_SHOWN_ENTITIES = 50


class HtmlReportWriter:
    """`ReportWriter` that needs nothing but the folder it writes to."""

    def write_report(self, report: StudyReport, evidence: ReportEvidence, folder: Path) -> tuple[Path, Path]:
        """Write `report.html` and `report.json` into `folder`, both whole or not at all.

        The page draws on the report alone; evidence adds files beside the run (curves, SHAP values) and the propensity's
        distribution. A planned experiment leaves its pre-registration and its analysis beside the page. A plot whose file is gone is
        named as missing on the page. Estimates with the verdict `block` or `review`
        are not told in words, and with `block` not shown at all.

        Returns
        -------
        Paths of the page and of the JSON file.

        Raises
        ------
        StorageError
            The folder cannot be written, for instance because the disk is full.
        """
        content = report.to_dict()
        page = render(content, evidence)
        data = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if report.experiment is not None:
                replace_text(folder / "preregistration.md", report.experiment.preregistration_doc)
                replace_text(folder / "analysis_study.yaml", report.experiment.analysis_study)
            targets = (folder / "report.html", folder / "report.json")
            with replacing(*targets) as (html, figures_as_json):
                html.write_text(page, encoding="utf-8")
                figures_as_json.write_text(data + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"the report cannot be written: {error.strerror or error}",
                where=str(folder),
                advice="Free space or give write permission, then run again: the run resumes and only the report is written.",
            ) from error
        return targets


def render(content: dict[str, Any], evidence: ReportEvidence) -> str:
    """The page for the content of report.json."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["readable"] = readable
    environment.filters["plain"] = plain_name
    environment.filters["prose"] = _prose
    environment.tests["untested"] = environment.globals["untested"] = untested
    environment.globals["tells_estimate"] = tells_estimate
    environment.globals["levels_compared"] = levels_compared
    environment.globals["num"] = _Numbers(content).markup
    drawn, missing = figures(content, evidence)
    diagnostics = in_order((content["effect"] or {}).get("diagnostics"), DIAGNOSTICS)
    return environment.get_template("report.html.j2").render(
        report=content,
        actions=_ACTIONS,
        figures=drawn,
        missing=missing,
        gate=f"{GATE_SCORE:.2f}",
        small_cell=SMALL_CELL,
        metric_label=metric_label,
        diagnostic_label=diagnostic_label,
        criterion_label=criterion_label,
        count_diagnostics=COUNTS,
        metric_names=in_order((content["model"] or {}).get("metrics"), METRICS),
        diagnostic_names=[name for name in diagnostics if _verdict(content) != "block" or is_harmless(name)],
        beats_baseline=_beats_baseline(content["model"]),
        split_total=sum(value or 0 for value in (content["splits"] or {}).values()),
        groups={name: fairness_groups(values) for name, values in ((content["model"] or {}).get("fairness") or {}).items() if values},
        top_features=_TOP_FEATURES,
        is_governed=content["experiment_id"] is not None,
        policy_names=POLICIES,
        gap_references=GAP_REFERENCES,
        scenario_names=SCENARIOS,
        is_stopped_at_gate=_is_stopped_at_gate(content),
        are_segments_told=is_told(content),
        is_weighted=is_weighted((content["effect"] or {}).get("balance") or ()),
        opportunities=_ranked(content["gaps"]),
        entities=_moved(content["allocation"]),
        longest_step=max((value or 0 for value in (content["timings_s"] or {}).values()), default=0) or 1,
    )


class _Numbers:
    """Every number on the page comes from here: from report.json by its path, with its full value in the element."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def markup(self, *path: str | int, style: Style = "number") -> Markup:
        """A `<data>` element, or the word unknown."""
        from markupsafe import Markup

        found: Any = self._content
        for key in path:
            found = found[key] if found is not None else None
        if found is None or (isinstance(found, float) and not math.isfinite(found)):
            return Markup('<span class="unknown">unknown</span>')
        name = "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in path)
        return Markup('<data value="{}" data-path="{}">{}</data>').format(repr(found), name, format_number(found, style))


def _prose(text: str) -> Markup:
    """A message as a sentence, with its `quoted` names as code."""
    from markupsafe import Markup, escape

    if re.match(r"[a-z]+[ ,:]", text):
        text = text[0].upper() + text[1:]
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just before


def _beats_baseline(model: dict[str, Any] | None) -> bool | None:
    """Whether the model is better than the rule to beat on its primary metric; None where that is unknown."""
    if model is None:
        return None
    name, sign = ("roc_auc", 1) if model["problem_type"] == "binary_classification" else ("rmse", -1)
    value, rule = ((model["metrics"] or {}).get(name) or {}).get("value"), (model["baseline"] or {}).get(name)
    return None if value is None or rule is None else sign * value > sign * rule


def _verdict(content: dict[str, Any]) -> str | None:
    return content["effect"]["verdict"] if content["effect"] else None


def _is_stopped_at_gate(content: dict[str, Any]) -> bool:
    """The quality gate ended the run; a run of the effect alone has no such gate."""
    qc = content["qc"]
    return content["status"] == "blocked" and (not qc["gate_passed"] if qc else content["effect"] is None)


def _ranked(gaps: dict[str, Any] | None) -> dict[int, int]:
    """Place in the list of opportunities by rank."""
    return {item["rank"]: place for place, item in enumerate(gaps["opportunities"])} if gaps else {}


def _moved(plan: dict[str, Any] | None) -> list[int]:
    """Places of the entities that change most, or get most where nothing changes."""
    rows = plan["allocations"] if plan else ()
    order = sorted(range(len(rows)), key=lambda place: (-abs(rows[place]["change"] or 0), -(rows[place]["allocated"] or 0)))
    return order[:_SHOWN_ENTITIES]
