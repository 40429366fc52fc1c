"""The error tree. Every error says what is wrong, where, and how to mend it.

E2IError
├── ConfigError · MissingExtra
├── DataError        SchemaMismatch · LeakageFound · QualityGateFailed · TooFewRows
├── CausalError      NotIdentified · PositivityViolated · NoVariation
├── AgentError       SpecError · StepFailed · BudgetExceeded
├── BackendError     BackendUnavailable (may retry) · BackendRejected (may not) · CircuitOpen
└── StorageError     NotFound · Conflict · MigrationNeeded

A refuted estimate, a failed gate and a drift alarm are results, not exceptions.
"""

from __future__ import annotations

from typing import Any, ClassVar


class E2IError(Exception):
    """Base of every error that E2I raises on purpose.

    Parameters
    ----------
    what : the fact that is wrong, one sentence, with the offending value
    where : file and line, column, table, setting, agent or step
    advice : how to mend it; printed last
    """

    category: ClassVar[str] = "computation"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, advice: str | None = None) -> None:
        self.what = what
        self.where = where
        self.advice = advice
        super().__init__(what, where, advice)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} {self.advice}" if self.advice else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.advice), dict(self.__dict__))

    def to_dict(self) -> dict[str, str | None]:
        """The error as data: `error`, `category`, `what`, `where`, `advice`."""
        return {
            "error": type(self).__name__,
            "category": self.category,
            "what": self.what,
            "where": self.where,
            "advice": self.advice,
        }


def _rebuild(kind: type[E2IError], what: str, where: str | None, advice: str | None) -> E2IError:
    return kind(what, where=where, advice=advice)


class ConfigError(E2IError):
    """A setting, a study file or an option is wrong."""

    category = "validation"
    exit_code = 2


class MissingExtra(ConfigError):
    """An optional dependency is needed and not installed."""

    category = "dependency"


class DataError(E2IError):
    """The data cannot be used as it is."""

    category = "validation"


class SchemaMismatch(DataError):
    """A column is missing, unexpected, or of the wrong type."""


class LeakageFound(DataError):
    """Information from the future, the target or another split reached the features."""


class QualityGateFailed(DataError):
    """Somebody asked to go on although the quality gate did not pass."""

    category = "qc_gate"
    exit_code = 3


class TooFewRows(DataError):
    """Not enough rows, or not enough of one kind, for the question."""


class CausalError(E2IError):
    """The effect cannot be estimated from these data."""


class NotIdentified(CausalError):
    """No valid adjustment set, or no design, identifies the effect."""


class PositivityViolated(CausalError):
    """Treated and untreated units do not overlap."""


class NoVariation(CausalError):
    """Treatment or outcome does not vary."""


class AgentError(E2IError):
    """An agent could not do its work."""

    category = "ml_pipeline"


class SpecError(AgentError):
    """An agent's description contradicts itself; raised at import."""

    category = "validation"


class StepFailed(AgentError):
    """A step raised something that is not one of our errors."""


class BudgetExceeded(AgentError):
    """An agent used up its time; its work was stopped."""

    category = "timeout"


class BackendError(E2IError):
    """A system behind a port did not do what was asked."""

    category = "dependency"


class BackendUnavailable(BackendError):
    """A passing fault: the call may be tried again."""


class BackendRejected(BackendError):
    """A lasting refusal: trying again will not help."""


class CircuitOpen(BackendUnavailable):
    """The circuit breaker keeps calls away from a sick backend."""


class StorageError(E2IError):
    """The database refused or lacks something."""

    category = "dependency"


class NotFound(StorageError):
    """No such record."""


class Conflict(StorageError):
    """Somebody else holds it, or it exists already."""


class MigrationNeeded(StorageError):
    """The schema is older, newer or other than this code expects."""
