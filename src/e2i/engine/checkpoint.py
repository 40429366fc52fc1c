"""Checkpoints in PostgreSQL, as JSON only: a checkpoint that somebody tampered with can be wrong, never code."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from e2i.errors import BackendRejected, BackendUnavailable, SpecError, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver


class JsonSerializer:
    """LangGraph serializer that writes and reads JSON and nothing else."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """(`json`, bytes); an exception is kept as its text. Raises SpecError for anything that JSON cannot carry."""
        if obj is None:
            return "null", b""
        value = {"error": type(obj).__name__, "what": str(obj)} if isinstance(obj, BaseException) else obj
        try:
            return "json", json.dumps(value, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"a checkpoint holds {type(obj).__name__}, which JSON cannot carry.", advice="Keep records in states."
            ) from error

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value back. Raises BackendRejected for any other type tag (for instance a pickle)."""
        kind, payload = data
        if kind == "null":
            return None
        if kind != "json":
            raise BackendRejected(f"a checkpoint of type {kind!r} is refused.", advice="Only JSON checkpoints are read.")
        return json.loads(payload)


class StateCodec:
    """A State dataclass to JSON and back, by its annotations."""

    def __init__(self, state_type: type[Any]) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(state_type)

    def dump(self, state: object) -> str:
        """JSON without white space; NaN and infinities survive, and keys keep their order: a derived column may use an earlier one."""
        return json.dumps(self._adapter.dump_python(state, mode="json"), separators=(",", ":"), ensure_ascii=False)

    def load(self, text: str) -> Any:
        """The State."""
        return self._adapter.validate_python(json.loads(text))


@asynccontextmanager
async def postgres_checkpoints(url: str, *, schema: str = "langgraph") -> AsyncIterator[BaseCheckpointSaver[str]]:
    """LangGraph's PostgreSQL saver in its own schema, tables made on first use.

    Raises BackendUnavailable when the server cannot be reached, now or later, StorageError when it refuses.
    """
    import psycopg
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row, "options": f"-c search_path={schema}"}
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(url, min_size=1, max_size=4, open=False, kwargs=options, name="checkpoints")
    try:
        await pool.open(wait=True, timeout=15)
        saver = _saver(pool)
        await saver.setup()
    except (psycopg.Error, TimeoutError) as error:
        await pool.close()
        raise BackendUnavailable(f"no checkpoints: {error}", where="database", advice="See `e2i doctor`.") from error
    try:
        yield saver
    finally:
        await pool.close()


def _saver(pool: Any) -> AsyncPostgresSaver:
    """LangGraph's saver, with errors of ours: a database that goes away in the middle leaves the run open to be resumed."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    class Saver(AsyncPostgresSaver):
        async def aget_tuple(self, *given: Any, **named: Any) -> Any:
            with _our_errors():
                return await super().aget_tuple(*given, **named)

        async def aput(self, *given: Any, **named: Any) -> Any:
            with _our_errors():
                return await super().aput(*given, **named)

        async def aput_writes(self, *given: Any, **named: Any) -> None:
            with _our_errors():
                await super().aput_writes(*given, **named)

    return Saver(pool, serde=JsonSerializer())


@contextmanager
def _our_errors() -> Iterator[None]:
    import psycopg

    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise BackendUnavailable(
            f"a checkpoint cannot be kept or read: {error}", where="database", advice="Run again to go on; see `e2i doctor`."
        ) from error
    except psycopg.Error as error:
        raise StorageError(f"a checkpoint is refused: {error}", where="database", advice="See `e2i doctor`.") from error
