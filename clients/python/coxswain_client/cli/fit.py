"""`coxctl fit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from coxswain_client.example_files import read_examples, read_pairs

from .options import argument, client_of, in_file, option, without_blanks
from .watching import show_or_watch_new

__all__ = ["fit"]


def fit(
    ctx: typer.Context,
    name: Annotated[str, argument("NAME")],
    method: Annotated[str, option(help="See capabilities.")] = "mean_difference",
    positive: Annotated[
        Path | None, in_file(help="Examples with the property: .jsonl or .csv.")
    ] = None,
    negative: Annotated[Path | None, in_file(help="Examples without it.")] = None,
    pairs: Annotated[Path | None, in_file(help="Both, in pairs, instead.")] = None,
    system_prompt: Annotated[
        str | None, option(help="Put before every example, and absent when serving.")
    ] = None,
    token: Annotated[str | None, option(help="last, post_instruction, mean, or an index.")] = None,
    validation: Annotated[float | None, option(help="Share held out; by default 0.2.")] = None,
    site: Annotated[str | None, option(help="By default resid_post.")] = None,
    layers: Annotated[
        str | None,
        option(help="Layers such as 3,4 or 40-60%, all, select, or select:2,3,4."),
    ] = None,
    options: Annotated[
        list[str] | None, option("--option", metavar="KEY=VALUE", help="Repeatable.")
    ] = None,
    seed: Annotated[int | None, option(help="Of the split and of resampling.")] = None,
    requires: Annotated[
        list[str] | None, option(help="Scope that its use takes; repeatable.")
    ] = None,
    watch: Annotated[
        bool, option("--watch", help="Follow it to its end; prints the direction.")
    ] = False,
) -> None:
    """Fit a direction called NAME from example prompts, on the server's own model.

    A line of a .jsonl file is a text, or an object with prompt or messages; a .csv file has a
    column prompt (or text), or conversation, role and content. The result with its receipt is in
    `coxctl jobs show`.
    """
    data = without_blanks(
        **_examples(positive, negative, pairs),
        token=int(token) if token and token.lstrip("-").isdecimal() else token,
        system_prompt=system_prompt,
        validation=validation,
    )
    request = without_blanks(
        name=name,
        method=method,
        site=site,
        layers=_layers(layers),
        data=data,
        options=dict(map(_option, options or ())),
        seed=seed,
        requires=requires,
    )
    client = client_of(ctx)
    show_or_watch_new(client, client.jobs.create("fit", **request), is_watched=watch)


def _examples(positive: Path | None, negative: Path | None, pairs: Path | None) -> dict[str, Any]:
    """The examples in the files, as a fit's `data` takes them."""
    if pairs is not None and positive is None and negative is None:
        return {"pairs": read_pairs(pairs)}
    if pairs is None and positive is not None and negative is not None:
        return {"positive": read_examples(positive), "negative": read_examples(negative)}
    raise typer.BadParameter("give --positive and --negative, or --pairs")


def _layers(text: str | None) -> str | list[int] | dict[str, Any] | None:
    """A choice of layers as the server reads it; None where it is not given."""
    if text is None or text == "select":
        return text
    if text.startswith("select:"):
        return {"select": _layers(text.removeprefix("select:"))}
    first, dash, last = text.removesuffix("%").partition("-")
    try:
        if text == "all":
            return {"from": 0, "to": 1}
        if dash and text.endswith("%"):
            return {"from": float(first) / 100, "to": float(last) / 100}
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}; expected layers such as 3,4, a range of the depth such as 40-60%, all, "
            "select, or select: before any of these",
            param_hint="--layers",
        ) from None


def _option(text: str) -> tuple[str, Any]:
    """`key=value`; a value that is JSON is read as JSON, any other is a text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{text!r}; expected KEY=VALUE", param_hint="--option")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
