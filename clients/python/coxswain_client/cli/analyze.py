"""`coxctl analyze`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from coxswain_client.client import Coxswain
from coxswain_client.example_files import ExampleFileError, read_examples
from coxswain_client.models.generation import ChatMessage
from coxswain_client.models.record import Record
from coxswain_client.models.steering import Monitor, SteeringOptions

from .jobs import finished_job, show_or_watch
from .options import (
    TemplateKwargs,
    argument,
    client_of,
    failure,
    group,
    in_file,
    option,
    out_file,
    without_blanks,
)
from .output import show

analyze = group("Look inside the model: traces, refusal cliffs, attention heads.")

_File = Annotated[Path, argument("FILE", exists=True, dir_okay=False)]
_Picture = Annotated[
    Path | None,
    option("--out", **out_file(".png", ".svg"), help="Draw to a .png or .svg file as well."),
]
_Probe = Annotated[str, option("--probe", help="NAME or NAME@VERSION.")]
_Profile = Annotated[str | None, option(help="Steer by it.")]


@analyze.command()
def trace(
    ctx: typer.Context,
    prompt: Annotated[str | None, argument("PROMPT")] = None,
    *,
    messages: Annotated[
        Path | None, in_file(help="A chat as a JSON list of role and content.")
    ] = None,
    directions: Annotated[list[str], option("--direction", help="Repeatable.")],
    layers: Annotated[
        str | None, option(help="all, or layers such as 2,3; else where each was stored.")
    ] = None,
    site: Annotated[str | None, option(help="Read all of them here.")] = None,
    max_tokens: Annotated[int, option(help="Generate first.")] = 0,
    profile: _Profile = None,
    out: Annotated[
        Path | None,
        option(
            **out_file(".html", ".png", ".svg"),
            help="Draw to a .html, .png or .svg file instead.",
        ),
    ] = None,
) -> None:
    """Read directions and probes at every token of PROMPT, a chat's question, or of a chat."""
    if (prompt is None) == (messages is None):
        raise typer.BadParameter("give PROMPT or --messages")
    client = client_of(ctx)
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
def cliff(
    ctx: typer.Context,
    file: _File,
    probe: _Probe,
    layer: Annotated[
        int | None, option(help="Read it here instead of where it was stored.")
    ] = None,
    site: Annotated[str | None, option(help="As --layer.")] = None,
    profile: _Profile = None,
    thinking_portion: Annotated[
        float | None, option(help="Keep this share of each thought.")
    ] = None,
    plateau: Annotated[
        Literal["mean", "max"] | None, option(help="What of the thought's scores.")
    ] = None,
    padding: Annotated[Literal["none", "zero"] | None, option(help="Zero is as published.")] = None,
    chat_template_kwargs: TemplateKwargs = None,
    out: _Picture = None,
) -> None:
    """Measure the refusal cliff of the rollouts in FILE: chats with thoughts, a line each.

    Prints plateau, final and cliff; with --out, the average curve as a picture too.
    """
    found = client_of(ctx).analysis.cliff(
        read_examples(file),
        _readout(probe, layer, site),
        steering=_steering(profile),
        curves=out is not None,
        thinking_portion=thinking_portion,
        plateau=plateau,
        padding=padding,
        chat_template_kwargs=chat_template_kwargs,
    )
    if out is not None:
        from coxswain_evals.plots import draw_cliffs

        draw_cliffs(found, out)
    show(_without(found, "curve"))


@analyze.command()
def heads(
    ctx: typer.Context,
    file: _File,
    probe: _Probe,
    method: Annotated[Literal["attribution", "causal"], option()] = "attribution",
    percent: Annotated[float, option(help="Of all heads.")] = 3.0,
    gamma: Annotated[float, option(help="Scale them by it.")] = 0.0,
    fold: Annotated[
        bool | None, option("--fold/--no-fold", help="Through the final norm, or not.")
    ] = None,
    seed: Annotated[int, option(help="Of the random control.")] = 0,
    save: Annotated[
        str | None, option(help="Save the heads as a draft profile of this name.")
    ] = None,
    chat_template_kwargs: TemplateKwargs = None,
    out: _Picture = None,
) -> None:
    """Rank attention heads by what they do to a probe, over the prompts in FILE."""
    found = client_of(ctx).analysis.heads(
        read_examples(file),
        probe,
        method=method,
        profile=save,
        percent=percent,
        gamma=gamma,
        fold=fold,
        seed=seed,
        chat_template_kwargs=chat_template_kwargs,
    )
    if out is not None:
        from coxswain_evals.plots import draw_heads

        draw_heads(found, out)
    show(found)


