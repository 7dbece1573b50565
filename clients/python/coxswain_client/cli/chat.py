"""`coxctl chat`."""

from __future__ import annotations

from typing import Any

import click

from coxswain_client.client import Coxswain
from coxswain_client.models.generation import ChatMessage

from .output import show

__all__ = ["chat"]


@click.command()
@click.argument("text")
@click.option("--profile", help="Profile, as NAME or NAME@VERSION; 'none' opts out of a default.")
@click.option("--strength", type=float, help="Factor on the profile's strengths.")
@click.option("--system", help="System message.")
@click.option("--model", help="Name of the model; by default the one the server has loaded.")
@click.option("--max-tokens", type=int, help="Most tokens of the answer.")
@click.option("--temperature", type=float, help="0 takes the likeliest token.")
@click.option("--seed", type=int, help="Makes the answer reproducible.")
@click.option("--compare", is_flag=True, help="Print the unsteered answer first.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@click.pass_obj
def chat(
    client: Coxswain,
    /,
    *,
    text: str,
    profile: str | None,
    strength: float | None,
    system: str | None,
    model: str | None,
    compare: bool,
    as_json: bool,
    **sampling: float | None,
) -> None:
    """Ask TEXT, steered by a profile, and print the answer as it is written."""
    turns: list[ChatMessage] = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": text})
    options: dict[str, Any] = {
        "model": model or client.models().data[0].id,
        "profile": profile,
        "strength": strength,
        **{name: value for name, value in sampling.items() if value is not None},
    }
    if not compare and not as_json:
        _print_stream(client, turns, options)
        return
    answer = client.chat(turns, steering={"compare": True} if compare else None, **options)
    if as_json:
        show(answer)
        return
    click.echo(f"unsteered: {answer.baseline_text}\nsteered:   {answer.text}")


def _print_stream(client: Coxswain, turns: list[ChatMessage], options: dict[str, Any]) -> None:
    with client.stream_chat(turns, **options) as chunks:
        for chunk in chunks:
            click.echo(chunk.text, nl=False)
    click.echo()
