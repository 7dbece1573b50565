"""`coxctl analyze`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from coxswain_client.client import Coxswain
from coxswain_client.example_files import read_examples
from coxswain_client.models.generation import ChatMessage
from coxswain_client.models.record import Record
from coxswain_client.models.steering import Monitor, SteeringOptions

from .analyze_judge import judge
from .analyze_probe import probe
from .out_file import OutFile
from .output import show

__all__ = ["analyze"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PICTURE = OutFile(".png", ".svg")
_PAGE = OutFile(".html", ".png", ".svg")


@click.group()
def analyze() -> None:
    """Look inside the model: traces, refusal cliffs, attention heads."""


analyze.add_command(judge)
analyze.add_command(probe)


@analyze.command()
@click.argument("prompt", required=False)
@click.option("--messages", type=_FILE, help="A chat as a JSON list of role and content.")
@click.option("--direction", "directions", multiple=True, required=True, help="Repeatable.")
@click.option("--layers", help="all, or layers such as 2,3; else where each was stored.")
@click.option("--site", help="Read all of them here.")
@click.option("--max-tokens", type=int, default=0, show_default=True, help="Generate first.")
@click.option("--profile", help="Steer by it.")
@click.option("--out", type=_PAGE, help="Draw to a .html, .png or .svg file instead.")
@click.pass_obj
def trace(
    client: Coxswain,
    /,
    *,
    prompt: str | None,
    messages: Path | None,
    directions: Sequence[str],
    layers: str | None,
    site: str | None,
    max_tokens: int,
    profile: str | None,
    out: Path | None,
) -> None:
    """Read directions and probes at every token of PROMPT, a chat's question, or of a chat."""
    if (prompt is None) == (messages is None):
        raise click.UsageError("give PROMPT or --messages")
    chat = _chat(prompt) if messages is None else _messages(messages)
    places = _layers(client, layers)
    readouts: list[Monitor] = [
        _readout(direction, layer, site) for direction in directions for layer in places
    ]
    found = client.analysis.trace(
        readouts, messages=chat, max_tokens=max_tokens, steering=_steering(profile)
    )
    if out is None:
        show(found)
        return
    from coxswain_evals.plots import draw_trace, trace_page

    if out.suffix.lower() == ".html":
        out.write_text(trace_page(found, ", ".join(directions)), encoding="utf-8")
    else:
        draw_trace(found, out)


@analyze.command()
@click.argument("file", type=_FILE)
@click.option("--probe", "probe_name", required=True, help="NAME or NAME@VERSION.")
@click.option("--layer", type=int, help="Read it here instead of where it was stored.")
@click.option("--site", help="As --layer.")
@click.option("--profile", help="Steer by it.")
@click.option("--thinking-portion", type=float, help="Keep this share of each thought.")
@click.option("--padding", type=click.Choice(["none", "zero"]), help="Zero is as published.")
@click.option("--out", type=_PICTURE, help="Draw to a .png or .svg file as well.")
@click.pass_obj
def cliff(
    client: Coxswain,
    /,
    *,
    file: Path,
    probe_name: str,
    layer: int | None,
    site: str | None,
    profile: str | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Measure the refusal cliff of the rollouts in FILE: chats with thoughts, a line each.

    Prints plateau, final and cliff; with --out, the average curve as a picture too.
    """
    found = client.analysis.cliff(
        read_examples(file),
        _readout(probe_name, layer, site),
        steering=_steering(profile),
        curves=out is not None,
        **options,
    )
    if out is not None:
        from coxswain_evals.plots import draw_cliffs

        draw_cliffs(found, out)
    show(_without(found, "curve"))


@analyze.command()
@click.argument("file", type=_FILE)
@click.option("--probe", "probe_name", required=True, help="NAME or NAME@VERSION.")
@click.option("--method", type=click.Choice(["attribution", "causal"]), default="attribution")
@click.option("--percent", type=float, default=3.0, show_default=True, help="Of all heads.")
@click.option("--gamma", type=float, default=0.0, show_default=True, help="Scale them by it.")
@click.option("--fold/--no-fold", default=None, help="Through the final norm, or not.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random control.")
@click.option("--save", "profile", help="Save the heads as a draft profile of this name.")
@click.option("--out", type=_PICTURE, help="Draw to a .png or .svg file as well.")
@click.pass_obj
def heads(
    client: Coxswain, /, *, file: Path, probe_name: str, out: Path | None, **options: Any
) -> None:
    """Rank attention heads by what they do to a probe, over the prompts in FILE."""
    found = client.analysis.heads(read_examples(file), probe_name, **options)
    if out is not None:
        from coxswain_evals.plots import draw_heads

        draw_heads(found, out)
    show(found)


def _readout(direction: str, layer: int | None, site: str | None) -> Monitor:
    readout: Monitor = {"direction": direction}
    if layer is not None:
        readout["layer"] = layer
    if site is not None:
        readout["site"] = site
    return readout


def _steering(profile: str | None) -> SteeringOptions | None:
    return None if profile is None else {"profile": profile}


def _layers(client: Coxswain, text: str | None) -> Sequence[int | None]:
    if text is None:
        return [None]
    if text == "all":
        return range(int(client.capabilities()["model"]["num_layers"]))
    try:
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r}; expected all, or layers such as 2,3", param_hint="--layers"
        ) from None


def _chat(prompt: str | None) -> list[ChatMessage]:
    return [{"role": "user", "content": prompt or ""}]


def _messages(path: Path) -> list[ChatMessage]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.ClickException(f"{path} is not JSON: {error}") from None
    if not isinstance(found, list):
        raise click.ClickException(f"{path} is not a list of messages")
    return found


def _without(found: Record, name: str) -> dict[str, Any]:
    """As JSON, less every member of that name."""

    def pruned(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: pruned(item) for key, item in value.items() if key != name}
        return [pruned(item) for item in value] if isinstance(value, list) else value

    document: dict[str, Any] = pruned(found.model_dump(mode="json"))
    return document
