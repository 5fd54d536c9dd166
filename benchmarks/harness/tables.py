"""Shows every result file as a table in benchmarks/README.md, and who forecasts best in README.md.

Run: python -m benchmarks.harness.tables
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.harness.evaluator import COUNTING, MIXTURE, SASREC
from benchmarks.harness.results import RESULTS
from llmrec.data.files import atomic_write_text

README = Path(__file__).parents[1] / "README.md"
FRONT = Path(__file__).parents[1] / "README.md"
START, END = "<!-- made by benchmarks.harness.tables -->", "<!-- up to here -->"
START_KEPT = "<!-- what edits and explanations hold, made by benchmarks.harness.tables -->"
START_RANKED = "<!-- what a ranking takes, made by benchmarks.harness.tables -->"
START_TUNED = "<!-- what fine-tuning brings, made by benchmarks.harness.tables -->"
NDCG, UNTILTED, NUMBERS = "ndcg@10", "llmrec, no tilt", "llmrec of numbers alone"
LLM_BRINGS = {  # (model, metric): what is said of it
    (UNTILTED, f"{NDCG} above {NUMBERS}, no tilt"): "what the LLM's titles add to the blend",
    (f"{NUMBERS}, tilted to the tuned LLM", f"{NDCG} above {NUMBERS}, tilted to counting"): (
        "numbers alone: the LLM's tilt above counting's"
    ),
}
START_LISTS = "<!-- whose lists are best, made by benchmarks.harness.tables -->"
LISTS = (  # result file, part, and what is said of it
    ("next-period", "next period / test", "MovieLens, next period"),
    ("leave-one-out", "leave one out / test", "leave one out"),
    ("global-time", "global time / test", "global time"),
    ("repeat-allowed", "next 28 days, repeat allowed / test 1", "Complete Journey, repeats, 11"),
    ("repeat-allowed", "next 28 days, repeat allowed / test 2", "12"),
    ("explore-only", "next 28 days, explore only / test 1", "only new, 11"),
    ("explore-only", "next 28 days, explore only / test 2", "12"),
)
Found = dict[tuple[str, ...], Any]  # (dataset, split, model, metric) to its row
TESTS = (
    ("completejourney", "test 1", "Complete Journey, period 11"),
    ("completejourney", "test 2", "period 12"),
    ("ml-100k", "test", "MovieLens 100K"),
)
ALONE = "LLM (a = 1)"
ON_COUNTING, TITLES = f"LLM on {COUNTING}", f"LLM titles in {COUNTING}"
GAIN = "gain_of_reading"
GAINS = (  # what is said of a row, its part of the split, model and metric
    ("the reading, calibrated, on counting", "", ON_COUNTING, GAIN),
    ("... of people with at most two periods", "cold", ON_COUNTING, GAIN),
    ("... of the third whose interests move most", "drifting", ON_COUNTING, GAIN),
    ("... on the gated mixture", "", f"LLM on {MIXTURE}", GAIN),
    ("... on the mixture with SASRec", "", f"LLM on {SASREC}", GAIN),
    ("the titles it foretells, in counting", "", TITLES, GAIN),
    ("... of people with at most two periods", "cold", TITLES, GAIN),
    ("... of the third whose interests move most", "drifting", TITLES, GAIN),
    ("... of events in categories never taken", "emerging", TITLES, GAIN),
    ("... in the gated mixture", "", f"LLM titles in {MIXTURE}", GAIN),
    ("... in the mixture with SASRec", "", f"LLM titles in {SASREC}", GAIN),
    ("the tuned model as one more expert of the mixture", "", f"{MIXTURE} + LLM", GAIN),
    ("... with SASRec", "", f"{SASREC} + LLM", GAIN),
    ("the reading on counting, mean of three seeds", "", f"{ON_COUNTING}, 3 seeds", GAIN),
    ("... their forecasts averaged", "", f"{ON_COUNTING}, 3 averaged", GAIN),
    ("... in the gated mixture", "", f"LLM on {MIXTURE}, 3 averaged", GAIN),
    ("the titles in counting, mean of three seeds", "", f"{TITLES}, 3 seeds", GAIN),
    ("... their forecasts averaged", "", f"{TITLES}, 3 averaged", GAIN),
    ("... in the gated mixture", "", f"LLM titles in {MIXTURE}, 3 averaged", GAIN),
    ("... in the mixture with SASRec", "", f"LLM titles in {SASREC}, 3 averaged", GAIN),
    (
        "a T5 of two million parameters from nothing: its reading on counting",
        "",
        f"T5 on {COUNTING}",
        GAIN,
    ),
    ("... the titles it foretells, in counting", "", f"T5 titles in {COUNTING}", GAIN),
    ("... in the gated mixture", "", f"T5 titles in {MIXTURE}", GAIN),
    ("the reading as trained, with no history", "last 0 periods", ALONE, "log_loss_gain"),
    ("... with the last period alone", "last 1 periods", ALONE, "log_loss_gain"),
    ("... with the last two alone", "last 2 periods", ALONE, "log_loss_gain"),
    ("the titles, with no history", "last 0 periods", TITLES, "log_loss_gain"),
    ("... with the last period alone", "last 1 periods", TITLES, "log_loss_gain"),
    ("... with the last two alone", "last 2 periods", TITLES, "log_loss_gain"),
    ("the titles, order shuffled instead", "order shuffled", TITLES, "log_loss_change"),
    ("... names of like meaning", "names of like meaning", TITLES, "log_loss_change"),
    ("... names without meaning", "names without meaning", TITLES, "log_loss_change"),
    ("... titles without meaning", "titles without meaning", TITLES, "log_loss_change"),
    ("the reading, order shuffled instead", "order shuffled", ON_COUNTING, "log_loss_change"),
    ("... names of like meaning", "names of like meaning", ON_COUNTING, "log_loss_change"),
    ("... names without meaning", "names without meaning", ON_COUNTING, "log_loss_change"),
    ("... titles without meaning", "titles without meaning", ON_COUNTING, "log_loss_change"),
)
HEAD = """# Benchmarks

