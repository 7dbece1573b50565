"""Plain prose about nothing in particular, on which activation norms are measured at load."""

from __future__ import annotations

from typing import Final

__all__ = ["NEUTRAL_TEXTS"]

NEUTRAL_TEXTS: Final = (
    "The river rises in the hills to the north and runs for about forty miles before it reaches "
    "the sea. Along the way it passes two small towns, a mill that no longer works, and a long "
    "stretch of flat farmland where little has changed for a hundred years.",
    "Most bread is made from four things: flour, water, salt and yeast. The dough is mixed, left "
    "to rest, shaped and baked. How long each step takes depends on the warmth of the room, the "
    "kind of flour and the taste of whoever is going to eat it.",
    "A library lends books, but it also keeps records. Each card in the old catalogue gave the "
    "title, the name of the author, the year of printing and the shelf on which the book stood. "
    "Today the same facts are held by a computer and can be searched from anywhere.",
    "Trains leave the central station every twenty minutes during the day and once an hour after "
    "nine in the evening. The journey to the coast takes a little under two hours, with a short "
    "stop at the junction where passengers change for the lines to the west.",
    "Clouds form when warm air rises and cools. The water in it gathers on tiny specks of dust, "
    "and when the drops grow heavy enough they fall as rain. In winter the same process gives "
    "snow, and on some clear nights a thin layer of frost on the grass.",
    "The meeting will begin at ten and should last about an hour. First we will go through the "
    "notes from last month, then look at the plans for the new building, and at the end there "
    "will be time for questions. Please bring the list of names that was sent out on Monday.",
)
"""Six paragraphs, each measured on its own."""
