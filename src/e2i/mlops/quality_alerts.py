"""Tells people about a quality report: the log always, a webhook where one is configured."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import urllib.request
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from e2i.errors import ConfigError

if TYPE_CHECKING:
    from e2i.domain.quality import QCReport

AlertSeverity = Literal["info", "warning", "error", "critical"]
_LEVELS: dict[AlertSeverity, int] = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
CRITICAL_BELOW = 0.50
"""success rate below which a failed report is critical"""
_log = logging.getLogger(__name__)


def severity_of(report: QCReport) -> AlertSeverity:
    """passed: info; warning: warning; failed: error, or critical with leakage, a crashed check or under half of the rules passed."""
    if report.status != "failed":
        return "warning" if report.status == "warning" else "info"
    rate = report.success_rate
    return "critical" if report.leakage or report.score is None or (rate is not None and rate < CRITICAL_BELOW) else "error"


class DataQualityAlerter:
    """Sends reports of at least `minimum_severity`.

    Parameters
    ----------
    webhook_url : where to POST the alert as JSON; None for the log alone
    timeout_s : seconds until a webhook that does not answer is given up
    maximum_listed : how many failed rules and findings an alert names
    """

    def __init__(
        self,
        *,
        webhook_url: str | None = None,
        minimum_severity: AlertSeverity = "warning",
        timeout_s: float = 5.0,
        maximum_listed: int = 10,
    ) -> None:
        if webhook_url and urlsplit(webhook_url).scheme not in ("http", "https"):
            raise ConfigError("the alert webhook is not an http(s) address.", where="data_quality.alerting.webhook_url")
        self._webhook_url = webhook_url or None
        self._minimum = minimum_severity
        self._timeout_s = timeout_s
        self._listed = maximum_listed

    async def alert(self, report: QCReport) -> None:
        """See ports.models.QualityAlerter."""
        severity = severity_of(report)
        if _LEVELS[severity] < _LEVELS[self._minimum]:
            return
        payload = self.payload(report)
        _log.log(
            _LEVELS[severity], "data quality of %s: %s (report %s)", report.table, report.status, report.report_id, extra={"alert": payload}
        )
        if self._webhook_url is not None:
            await asyncio.to_thread(self._post, self._webhook_url, payload)

    def payload(self, report: QCReport) -> dict[str, object]:
        """What a channel gets: names, shares and findings, no rows."""
        failed = [check for check in report.checks if not check.passed]
        return {
            "severity": severity_of(report),
            "table": report.table,
            "report_id": report.report_id,
            "status": report.status,
            "score": report.score,
            "success_rate": report.success_rate,
            "suites": sorted({check.suite for check in report.checks}),
            "failed": [f"{check.suite}: {check.expectation}({check.column or ''})" for check in failed[: self._listed]],
            "failed_total": len(failed),
            "blocking_issues": [f"{issue.check}: {issue.detail}" for issue in report.blocking[: self._listed]],
            "leakage": bool(report.leakage),
        }

    def _post(self, url: str, payload: dict[str, object]) -> None:
        body = json.dumps(payload, allow_nan=False).encode()
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"}, method="POST")  # noqa: S310 - scheme checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310 - scheme checked above
                answer.read(1)
        except (OSError, http.client.HTTPException) as error:
            host = urlsplit(url).hostname
            _log.warning("the alert for report %s did not reach the webhook at %s: %s", payload["report_id"], host, error)