One script a claim: `python -m benchmarks.NAME` prints a table and writes `results/NAME.json`. This
page is made from those files by `python -m benchmarks.harness.tables`. Intervals are 95 %; `n` counts
users, prompts or rounds. Times depend on the machine and what else it does: quote the ratios.
"""
NOTES = {
    "finetune_quality": """`gain_of_reading` is paired with the same forecaster without the language
model, `log_loss_gain` with counting (nats an event, positive is better); `gap_closed` is the share
of the way from the gated mixture to the informed reference, which was shown half of the period.
`LLM (a = 1)` is the reading as it was trained, on counting; `LLM on X` is calibrated on X; `LLM
titles in X` mixes what it foretells of titles into X with a share chosen on validation. What is
fitted here is fitted on validation windows: the adapter did not learn from these, but its training
stopped where it read them best.
On Complete Journey parts were run at several times: held-out categories with `--users 600`; free
lines and words before what learned lines was rounded to float16.
""",
    "ranking_speed": """`plain pass` sums the same parts and takes the best by argpartition. Results
up to 2026-11-25: of the million items, the batch ranked first (as forecast) sorted the log too, so
that its time is not to be held against the others'; since then one person is ranked before.
""",
}


MANY = 80  # rows; beyond that a split is a table with a column a metric


def page() -> str:
    """Write the whole page from the result files, in the order of their names."""
    parts = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        parts.append(
            f"## {path.stem}\n\n`{content['command']}`, {content['date']}, {content['machine']}\n"
        )
        parts += [note for name, note in NOTES.items() if path.stem.startswith(name)]
        parts += wide(content["rows"]) if len(content["rows"]) > MANY else [tall(content["rows"])]
    return "\n".join(parts)


def tall(rows: list[dict[str, Any]]) -> str:
    """Write one line a row."""
    lines = ["| dataset | split | model | metric | value | low | high | n |", "|---" * 8 + "|"]
    for row in rows:
        text = [row["dataset"], row["split"], row["model"], row["metric"]]
        numbers = [number(row[key]) for key in ("value", "low", "high")]
        lines.append("| " + " | ".join([*text, *numbers, str(row["n"])]) + " |")
    return "\n".join(lines) + "\n"


def wide(rows: list[dict[str, Any]]) -> list[str]:
    """Write one table a dataset and split: a line a model, a column a metric, with intervals."""
    splits: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        splits.setdefault((row["dataset"], row["split"]), []).append(row)
    parts = []
    for (dataset, split), part in splits.items():
        cells = {(row["model"], row["metric"]): row for row in part}
        models = list(dict.fromkeys(row["model"] for row in part))
        metrics = list(dict.fromkeys(row["metric"] for row in part))
        loss = {m: cells[m, "log_loss"]["value"] for m in models if (m, "log_loss") in cells}
        models.sort(key=lambda model: loss.get(model, float("inf")))
        lines = ["| model | n | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
        for model in models:
            found = [cells.get((model, metric)) for metric in metrics]
            n = max(row["n"] for row in found if row)
            texts = ["" if row is None else with_interval(row) for row in found]
            lines.append(f"| {model} | {n} | " + " | ".join(texts) + " |")
        parts.append(f"**{dataset}, {split}**\n\n" + "\n".join(lines) + "\n")
    return parts


def with_interval(row: dict[str, Any]) -> str:
    """Write a value, and its interval if it has one."""
    if row["low"] is None:
        return number(row["value"])
    return f"{number(row['value'])} ({number(row['low'])} to {number(row['high'])})"


def number(value: float | None) -> str:
    """Write four digits; nothing for what is undefined."""
    return "" if value is None else f"{value:.4g}"


def front_page() -> str:
    """Give README.md with the parts that are numbers as the result files have them."""
    text = FRONT.read_text(encoding="utf-8")
    parts = {
        START_KEPT: laws_and_lies(),
        START_LISTS: lists(),
        START: forecasts(),
        START_RANKED: speed_of_rankings(),
        START_TUNED: tuned(),
    }
    for start, written in parts.items():
        before, rest = text.split(start)
        text = before + start + "\n\n" + written + "\n" + END + rest.split(END, 1)[1]
    return text


def laws_and_lies() -> str:
    """Write how often edits kept their laws, and what of explanations is true."""
    laws, found = rows_of("edit_laws"), rows_of("explanations")
    cases = {data: row["n"] for (data, *_), row in laws.items()}
    broken = sum(row["value"] for row in laws.values())

    def share(dataset: str, metric: str) -> Any:
        return found[dataset, "holdout", COUNTING, metric]

    logs = ("completejourney", "ml-100k")
    lies = [share(log, "lies caught, all") for log in logs]
    caught = sum(round(row["value"] * row["n"]) for row in lies)
    true, cited = (
        [f"{share(log, metric)['value']:.1%}" for log in logs]
        for metric in ("explanations that are true", "items with evidence")
    )
    said = (
        f"{len({model for _, _, model, _ in laws})} laws of edits hold in {cases['made up']:,} "
        f"made-up cases each and for {cases['ml-100k']} people of each log: {broken:g} violations. "
        f"Of {share(logs[0], 'items with evidence')['n']:,} explained items a log "
        f"{true[0]} (Complete Journey) and {true[1]} (MovieLens) hold in every number, {cited[0]} "
        f"and {cited[1]} cite the person's own events, and {caught:,} of "
        f"{sum(row['n'] for row in lies):,} planted lies are caught."
    )
    return textwrap.fill(said, 140, break_on_hyphens=False) + "\n"


def lists() -> str:
    """Write NDCG@10 of peers and of ours; ours to the best peers, and what the LLM brings."""
    columns: list[dict[str, Any]] = []
    for name, part, _ in LISTS:
        of_part = of_models(f"ranking_{name}", part)
        columns.append({model: row for (model, metric), row in of_part.items() if metric == NDCG})
        ratios: dict[str, list[str]] = {}
        for (model, metric), row in of_part.items():
            if metric.startswith("ratio to ") and model == UNTILTED:
                best = metric.removeprefix("ratio to ")
                ratios.setdefault(model, []).append(f"{with_interval(row)} of {best}")
            elif (model, metric) in LLM_BRINGS:
                columns[-1][LLM_BRINGS[model, metric]] = with_sign(row)
        columns[-1] |= {f"{model}, times the best": "; ".join(r) for model, r in ratios.items()}
    names = list(dict.fromkeys(name for column in columns for name in column))
    last = LLM_BRINGS.values()
    names.sort(key=lambda name: (name in last, name.endswith("best"), "llmrec" in name))
    titles = " | ".join(said for *_, said in LISTS)
    lines = [f"| NDCG@10 | {titles} |", "|---" * (1 + len(LISTS)) + "|"]
    for name in names:
        cells = [column.get(name, "") for column in columns]
        said = [cell if isinstance(cell, str) else short(cell["value"]) for cell in cells]
        lines.append(f"| {name} | " + " | ".join(said) + " |")
    people = ", ".join(f"{column[name]['n']:,}" for column in columns for name in list(column)[:1])
    below = textwrap.fill(f"{people} people. {plain_blends()}", 140, break_on_hyphens=False)
    return "\n".join(lines) + f"\n\n{below}\n"


def of_models(name: str, part: str) -> Found:
    """Give a part's rows of a result file by model and metric."""
    return {key[2:]: row for key, row in rows_of(name).items() if key[1] == part}


