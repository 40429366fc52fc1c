"""The gateway as the settings describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from e2i.errors import ConfigError
from e2i.llm.anthropic import AnthropicModel
from e2i.llm.gateway import LanguageModelGateway, Limits, Link, Pacing
from e2i.llm.local import LocalModel
from e2i.llm.openai_compatible import OpenAICompatibleModel
from e2i.llm.prices import PriceTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from e2i.llm.provider import Provider
    from e2i.ports.telemetry import Breaker
    from e2i.settings.sections import ChainEntry, LlmSection


def build_gateway(settings: LlmSection, *, breaker: Callable[[str], Breaker], pacing: Pacing | None = None) -> LanguageModelGateway | None:
    """The chain of the settings; None when it is empty. Nothing is imported, started or called yet.

    Parameters
    ----------
    breaker : gives the circuit breaker for a name; asked once for each entry, with different names
    pacing : time and chance of the retries; for tests

    Raises
    ------
    ConfigError
        An entry has no key, a wrong `base_url`, or names no model. MissingExtra when the local model is not installed.
    """
    links: list[Link] = []
    seen: dict[str, int] = {}
    for position, entry in enumerate(settings.chain):
        provider = _provider(entry, settings, where=f"llm.chain[{position}]")
        name = f"llm {entry.provider} {provider.model}"
        seen[name] = seen.get(name, 0) + 1
        links.append(Link(provider=provider, breaker=breaker(name if seen[name] == 1 else f"{name} {seen[name]}")))
    if not links:
        return None
    limits = Limits(timeout_s=settings.timeout_seconds, max_retries=settings.max_retries, temperature=settings.temperature)
    return LanguageModelGateway(links, prices=PriceTable(settings.prices), limits=limits, pacing=pacing)


def _provider(entry: ChainEntry, settings: LlmSection, *, where: str) -> Provider:
    if not entry.model.strip():
        raise ConfigError("`model` is empty.", where=where, advice="Name the model.")
    _check_url(entry.base_url, where)
    if entry.provider == "local":
        if entry.base_url or entry.api_key.get_secret_value():
            advice = "Take them out; for a server of your own use provider openai_compatible."
            raise ConfigError("a local model has no `base_url` and no `api_key`.", where=where, advice=advice)
        return LocalModel(entry.model)
    if entry.provider == "anthropic":
        key = _key(entry, settings.anthropic_api_key, "ANTHROPIC_API_KEY", where)
        return AnthropicModel(entry.model, api_key=key, base_url=entry.base_url)
    key = _key(entry, settings.openai_api_key, "OPENAI_API_KEY", where)
    return OpenAICompatibleModel(entry.model, api_key=key, base_url=entry.base_url)


def _key(entry: ChainEntry, common: SecretStr, variable: str, where: str) -> str:
    """The entry's own key, else the vendor's; empty only for a server of one's own. Its text never gets into an error."""
    key = entry.api_key.get_secret_value().strip() or common.get_secret_value().strip()
    if not key and not entry.base_url:
        advice = f"Set {variable}, or api_key of the entry, for example ${{{variable}:-}}."
        raise ConfigError(f"no API key for {entry.model}.", where=where, advice=advice)
    if any(not "!" <= letter <= "~" for letter in key):
        raise ConfigError(
            "the API key has blanks or letters that no header may hold.", where=where, advice="Copy it again, without quotes."
        )
    return key


def _check_url(base_url: str, where: str) -> None:
    if not base_url:
        return
    if "@" in base_url:
        raise ConfigError("base_url holds a user name or password.", where=where, advice="Use api_key; addresses get into logs.")
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or base_url != base_url.strip():
        raise ConfigError(f"base_url {base_url!r} is no address.", where=where, advice="Write it like https://host:port/v1.")
