"""How numbers and names are written on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MINUS = "\N{MINUS SIGN}"
Style = Literal["number", "signed", "percent", "points", "count", "seconds", "dollars", "short_dollars"]

_FIELD_WORDS = {
    "nrx": "NRx",
    "trx": "TRx",
    "nbrx": "NBRx",
    "hcp": "HCP",
    "hcps": "HCPs",
    "npi": "NPI",
    "roi": "ROI",
    "auc": "AUC",
    "mlflow": "MLflow",
}
METRICS = {
    "roc_auc": ("ROC-AUC", "chance that a random event is ranked above a random non-event"),
    "pr_auc": ("PR-AUC", "precision averaged over recall; compare with the share of events"),
    "f1": ("F1", "balance of precision and recall at the threshold"),
    "precision": ("Precision", "share of the predicted events that are events"),
    "recall": ("Recall", "share of the events that are predicted"),
    "accuracy": ("Accuracy", "share of correct decisions"),
    "false_positive_rate": ("False positive rate", "share of the non-events that are predicted"),
    "brier": ("Brier score", "mean squared error of the probability; lower is better"),
    "log_loss": ("Log loss", "lower is better"),
    "calibration_slope": ("Calibration slope", "1 is ideal; below 1 the probabilities are too extreme"),
    "calibration_intercept": ("Calibration intercept", "0 is ideal; above 0 the probabilities are too low"),
    "precision_at_decile": ("Precision, top tenth", "share of events among the tenth that is ranked highest"),
    "rmse": ("RMSE", "typical error in the target's unit; lower is better"),
    "mae": ("MAE", "mean absolute error in the target's unit; lower is better"),
    "mape": ("MAPE", "mean absolute error relative to the value; lower is better"),
    "r2": ("R²", "share of the variance that is explained"),
}
DIAGNOSTICS = {
    "rows_given": ("Rows given", ""),
    "rows_used": ("Rows used", ""),
    "missing_treatment": ("Rows without treatment value", ""),
    "missing_outcome": ("Rows without outcome", ""),
    "share_outside": ("Rows outside common support", "propensity outside 0.01 to 0.99"),
    "effective_share": ("Effective sample share", "precision left after weighting"),
    "propensity_auc": ("Propensity AUC", "0.5: treatment as if at random; 1: no comparison possible"),
    "largest_smd_before": ("Largest |SMD| before weighting", ""),
    "largest_smd_after": ("Largest |SMD| after weighting", "below 0.1 is good balance"),
    "copied_share": ("Share of copied rows", ""),
    "adjusted_columns": ("Columns adjusted for", "after encoding"),
    "fold_spread": ("Spread over fold divisions", "in standard errors"),
    "largest_row_share": ("Largest share of one row", "of the estimate's variance"),
    "weighting_estimate": ("Estimate by weighting alone", ""),
    "weighting_gap": ("Weighting against doubly robust", "in standard errors"),
    "robustness_value_rough": ("Robustness value, rough", "strength that a hidden confounder needs"),
    "e_value": ("E-value", "reported, never a criterion"),
    "rows": ("Rows", ""),
    "treated_rows": ("Treated rows", ""),
    "clusters": ("Clusters", ""),
    "effective_clusters": ("Effective clusters", "as many equal ones would tell as much"),
    "cells": ("Cells of group and period", ""),
    "extrapolated_cells": ("Cells carried by a line alone", "no control resembles the treated in the confounders"),
    "starts": ("Starts of treatment", ""),
    "pairs": ("Matched pairs", ""),
    "pre_periods": ("Periods before treatment", ""),
    "post_periods": ("Periods of treatment", ""),
    "effective_periods": ("Effective periods", "as many equal weights would tell as much"),
    "effective_donors": ("Effective donors", "as many equal weights would tell as much"),
    "effective_controls": ("Effective controls", "as many equal weights would tell as much"),
    "pre_rmspe": ("Misfit before treatment", "root of the mean squared prediction error"),
    "post_rmspe": ("Distance after treatment", "root of the mean squared prediction error"),
    "rmspe_ratio": ("Distance over misfit", "after treatment over before"),
    "placebos": ("Placebos", "untreated units, or groups of them, that were compared in the same way"),
    "smallest_p": ("Least p-value that is possible", "with so many placebos or periods"),
    "placebos_dropped": ("Placebos left out", "they fit badly before treatment"),
    "placebo_p_value": ("p-value among placebos", ""),
    "leave_one_donor_out_low": ("Without one donor, lowest", ""),
    "leave_one_donor_out_high": ("Without one donor, highest", ""),
    "first_stage_f": ("First-stage F", ""),
    "first_stage_p": ("First-stage p-value", ""),
    "effective_f": ("Effective F of the instruments", ""),
    "effective_f_critical": ("Effective F that is needed", ""),
    "partial_r2": ("Partial R² of the instruments", ""),
    "anderson_rubin_low": ("Anderson-Rubin interval, low", "valid with weak instruments"),
    "anderson_rubin_high": ("Anderson-Rubin interval, high", "valid with weak instruments"),
    "wald_low": ("Usual interval, low", ""),
    "wald_high": ("Usual interval, high", ""),
    "least_squares": ("Least squares", "without instruments"),
    "least_squares_se": ("Least squares, standard error", ""),
    "conventional_se": ("Conventional standard error", ""),
    "autocorrelation": ("Autocorrelation", "of neighbouring periods"),
    "share_of_zeros": ("Share of zeros in the outcome", ""),
    "share_of_treated_matched": ("Share of the treated with a match", ""),
}
COUNTS = frozenset(
    {"rows_given", "rows_used", "missing_treatment", "missing_outcome", "adjusted_columns", "rows", "treated_rows", "clusters", "cells"}
    | {"extrapolated_cells", "starts", "pairs", "pre_periods", "post_periods", "placebos", "placebos_dropped"}
)
_TELLS_THE_EFFECT = frozenset(
    {"weighting_estimate", "e_value", "post_rmspe", "rmspe_ratio", "leave_one_donor_out_low", "leave_one_donor_out_high"}
    | {"anderson_rubin_low", "anderson_rubin_high", "wald_low", "wald_high", "least_squares", "least_squares_se", "conventional_se"}
)
POLICIES = {"learned": "Learned rules", "everybody": "Treat everybody", "nobody": "Treat nobody", "current": "Present practice"}
GAP_REFERENCES = {
    "vs_target": "its target",
    "vs_benchmark": "the other cells",
    "vs_potential": "the best tenth",
    "temporal": "the period before",
}
SCENARIOS = {"baseline": "Present allocation", "optimised": "This plan", "equal": "Spread evenly", "focus_top": "Strongest only"}


def format_number(value: float, style: Style = "number") -> str:
    """A number for people.

    >>> [format_number(x) for x in (0.81234, 12.3456, 1234.4, 0.00012, 0)]
    ['0.812', '12.3', '1,234', '0.00012', '0']
    >>> format_number(0.5, "signed"), format_number(0.123, "percent"), format_number(4000, "count"), format_number(75.2, "seconds")
    ('+0.500', '12.3 %', '4,000', '75.2 s')
    >>> format_number(0.0312, "points")
    '+3.12 percentage points'
    >>> [format_number(x, "dollars") for x in (1_234_567.8, 12.345, 0.5)]
    ['$1,234,568', '$12.35', '$0.50']
    >>> [format_number(x, "short_dollars") for x in (21_587_034, 12_500, 999_960, 480)]
    ['$21.6 M', '$12.5 k', '$1.00 M', '$480']
    """
    if style == "percent":
        return f"{value * 100:.1f} %"
    if style == "count":
        return f"{value:,.0f}"
    if style in ("dollars", "short_dollars"):
        amount = _short(abs(value)) if style == "short_dollars" else f"{abs(value):,.{0 if abs(value) >= 1000 else 2}f}"
        return f"{MINUS if value < 0 else ''}${amount}"
    if style == "seconds":
        return f"{value:,.1f} s" if value >= 1 else f"{value * 1000:,.0f} ms"
    sign = "+" if style in ("signed", "points") and value > 0 else ""
    if style == "points":
        return f"{sign}{_plain(100 * value, 3)} percentage points"
    return sign + _plain(value, 3)


def _short(amount: float) -> str:
    """Three digits and a power of a thousand."""
    rounded = float(f"{amount:.3g}")
    for size, unit in ((1e9, " bn"), (1e6, " M"), (1e3, " k")):
        if rounded >= size:
            return f"{_plain(rounded / size, 3)}{unit}"
    return f"{amount:,.0f}"


def _plain(value: float, decimals: int) -> str:
    size = abs(value)
    if size == 0:
        return "0"
    if size < 10**-decimals:
        text = f"{value:.2g}"
    else:
        whole = len(str(int(size))) if size >= 1 else 0
        text = f"{value:,.{max(0, decimals - whole)}f}"
    return text.replace("-", MINUS)


def in_order(found: Mapping[str, object] | None, known: Iterable[str]) -> list[str]:
    """The keys of `found`: known ones in their order, then the others.

    >>> in_order({"f1": 1, "own": 2, "roc_auc": 3}, METRICS)
    ['roc_auc', 'f1', 'own']
    """
    place = {name: index for index, name in enumerate(known)}
    return sorted(found or {}, key=lambda name: place.get(name, len(place)))


def metric_label(name: str) -> tuple[str, str]:
    """Name and meaning of a metric."""
    if name.startswith("precision_at_") and name not in METRICS:
        return f"Precision, top {name.removeprefix('precision_at_')}", "share of events among those ranked highest"
    return METRICS.get(name, (readable(name), ""))


def diagnostic_label(name: str) -> tuple[str, str]:
    """Name and meaning of a diagnostic of an effect."""
    for part in ("propensity", "outcome"):
        if name.startswith(f"{part}_") and name not in DIAGNOSTICS:
            return f"Weight of {readable(name.removeprefix(f'{part}_')).lower()}", f"in the {part} model"
    return DIAGNOSTICS.get(name, (readable(name), ""))


def is_harmless(name: str) -> bool:
    """Whether a diagnostic may be shown beside a withheld estimate: it is known, and tells of the data and not of the effect.

    >>> is_harmless("effective_share"), is_harmless("wald_low"), is_harmless("effect_joiners")
    (True, False, False)
    """
    return (name in DIAGNOSTICS and name not in _TELLS_THE_EFFECT) or name.startswith(("propensity_", "outcome_"))


def readable(name: str) -> str:
    """A column, check or step name as words.

    >>> readable("speaker_program"), readable("negative_control:nrx_other")
    ('Speaker program', 'Negative control: NRx other')
    """
    words = plain_name(name)
    return words[:1].upper() + words[1:]


def plain_name(name: str) -> str:
    """A column name within a sentence.

    >>> plain_name("nrx_other_product"), plain_name("speaker_program"), plain_name("wt82_71")
    ('NRx other product', 'speaker program', 'wt82_71')
    """
    words = name.replace("_", " ").replace(":", ": ").split()
    if any(word.isdigit() for word in words):
        return name
    return " ".join(_FIELD_WORDS.get(word.lower(), word) for word in words)


def criterion_label(name: str) -> tuple[str, str]:
    """A success criterion's metric and sense: `minimum_auc` -> ("ROC-AUC", "at least")."""
    sense, _, metric = name.partition("_")
    known = {"auc": "ROC-AUC", "precision_at_k": "Precision, top tenth", "fpr": "False positive rate", "lift": "Gain over the baseline"}
    return known.get(metric, metric_label(metric)[0]), {"minimum": "at least", "maximum": "at most"}.get(sense, "")


