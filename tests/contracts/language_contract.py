"""What every LanguageModel promises. Subclass it in a test file and give the fixture `model`, which says `text` in `tokens` tokens."""

from __future__ import annotations

from contextlib import aclosing

from e2i.ports.language import Completion, LanguageModel, Message


class LanguageModelContract:
    """Run against every implementation."""

    async def test_a_completion_says_who_answered_what_it_took_and_who_was_asked(self, model: LanguageModel) -> None:
        done = await model.complete("Name one colour.", max_tokens=12)
        assert isinstance(done, Completion)
        assert done.text.strip()
        assert done.model
        assert done.provider
        assert done.latency_ms >= 0
        assert done.finish_reason
        assert len(done.fallback_chain) == 1
        for count in (done.input_tokens, done.output_tokens):
            assert count is None or count > 0

    async def test_a_conversation_is_taken_as_well_as_a_text(self, model: LanguageModel) -> None:
        turns = [
            Message(role="system", content="You are brief."),
            Message(role="user", content="Name one colour."),
            Message(role="assistant", content="Red."),
            Message(role="user", content="Another."),
        ]
        assert (await model.complete(turns, max_tokens=12, temperature=0.0)).text.strip()

    async def test_a_stream_comes_in_pieces_of_text(self, model: LanguageModel) -> None:
        pieces = [piece async for piece in model.stream("Name three colours.", max_tokens=12)]
        assert len(pieces) > 1
        assert all(isinstance(piece, str) for piece in pieces)
        assert "".join(pieces).strip()

    async def test_a_stream_may_be_left_early(self, model: LanguageModel) -> None:
        async with aclosing(model.stream("Name three colours.", max_tokens=12)) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                break
        assert (await model.complete("Name one colour.", max_tokens=12)).text.strip()