def _share(fraction: float) -> float:
    if not 0 < fraction <= 1:
        raise typer.BadParameter(f"{fraction} is not in the range 0<x<=1.")
    return fraction


@analyze.command()
def judge(
    ctx: typer.Context,
    file: _File,
    *,
    probe: _Probe,
    fraction: Annotated[float, option(callback=_share, help="Above 0 and at most 1.")],
    rule: Annotated[
        Literal["cliff", "final"],
        option(help="Largest plateau - final first, or smallest final first, as published."),
    ] = "cliff",
    chat_template_kwargs: TemplateKwargs = None,
    out: Annotated[Path, option(**out_file())],
) -> None:
    """Rank the rollouts in FILE (.jsonl, chats with thoughts) and write the first to --out.

    Lines are copied as they are, the one to train on first. The server does it as a job.
    """
    if file.suffix.lower() != ".jsonl":
        raise ExampleFileError(f"{file}: unknown kind of file; expected .jsonl")
    client = client_of(ctx)
    lines = [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    options = without_blanks(chat_template_kwargs=chat_template_kwargs)
    job = client.jobs.create("cliff", conversations=read_examples(file), probe=probe, **options)
    result = finished_job(client, job.id).result or {}
    count = min(len(lines), max(1, round(fraction * len(lines))))
    chosen = result["ranking"][rule][:count]
    out.write_text("".join(f"{lines[index]}\n" for index in chosen), encoding="utf-8")
    rows = [result["conversations"][index] for index in chosen]
    summary = {
        "job": job.id,
        "selected": count,
        "of": len(lines),
        "rule": rule,
        "mean_cliff_selected": sum(row["cliff"] for row in rows) / count,
        "mean_cliff": result["average"]["cliff"],
    }
    show(summary)


@analyze.command()
def probe(
    ctx: typer.Context,
    name: Annotated[str, argument("NAME")],
    positive: Annotated[Path, in_file(help="Rollouts that refuse.")],
    negative: Annotated[Path, in_file(help="Rollouts that comply.")],
    layer: Annotated[int | None, option(help="By default the last.")] = None,
    site: Annotated[str | None, option(help="By default final, after the last norm.")] = None,
    validation: Annotated[float | None, option(help="Share held out; by default 0.2.")] = None,
    l2: Annotated[float | None, option(help="Weight of the penalty; by default 1.")] = None,
    seed: Annotated[int | None, option(help="Of the split.")] = None,
    chat_template_kwargs: TemplateKwargs = None,
    watch: Annotated[bool, option("--watch", help="Follow it to its end.")] = False,
) -> None:
    """Train a probe called NAME where thoughts have ended and answers would begin.

    A line of a file is a chat whose last message is `<think> thought </think> answer`. Let both
    files hold the same topics: against ordinary questions alone it learns the topic.
    """
    data = without_blanks(
        positive=read_examples(positive), negative=read_examples(negative), validation=validation
    )
    options = without_blanks(
        layer=layer, site=site, l2=l2, seed=seed, chat_template_kwargs=chat_template_kwargs
    )
    client = client_of(ctx)
    job = client.jobs.create("cliff_probe", name=name, data=data, **options)
    show_or_watch(client, job, is_watched=watch, is_new=True)


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
    """The layers that are read; None stands for where a direction was stored."""
    if text is None:
        return [None]
    if text == "all":
        return range(int(client.capabilities()["model"]["num_layers"]))
    try:
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}; expected all, or layers such as 2,3", param_hint="--layers"
        ) from None


def _chat(prompt: str | None) -> list[ChatMessage]:
    return [{"role": "user", "content": prompt or ""}]


def _messages(path: Path) -> list[ChatMessage]:
    """The chat in a JSON file.

    Raises:
        Exit: The file is not JSON, or no list.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise failure(f"{path} is not JSON: {error}") from None
    if not isinstance(found, list):
        raise failure(f"{path} is not a list of messages")
    return found


def _without(found: Record, name: str) -> dict[str, Any]:
    """The record as JSON, less every member of that name."""

    def pruned(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: pruned(item) for key, item in value.items() if key != name}
        return [pruned(item) for item in value] if isinstance(value, list) else value

    document: dict[str, Any] = pruned(found.model_dump(mode="json"))
    return document
