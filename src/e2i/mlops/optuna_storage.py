"""A search's copy in Optuna's storage: one transaction per finished trial, and the errors of the storage as ours."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from e2i.errors import BackendRejected, BackendUnavailable, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

NUMBER = "number"
"""user attribute of a trial: its place in the search"""


class StoredStudy:
    """The copy of a search in Optuna's storage."""

    def __init__(self, url: str | None, name: str) -> None:
        from optuna.storages import InMemoryStorage

        self._name = name
        self._rdb: Any = None
        self._study_id = -1
        self.trials: list[FrozenTrial] = []
        self.queue: list[dict[str, Any]] = []
        self._storage: BaseStorage = InMemoryStorage() if url is None else self._connect(url)

    def _connect(self, url: str) -> BaseStorage:
        from optuna.storages import RDBStorage, get_storage
        from sqlalchemy.exc import IntegrityError, ProgrammingError

        pool = {} if url.startswith("sqlite") else {"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True}
        with _storage_errors(self._name):
            _require_schema(url)
            try:
                self._rdb = RDBStorage(url, engine_kwargs=pool)
            except (IntegrityError, ProgrammingError):
                # Another process may have made the tables between our look and our CREATE; then they are there now.
                self._rdb = RDBStorage(url, engine_kwargs=pool)
        return get_storage(self._rdb)

    def begin(self, *, definition: str, queue: Sequence[Mapping[str, Any]], hopeless_after: int) -> None:
        """Load the study, or make it; a study in which all of `hopeless_after` trials failed is begun anew."""
        with _storage_errors(self._name):
            study = self._open()
            trials = _in_order(study.get_trials(deepcopy=False))
            if len(trials) >= hopeless_after and all(trial.state.name == "FAIL" for trial in trials):
                self._storage.delete_study(self._storage.get_study_id_from_name(self._name))
                study, trials = self._open(), []
            known = study.user_attrs
            if "definition" not in known:
                # The queue goes first: a study without a definition has no trials yet, and both are written again.
                study.set_user_attr("queue", list(queue))
                study.set_user_attr("definition", definition)
                known = study.user_attrs
            if known["definition"] != definition:
                raise BackendRejected(
                    "the storage holds another search under this name: data, folds, seed, search space or settings differ",
                    where=f"hyperparameter search {self._name}",
                    advice="Give the new search another name.",
                )
            self.trials, self.queue = trials, known["queue"]
            self._study_id = self._storage.get_study_id_from_name(self._name)

    def _open(self) -> Study:
        import optuna

        return optuna.create_study(storage=self._storage, study_name=self._name, direction="maximize", load_if_exists=True)

    def add(self, trial: FrozenTrial) -> None:
        """Append a finished trial in one transaction; after `begin`."""
        with _storage_errors(self._name):
            self._storage.create_new_trial(self._study_id, template_trial=trial)

    def close(self) -> None:
        """Close every connection."""
        if self._rdb is not None:
            self._rdb.remove_session()
            self._rdb.engine.dispose()


def _require_schema(url: str) -> None:
    """Fail early, and without leaving a connection open, when Optuna could not make its tables."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    try:
        engine = create_engine(url, poolclass=NullPool)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            "the storage's address is not a usable SQLAlchemy URL",
            where="OPTUNA_STORAGE_URL",
            advice="Write it like `postgresql+psycopg://user:password@host/database`.",
        ) from error
    with engine.connect() as connection:
        if inspect(connection).default_schema_name is None:
            raise BackendRejected(
                "the schema that the storage's address names does not exist",
                where="Optuna storage",
                advice="Run `e2i db upgrade`, which makes the schema `optuna`, or name another schema in the address.",
            )


def _in_order(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Our finished trials by our own number, without gap.

    Two processes that ever continue the same search make the same trials, so the first of each number stands for all.
    """
    ours: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state.is_finished() and NUMBER in trial.user_attrs:
            ours.setdefault(trial.user_attrs[NUMBER], trial)
    return [ours[number] for number in itertools.takewhile(ours.__contains__, itertools.count())]


@contextmanager
def _storage_errors(study: str) -> Iterator[None]:
    """Optuna's and SQLAlchemy's errors become ours."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

    where = f"Optuna storage, search {study}"
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ is not None else error
        reason = str(cause).splitlines()[0]
        if isinstance(cause, (OperationalError, InterfaceError)):
            raise BackendUnavailable(reason, where=where, advice="Start the database; the search goes on from its last trial.") from error
        raise BackendRejected(reason, where=where, advice="Check that the storage's schema exists and may be written.") from error
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        raise BackendRejected(str(error), where=where, advice="Upgrade the storage with `optuna storage upgrade`.") from error
