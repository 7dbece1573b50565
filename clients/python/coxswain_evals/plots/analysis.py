"""Pictures of what analysis found: traces, refusal cliffs and attention heads.

A trace has its tokens from left to right and its readouts from top to bottom.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, Final

from coxswain_client.models.analysis import Cliffs, Heads, Readout, Trace, TracedToken

from .figure_file import save_figure

_INCHES_PER_TOKEN: Final = 0.16
_INCHES_PER_ROW: Final = 0.22
_MAX_INCHES: Final = 60.0
_STYLE: Final = """
body { font: 14px system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; }
th { text-align: left; padding-right: 1em; white-space: nowrap; font-weight: 500;
     position: sticky; left: 0; background: #fff; }
td { padding: 2px 3px; font: 12px ui-monospace, monospace; white-space: pre; }
thead td { vertical-align: bottom; color: #555; font-size: 10px; }
.generated { border-left: 2px solid #222; }
"""
_WARM: Final = (178, 24, 43)
_COLD: Final = (33, 102, 172)
_VISIBLE = str.maketrans({"\n": "\u23ce", "\t": "\u21e5", " ": "\u2423"})
_CLIFF_INCHES: Final = (5.0, 3.2)
_CURVE_COLOUR: Final = "#0072B2"
_INCHES_PER_HEAD: Final = 0.28


def draw_trace(trace: Trace, path: Path) -> None:
    """Write a heat map as PNG or SVG; white is a score of 0, or one there is none of.

    Raises:
        PlotError: Another ending, or matplotlib is not installed.
    """
    width = min(3.0 + _INCHES_PER_TOKEN * len(trace.tokens), _MAX_INCHES)
    height = 1.6 + _INCHES_PER_ROW * len(trace.readouts)
    save_figure(path, (width, height), lambda axis: _draw_heat_map(axis, trace))


def _draw_heat_map(axis: Any, trace: Trace) -> None:
    limit = bound(trace)
    table = [
        [float("nan") if score is None else score for score in readout.scores]
        for readout in trace.readouts
    ]
    image = axis.imshow(
        table, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    axis.set_yticks(range(len(trace.readouts)), [row_label(r) for r in trace.readouts])
    # A token may hold characters that start mathematics.
    labels = [visible_text(token.text).replace("$", r"\$") for token in trace.tokens]
    axis.set_xticks(range(len(labels)), labels, rotation=90, family="monospace", fontsize=6)
    starts = [index for index, token in enumerate(trace.tokens) if token.scope == "generated"]
    if starts:
        axis.axvline(starts[0] - 0.5, color="#222222", linewidth=1)
    axis.figure.colorbar(image, ax=axis, label="score", pad=0.01)


def trace_page(trace: Trace, title: str = "Trace") -> str:
    """A heat map as HTML: a row per readout, a cell per token, its score and place on hover.

    All text is escaped, whatever the model wrote. Full colour is the largest absolute score.
    """
    limit = bound(trace)
    regions = "".join(f"<td>{escape(_initial(token))}</td>" for token in trace.tokens)
    rows = "".join(_row(trace, readout, limit) for readout in trace.readouts)
    legend = (
        "Red is above 0, blue below; full colour is "
        f"{limit:.3g}. s system, u user, a answer, t thinking, | template. "
        "The line marks the first generated token."
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(legend)}</p>"
        f"<table><thead><tr><th></th>{regions}</tr></thead><tbody>{rows}</tbody></table>"
        "</body></html>\n"
    )


def _row(trace: Trace, readout: Readout, limit: float) -> str:
    first = next((i for i, t in enumerate(trace.tokens) if t.scope == "generated"), None)
    cells = []
    for index, (token, score) in enumerate(zip(trace.tokens, readout.scores, strict=True)):
        kind = ' class="generated"' if index == first else ""
        where = f"{index}: {token.scope} {' '.join(token.regions)}"
        value = "not read" if score is None else f"{score:.4g}"
        cells.append(
            f'<td{kind} style="background:{_colour(score, limit)}" '
            f'title="{escape(f"{value} ({where})")}">{escape(visible_text(token.text))}</td>'
        )
    return f"<tr><th>{escape(row_label(readout))}</th>{''.join(cells)}</tr>"


def _colour(score: float | None, limit: float) -> str:
    share = 0.0 if score is None else max(-1.0, min(1.0, score / limit))
    full = _WARM if share > 0 else _COLD
    mixed = (round(255 + (part - 255) * abs(share) * 0.8) for part in full)
    return f"rgb({','.join(map(str, mixed))})"


def _initial(token: TracedToken) -> str:
    kind = token.regions[-1] if token.regions else ""
    return "|" if kind == "template" else kind[:1]


def bound(trace: Trace) -> float:
    """The largest absolute score, which full colour stands for; 1 where all are 0."""
    sizes = [abs(score) for r in trace.readouts for score in r.scores if score is not None]
    return max(sizes, default=0.0) or 1.0


def row_label(readout: Readout) -> str:
    """A readout as `direction site[layer]`."""
    return f"{readout.direction} {readout.site}[{readout.layer}]"


def visible_text(text: str) -> str:
    """A token's text with its white space visible, and without control characters."""
    visible = text.translate(_VISIBLE)
    return "".join(c if c.isprintable() else "\ufffd" for c in visible) or "\u2205"


def draw_cliffs(found: Cliffs, path: Path) -> None:
    """Write the average curve, over those of single rollouts where they are there; PNG or SVG.

    Positions count from the end: 0 is the last token before the answer.

    Raises:
        PlotError: Another ending, or matplotlib is not installed.
    """
    save_figure(path, _CLIFF_INCHES, lambda axis: _draw_curves(axis, found))


def _draw_curves(axis: Any, found: Cliffs) -> None:
    for rollout in found.conversations:
        if rollout.curve is not None:
            own = range(1 - len(rollout.curve), 1)
            axis.plot(own, rollout.curve, color="#888888", alpha=0.25, linewidth=0.6)
    average = found.average
    step = (average.longest - 1) / (len(average.curve) - 1)
    places = [(index - len(average.curve) + 1) * step for index in range(len(average.curve))]
    label = f"mean of {average.num_conversations}"
    axis.plot(places, average.curve, color=_CURVE_COLOUR, linewidth=1.8, label=label)
    for name, value, style in (("plateau", average.plateau, "--"), ("final", average.final, ":")):
        if value is not None:
            axis.axhline(
                value, color="#D55E00", linewidth=1, linestyle=style, label=f"{name} {value:.2f}"
            )
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel("token, counted from the end of thinking")
    axis.set_ylabel("refusal score")
    axis.legend(loc="best", frameon=False)


def draw_heads(found: Heads, path: Path) -> None:
    """Write a map of layers by heads as PNG or SVG; the selected heads are framed.

    Raises:
        PlotError: Another ending, or matplotlib is not installed.
    """
    layers = 1 + max(item.layer for item in found.heads)
    heads = 1 + max(item.head for item in found.heads)
    size = (2.2 + _INCHES_PER_HEAD * heads, 1.2 + _INCHES_PER_HEAD * layers)
    save_figure(path, size, lambda axis: _draw_map(axis, found, layers, heads))


def _draw_map(axis: Any, found: Heads, layers: int, heads: int) -> None:
    from matplotlib.patches import Rectangle

    table = [[float("nan")] * heads for _ in range(layers)]
    for item in found.heads:
        table[item.layer][item.head] = item.score
    if found.method == "causal":  # probabilities around that of the whole model
        base = (found.probability or {}).get("base", sum(map(sum, table)) / (layers * heads))
    else:
        base = 0.0
    limit = max(abs(item.score - base) for item in found.heads) or 1.0
    image = axis.imshow(
        table, cmap="RdBu_r", vmin=base - limit, vmax=base + limit, interpolation="nearest"
    )
    for layer, head in found.selected:
        frame = Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="#222222")
        axis.add_patch(frame)
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    label = "probability without it" if found.method == "causal" else "share of the probe"
    axis.figure.colorbar(image, ax=axis, label=label)
