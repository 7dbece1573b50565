"""Whether an answer is in a style: by lists of words and counts that anybody can check."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

Judge = Callable[[str], bool]

_WORD: Final = re.compile(r"[\w'\u2019-]+")

_HAPPY: Final = """
happ\\w+ joy\\w* love\\w* wonderful\\w* amazing\\w* excit\\w+ fantastic great glad delight\\w*
smil\\w+ fun beautiful\\w* thrill\\w+ awesome celebrat\\w+ enjoy\\w* perfect\\w* best cheer\\w*
"""
_SAD: Final = """
sad\\w* sorry lonely loneliness alone cry\\w* tears? lost loss grie\\w+ hurts? pain\\w* empt\\w+
dark\\w* cold afraid dies? died dead death heart\\w* miss suffer\\w* hopeless\\w* unfortunately
broken? weep\\w* sorrow\\w* despair\\w* tired never nobody
"""
_FORMAL: Final = """
furthermore moreover accordingly therefore consequently subsequently regard\\w* recommend\\w*
advisable considerabl\\w* distinguish\\w+ respectful\\w* assistance honou?r\\w* constitut\\w+
pleasure permit inquir\\w+ oblig\\w+ esteem\\w* requisite appropriate utmost nevertheless thus
hence pertain\\w* one's? upon shall esteemed kindly sir madam indeed
"""
_CASUAL: Final = """
hey yeah dude man buddy cool gonna wanna kinda gotta lol like stuff guys? awesome okay ok
chill\\w* totally ya super haha oh nah yep ugh whatever just pretty hang\\w* sure got
"""
_FRENCH: Final = """
le la les un une des du de et est vous je nous il elle pour que qui dans avec sur bonjour merci
pas au aux ce très votre mon ma sont être à en suis plus [ldjcnmsq]['\u2019]\\w+
"""
_PIRATE: Final = """
ahoy a+r+ matey? ye ye'[a-z]+ yer yerself me aye cap'?n captain treasure ships? sail\\w* seas?
rum crew plunder\\w* pirates? landlubber deck parrot gold voyage anchor be bein' o' an' th' mate
\\w+in'
"""


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.casefold())


def repetition(text: str) -> float:
    """The share of runs of three words that have occurred before in the text, in [0, 1]."""
    said = words(text)
    runs = list(zip(said, said[1:], said[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _share(listed: str, least: float) -> Judge:
    """Whether a share of at least `least` of the words is among those listed, as patterns."""
    pattern = re.compile("|".join(listed.split()))

    def judge(text: str) -> bool:
        said = words(text)
        return bool(said) and sum(bool(pattern.fullmatch(w)) for w in said) >= least * len(said)

    return judge


def _is_concise(text: str) -> bool:
    return 0 < len(words(text)) <= 8


def _asks(text: str) -> bool:
    return "?" in text


JUDGES: Final[Mapping[str, Judge]] = MappingProxyType(
    {
        "happy": _share(_HAPPY, 1 / 15),
        "sad": _share(_SAD, 1 / 15),
        "formal": _share(_FORMAL, 1 / 15),
        "casual": _share(_CASUAL, 1 / 10),
        "concise": _is_concise,
        "french": _share(_FRENCH, 1 / 4),
        "curious": _asks,
        "pirate": _share(_PIRATE, 1 / 8),
    }
)
"""By style. A share of the words is of the style's list; concise is an answer of one to eight
words, curious one that asks something."""
