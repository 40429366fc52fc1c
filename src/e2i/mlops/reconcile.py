"""Two systems, one truth: finds where our rows and MLflow disagree, and repairs it.

Our tables are right; MLflow mirrors them. Kinds of difference:

- missing_there: a row of ours has a run that MLflow does not have
- missing_here: MLflow has the run, our row does not know its id yet (MLflow was away when the row was written)
- differing: both have it and say different things (id, status, stage, digest)
- orphan: MLflow has a run with our key that neither our rows nor our outbox know, or has it twice
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from e2i.mlops.mlflow_operations import aliases_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from e2i.domain.runs import LedgerRun
    from e2i.mlops.mlflow_connector import RegisteredVersion
    from e2i.mlops.mlflow_mirror import MirroredRun, MLflowMirror

Kind = Literal["missing_there", "missing_here", "differing", "orphan"]
_ENDED = {"completed": "FINISHED", "failed": "FAILED"}


class RunLedger(Protocol):
    """Our rows."""

    async def tracked_runs(self) -> Sequence[LedgerRun]:
        """Rows of ml_training_runs and ml_model_registry; several rows may share a key."""
        ...

    async def link_run(self, key: str, *, run_id: str, model_uri: str | None) -> None:
        """Write MLflow's id, and the model's address when there is one, into every row of this key."""
        ...


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One disagreement; `advice` is None where `is_repaired`."""

    kind: Kind
    key: str
    detail: str
    is_repaired: bool
    advice: str | None = None


async def reconcile(ledger: RunLedger, mirror: MLflowMirror, *, repair: bool = True) -> list[Difference]:
    """Compare both sides; with `repair` deliver what waits first and mend what can be mended.

    Returns
    -------
    list of Difference
        What was found. A second call gives only what could not be repaired.

    Raises
    ------
    BackendUnavailable, BackendRejected
        MLflow does not answer or refuses us; nothing was compared.
    """
    if repair:
        await mirror.drain()
    comparison = _Comparison(mirror, ledger, repair=repair)
    by_key: dict[str, list[MirroredRun]] = defaultdict(list)
    for run in await mirror.runs():
        by_key[run.key].append(run)
    rows = await ledger.tracked_runs()
    there = {key: await comparison.single(key, runs) for key, runs in by_key.items()}
    linked: set[str] = set()
    for row in rows:
        await comparison.compare_run(row, there.get(row.key), linked)
        if row.model_name is not None:
            await comparison.compare_version(row)
    for key in sorted(there.keys() - {row.key for row in rows}):
        await comparison.check_orphan(there[key])
    return comparison.found


class _Comparison:
    def __init__(self, mirror: MLflowMirror, ledger: RunLedger, *, repair: bool) -> None:
        self.found: list[Difference] = []
        self._mirror = mirror
        self._ledger = ledger
        self._repair = repair

    async def single(self, key: str, runs: list[MirroredRun]) -> MirroredRun:
        """The run of this key; copies go to the bin."""
        confirmed = (await self._mirror.results(key)).get("run_id")
        runs = sorted(runs, key=lambda run: (run.run_id != confirmed, run.is_deleted, run.started_ms, run.run_id))
        for copy in runs[1:]:
            if not copy.is_deleted:
                mend = partial(self._mirror.delete_run, copy.run_id)
                await self._report("orphan", key, f"run {copy.run_id} is a copy of {runs[0].run_id}", mend)
        return runs[0]

    async def compare_run(self, row: LedgerRun, run: MirroredRun | None, linked: set[str]) -> None:
        """Existence, id, status."""
        if run is None:
            if row.run_id is not None or row.status == "completed":
                waits = await self._mirror.waits(row.key)
                advice = "It waits in the outbox; run this again." if waits else "It was removed from MLflow for good; log the run again."
                await self._report("missing_there", row.key, "MLflow does not have the run", None, advice)
            return
        if run.is_deleted:
            restore = partial(self._mirror.restore_run, run.run_id)
            await self._report("missing_there", row.key, f"run {run.run_id} was deleted in MLflow", restore)
        uri = (await self._mirror.results(row.key)).get("model_uri")
        lacks_uri = row.model_name is not None and uri is not None and row.model_uri != uri
        if (row.run_id != run.run_id or lacks_uri) and row.key not in linked:
            linked.add(row.key)
            kind: Kind = "missing_here" if row.run_id in (None, run.run_id) else "differing"
            link = partial(self._ledger.link_run, row.key, run_id=run.run_id, model_uri=uri)
            detail = f"our row says run {row.run_id}, model {row.model_uri}; MLflow has run {run.run_id}, model {uri}"
            await self._report(kind, row.key, detail, link)
        if row.status in _ENDED and run.status == "RUNNING" and not await self._mirror.waits(row.key):
            end = partial(self._mirror.end_run, run.run_id, _ENDED[row.status])
            await self._report("differing", row.key, f"ours is {row.status}, MLflow's is running", end)

    async def compare_version(self, row: LedgerRun) -> None:
        """Stage and digest of a registered model."""
        name = row.model_name or ""
        versions = await self._mirror.versions(name)
        version = next((item for item in versions if item.key == row.key), None)
        if version is None:
            if "version" in await self._mirror.results(row.key):
                advice = "Register the model again; ours is still served."
                await self._report("missing_there", row.key, f"MLflow has lost the version of {name}", None, advice)
            return
        if row.digest is not None and version.digest != row.digest:
            detail = f"{name} version {version.version} has digest {version.digest}, the registered one is {row.digest}"
            await self._report("differing", row.key, detail, None, "Do not load it from MLflow; somebody has replaced it there.")
        stage = version.stage or "development"
        if row.stage is not None and (stage != row.stage or _lacks_alias(version, row.stage, versions)):
            mend = partial(self._mirror.set_stage, name, version.version, row.stage)
            held = ", ".join(version.aliases) or "no alias"
            await self._report("differing", row.key, f"{name} version {version.version} is {row.stage} here, {stage} ({held}) there", mend)

    async def check_orphan(self, run: MirroredRun) -> None:
        """A run that our outbox sent has its place without a row; others are strangers."""
        if not run.is_deleted and not await self._mirror.results(run.key) and not await self._mirror.waits(run.key):
            await self._report("orphan", run.key, f"nobody here knows run {run.run_id}", None, "Delete it in MLflow, or ignore it.")

    async def _report(
        self, kind: Kind, key: str, detail: str, mend: Callable[[], Awaitable[None]] | None, advice: str | None = None
    ) -> None:
        mends = mend is not None and self._repair
        if mend is not None and mends:
            await mend()
        elif mend is not None:
            advice = "`e2i doctor` repairs it."
        self.found.append(Difference(kind=kind, key=key, detail=detail, is_repaired=mends, advice=advice))


def _lacks_alias(version: RegisteredVersion, stage: str, versions: Sequence[RegisteredVersion]) -> bool:
    """An alias has one holder; of several versions in staging or shadow any may hold it, production has one version."""
    held = version.aliases if stage == "production" else [alias for other in versions for alias in other.aliases]
    return not set(aliases_of(stage)) <= set(held)
