"""A call through the gateway beside the bare SDK, against the same server on loopback, in turns in one process.

python benchmarks/bench_language.py           median and 95th percentile of both, whole and streamed, and what the gateway adds
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from language_doubles import gateway, spans_seen
from vendor_servers import KEY, AnthropicServer, OpenAIServer, Says, Vendor

CALLS, PIECES = 400, 50
Ask = Callable[[], Awaitable[object]]


def bare(server: Vendor) -> tuple[Ask, Ask, Callable[[], Awaitable[None]]]:
    """One whole and one streamed call of the vendor's SDK, and the end of its client."""
    turns = [{"role": "user", "content": "Why?"}]
    if server.provider == "anthropic":
        from anthropic import AsyncAnthropic

        client = AsyncAnthropic(api_key=KEY, base_url=server.base_url, max_retries=0, open_telemetry=False)

        async def create(**more: bool) -> object:
            return await client.messages.create(model="claude-haiku-4-5", max_tokens=20, messages=turns, **more)

        async def close() -> None:
            await client.close()
    else:
        from openai import AsyncOpenAI

        other = AsyncOpenAI(api_key=KEY, base_url=server.base_url, max_retries=0)

        async def create(**more: bool) -> object:
            return await other.chat.completions.create(model=server.model, max_tokens=20, messages=turns, **more)

        async def close() -> None:
            await other.close()

    async def stream() -> None:
        async for _ in await create(stream=True):
            pass

    return create, stream, close


async def milliseconds(ask: Ask) -> float:
    begun = time.perf_counter()
    await ask()
    return (time.perf_counter() - begun) * 1000


def line(name: str, sdk: list[float], ours: list[float]) -> str:
    (a, b), (c, d) = ((statistics.median(some), statistics.quantiles(some, n=20)[-1]) for some in (sdk, ours))
    return f"{name:28} SDK p50 {a:6.3f} ms p95 {b:6.3f}   gateway p50 {c:6.3f} ms p95 {d:6.3f}   adds {c - a:+.3f} ms ({c / a:.2f} x)"


async def compare(vendor: type[Vendor]) -> None:
    async with vendor(Says(pieces=["word "] * PIECES)).running() as server:
        model = gateway(server)
        whole, streamed, close = bare(server)

        async def our_stream() -> None:
            async for _ in model.stream("Why?", max_tokens=20):
                pass

        pairs = {"whole": (whole, lambda: model.complete("Why?", max_tokens=20)), f"streamed, {PIECES} pieces": (streamed, our_stream)}
        for name, (theirs, ours) in pairs.items():
            times: tuple[list[float], list[float]] = ([], [])
            for number in range(CALLS + 20):
                for taken, ask in zip(times, (theirs, ours), strict=True):
                    spent = await milliseconds(ask)
                    if number >= 20:
                        taken.append(spent)
            print(line(f"{server.provider}: {name}", *times))
        await model.close()
        await close()


if __name__ == "__main__":
    with spans_seen():
        for each in (AnthropicServer, OpenAIServer):
            asyncio.run(compare(each))
