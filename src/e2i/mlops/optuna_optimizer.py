"""Hyperparameter search with Optuna: TPE, hyperband over folds, warm start, and a search that survives `kill -9`.

The search itself runs on a study in memory; each finished trial is copied to the storage in one transaction. So a trial is in
the storage completely or not at all (no trial is left RUNNING by a dead process), it carries its place in the search, and a
resumed search replays the stored trials and goes on. Every trial has its own sampler, seeded by the search's seed and the
trial's number, because Optuna does not keep the state of a sampler's generator. The study in memory always has the same name,
because hyperband derives a trial's bracket from the study's name and the trial's number.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

from e2i.domain.experiments import SearchResult
from e2i.errors import BackendUnavailable, BudgetExceeded, ConfigError, DataError, E2IError
from e2i.mlops.optuna_storage import NUMBER, StoredStudy
from e2i.mlops.search_space import WARM_START, distributions_of, start_queue
from e2i.ports.models import TrialRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from datetime import datetime

    from optuna.trial import FrozenTrial, Trial

    from e2i.ports.compute import Executor
    from e2i.ports.models import SearchRequest
    from e2i.ports.records import Pattern, SearchRecords

T = TypeVar("T")
_WORKING_NAME = "search"


@dataclass(frozen=True, kw_only=True)
class OptunaSettings:
    """How to search. `storage_url` is an SQLAlchemy URL; None keeps the search in memory, where it cannot be resumed."""

    storage_url: str | None
    n_startup_trials: int = 10
    multivariate: bool = True
    prior_weight: float = 1.0
    hyperband_min_resource: int = 1
    hyperband_reduction_factor: int = 3
    warmstart_enabled: bool = True
    warmstart_min_similarity: float = 0.7
    warmstart_max_import_trials: int = 20
    warmstart_enqueue_trials: int = 4


class OptunaOptimizer:
    """`HyperparameterSearch` on Optuna."""

    def __init__(self, settings: OptunaSettings, records: SearchRecords) -> None:
        self._settings = settings
        self._records = records

    async def optimize(
        self, request: SearchRequest, *, executor: Executor, progress: Callable[[int, int, float | None], None]
    ) -> tuple[SearchResult, list[TrialRecord]]:
        """Search `request.space`, or go on with the search of the same name.

        Each fold of each trial is one call of `executor`; folds after which a trial cannot win are not run. A fold that raises,
        or whose score is not a finite number, makes its trial a failed one. `request.n_trials` counts every trial.

        Returns
        -------
        result, trials
            `best_params` holds the request's defaults, overlaid by the best complete trial; trials in order of their number.

        Raises
        ------
        BackendUnavailable
            The storage cannot be reached, or a worker process died.
        BackendRejected
            The storage holds another search under this name.
        ConfigError
            The search space or the storage's URL is wrong.
        DataError
            No trial succeeded.
        """
        if request.n_trials < 1 or request.folds < 1:
            raise ConfigError(
                f"a search needs at least 1 trial and 1 fold, not {request.n_trials} and {request.folds}",
                where=request.study_name,
                advice="Set `search.trials` to a positive number.",
            )
        patterns = await self._patterns(request)
        with ThreadPoolExecutor(1, thread_name_prefix="optuna-storage") as thread:

            async def call(function: Callable[..., T], *arguments: object) -> T:
                return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)

            stored = await call(self._open, request, patterns)
            try:
                search = _Search(self._settings, request, trials=stored.trials, queue=stored.queue)
                await self._run(search, request, save=partial(call, stored.add), executor=executor, progress=progress)
            finally:
                await call(stored.close)
        result, trials = search.result(), search.records()
        await self._records.save_study(
            result,
            experiment_id=request.experiment_id,
            problem_type=request.problem_type,
            space=request.space,
            sampler="tpe",
            pruner="hyperband",
        )
        await self._records.remember(result, problem_type=request.problem_type, meta_features=request.meta_features)
        return result, trials

    async def _patterns(self, request: SearchRequest) -> list[Pattern]:
        settings = self._settings
        if not settings.warmstart_enabled:
            return []
        return await self._records.similar(
            algorithm=request.algorithm,
            problem_type=request.problem_type,
            meta_features=request.meta_features,
            minimum=settings.warmstart_min_similarity,
            limit=settings.warmstart_max_import_trials,
        )

    def _open(self, request: SearchRequest, patterns: Sequence[Pattern]) -> StoredStudy:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        settings = self._settings
        queue = start_queue(request.space, request.defaults, patterns, limit=settings.warmstart_enqueue_trials)
        stored = StoredStudy(settings.storage_url, request.study_name)
        try:
            stored.begin(definition=_definition(settings, request), queue=queue, hopeless_after=settings.n_startup_trials)
        except BaseException:
            stored.close()
            raise
        return stored

    async def _run(
        self,
        search: _Search,
        request: SearchRequest,
        *,
        save: Callable[[FrozenTrial], Coroutine[None, None, None]],
        executor: Executor,
        progress: Callable[[int, int, float | None], None],
    ) -> None:
        if search.done:
            progress(search.done, request.n_trials, search.best_value)
        saving: asyncio.Task[None] | None = None
        try:
            while search.done < request.n_trials and not search.is_hopeless:
                finished = await self._trial(search, request, executor=executor)
                if saving is not None:
                    await saving
                saving = asyncio.create_task(save(finished))
                progress(search.done, request.n_trials, search.best_value)
        finally:
            # A trial is saved while the next one is computed; the last one must not be lost.
            if saving is not None:
                await saving

    async def _trial(self, search: _Search, request: SearchRequest, *, executor: Executor) -> FrozenTrial:
        trial = search.ask()
        params = {**request.defaults, **trial.params}
        scores: list[float] = []
        for fold in range(request.folds):
            try:
                scores.append(_finite(await executor.run(request.score_fold, params, fold), fold))
            except (BackendUnavailable, BudgetExceeded):
                raise
            except E2IError as error:
                return search.fail(trial, error.what)
            if search.is_beaten(trial, scores):
                return search.prune(trial)
        return search.complete(trial, scores)


class _Search:
    """The study in memory."""

    def __init__(
        self, settings: OptunaSettings, request: SearchRequest, *, trials: Sequence[FrozenTrial], queue: Sequence[Mapping[str, Any]]
    ) -> None:
        import optuna

        self._settings = settings
        self._request = request
        self._queue = queue
        self._distributions = distributions_of(request.space)
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=settings.hyperband_min_resource,
            max_resource=max(request.folds, settings.hyperband_min_resource),
            reduction_factor=settings.hyperband_reduction_factor,
        )
        self._study = optuna.create_study(study_name=_WORKING_NAME, direction="maximize", pruner=pruner)
        self._study.add_trials(trials)

    @property
    def _trials(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    @property
    def done(self) -> int:
        """Number of finished trials, of every kind."""
        return len(self._trials)

    @property
    def best_value(self) -> float | None:
        """Best mean over all folds; None before the first complete trial."""
        return max((trial.value for trial in self._complete() if trial.value is not None), default=None)

    @property
    def is_hopeless(self) -> bool:
        """Every trial failed, as many as the random start has: the fault is not in the parameters."""
        trials = self._trials
        return len(trials) >= self._settings.n_startup_trials and all(trial.state.name == "FAIL" for trial in trials)

    def ask(self) -> Trial:
        """The next trial, with its parameters."""
        import numpy as np
        import optuna

        number = self.done
        seed = int(np.random.SeedSequence([self._request.seed, number]).generate_state(1)[0])
        # Optuna warns when the prior's weight is given at all, so its own default is not given.
        prior = {} if self._settings.prior_weight == 1.0 else {"prior_weight": self._settings.prior_weight}
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self._settings.n_startup_trials,
            n_ei_candidates=24,
            multivariate=self._settings.multivariate,
            group=False,
            constant_liar=False,
            seed=seed,
            **prior,
        )
        if number < len(self._queue):
            self._study.enqueue_trial(self._queue[number]["params"])
        trial = self._study.ask(fixed_distributions=dict(self._distributions))
        trial.set_user_attr(NUMBER, number)
        return trial

    def is_beaten(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Report the running mean; True when the trial should not go on. After its last fold no trial is beaten."""
        trial.report(_mean(scores), len(scores))
        return len(scores) < self._request.folds and trial.should_prune()

    def complete(self, trial: Trial, scores: Sequence[float]) -> FrozenTrial:
        """End a trial that ran all its folds."""
        return self._study.tell(trial, _mean(scores))

    def prune(self, trial: Trial) -> FrozenTrial:
        """End a beaten trial."""
        from optuna.trial import TrialState

        return self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> FrozenTrial:
        """End a trial that could not be scored."""
        from optuna.trial import TrialState

        trial.set_user_attr("error", reason[:500])
        return self._study.tell(trial, state=TrialState.FAIL)

    def result(self) -> SearchResult:
        """Best complete trial and counts over all trials. Raises DataError when no trial is complete."""
        trials, complete = self._trials, self._complete()
        if not complete:
            reason = next((trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs), "no trial ran all its folds")
            raise DataError(
                f"none of {len(trials)} trials of {self._request.algorithm} succeeded; the first one: {reason}",
                where=f"hyperparameter search {self._request.study_name}",
                advice="Mend the cause in the data or the search space, then run again.",
            )
        best = max(complete, key=lambda trial: (trial.value, -trial.number))
        states = [trial.state.name for trial in trials]
        return SearchResult(
            study_name=self._request.study_name,
            algorithm=self._request.algorithm,
            metric=self._request.metric,
            best_params={**self._request.defaults, **best.params},
            best_value=float(best.value if best.value is not None else math.nan),
            best_trial=best.number,
            n_complete=states.count("COMPLETE"),
            n_pruned=states.count("PRUNED"),
            n_failed=states.count("FAIL"),
            n_warm_start=sum(entry["source"] == WARM_START for entry in self._queue[: len(trials)]),
            seconds=sum((record.finished_ms - record.started_ms) / 1000 for record in self.records()),
        )

    def records(self) -> list[TrialRecord]:
        """All finished trials. `value` is the mean over all folds, None when not all folds ran; `intermediate` counts folds from 1."""
        return [
            TrialRecord(
                number=trial.number,
                state=trial.state.name,
                params=dict(trial.params),
                value=trial.value if trial.state.name == "COMPLETE" else None,
                intermediate=dict(trial.intermediate_values),
                started_ms=_milliseconds(trial.datetime_start),
                finished_ms=_milliseconds(trial.datetime_complete),
            )
            for trial in self._trials
        ]

    def _complete(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials if trial.state.name == "COMPLETE"]


def _finite(score: object, fold: int) -> float:
    if isinstance(score, bool) or not isinstance(score, Real) or not math.isfinite(score):
        raise DataError(f"fold {fold} scored {score!r}, which is not a finite number")
    return float(score)


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def _definition(settings: OptunaSettings, request: SearchRequest) -> str:
    """Digest of everything that decides which trials a search makes, apart from their number."""
    choices = asdict(settings)
    choices.pop("storage_url")
    content = {
        "settings": choices,
        "algorithm": request.algorithm,
        "problem_type": request.problem_type,
        "metric": request.metric,
        "space": {name: dict(spec) for name, spec in request.space.items()},
        "defaults": dict(request.defaults),
        "folds": request.folds,
        "seed": request.seed,
        "meta_features": {name: f"{value:.9g}" for name, value in sorted(request.meta_features.items())},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _milliseconds(moment: datetime | None) -> int:
    # Optuna keeps naive local times; a finished trial has both.
    return round(moment.timestamp() * 1000) if moment is not None else 0
