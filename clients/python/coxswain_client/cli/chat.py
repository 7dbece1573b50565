"""`coxctl chat`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coxswain_client.client import Coxswain
from coxswain_client.models.generation import ChatMessage

from .options import argument, client_of, option, without_blanks
from .output import show

__all__ = ["chat"]


def chat(
    ctx: typer.Context,
    text: Annotated[str, argument("TEXT")],
    profile: Annotated[
        str | None,
        option(help="Profile, as NAME or NAME@VERSION; 'none' opts out of a default."),
    ] = None,
    strength: Annotated[float | None, option(help="Factor on the profile's strengths.")] = None,
    system: Annotated[str | None, option(help="System message.")] = None,
    model: Annotated[
        str | None, option(help="Name of the model; by default the one the server has loaded.")
    ] = None,
    max_tokens: Annotated[int | None, option(help="Most tokens of the answer.")] = None,
    temperature: Annotated[float | None, option(help="0 takes the likeliest token.")] = None,
    seed: Annotated[int | None, option(help="Makes the answer reproducible.")] = None,
    compare: Annotated[bool, option("--compare", help="Print the unsteered answer first.")] = False,
    as_json: Annotated[bool, option("--json", help="Print the whole answer as JSON.")] = False,
) -> None:
    """Ask TEXT, steered by a profile, and print the answer as it is written."""
    client = client_of(ctx)
    turns: list[ChatMessage] = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": text})
    options: dict[str, Any] = {
        "model": model or client.models().data[0].id,
        "profile": profile,
        "strength": strength,
        **without_blanks(max_tokens=max_tokens, temperature=temperature, seed=seed),
    }
    if not compare and not as_json:
        _print_stream(client, turns, options)
        return
    answer = client.chat(turns, steering={"compare": True} if compare else None, **options)
    if as_json:
        show(answer)
        return
    typer.echo(f"unsteered: {answer.baseline_text}\nsteered:   {answer.text}")


def _print_stream(client: Coxswain, turns: list[ChatMessage], options: dict[str, Any]) -> None:
    with client.stream_chat(turns, **options) as chunks:
        for chunk in chunks:
            typer.echo(chunk.text, nl=False)
    typer.echo()
