"""Invented rows with the field names and habits of the real benchmarks, three per task; no real row stands here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]

#: beside the rows of banking77; with an underscore, a question mark and a capital, as in the real ones
LABEL_NAMES = ["lost_umbrella", "umbrella_refund?", "Report_a_leak"]


def _choices(texts: str, labels: str) -> dict[str, list[str]]:
    return {"text": texts.split("|"), "label": list(labels)}


MADE_UP: dict[str, Rows] = {
    "sst2": (
        {"sentence": "a warm and clever little picture about a lighthouse ", "label": 1, "idx": 0},
        {"sentence": "{not} a film , only a 90-minute advertisement for soup ", "label": 0, "idx": 1},
        {"sentence": "never dull ", "label": 1, "idx": 2},
    ),
    "agnews": (
        {"text": "Harbour towns agree on fish quotas (Newswire) After two nights of talks three towns signed.", "label": 0},
        {"text": "Rowers win by a hair\\The crew from Milbon kept its #36;5 bet.", "label": 1},
        {"text": "Telescope finds a moon made of ice", "label": 3},
    ),
    "trec": (
        {"text": "What does LHX stand for ?", "coarse_label": 0, "fine_label": 0},
        {"text": "Who baked the longest loaf ?", "coarse_label": 3, "fine_label": 29},
        {"text": "How many oars has the boat ?", "coarse_label": 5, "fine_label": 38},
    ),
    "banking77": (
        {"text": "My umbrella is gone, what now?", "label": 0},
        {"text": "Will you pay for it??", "label": 1},
        {"text": "it drips\nagain", "label": 2},
    ),
    "arc_easy": (
        {
            "id": "MadeUp_1",
            "question": "Which of these floats on water?",
            "choices": _choices("a cork|an anvil|a brick|a coin", "ABCD"),
            "answerKey": "A",
        },
        {
            "id": "MadeUp_2",
            "question": "A boy heats ice. What does he see next?",
            "choices": _choices("steam|water|stone|sand", "1234"),
            "answerKey": "2",
        },
        {
            "id": "MadeUp_3",
            "question": "Which unit measures {length}?",
            "choices": _choices("gram|litre|metre|second|volt", "ABCDE"),
            "answerKey": "C",
        },
    ),
    "arc_challenge": (
        {
            "id": "MadeUp_4",
            "question": "Two magnets push each other apart. Which poles face each other?",
            "choices": _choices("equal poles|unlike poles|no poles", "ABC"),
            "answerKey": "A",
        },
        {
            "id": "MadeUp_5",
            "question": "A plant bends to the window.\nWhy?",
            "choices": _choices("It grows towards light.|It is thirsty.|It is cold.", "123"),
            "answerKey": "1",
        },
        {
            "id": "MadeUp_6",
            "question": "Which change is chemical?",
            "choices": _choices("ice melts|A. wood burns|salt dissolves|glass breaks|iron bends", "ABCDE"),
            "answerKey": "B",
        },
    ),
    "openbookqa": (
        {
            "id": "0-1",
            "question_stem": "A lamp without a plug needs",
            "choices": _choices("a battery|a shade|a shelf|a friend", "ABCD"),
            "answerKey": "A",
        },
        {
            "id": "0-2",
            "question_stem": "Which bird cannot fly?",
            "choices": _choices("swift|penguin|gull|crow", "ABCD"),
            "answerKey": "B",
        },
        {
            "id": "0-3",
            "question_stem": "Rust needs iron, water and",
            "choices": _choices("sand|salt|darkness|air", "ABCD"),
            "answerKey": "D",
        },
    ),
    "winogrande": (
        {"sentence": "Petas thanked Lorin because _ had carried the bags.", "option1": "Petas", "option2": "Lorin", "answer": "2"},
        {"sentence": "The kettle did not fit the shelf; the _ was wide.", "option1": "kettle", "option2": "shelf", "answer": "1"},
        {"sentence": "_ lent Mira a boat, so Mira thanked Odo.", "option1": "Odo", "option2": "Mira", "answer": "1"},
    ),
    "hellaswag": (
        {
            "ind": -1, "activity_label": "Baking", "ctx_a": "A man kneads dough.", "ctx_b": "he", "ctx": "A man kneads dough. he",
            "endings": ["lets it rest.", "sells the car.", "paints it blue.", "reads it aloud."],
            "source_id": "", "split": "val", "split_type": "", "label": "0",
        },
        {
            "ind": 7, "activity_label": "Rowing", "ctx_a": "Two women carry a boat", "ctx_b": "to the lake.",
            "ctx": "Two women carry a boat to the lake.",
            "endings": [", then they sleep.", "They step in and row.", "The lake is gone", "[substeps] They fry it."],
            "source_id": "", "split": "val", "split_type": "", "label": "1",
        },
        {
            "ind": -1, "activity_label": "Knots", "ctx_a": "[header] How to tie a knot [title] Take a rope.", "ctx_b": "",
            "ctx": "[header] How to tie a knot [title] Take a rope.",
            "endings": ["Burn it.", "Eat it.", "Hide it.", "Cross both ends. Pull one through the loop."],
            "source_id": "", "split": "val", "split_type": "", "label": "3",
        },
    ),
    "boolq": (
        {"question": "is the tower open at night", "answer": False, "passage": "The tower closes at six, in June at nine."},
        {"question": "do herons eat fish", "answer": True, "passage": "Herons (Ardeidae) eat fish, frogs and ``small'' crabs."},
        {"question": "can a raft be paddled", "answer": True, "passage": "Rafts drift.\nThey may be paddled."},
    ),
    "squad": (
        {
            "id": "made-up-1", "title": "Lighthouse", "context": "The lighthouse of Milbon was built in 1804 by Oda Petas.",
            "question": "When was the lighthouse built?",
            "answers": {"text": ["1804", "in 1804", "1804"], "answer_start": [38, 35, 38]},
        },
        {
            "id": "made-up-2", "title": "Lighthouse", "context": "The lighthouse of Milbon was built in 1804 by Oda Petas.",
            "question": "Who built it?", "answers": {"text": ["Oda Petas"], "answer_start": [46]},
        },
        {
            "id": "made-up-3", "title": "Bread", "context": "Rye bread keeps for a week; \"white\" bread dries in a day.",
            "question": "How long does rye bread keep?", "answers": {"text": ["a week", "week"], "answer_start": [20, 22]},
        },
    ),
    "gsm8k": (
        {
            "question": "Odo has 3 boxes of 4 pears and eats 2 pears. How many pears are left?",
            "answer": "He starts with 3*4 = <<3*4=12>>12 pears.\nThen 12-2 = <<12-2=10>>10 are left.\n#### 10",
        },
        {
            "question": "A ship costs $1,250,000 and a boat a tenth of it.  How much do both cost?",
            "answer": "The boat costs $1250000/10 = $<<1250000/10=125000>>125,000.\nBoth cost $1,375,000.\n#### 1,375,000",
        },
        {"question": "It is 3 degrees and falls by 8. How cold is it?", "answer": "3-8=<<3-8=-5>>-5\n#### -5"},
    ),
}  # fmt: skip
