"""Which executor stands behind `--engine`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from e2i import config
from e2i.bootstrap.executors import EngineName, make_executors
from e2i.engine.executor import LocalExecutor
from e2i.engine.in_process import InProcessExecutor
from e2i.engine.ray_executor import RayExecutor


def touched(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(("engine", "kind"), [("process", LocalExecutor), ("local", InProcessExecutor), ("ray", RayExecutor)])
def test_each_engine_gives_an_executor_per_worker_and_starts_nothing(tmp_path: Path, engine: EngineName, kind: type) -> None:
    model, effect = make_executors(engine, config.load(home=tmp_path), preloads=[("polars",), ("sklearn.linear_model",)], initialize=int)
    assert (type(model), type(effect)) == (kind, kind)
    assert (model is effect) == (engine == "ray")
    for each in (model, effect):
        each.close()
        each.close()


@pytest.mark.parametrize(("engine", "is_called"), [("process", True), ("local", False)])
async def test_a_worker_process_is_prepared_and_this_process_is_left_alone(tmp_path: Path, engine: EngineName, is_called: bool) -> None:
    (compute,) = make_executors(engine, config.load(home=tmp_path), preloads=[()], initialize=partial(touched, tmp_path / "prepared"))
    assert await compute.run(abs, -3) == 3
    compute.close()
    assert (tmp_path / "prepared").exists() is is_called


def test_a_cluster_is_named_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load(home=tmp_path).ray.address == "local"
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert config.load(home=tmp_path).ray.address == "ray://head:10001"
