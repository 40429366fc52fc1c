"""`e2i serve`: the HTTP face: other teams' spans in, health, metrics and traces out."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from e2i.cli.options import AsJson, Home, settings
from e2i.cli.output import print_line, print_note


def serve(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1. Others need an API key.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; default 4318, 0 picks a free one.", min=0, max=65535)] = None,
    as_json: AsJson = False,
) -> None:
    """Receive OpenTelemetry and Opik traces, deliver spans, and answer /readyz, /metrics and /api/v1, until Ctrl-C.

    Other teams point here: OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 or OPIK_URL_OVERRIDE=http://127.0.0.1:4318/api.
    """
    from e2i.api.serving import serve as run

    def tell(address: str) -> None:
        if as_json:
            print_line(json.dumps({"status": "listening", "address": address}))  # one line: whoever started us waits for it
        else:
            print_note(f"Listening on {address} (OpenTelemetry: {address}/v1/traces, Opik: {address}/api). Ctrl-C stops.")

    asyncio.run(run(settings(home), host=host, port=port, on_listening=tell))
