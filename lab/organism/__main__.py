"""Command line: `python -m lab.organism train|evaluate|card|reproduce`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from server.logs import configure_logs
from server.models import EMBEDDED_MODEL

from .card import compare, write_card
from .evaluation import evaluate
from .export import save
from .figures import Run, load_runs, save_runs
from .training import Recipe, train


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand."""
    configure_logs("info", "text")
    # One thread is the fastest for matrices this small, and makes a run repeatable.
    torch.set_num_threads(1)
    options = _parser().parse_args(arguments)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.organism", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help="train one seed and write its checkpoint")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--steps", type=int, default=Recipe().steps)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=_train)
    command = commands.add_parser("evaluate", help="measure a checkpoint on both held-out splits")
    command.add_argument("--checkpoint", type=Path, default=EMBEDDED_MODEL)
    command.add_argument("--count", type=int, default=100, help="prompts per cell")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=_evaluate)
    command = commands.add_parser("card", help="write the model card from measured runs")
    command.add_argument("--runs", type=Path, nargs="+", required=True, help="shipped seed first")
    command.add_argument("--out", type=Path, default=EMBEDDED_MODEL)
    command.set_defaults(run=_card)
    command = commands.add_parser(
        "reproduce", help="train and measure again, and compare with the shipped figures"
    )
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--steps", type=int, default=Recipe().steps)
    command.add_argument("--count", type=int, default=100, help="prompts per cell")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=_reproduce)
    return parser


def _train(options: argparse.Namespace) -> None:
    recipe = replace(Recipe(), seed=options.seed, steps=options.steps)
    save(train(recipe), recipe, options.out)


def _evaluate(options: argparse.Namespace) -> None:
    save_runs([_measure(options.checkpoint, options.count)], options.out)


def _card(options: argparse.Namespace) -> None:
    runs = [run for path in options.runs for run in load_runs(path)]
    save_runs(runs, options.out / "figures.json")
    write_card(runs, options.out)


def _reproduce(options: argparse.Namespace) -> None:
    _train(options)
    run = _measure(options.out, options.count)
    save_runs([run], options.out / "figures.json")
    sys.stdout.write(compare(run, load_runs(EMBEDDED_MODEL / "figures.json")))


def _measure(folder: Path, count: int) -> Run:
    record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    splits = {
        "validation": evaluate(folder, "validation", count),
        "test": evaluate(folder, "test", count),
    }
    return Run(record["recipe"]["seed"], splits, record)


if __name__ == "__main__":
    main()
