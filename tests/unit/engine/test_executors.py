"""Which executor stands behind `--engine`."""

from __future__ import annotations

import subprocess
import sys
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


UNGUARDED = """
import asyncio
from e2i.engine.executor import LocalExecutor
from e2i.errors import E2IError

try:
    print(asyncio.run(LocalExecutor().run(abs, -3)))
except E2IError as error:
    print(error.to_dict())
"""


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path: Path, is_guarded: bool) -> None:
    script, indented = tmp_path / "script.py", UNGUARDED.replace("\n", "\n    ")
    script.write_text(f"if __name__ == '__main__':{indented}\n" if is_guarded else UNGUARDED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    if is_guarded:
        assert (done.stdout, done.stderr) == ("3\n", "")
    else:
        assert "__name__ == '__main__'" in done.stdout
        assert "memory" not in done.stdout
