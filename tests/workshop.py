"""A divided table, an open gate, and what really stands behind the ports: where the model agents are tested."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg
from psycopg.rows import dict_row

from commands import visits
from doubles import Counter, Inline
from e2i import bootstrap, config
from e2i.agents.ml_foundation import (
    feature_analyzer,
    model_deployer,
    model_selector,
    model_trainer,
    observability_connector,
    scope_definer,
)
from e2i.bootstrap import Platform
from e2i.data.frame_store import RunFrames
from e2i.data.sources import LocalFrameSource
from e2i.domain.data_spec import DataSpec
from e2i.domain.experiments import FrameRef, ScopeSpec, SplitPlan
from e2i.domain.quality import QCReport
from e2i.domain.runs import StudyRun
from e2i.domain.study import PredictionSpec, SearchSpec, Study, SuccessSpec
from e2i.engine.graph import Engine, RetryPolicy
from e2i.engine.hooks import AuditHook, Hook, RecordHook, TraceHook
from e2i.engine.spec import AgentSpec
from e2i.ml.algorithms import LINEAR
from e2i.ml.features import FeaturePlan
from e2i.ml.splits import plan_splits
from e2i.mlops.mlflow_connector import MLflowConnector
from e2i.mlops.optuna_optimizer import OptunaOptimizer, OptunaSettings
from e2i.ports import compute, data, language, models, records
from e2i.storage.postgres import Database

RUN = "run_1"
ROWS = 800
PREDICTION = PredictionSpec(
    target="converts", event_time="index_date", after_event=("scripts",), exclude=("program", "region"), protected=("age_group",)
)
AMOUNT = PredictionSpec(
    target="scripts", problem_type="regression", event_time="index_date", exclude=("converts", "region"), protected=("age_group",)
)


def study(prediction: PredictionSpec = PREDICTION, **changes: Any) -> Study:
    """A prediction on `table`, with goals that a fair model reaches."""
    goals = SuccessSpec(minimum_r2=0.3) if prediction.problem_type == "regression" else SuccessSpec(minimum_auc=0.6)
    values = {
        "name": "tried",
        "data": DataSpec(source="visits.csv"),
        "unit": "hcp",
        "prediction": prediction,
        "success": goals,
        "search": SearchSpec(trials=2, algorithms=(LINEAR[prediction.problem_type or "binary_classification"], "lightgbm")),
        "seed": 5,
    }
    return Study.model_validate(values | changes)


def table(rows: int = ROWS) -> pl.DataFrame:
    """`visits` with a protected attribute."""
    return visits(rows).with_columns(age_group=pl.Series(np.random.default_rng(4).choice(["18-49", "50+"], rows)))


def select(url: str, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """Rows as they are in the database."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query, parameters).fetchall()  # type: ignore[arg-type]


def gate(*, score: float = 0.97) -> QCReport:
    """What data_preparer writes when it has nothing to complain about."""
    return QCReport(
        report_id="qc_1",
        table="visits",
        status="passed",
        score=score,
        scores={},
        issues=(),
        checks=(),
        rows=ROWS,
        columns=11,
        validated_at=datetime.now(UTC),
        data_sha256="d" * 64,
    )


