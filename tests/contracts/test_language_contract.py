"""The LanguageModel contract on each provider behind the gateway, and on the double that agents' tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from contracts.language_contract import LanguageModelContract
from doubles import ScriptedLanguage
from e2i.ports.language import LanguageModel
from language_doubles import gateway
from vendor_servers import AnthropicServer, OpenAIServer, Says, Vendor


class TestScriptedLanguage(LanguageModelContract):
    """The double."""

    @pytest.fixture
    def model(self) -> LanguageModel:
        return ScriptedLanguage("red green blue")


async def over(server: Vendor) -> AsyncIterator[LanguageModel]:
    async with server.running():
        built = gateway(server)
        yield built
        await built.close()


class TestAnthropic(LanguageModelContract):
    """Anthropic's SDK against a server that speaks its Messages API."""

    @pytest.fixture
    async def model(self) -> AsyncIterator[LanguageModel]:
        async for built in over(AnthropicServer(Says(pieces=("red ", "green ", "blue")))):
            yield built


class TestOpenAICompatible(LanguageModelContract):
    """OpenAI's SDK against a server that speaks chat completions."""

    @pytest.fixture
    async def model(self) -> AsyncIterator[LanguageModel]:
        async for built in over(OpenAIServer(Says(pieces=("red ", "green ", "blue")))):
            yield built


class TestLocal(LanguageModelContract):
    """A real model: SmolLM2-135M run by llama.cpp in this process."""

    @pytest.fixture
    async def model(self) -> AsyncIterator[LanguageModel]:
        built = gateway(entries=[{"provider": "local", "model": "SmolLM2-135M-Instruct"}])
        yield built
        await built.close()