def plain_blends() -> str:
    """Say what the LLM brings to a blend that holds neither nets nor trees."""
    found = of_models("ranking_next-period_plain", LISTS[0][1])
    (of_titles, titles), (of_tilt, tilt) = ((key[0], with_sign(found[key])) for key in LLM_BRINGS)
    ndcg = {model: short(row["value"]) for (model, metric), row in found.items() if metric == NDCG}
    return (
        f"Where nets and trees are left out of the blend, as they are in engines, MovieLens's next "
        f"period has {ndcg[f'{NUMBERS}, no tilt']} by numbers alone; tilted to the LLM "
        f"{ndcg[of_tilt]}, {tilt} above counting's tilt; with its titles {ndcg[of_titles]}, "
        f"{titles} above none."
    )


def with_sign(row: dict[str, Any]) -> str:
    """Write a difference and its interval."""
    return "{value:+.4f} ({low:+.4f} to {high:+.4f})".format_map(row)


def short(value: float) -> str:
    """Write four digits after the point, and nothing before it."""
    return f"{value:.4f}".lstrip("0")


def forecasts() -> str:
    """Write log-losses and gains on counting of every model and test, and what else was found."""
    found: Found = {}
    for dataset in ("completejourney", "ml-100k", "synthetic"):
        found |= rows_of(f"forecast_quality_{dataset}")
    first = TESTS[0][:2]
    models = [model for *test, model, metric in found if (*test, metric) == (*first, "log_loss")]
    gains = {model: found[(*first, model, "log_loss_gain")] for model in models}
    # Those that were asked about some of the people only come last.
    models.sort(key=lambda model: (-gains[model]["n"], -gains[model]["value"]))
    lines = ["| | " + " | ".join(title for *_, title in TESTS) + " |", "|---" * 4 + "|"]
    for model in models:
        cells = [with_gain(found, (dataset, split, model)) for dataset, split, _ in TESTS]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + sentences(found) + "\n"


