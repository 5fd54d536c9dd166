"""The words of a claim: what may follow a category's name, and the kind of claim it makes."""

from __future__ import annotations

from llmrec.contracts import Kind

# Whatever the name before it, singular or plural, a phrase reads well. None is the end of another
# one: so the words of a claim divide into label and phrase in one way only.
PHRASES_OF: dict[Kind, tuple[str, ...]] = {
    "rising": (
        "is rising",
        "on the way up",
        "gaining ground",
        "set to grow",
        "should pick up",
        "will take a larger share",
    ),
    "fading": (
        "is fading",
        "on the way down",
        "losing ground",
        "set to shrink",
        "should slow down",
        "will take a smaller share",
    ),
    "steady": (
        "holding steady",
        "little changed",
        "much as before",
        "set to stay",
        "should stay level",
        "with no change in sight",
    ),
    "new": (
        "for the first time",
        "as something new",
        "new on the list",
        "about to begin",
        "should make a start",
    ),
    "returning": (
        "coming back",
        "back after a pause",
        "set to return",
        "on the way back",
        "should come back",
    ),
}
PHRASES: dict[str, Kind] = {text: kind for kind, texts in PHRASES_OF.items() for text in texts}
