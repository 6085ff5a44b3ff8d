"""Which spans of a text must arrive exactly, by rule: no model is asked.

    quoted    what stands between quotation marks, on one line and of at most 120 characters
    dates     2024-03-12, 2024-03-12T10:30, 12/03/2024, 12 March 2024, March 12, 2024, March 2024
    addresses e-mail and web addresses
    codes     words of letters mixed with digits (A7-X9, user_42), and three or more single symbols in a row (4 f 2 k)
    numbers   digits with sign, currency, separators, decimals, and a unit (-3.5 °C, $1,200.50, 1.200,50 €, 40 %); number words
    names     capitalised words, and several of them in a row (New York, Bank of America)

At the start of a sentence every word is capitalised. Such a word counts as a name unless it is one of ``OPENERS`` (words that open
sentences and name nobody), or stands elsewhere in the text in lower case. So a noun that opens a sentence sometimes rides along
for nothing, which costs its bytes; asking for proof instead (a second capitalised word, a recurrence) would lose the "Maria" of
"Maria left 47 apples", which costs the answer. Inside a sentence a capital is proof enough.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: between the spans of a message
SEPARATOR = "; "
MOST_QUOTED_CHARACTERS = 120

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?"
    r"|Dec(?:ember)?)\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
#: behind a date, as in time stamps (ISO 8601)
_TIME = r"(?:T\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:Z|[+−-]\d{2}:?\d{2})?)"
_UNIT = (
    r"(?:°\s?[CF]|°|%|‰|km/h|m/s|mph|km|cm|mm|kg|mg|ml|dl|kJ|kW|MW|GW|kWh|kHz|MHz|GHz|Hz|GB|MB|KB|TB|ms|[mgsVWAKNJlLh]|min|hrs?"
    r"|ft|lbs?|oz|mi|[€£¥$]|USD|EUR|GBP|JPY|CHF|a\.m\.|p\.m\.|[ap]m)(?![\w°])"
)
_NUMBER_WORD = (
    r"(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
    r"|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:-(?:one|two|three|four|five|six|seven|eight|nine))?"
    r"|hundred|thousand|million|billion|dozen|half|twice|double|triple|thirds?|quarters?|halves)"
)
_LETTER = r"[^\W\d_]"
#: what may stand inside a name
_OF = r"(?:of|de|du|van|von|der|den|la|del|di|al|bin)"
_CAPITALISED = r"(?:(?:[^\W\d_a-zß-öø-ÿ])[\w’'-]*\w|[^\W\d_a-zß-öø-ÿ](?:\.[^\W\d_a-zß-öø-ÿ])+\.?)"

#: kind → pattern, in the order in which they may claim characters: what a date has taken is no part of a name
PATTERNS: dict[str, re.Pattern[str]] = {
    "quoted": re.compile(
        rf"(?:\"(?P<a>[^\"\n]{{1,{MOST_QUOTED_CHARACTERS}}})\"|“(?P<b>[^”\n]{{1,{MOST_QUOTED_CHARACTERS}}})”"
        rf"|«(?P<c>[^»\n]{{1,{MOST_QUOTED_CHARACTERS}}})»|(?<!\w)[‘'](?P<d>[^’'\n]{{1,{MOST_QUOTED_CHARACTERS}}})[’'](?!\w))"
    ),
    "address": re.compile(r"\b(?:https?://|www\.)[^\s<>\"]*[\w/]|\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"),
    "date": re.compile(
        rf"\b(?:\d{{4}}-\d{{1,2}}-\d{{1,2}}{_TIME}?|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{2,4}}|{_DAY}(?: of)? {_MONTH}(?:,? \d{{4}})?"
        rf"|{_MONTH} {_DAY}(?:, \d{{4}})?|{_MONTH} \d{{4}})(?!\w)"
    ),
    "symbols": re.compile(r"(?<!\w)\w(?: \w){2,}(?![\w'’])"),
    "number": re.compile(
        rf"(?<![\w.])(?<!\w[-/_])(?:[-+−±]?[$€£¥]\s?|[-+−±])?\d+(?:[,.:/–-]\d+)*(?:(?:st|nd|rd|th)?(?!\w)(?:\s?{_UNIT})?|{_UNIT})"
        rf"(?![-/_]{_LETTER})|(?<!\d-)\b(?i:{_NUMBER_WORD})\b"
    ),
    # any word; ``_is_code`` chooses
    "code": re.compile(r"(?<!\w)(?<!\d[.,])[$€£¥#]?\w+(?:[-/.]\w+)*"),
    "name": re.compile(rf"(?<!\w){_CAPITALISED}(?:(?<!['’]s) (?:{_OF} ){{0,2}}{_CAPITALISED})*(?!\w)"),
}

#: words that open sentences and are no names
OPENERS = frozenset(
    """
    a an the this that these those some any each every either neither no none all both half most many much more few fewer several
    another other such one two three four five six seven eight nine ten eleven twelve twenty first second third next last
    i we you he she it they me us him her them my our your his its their mine yours who whom whose which what when where why how
    there here then now today tomorrow yesterday soon later once twice again always never often sometimes usually already still
    even only just also too however therefore thus hence moreover furthermore meanwhile otherwise instead finally eventually
    initially originally recently currently perhaps maybe probably certainly clearly indeed unfortunately fortunately overall
    in on at by for from to of with without within into onto over under above below between among through throughout during before
    after since until till while because although though unless if whether as like unlike despite except along across around behind
    beside besides beyond near off out up down about against per via and or but nor so yet not
    is are was were be been being am has have had having do does did doing can could will would shall should may might must let
    please yes hello hi dear good thanks thank ok okay oh well
    question answer note text passage context premise hypothesis choices options calculate find suppose assume given
    consider imagine people someone everyone everybody nobody somebody anyone nothing something everything
    """.split()
)
#: a sentence begins at the start of the text or of a line, behind a mark that ends one, and behind an opening bracket or quote
_BEFORE_START = re.compile(r"(?:^\s*|[.!?:…][\"'”’)\]]*\s+|\n\s*|[(\[\"“‘«])(?:[-*•]\s*)?$")
#: the longest stretch before a word that tells whether a sentence starts there
_LOOK_BACK = 8
#: capitalised anywhere without being a name: the pronoun, and articles in headlines
_NEVER_NAMES = frozenset("i the a an he she it we you they this that".split())
#: what stands in place of characters that an earlier kind has taken; no pattern matches it
_TAKEN = "\0"


def find_spans(text: str) -> list[str]:
    """The spans of ``text`` that must arrive exactly, each once, in the order of their first appearance."""
    return list(dict.fromkeys(span for _, span in kinds_and_spans(text)))


def kinds_and_spans(text: str) -> list[tuple[str, str]]:
    """(kind, span) of every span of ``text`` that must arrive exactly, in their order; the kinds are those of ``PATTERNS``."""
    lower_case = {word for word in re.findall(rf"(?<!\w){_LETTER}[\w’'-]*", text) if word.islower()}
    found: list[tuple[int, str, str]] = []
    signs = list(text)
    for kind, pattern in PATTERNS.items():
        for match in pattern.finditer("".join(signs)):
            if kind == "code" and not _is_code(match[0]):
                continue
            signs[match.start() : match.end()] = _TAKEN * len(match[0])
            start, end = match.span(match.lastgroup) if match.lastgroup else match.span()
            if kind == "name":
                start, end = _name(text, start, end, lower_case)
            if span := text[start:end].strip():
                found.append((start, kind, span))
    # spans that start at one place keep the order of their text, as they always had
    return [(kind, span) for _, kind, span in sorted(found, key=lambda item: (item[0], item[2]))]


def _is_code(word: str) -> bool:
    """Letters mixed with digits."""
    return any(sign.isdigit() for sign in word) and any(sign.isalpha() for sign in word)


def _name(text: str, start: int, end: int, lower_case: set[str]) -> tuple[int, int]:
    """The name in a run of capitalised words, without what only opens a sentence; nothing is left where none is a name."""
    if _BEFORE_START.search(text[max(0, start - _LOOK_BACK) : start]):
        word = text[start:end].split(" ")[0]
        bare = re.sub(r"['’]\w*$", "", word).lower()
        if word.lower() in OPENERS or bare in OPENERS or bare in lower_case:
            rest = text[start + len(word) : end]
            capital = re.search(_CAPITALISED, rest)
            start = end if capital is None else start + len(word) + capital.start()
    end -= len(text[start:end]) - len(re.sub(r"['’]s?$", "", text[start:end]))
    return (start, start) if re.sub(r"['’]\w*$", "", text[start:end]).lower() in _NEVER_NAMES else (start, end)


def joined(spans: Sequence[str]) -> str:
    """The spans as the one text that stands behind the soft tokens."""
    return SEPARATOR.join(spans)