@dataclass
class Workshop:
    """One run of one study in one folder; agents get what bootstrap would give them."""

    folder: Path
    url: str
    platform: Platform
    study: Study = field(default_factory=study)
    run_id: str = RUN
    compute: Any = field(default_factory=Inline)
    progress: Counter = field(default_factory=Counter)
    language: Any = None
    hooks: list[Hook] = field(default_factory=list)
    saver: Any = None

    @property
    def frames(self) -> RunFrames:
        """The frames of the run."""
        return RunFrames(self.folder / self.run_id)

    @property
    def tracker(self) -> MLflowConnector:
        """The run's MLflow."""
        return self.platform.tracker

    def record(self, port: Any) -> Any:
        """What stands behind a port."""
        return self.platform.records[port]

    def deps(self, spec: AgentSpec) -> Any:
        """An agent's Deps; the search keeps its trials in memory."""
        more = {
            compute.Executor: self.compute,
            compute.Progress: self.progress,
            data.FrameStore: self.frames,
            models.Tracker: self.tracker,
            models.HyperparameterSearch: OptunaOptimizer(OptunaSettings(storage_url=None), self.record(records.SearchRecords)),
            language.LanguageModel | None: self.language,
        }
        return self.platform.fill(spec.deps_type, more)

    async def run(self, spec: AgentSpec, state: Any, *, part: str | None = None) -> Any:
        """Run an agent through the real engine."""
        engine = Engine(self.hooks, saver=self.saver, retry=RetryPolicy(attempts=1))
        return await engine.run(spec, state, self.deps(spec), run_id=self.run_id, part=part)

    async def prepare(self, frame: pl.DataFrame | None = None, **changed: Callable[[pl.DataFrame], pl.DataFrame]) -> Prepared:
        """Scope and splits as the first two agents make them; `changed` names a split and what is done to its rows."""
        frame = table() if frame is None else frame
        prediction = self.study.prediction
        assert prediction is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        frame.write_csv(self.folder / self.study.data.source)
        asked = scope_definer.State(
            study=self.study,
            columns=LocalFrameSource().columns(self.study.data, base=self.folder),
            experiment_id=f"exp_{self.run_id}",
            base=str(self.folder),
        )
        scope = (await self.run(scope_definer.SPEC, asked)).scope
        plan, labels = plan_splits(frame, time=prediction.event_time, group=self.study.unit, target=prediction.target, seed=self.study.seed)
        refs = {}
        for split in ("train", "validation", "test", "holdout"):
            rows = frame.filter(pl.Series(labels) == split)
            refs[split] = self.frames.save_split(split, changed[split](rows) if split in changed else rows)  # type: ignore[arg-type]
        return Prepared(scope=scope, plan=plan, refs=refs)

    async def analyze(self, prepared: Prepared) -> feature_analyzer.State:
        """Features before training."""
        return await self.run(feature_analyzer.SPEC, self.analyzer_state(prepared), part="select")  # type: ignore[no-any-return]

    def analyzer_state(self, prepared: Prepared, **more: Any) -> feature_analyzer.State:
        """What feature_analyzer starts from."""
        prediction = self.study.prediction
        assert prediction is not None
        return feature_analyzer.State(
            run_id=self.run_id,
            scope=prepared.scope,
            unit=self.study.unit,
            time=self.study.time,
            event_time=prediction.event_time,
            seed=self.study.seed,
            **more,
        )

    def selector_state(self, prepared: Prepared, plan: FeaturePlan) -> model_selector.State:
        """What model_selector starts from."""
        return model_selector.State(
            run_id=self.run_id,
            study_name=self.study.name,
            scope=prepared.scope,
            plan=plan,
            train=prepared.refs["train"],
            group=self.study.unit,
            wish=self.study.search,
            seed=self.study.seed,
        )

    def trainer_state(self, prepared: Prepared, selected: model_selector.State, *, qc: QCReport | None = None) -> model_trainer.State:
        """What model_trainer starts from."""
        assert self.study.prediction is not None
        assert selected.selection is not None
        assert selected.candidate is not None
        return model_trainer.State(
            run_id=self.run_id,
            study_name=self.study.name,
            scope=prepared.scope,
            qc=qc or gate(),
            splits=prepared.plan,
            split_refs=prepared.refs,
            plan=selected.plan,
            selection=selected.selection,
            candidate=selected.candidate,
            protected=self.study.prediction.protected,
            people=self.study.unit,
            group=self.study.unit,
            n_trials=self.study.search.trials,
            seed=self.study.seed,
        )

    def deployer_state(self, prepared: Prepared, trained: model_trainer.State, **more: Any) -> model_deployer.State:
        """What model_deployer starts from."""
        assert trained.trained is not None
        return model_deployer.State(
            run_id=self.run_id,
            study_name=self.study.name,
            scope=prepared.scope,
            trained=trained.trained,
            version=trained.candidate,
            **more,
        )

    async def up_to_selection(
        self, frame: pl.DataFrame | None = None, **changed: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> tuple[Prepared, model_selector.State]:
        """Everything in front of the trainer."""
        prepared = await self.prepare(frame, **changed)
        analyzed = await self.analyze(prepared)
        assert analyzed.plan is not None
        return prepared, await self.run(model_selector.SPEC, self.selector_state(prepared, analyzed.plan))

    async def train(
        self, frame: pl.DataFrame | None = None, **changed: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> tuple[Prepared, model_trainer.State]:
        """Everything up to a judged model."""
        prepared, selected = await self.up_to_selection(frame, **changed)
        return prepared, await self.run(model_trainer.SPEC, self.trainer_state(prepared, selected))

    async def claim(self) -> StudyRun:
        """A row in study_runs, so that steps can be recorded."""
        started = datetime.now(UTC)
        run = StudyRun(
            run_id=self.run_id,
            study=self.study.name,
            fingerprint=self.run_id,
            status="running",
            experiment_id=f"exp_{self.run_id}",
            trace_id=None,
            started_at=started,
        )
        return await self.record(records.RunRecords).claim(run)  # type: ignore[no-any-return]

    async def chain(self, frame: pl.DataFrame | None = None) -> Chain:
        """The six model agents one after the other, with every hook, and everything that they left behind."""
        run = await self.claim()
        self.hooks = [TraceHook(), RecordHook(self.record(records.RunRecords)), AuditHook(self.record(records.AuditTrail), "tester")]
        prepared = await self.prepare(frame)
        analyzed = await self.analyze(prepared)
        assert analyzed.plan is not None
        selected = await self.run(model_selector.SPEC, self.selector_state(prepared, analyzed.plan))
        trained = await self.run(model_trainer.SPEC, self.trainer_state(prepared, selected))
        judged = self.analyzer_state(prepared, plan=analyzed.plan, trained=trained.trained, version=trained.candidate)
        explained = await self.run(feature_analyzer.SPEC, judged, part="explain")
        deployed = await self.run(model_deployer.SPEC, self.deployer_state(prepared, trained))
        observed = await self.run(observability_connector.SPEC, observability_connector.State(run_id=self.run_id))
        await self.record(records.RunRecords).finish(replace(run, status="completed", finished_at=datetime.now(UTC)))
        experiments = (trained.selection.experiment_name, f"e2i_model_trainer_{prepared.scope.experiment_id}")
        return Chain(
            url=self.url,
            frames=self.frames,
            prepared=prepared,
            analyzed=analyzed,
            selected=selected,
            trained=trained,
            explained=explained,
            deployed=deployed,
            observed=observed,
            runs={name: await self.tracker.search_runs(name) for name in experiments},
            versions=await self.tracker.registered_versions(trained.candidate.name),
        )


@dataclass(frozen=True)
class Prepared:
    """What the first two agents would hand over."""

    scope: ScopeSpec
    plan: SplitPlan
    refs: dict[str, FrameRef]


@dataclass(frozen=True)
class Chain:
    """A finished chain: last states, rows to be read from `url`, and what MLflow holds."""

    url: str
    frames: RunFrames
    prepared: Prepared
    analyzed: feature_analyzer.State
    selected: model_selector.State
    trained: model_trainer.State
    explained: feature_analyzer.State
    deployed: model_deployer.State
    observed: observability_connector.State
    runs: dict[str, list[dict[str, Any]]]
    versions: Sequence[Any]

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of the chain's database."""
        return select(self.url, query, **parameters)

    @property
    def training_run(self) -> dict[str, Any]:
        """The trainer's own run in MLflow, not its trials."""
        assert self.trained.trained is not None
        (run,) = [run for run in self.training_runs if run["run_id"] == self.trained.trained.mlflow_run_id]
        return run

    @property
    def training_runs(self) -> list[dict[str, Any]]:
        """The trainer's run and its trials."""
        return self.runs[f"e2i_model_trainer_{self.prepared.scope.experiment_id}"]


@asynccontextmanager
async def open_workshop(folder: Path, url: str, tracking_uri: str, **more: Any) -> AsyncIterator[Workshop]:
    """A workshop on a migrated database and an MLflow store."""
    database = Database(url)
    await database.open()
    try:
        yield workshop_on(database, folder, url, tracking_uri, **more)
    finally:
        await database.close()


def workshop_on(database: Database, folder: Path, url: str, tracking_uri: str, **more: Any) -> Workshop:
    """A workshop on an open database."""
    settings = config.load(
        home=folder / "state",
        database={"url": url},
        mlflow={"tracking": {"uri": tracking_uri, "retry": {"max_attempts": 1}}},
    )
    known = bootstrap.platform.standing_records(settings, database)
    tracker = bootstrap.platform.make_tracker(settings, url, known)
    platform = Platform(settings=settings, url=url, database=database, records=known, tracker=tracker)
    return Workshop(folder=folder, url=url, platform=platform, **more)
