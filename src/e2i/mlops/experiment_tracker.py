"""What agents try and how well it works, in MLflow: experiments by agent, tier and brand, runs with settings, metrics and prompts.

Everything goes through `MLflowConnector`: idempotent, durable while MLflow is down, behind its breaker.
"""

from __future__ import annotations

import asyncio
import math
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2i.domain.nearest import suggestion
from e2i.domain.runs import Tier
from e2i.errors import ConfigError, DataError
from e2i.mlops.span_values import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from e2i.mlops.mlflow_connector import MLflowConnector
    from e2i.mlops.mlflow_run import MLflowRun, RunContext
    from e2i.settings.sections import AgentSection

BRANDS = ("Remibrutinib", "Fabhalta", "Kisqali")
TIERS = tuple(tier.value for tier in Tier)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_.-]+")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run, for comparing. `params` are texts, as MLflow keeps them."""

    experiment: str
    run_id: str
    name: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs of one or several experiments by one metric, best first. Runs without the metric are in `without` and not ranked."""

    metric: str
    ranked: tuple[RunSummary, ...]
    without: tuple[RunSummary, ...] = field(default=())

    @property
    def best(self) -> RunSummary | None:
        """None when no run has the metric."""
        return self.ranked[0] if self.ranked else None


class AgentRun:
    """One run of one agent; made by `ExperimentTracker.track`, usable inside its `async with` only."""

    def __init__(self, run: MLflowRun, agent: AgentSection) -> None:
        self._run = run
        self._agent = agent

    @property
    def key(self) -> str:
        """Our own id of the run, also while MLflow is down."""
        return self._run.key

    @property
    def run_id(self) -> str | None:
        """MLflow's id; None until MLflow has confirmed."""
        return self._run.run_id

    async def log_hyperparameters(
        self, *, temperature: float | None = None, max_tokens: int | None = None, model_version: str | None = None, **more: Any
    ) -> None:
        """What the agent ran with. None: unknown, and not logged. Raises DataError, BackendRejected as `MLflowRun.log_params`."""
        given = {"temperature": temperature, "max_tokens": max_tokens, "model_version": model_version, **more}
        known = {name: value for name, value in given.items() if value is not None}
        if known:
            await self._run.log_params(known)

    async def log_metrics(
        self,
        *,
        causal_confidence: float | None = None,
        gap_score: float | None = None,
        drift_magnitude: float | None = None,
        step: int = 0,
        **more: float | None,
    ) -> None:
        """How well it went. None: not measured, and not logged. Raises DataError for a value that is not finite."""
        given = {"causal_confidence": causal_confidence, "gap_score": gap_score, "drift_magnitude": drift_magnitude, **more}
        known = {name: value for name, value in given.items() if value is not None}
        if known:
            await self._run.log_metrics(known, step=step)

    async def log_prompt(self, name: str, prompt: object, completion: object = None) -> bool:
        """A prompt and its answer as artifacts `prompts/<name>.json`; False when this agent's settings keep prompts or artifacts back."""
        if not (self._agent.log_prompts and self._agent.log_artifacts):
            return False
        await self.log_text(f"{_slug(name)}.json", text_of({"prompt": prompt, "completion": completion}), folder="prompts")
        return True

    async def log_text(self, name: str, text: str, *, folder: str | None = None) -> bool:
        """A text as an artifact; False when this agent's settings keep artifacts back."""
        if not self._agent.log_artifacts:
            return False
        with tempfile.TemporaryDirectory(prefix="e2i-") as scratch:
            path = Path(scratch) / _file_name(name)
            await asyncio.to_thread(path.write_text, text, encoding="utf-8", errors="replace")
            await self._run.log_artifact(path, folder)
        return True

    async def log_artifact(self, path: Path, folder: str | None = None) -> bool:
        """A file or folder as it is now; False when this agent's settings keep artifacts back. Raises DataError when there is none."""
        if not self._agent.log_artifacts:
            return False
        await self._run.log_artifact(path, folder)
        return True


@dataclass(frozen=True, kw_only=True)
class AgentRunContext:
    """`async with` around an agent's run; made by `ExperimentTracker.track`, used once."""

    connector: MLflowConnector
    agent: AgentSection
    experiment: str
    experiment_tags: Mapping[str, str]
    run: RunContext

    async def __aenter__(self) -> AgentRun:
        await self.connector.get_or_create_experiment(self.experiment, self.experiment_tags)
        return AgentRun(await self.run.__aenter__(), self.agent)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.run.__aexit__(kind, error, trace)