def speed_of_rankings() -> str:
    """Write how long a ranking takes, what memory, and that nothing is lost by it."""
    found = rows_of("ranking_speed")
    small, large = dict.fromkeys(split for _, split, *_ in found)

    def value(split: str, model: str, metric: str) -> float:
        return float(found["made-up shop", split, model, metric]["value"])

    ways = list(dict.fromkeys(model for _, split, model, _ in found if split == small))[1:]
    wall = " and ".join(f"{value(small, way, 'milliseconds'):.1f}" for way in ways)
    cpu, share, ratio = (
        value(small, ways[0], metric)
        for metric in ("CPU milliseconds", "... share of the scorers", "... ratio to plain pass")
    )
    lists = [row for (*_, metric), row in found.items() if metric.startswith("lists as by")]
    same = sum(round(row["value"] * row["n"]) for row in lists)
    said = (
        f"Ranking {small} for one person after the forecast takes {wall} ms (as forecast, and with "
        f"a muted and a raised category; medians), {cpu:.1f} ms of one "
        f"processor: {ratio:.0f} times one plain pass of numpy over the same parts, {share:.0%} of "
        f"it the four scorers. A process that makes a catalog of {large} and its log, fits the "
        "scorers and ranks batches holds "
        f"{value(large, '... and batches ranked', 'peak_gib'):.2f} GiB at most; {same} of "
        f"{sum(row['n'] for row in lists)} lists are, bit for bit, the head of a full sort by "
        "score, popularity and item id (`ranking_speed`)."
    )
    return textwrap.fill(said, 140, break_on_hyphens=False) + "\n"


def tuned() -> str:
    """Write what the tuned model gains, what it lives on, and the calendar's part."""
    found = rows_of("training_speed")
    for dataset in ("completejourney", "ml-100k"):
        found |= rows_of(f"finetune_quality_{dataset}")
    lines = ["| gain of | " + " | ".join(title for *_, title in TESTS) + " |", "|---" * 4 + "|"]
    for text, part, model, metric in GAINS:
        cells = []
        for dataset, split, _ in TESTS:
            row = found.get((dataset, f"{split} / {part}" if part else split, model, metric))
            row = flipped(row) if row and metric == "log_loss_change" else row
            cells.append(f"{signed(row, 4)}, n {row['n']:,}" if row else "-")
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    season, reading = rows_of("season_reading"), ("SeasonReading(GatedMixture)", "gain_on_prior")
    moved = [signed(season["completejourney", f"test {n}", *reading], 5) for n in (1, 2)]
    speed = {metric: value["value"] for (*_, metric), value in found.items()}
    said = (
        "On Complete Journey what the untuned model knows of the calendar (`SeasonReading`) adds "
        f"{moved[0]} and {moved[1]} to the gated mixture on the two tests (1 and 2), and nothing "
        "to counting or drift; two periods are two observations of a season, whatever the "
        "households say. A supervised read slot of a timeline costs "
        f"{speed['ratio of positions']:.0f} times fewer positions than a sequence of its own, and "
        f"a training step runs at {speed['ratio to bare matrix products']:.0%} of the rate of its "
        "bare matrix products. " + words(found)
    )
    return "\n".join(lines) + "\n\n" + textwrap.fill(said, 140, break_on_hyphens=False) + "\n"