def format_duration(milliseconds: float | None) -> str:
    """A length of time for people; `open` for None, a span that has not ended.

    >>> [format_duration(x) for x in (None, 0, 0.0123, 1.234, 45.67, 999.6, 12_345, 254_000, 7_322_000, 180_000_000)]
    ['open', '0 ms', '12 µs', '1.23 ms', '45.7 ms', '1.00 s', '12.3 s', '4 min 14 s', '2 h 02 min', '2 d 2 h']
    """
    if milliseconds is None:
        return "open"
    if milliseconds == 0:
        return "0 ms"
    if milliseconds < 0.9995:
        return f"{max(1, round(milliseconds * 1000)):.0f} µs"
    for limit, size, unit in ((999.5, 1, "ms"), (59_950, 1000, "s")):
        if milliseconds < limit:
            value = milliseconds / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    seconds = round(milliseconds / 1000)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s" if seconds % 60 else f"{seconds // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 48 * 60 else f"{minutes // 1440} d {minutes % 1440 // 60} h"


def format_cost(dollars: float | None) -> str:
    """US dollars, with as many digits as a small amount needs; a dash for None.

    >>> [format_cost(x) for x in (None, 0, 0.000123, 0.0456, 12.3, 1234.5)]
    ['-', '$0', '$0.00012', '$0.046', '$12.30', '$1,234.50']
    """
    if dollars is None:
        return "-"
    if dollars == 0:
        return "$0"
    return f"${dollars:,.2f}" if abs(dollars) >= 1 else f"${float(f'{dollars:.2g}'):.10f}".rstrip("0")
