"""Words for the probability of a statement about the next period."""

from __future__ import annotations

WORDS = ((0.9, "almost surely"), (0.75, "likely"), (0.6, "more likely than not"))
MIN_LIFT = 0.1  # above the usual rate that is worth saying


def describe_probability(probability: float, usual_rate: float) -> str:
    """Give the word of a probability with its number: "likely (81%)".

    Below .6 a probability is told by the kind's usual rate: "more likely than usual (44%, usually
    21%)", "as likely as usual" and "less likely than usual" for what nobody should say unasked.
    """
    percent = format_probability(probability)
    for least, word in WORDS:
        if round(probability, 2) >= least:  # as it is written
            return f"{word} ({percent})"
    word, lift = "as likely as", probability - usual_rate
    if abs(lift) >= MIN_LIFT:
        word = "more likely than" if lift > 0 else "less likely than"
    return f"{word} usual ({percent}, usually {format_probability(usual_rate)})"


def format_probability(probability: float) -> str:
    """Give a percentage that is never 0% or 100%: "81%", "above 99%", "under 1%"."""
    if probability > 0.99:
        return "above 99%"
    return "under 1%" if probability < 0.01 else f"{100 * probability:.0f}%"