def words(found: Found) -> str:
    """Say what the lines that the tuned models write are worth."""

    def share(model: str, metric: str) -> str:
        row = found["ml-100k", "test / words", model, metric]
        return f"{row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%}, n {row['n']})"

    def ratio(model: str, dataset: str = "ml-100k", split: str = "test") -> str:
        name = f"{model} generated (share 0.1)"
        row = found[dataset, f"{split} / generated", name, "ratio_to_read"]
        return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}, n {row['n']})"

    return (
        "Of the claims about MovieLens's viewers that the tuned decoder makes freely "
        f"{share('LLM freely', 'claims_supported')} pass the checker; so it words true ones only, "
        f"of which {share('LLM', 'claims_supported')} pass. Of the statements shown "
        f"{share('LLM', 'statements_come_true')} came true. Counting with lines mixed in that the "
        f"model writes has {ratio('LLM')} times the log-loss of its reading, with the T5's "
        f"{ratio('T5')}; on Complete Journey's tests {ratio('LLM', 'completejourney', 'test 1')} "
        f"and {ratio('LLM', 'completejourney', 'test 2')}."
    )


def rows_of(name: str) -> Found:
    """Read a result file: (dataset, split, model, metric) to its row."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    keys = ("dataset", "split", "model", "metric")
    return {tuple(row[key] for key in keys): row for row in content["rows"]}


def flipped(row: dict[str, Any]) -> dict[str, Any]:
    """Turn what was lost into what was gained."""
    return row | {"value": -row["value"], "low": -row["high"], "high": -row["low"]}


def signed(row: dict[str, Any], digits: int) -> str:
    """Write a gain with its sign, and its interval."""
    value, low, high = (f"{row[key]:+z.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def with_gain(found: Found, of: tuple[str, str, str]) -> str:
    """Write a loss, and what it gains with its interval."""
    loss, gain = found[(*of, "log_loss")], found[(*of, "log_loss_gain")]
    return f"{loss['value']:.3f}, {signed(gain, 3)}"


def sentences(found: Found) -> str:
    """Say what the table does not: people, drift captured, distance from the optimum."""

    def values(model: str, metric: str, dataset: str = "completejourney") -> list[float]:
        return [found[dataset, f"test {n}", model, metric]["value"] for n in (1, 2)]

    def behind(model: str) -> str:
        pairs = zip(*(values(m, "log_loss", "synthetic") for m in (model, "Optimum")), strict=True)
        return " and ".join(f"{loss - best:.3f}" for loss, best in pairs)

    n = [found[dataset, split, "Mean", "log_loss"]["n"] for dataset, split, _ in TESTS]
    asked = found["completejourney", "test 1", "LLM alone (zero-shot)", "log_loss"]["n"]
    trust = [
        found[dataset, "validation", f"LLM on {prior}", "a"]["value"]
        for prior in ("DecayedDirichlet", "GatedMixture")
        for dataset in ("completejourney", "ml-100k")
    ]
    captured = " and ".join(f"{v:.0%}" for v in values("GatedMixture", "drift_captured"))
    said = (
        f"{n[0]:,}, {n[1]:,} and {n[2]:,} people; {asked} a test for the untuned LLM, which "
        "validation trusts beside counting with a = {:.2f} (Complete Journey) and {:.2f} "
        "(MovieLens), beside the mixture with {:.2f} and {:.2f}. ".format(*trust)
        + f"On Complete Journey the gated mixture gets {captured} of the way from the mean "
        "(nothing changes) to a forecaster that was shown half of the period. "
        "On a synthetic shop whose best possible forecast is known (`--data synthetic`) the "
        f"mixture is {behind('GatedMixture')} nats behind that optimum on the two tests, counting "
        f"{behind('DecayedDirichlet')}, the mean {behind('Mean')}."
    )
    return textwrap.fill(said, 140, break_on_hyphens=False)


if __name__ == "__main__":
    atomic_write_text(README, page())
    atomic_write_text(FRONT, front_page())
