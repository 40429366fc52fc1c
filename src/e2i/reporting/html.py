"""Write a run's report: `report.json` for programs, and `report.html`, one file that can be mailed, for people."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.domain.disclosure import SMALL_CELL
from e2i.domain.quality import GATE_SCORE
from e2i.domain.report import ReportEvidence, StudyReport
from e2i.errors import StorageError
from e2i.reporting.numbers import (
    COUNTS,
    DIAGNOSTICS,
    METRICS,
    POINT_ESTIMATES,
    Style,
    criterion_label,
    diagnostic_label,
    format_number,
    in_order,
    metric_label,
    plain_name,
    readable,
)

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
_TOP_FEATURES = 15


class HtmlReportWriter:
    """`ReportWriter` that needs nothing but the folder it writes to."""

    def write_report(self, report: StudyReport, evidence: ReportEvidence, folder: Path) -> tuple[Path, Path]:
        """Write `report.html` and `report.json` into `folder`, both whole or not at all.

        The page draws on the report alone; evidence adds files beside the run (curves, SHAP values) and the propensity's
        distribution. A plot whose file is gone is named as missing on the page. Estimates with the verdict `block` or `review`
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
            return _write_both(folder / "report.html", page, folder / "report.json", data + "\n")
        except OSError as error:
            raise StorageError(
                f"the report cannot be written: {error.strerror or error}",
                where=str(folder),
                advice="Free space or give write permission, then run again: the run resumes and only the report is written.",
            ) from error


def _write_both(page: Path, html: str, data: Path, content: str) -> tuple[Path, Path]:
    """Both files are complete on the disk before either takes its place."""
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in (page, data)]
    try:
        for part, text in zip(parts, (html, content), strict=True):
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        return parts[0].replace(page), parts[1].replace(data)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def render(content: dict[str, Any], evidence: ReportEvidence) -> str:
    """The page for the content of report.json."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["readable"] = readable
    environment.filters["plain"] = plain_name
    environment.filters["prose"] = _prose
    environment.globals["num"] = _Numbers(content).markup
    figures, missing = _figures(content, evidence)
    withheld = POINT_ESTIMATES if _verdict(content) == "block" else frozenset()
    return environment.get_template("report.html.j2").render(
        report=content,
        figures=figures,
        missing=missing,
        gate=f"{GATE_SCORE:.2f}",
        small_cell=SMALL_CELL,
        metric_label=metric_label,
        diagnostic_label=diagnostic_label,
        criterion_label=criterion_label,
        count_diagnostics=COUNTS,
        metric_names=in_order((content["model"] or {}).get("metrics"), METRICS),
        diagnostic_names=[name for name in in_order((content["effect"] or {}).get("diagnostics"), DIAGNOSTICS) if name not in withheld],
        beats_baseline=_beats_baseline(content["model"]),
        split_total=sum(value or 0 for value in (content["splits"] or {}).values()),
        groups={name: fairness_groups(values) for name, values in ((content["model"] or {}).get("fairness") or {}).items() if values},
        top_features=_TOP_FEATURES,
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
        if found is None:
            return Markup('<span class="unknown">unknown</span>')
        name = "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in path)
        return Markup('<data value="{}" data-path="{}">{}</data>').format(repr(found), name, format_number(found, style))


def _prose(text: str) -> Markup:
    """A message as a sentence, with its `quoted` names as code."""
    from markupsafe import Markup, escape

    if re.match(r"[a-z]+[ ,]", text):
        text = text[0].upper() + text[1:]
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just before


def fairness_groups(values: dict[str, float | None]) -> list[dict[str, Any]]:
    """`{"n[old]": 40, "tpr[old]": 0.5, …}` by group: name, n, selection_rate, tpr."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        measure, bracket, rest = key.partition("[")
        if bracket:
            name = rest.removesuffix("]")
            groups.setdefault(name, {"name": name, "n": None, "selection_rate": None, "tpr": None})[measure] = value
    return list(groups.values())


def _beats_baseline(model: dict[str, Any] | None) -> bool | None:
    """Whether the model is better than the rule to beat on its primary metric; None where that is unknown."""
    if model is None:
        return None
    name, sign = ("roc_auc", 1) if model["problem_type"] == "binary_classification" else ("rmse", -1)
    value, rule = ((model["metrics"] or {}).get(name) or {}).get("value"), (model["baseline"] or {}).get(name)
    return None if value is None or rule is None else sign * value > sign * rule


def _verdict(content: dict[str, Any]) -> str | None:
    return content["effect"]["verdict"] if content["effect"] else None


def _figures(content: dict[str, Any], evidence: ReportEvidence) -> tuple[dict[str, Any], list[str]]:
    """SVG by name (None where there is nothing to draw), and the evidence files that are gone."""
    from e2i.reporting import plots

    figures: dict[str, Any] = {}
    missing: list[str] = []
    qc, effect, model = content["qc"], content["effect"], content["model"]
    if qc:
        figures["quality"] = plots.quality(qc["scores"] or {}, total=qc["score"])
    if evidence.curves_ref is not None:
        figures |= _curves(Path(evidence.curves_ref), model, missing)
    if evidence.shap_ref is not None:
        figures["beeswarm"] = _beeswarm(Path(evidence.shap_ref), missing)
    if model and model["fairness"]:
        figures["fairness"] = {
            name: plots.fairness(name, groups, index=index)
            for index, (name, values) in enumerate(model["fairness"].items())
            if values and (groups := fairness_groups(values))
        }
    if evidence.overlap is not None:
        figures["overlap"] = _overlap(content, evidence)
    if effect and effect["balance"]:
        figures["balance"] = plots.balance(effect["balance"])
    if effect and effect["verdict"] != "block" and effect["estimate"] is not None:
        figures |= _estimates(effect)
    return figures, missing


def _estimates(effect: dict[str, Any]) -> dict[str, Any]:
    """What shows an estimate; never called for a blocked one."""
    from e2i.reporting import causal_plots, plots

    figures: dict[str, Any] = {}
    outcome = effect["outcome"]
    if None not in effect["interval"] and effect["scale"] == "outcome":
        figures["effect"] = plots.effect(effect["estimate"], effect["interval"], naive=effect["naive_difference"], outcome=outcome)
    figures["forest"] = causal_plots.forest([effect, *(effect["alternatives"] or ())], outcome=outcome)
    figures["event_study"] = causal_plots.event_study(effect["event_study"] or (), outcome=outcome)
    figures["specifications"] = causal_plots.specification_curve(effect["specifications"] or (), outcome=outcome)
    figures["path"] = causal_plots.path(effect["path"] or (), outcome=outcome)
    return figures


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
