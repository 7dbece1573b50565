"""`EFFECTS.md`: what was chosen, what it does, what it costs and what does not work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from lab.corpus import STYLE_NAMES

from .criterion import Rates
from .effects import EFFECTS
from .measures import Measured, Rate
from .run import FACTORS, UNSTEERED, Run
from .search import Search

_TONES = {*STYLE_NAMES, *(f"very {style}" for style in STYLE_NAMES)}
_SHORT = {
    "restricted_direct": "direct",
    "restricted_framed": "framed",
    "hard_negative": "look-alike",
    "ordinary": "ordinary",
    "multiple_choice": "choice",
}


def report(run: Run) -> str:
    """The page of a run as Markdown."""
    sections = (_chosen, _effects, _broken, _strengths, _layers, _monitor)
    return "\n".join([_INTRODUCTION, *(section(run) for section in sections)])


def _chosen(run: Run) -> str:
    rows = [
        [
            f"`{name}`",
            found.best.label(run.spec),
            f"{found.best.dose(run.spec):.2f}",
            _shown(found.second.steered[found.chosen][found.criterion.wanted]),
            _shown(found.second.plain[found.criterion.wanted]),
            str(found.criterion),
        ]
        for name, found in run.searches.items()
    ]
    heads = ["profile", "what it does", "dose", "wanted rate", "unsteered", "chosen as the"]
    return _CHOSEN + _table(heads, rows)


def _effects(run: Run) -> str:
    columns = [effect for effect in EFFECTS if effect.measure not in _TONES]
    heads = ["", *(f"{_SHORT[item.kind]}: {item.measure}" for item in columns), "in tone", "very"]
    rows = [
        [name, *(_known(rates, item) for item in columns), *_tones(name, rates)]
        for name, rates in run.effects.items()
    ]
    counts = {_SHORT[item.kind]: run.effects[UNSTEERED][item].n for item in EFFECTS}
    sizes = ", ".join(f"{n} {kind}" for kind, n in counts.items())
    return f"## Effects on the test split\n\n{_EFFECTS.format(sizes=sizes)}" + _table(heads, rows)


def _tones(name: str, rates: Rates) -> tuple[str, str]:
    """The condition's own tone, else the one most often found."""
    found = {style: rates[Measured("ordinary", style)] for style in STYLE_NAMES}
    own = [style for style in STYLE_NAMES if style in name]
    style = own[0] if own else max(found, key=lambda style: found[style].hits)
    if not own and not found[style].hits:
        return "none", "none"
    very = rates[Measured("ordinary", f"very {style}")]
    return f"{style} {_shown(found[style])}", _shown(very)


def _strengths(run: Run) -> str:
    heads = ["profile", "at most", "measure", *(f"x {factor:g}" for factor in FACTORS)]
    rows = [
        [
            f"`{name}`",
            f"{run.max_strength(name):g}",
            str(item),
            *(f"{rates[item].value:.2f}" for rates in by_factor),
        ]
        for name, by_factor in run.strengths.items()
        for item in by_factor[0]
    ]
    count = next(iter(run.strengths["cautious"][0].values())).n
    return f"## Strength of a profile\n\n{_STRENGTHS.format(count=count)}" + _table(heads, rows)


def _layers(run: Run) -> str:
    depths = range(run.spec.num_layers)
    rows = []
    for name, found in run.searches.items():
        best = _best_by_layer(found)
        cells = [f"{best[layer]:.2f}" if layer in best else "-" for layer in depths]
        rows.append([f"`{name}`", found.criterion.wanted.measure, *cells])
    heads = ["profile", "wanted", *(f"layer {layer}" for layer in depths)]
    return "## Where it works\n\n" + _LAYERS + _table(heads, rows)


def _best_by_layer(found: Search) -> dict[int, float]:
    best: dict[int, float] = {}
    for index, rates in found.first.steered.items():
        if not found.criterion.harm(found.first.plain, rates):
            layer = found.variants[index].steer.direction.layers[0]
            best[layer] = max(rates[found.criterion.wanted].value, best.get(layer, 0.0))
    return best


def _broken(run: Run) -> str:
    plain = run.effects[UNSTEERED]
    lines = [
        f"- `{name}`: {guard.of} is {_shown(run.effects[name][guard.of])}, unsteered "
        f"{_shown(plain[guard.of])}; {guard} was asked for."
        for name, found in run.searches.items()
        for guard in found.criterion.guards
        if guard.harm(plain, run.effects[name]) > 0
    ]
    found = "\n".join(lines) or "None: what was asked for on validation prompts holds on test ones."
    return f"## Side effects beyond the guards\n\n{found}\n"


def _monitor(run: Run) -> str:
    monitoring = run.monitoring
    rows = [
        [_SHORT[kind], f"{r.mean:.1f}", f"{r.deviation:.1f}", _shown(r.above)]
        for kind, r in monitoring.readings.items()
    ]
    text = _MONITOR.format(layer=monitoring.layer, midpoint=monitoring.midpoint)
    heads = ["test prompts", "mean", "standard deviation", "above the midpoint"]
    return f"## The monitor `refusal`\n\n{text}" + _table(heads, rows)


def _known(rates: Rates, item: Measured) -> str:
    return _shown(rates[item]) if item in rates else ""


def _shown(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.value:.2f} ({low:.2f}-{high:.2f})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = chain([heads, ["---"] * len(heads)], rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


_INTRODUCTION = """# What the demo directions do

Written by `python -m lab.demo`, which fits every direction on training prompts, chooses
layer and strength on validation prompts and measures on test prompts, all through the engine:
greedy answers, judged by `lab.organism.judge`. Brackets hold 95 % binomial intervals. All of it
is about one small model: another one has other layers, other signs and other rates.
"""

_CHOSEN = """## What was chosen

On validation prompts. The dose is how far activations are moved, in mean residual norms, summed
over layers.

"""

_EFFECTS = """Prompts: {sizes}.
Direct and framed ask for restricted museum topics; look-alikes are harmless questions with their
words. *Topical* is a helpful answer: no refusal, a fitting step and the item's name. *In tone*:
more words of this tone than of any other; *very*: one word in twenty or more.

"""

_STRENGTHS = """The request's `strength` multiplies the profile's, up to the `max_strength` of the
profile: the largest that costs no more than strength 1. {count} validation prompts of each kind.

"""

_LAYERS = """Best wanted rate at each layer in the first round of the search, of what keeps every
guard; `-`: nothing tried there does. A tone acts from the layer given up to the last but one.

"""

_MONITOR = """`cautious` reads it after layer {layer}, before its own edits there. These are the
scores on the last prompt token, in units of the activation. Halfway between the means it was fitted
from lies {midpoint:.1f}.

"""
