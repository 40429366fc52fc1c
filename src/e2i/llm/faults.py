"""Vendors' errors as ours: what may pass, what will not, what to do, and no secret in any text."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from e2i.errors import BackendError, BackendRejected, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_TEXT = 300
_SHORTEST_SECRET = 5
"""what is shorter is a placeholder, as `none`"""
_PASSING = frozenset({408, 409, 425, 429})
_LASTING_SERVER_ERRORS = frozenset({501, 505})
_LASTING_CODES = frozenset({"insufficient_quota", "enforced_spend_limit_reached", "contract_spend_limit_reached"})
"""429s that waiting does not cure"""
_ADVICE = {
    401: "Check the API key: `api_key` of this entry of llm.chain, or {variable}.",
    402: "Check the account's billing.",
    403: "Check that the API key may use this model.",
    404: "Check `model` and `base_url` of this entry of llm.chain{path}.",
    413: "Shorten the prompt.",
}
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "exceed_context_size_error": 400,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Fault(BackendUnavailable):
    """A passing fault of one try, and what the vendor said about the next."""

    def __init__(self, what: str, *, where: str | None = None, advice: str | None = None) -> None:
        super().__init__(what, where=where, advice=advice)
        self.retry_after_s: float | None = None
        self.may_retry = True
        """False when this model will not answer soon; another may"""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a call goes, for error texts; `key` is taken out of them."""

    where: str
    key: str
    variable: str
    path: str = ""

    def clean(self, text: object) -> str:
        """One line without the key, of bounded length."""
        line = " ".join(str(text).split())
        if len(self.key) >= _SHORTEST_SECRET:
            line = line.replace(self.key, "[api key]")
        return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}…"

    def cause(self, error: BaseException) -> BaseException | None:
        """The vendor's error to chain from; None when it repeats the key."""
        return None if len(self.key) >= _SHORTEST_SECRET and self.key in f"{error!s} {error!r}" else error

    def refused(self, status: int, message: object, headers: Mapping[str, str] | None = None, *, code: str | None = None) -> BackendError:
        """The error for an HTTP status of 400 and above."""
        text = self.clean(message)
        what = f"{status} {text}" if text else f"answered with status {status}."
        if status in _PASSING or (status >= 500 and status not in _LASTING_SERVER_ERRORS):
            fault = Fault(what, where=self.where, advice="It may pass; try again later.")
            fault.retry_after_s = retry_after(headers or {})
            fault.may_retry = code not in _LASTING_CODES and (headers or {}).get("x-should-retry") != "false"
            return fault
        advice = _ADVICE.get(status, "Change the request as the text says.").format(variable=self.variable, path=self.path)
        return BackendRejected(what, where=self.where, advice=advice)

    def unreachable(self, error: BaseException) -> Fault:
        """No connection, or it broke."""
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        told = self.clean(root) or type(root).__name__
        return Fault(f"the connection failed: {told}.", where=self.where, advice="Check `base_url` and the network; it may pass.")

    def garbled(self, told: object) -> Fault:
        """An answer that is not of the protocol."""
        what = f"the answer cannot be read: {self.clean(told)}."
        return Fault(what, where=self.where, advice="Check that `base_url` leads to the right service; it may pass.")

    def broke_off(self) -> Fault:
        """A stream that ended before the answer was complete."""
        return Fault("the stream ended before the answer was complete.", where=self.where, advice="Ask again.")


def status_of(status: int | None, kind: object, code: object = None) -> int:
    """The HTTP status that an error inside a stream stands for; 500 when nothing tells."""
    if status is not None and status >= 400:
        return status
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return _STATUS_OF_TYPE.get(str(kind), 500)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or an HTTP date, measured from the answer's own `date`)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return max(0.0, seconds / unit)
    try:
        then, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
        return max(0.0, (then - now).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if number == number and abs(number) != float("inf") else None  # noqa: PLR0124
