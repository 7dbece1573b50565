"""`coxctl fit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from coxswain_client.client import Coxswain
from coxswain_client.example_files import read_examples, read_pairs

from .output import show
from .watching import watch_job

__all__ = ["fit"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name")
@click.option("--method", default="mean_difference", show_default=True, help="See capabilities.")
@click.option("--positive", type=_FILE, help="Examples with the property: .jsonl or .csv.")
@click.option("--negative", type=_FILE, help="Examples without it.")
@click.option("--pairs", type=_FILE, help="Both, in pairs, instead.")
@click.option("--system-prompt", help="Put before every example, and absent when serving.")
@click.option("--token", help="last, post_instruction, mean, or an index.")
@click.option("--validation", type=float, help="Share held out; by default 0.2.")
@click.option("--site", help="By default resid_post.")
@click.option("--layers", help="Layers such as 3,4 or 40-60%, all, select, or select:2,3,4.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option("--seed", type=int, help="Of the split and of resampling.")
@click.option("--requires", multiple=True, help="Scope that its use takes; repeatable.")
@click.option("--watch", is_flag=True, help="Follow it to its end; prints the direction.")
@click.pass_obj
def fit(client: Coxswain, /, *, name: str, watch: bool, **given: Any) -> None:
    """Fit a direction called NAME from example prompts, on the server's own model.

    A line of a .jsonl file is a text, or an object with prompt or messages; a .csv file has a
    column prompt (or text), or conversation, role and content. The result with its receipt is in
    `coxctl jobs show`.
    """
    data = _data(given)
    request = {
        "name": name,
        "method": given["method"],
        "site": given["site"],
        "layers": _layers(given["layers"]),
        "data": data,
        "options": dict(map(_option, given["options"])),
        "seed": given["seed"],
        "requires": list(given["requires"]),
    }
    job = client.jobs.create("fit", **{k: v for k, v in request.items() if v not in (None, {}, [])})
    if watch:
        click.echo(job.id, err=True)
        watch_job(client, job.id)
    else:
        show(job)


def _data(given: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    sides = [side for side in ("positive", "negative") if given[side] is not None]
    if given["pairs"] is not None and not sides:
        data["pairs"] = read_pairs(given["pairs"])
    elif given["pairs"] is None and len(sides) == 2:
        data = {side: read_examples(given[side]) for side in sides}
    else:
        raise click.UsageError("give --positive and --negative, or --pairs")
    token = given["token"]
    data["token"] = int(token) if token and token.lstrip("-").isdecimal() else token
    data["system_prompt"] = given["system_prompt"]
    data["validation"] = given["validation"]
    return {key: value for key, value in data.items() if value is not None}


def _layers(text: str | None) -> str | list[int] | dict[str, Any] | None:
    """As the server reads it; None where it is not given."""
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
        raise click.BadParameter(
            f"{text!r}; expected layers such as 3,4, a range of the depth such as 40-60%, all, "
            "select, or select: before any of these",
            param_hint="--layers",
        ) from None


def _option(text: str) -> tuple[str, Any]:
    """`key=value`; a value that is JSON is read as JSON, any other is a text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r}; expected KEY=VALUE", param_hint="--option")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