class ExperimentTracker:
    """Experiments and runs of agents in MLflow.

    Parameters
    ----------
    connector : the MLflow that everything goes to
    agents : agent name -> its settings (`mlflow_experiment`, `log_prompts`, `log_artifacts`, `tier`)

    Examples
    --------
    >>> async def explain(tracker: ExperimentTracker) -> None:
    ...     async with tracker.track("causal_impact", experiment_id="speaker_program", brand="Kisqali", kpi="nrx") as run:
    ...         await run.log_hyperparameters(temperature=0.3, max_tokens=2048, model_version="claude-sonnet-4")
    ...         await run.log_metrics(causal_confidence=0.82)
    """

    def __init__(self, connector: MLflowConnector, agents: Mapping[str, AgentSection]) -> None:
        self._connector = connector
        self._agents = dict(agents)

    def experiment_name(self, agent_type: str, experiment_id: str) -> str:
        """`e2i_{agent_type}_{experiment_id}`, where an agent's `mlflow_experiment` stands for `e2i_{agent_type}`.

        `agent_type` is an agent or a tier. Raises ConfigError for a name without a letter or digit.
        """
        known = self._agents.get(agent_type)
        if known is not None:
            return f"{known.mlflow_experiment}_{_slug(experiment_id)}"
        return self._connector.experiment_name(_slug(agent_type), _slug(experiment_id))

    async def create_experiments(self, *, brands: Sequence[str] = BRANDS, tiers: Sequence[str] = TIERS) -> dict[str, str | None]:
        """One experiment per tier and brand, `e2i_{tier}_{brand}`, tagged with both; those that exist stay as they are.

        Returns
        -------
        dict[str, str | None]
            Name -> id; None while MLflow is down, they are created when it is back.
        """
        made: dict[str, str | None] = {}
        for tier in tiers:
            for brand in brands:
                name = self.experiment_name(tier, brand)
                made[name] = await self._connector.get_or_create_experiment(name, {"tier": tier, "brand": brand})
        return made

    def track(
        self,
        agent: str,
        *,
        experiment_id: str | None = None,
        run_name: str | None = None,
        brand: str | None = None,
        kpi: str | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AgentRunContext:
        """A run of `agent`, idempotent by `key`, tagged with agent, tier, brand and kpi. It ends as FINISHED, FAILED or KILLED.

        Parameters
        ----------
        experiment_id : the last part of the experiment's name; the brand by default, so that every brand has its own

        Raises
        ------
        ConfigError
            There is no such agent, or neither experiment nor brand is given.
        """
        section = self._section(agent)
        if experiment_id is None and brand is None:
            raise ConfigError("neither experiment_id nor brand is given.", where=f"run of {agent}", advice="Give at least one.")
        name = self.experiment_name(agent, experiment_id or brand or "")
        known = {"agent": agent, "tier": section.tier, "brand": brand or "", "kpi": kpi or ""}
        run = self._connector.start_run(
            experiment_name=name,
            run_name=run_name or agent,
            key=key,
            tags={**(tags or {}), **{tag: value for tag, value in known.items() if value}},
        )
        of_all = {tag: known[tag] for tag in ("agent", "tier", *(() if experiment_id else ("brand",)))}
        return AgentRunContext(connector=self._connector, agent=section, experiment=name, experiment_tags=of_all, run=run)

    async def compare(
        self, experiments: Sequence[str], metric: str, *, maximise: bool = True, where: Mapping[str, str] | None = None, limit: int = 100
    ) -> Comparison:
        """The newest `limit` finished runs of each experiment, best first by `metric`; `where` keeps runs with these tags.

        Raises BackendUnavailable, BackendRejected.
        """
        found: list[RunSummary] = []
        for name in dict.fromkeys(experiments):
            runs = await self._connector.search_runs(name, limit=limit)
            found += [_summary(name, run) for run in runs if run["status"] == "FINISHED"]
        wanted = (where or {}).items()
        found = [run for run in found if all(run.tags.get(tag) == value for tag, value in wanted)]
        with_it = [run for run in found if math.isfinite(run.metrics.get(metric, math.nan))]
        return Comparison(
            metric=metric,
            ranked=tuple(sorted(with_it, key=lambda run: run.metrics[metric], reverse=maximise)),
            without=tuple(run for run in found if run not in with_it),
        )

    def _section(self, agent: str) -> AgentSection:
        if agent not in self._agents:
            advice = suggestion(agent, sorted(self._agents), otherwise="The agents are")
            raise ConfigError(f"there is no agent {agent!r}.", where="ExperimentTracker", advice=advice)
        return self._agents[agent]


def _summary(experiment: str, run: Mapping[str, Any]) -> RunSummary:
    return RunSummary(
        experiment=experiment,
        run_id=run["run_id"],
        name=run["tags"].get("mlflow.runName", ""),
        status=run["status"],
        params=run["params"],
        metrics=run["metrics"],
        tags={name: value for name, value in run["tags"].items() if not name.startswith("mlflow.")},
    )


def _slug(text: str) -> str:
    """Lower case, digits and _ . - only: what can stand in the name of an experiment."""
    slug = _NOT_IN_NAMES.sub("_", text.strip().lower()).strip("_")
    if not slug:
        raise ConfigError(f"{text!r} has no letter or digit.", where="experiment name", advice="Name it with letters and digits.")
    return slug


def _file_name(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise DataError(f"{name!r} is not a file's name.", where="artifact", advice="Leave out folders; `folder` says where it goes.")
    return name
