"""Tables over several result files: who forecasts and ranks best, what the tuned LLM gains."""

from __future__ import annotations

from benchmarks.harness.formatting import (
    Row,
    format_difference,
    format_gain,
    format_interval,
    format_ndcg,
    format_share,
    join_words,
    negate,
    render_table,
    wrap_text,
)
from benchmarks.harness.labels import (
    BEST,
    BEST_WITH_LLM,
    COUNTING,
    LEARNED,
    LOG_TITLES,
    MIXTURE,
    ONLINE_RETAIL,
    QUICK,
    SASREC,
    STANDARD,
)
from benchmarks.harness.results import Rows, has_results, load_rows, load_rows_if_any

NDCG, MISSING = "ndcg@10", "-"  # a cell whose row has not been measured
LLM_GAIN = "gain of the LLM on llmrec best"
ENGINES = (QUICK, STANDARD, BEST, BEST_WITH_LLM)
RANKING_TESTS = (  # result file, part of its split, and the column's title
    ("next-period", "next period / test", "MovieLens, next period"),
    ("leave-one-out", "leave one out / test", "leave one out"),
    ("global-time", "global time / test", "global time"),
    ("repeat-allowed", "next 28 days, repeat allowed / test 1", "Complete Journey, repeats, 11"),
    ("repeat-allowed", "next 28 days, repeat allowed / test 2", "12"),
    ("explore-only", "next 28 days, explore only / test 1", "only new, 11"),
    ("explore-only", "next 28 days, explore only / test 2", "12"),
)
RETAIL_RANKING_TESTS = (
    ("retail-repeat", "next 28 days, repeat allowed / test 1", "Online Retail, repeats, 11"),
    ("retail-repeat", "next 28 days, repeat allowed / test 2", "12"),
    ("retail-explore", "next 28 days, explore only / test 1", "only new, 11"),
    ("retail-explore", "next 28 days, explore only / test 2", "12"),
)
FORECAST_TESTS = (  # dataset, split, and the column's title
    ("completejourney", "test 1", "Complete Journey, period 11"),
    ("completejourney", "test 2", "period 12"),
    ("ml-100k", "test", "MovieLens 100K"),
)
RETAIL_FORECAST_TESTS = (
    (ONLINE_RETAIL, "test 1", "Online Retail, period 11"),
    (ONLINE_RETAIL, "test 2", "period 12"),
)
RAW = "LLM (a = 1)"
ON_COUNTING, TITLES = f"LLM on {COUNTING}", f"LLM titles in {COUNTING}"
GAIN, CHANGE = "gain_of_llm", "log_loss_change"
GAIN_ROWS = (  # what the row is called, part of the split, model and metric
    ("category scores, calibrated, on counting", "", ON_COUNTING, GAIN),
    ("... people with at most two periods", "cold", ON_COUNTING, GAIN),
    ("... the third whose interests move most", "drifting", ON_COUNTING, GAIN),
    ("... on the gated mixture", "", f"LLM on {MIXTURE}", GAIN),
    ("... on the mixture with SASRec", "", f"LLM on {SASREC}", GAIN),
    ("title probabilities, mixed into counting", "", TITLES, GAIN),
    ("... people with at most two periods", "cold", TITLES, GAIN),
    ("... the third whose interests move most", "drifting", TITLES, GAIN),
    ("... events in categories never taken before", "emerging", TITLES, GAIN),
    ("... mixed into the gated mixture", "", f"LLM titles in {MIXTURE}", GAIN),
    ("... mixed into the mixture with SASRec", "", f"LLM titles in {SASREC}", GAIN),
    ("the tuned LLM as one more expert of the mixture", "", f"{MIXTURE} + LLM", GAIN),
    ("... of the mixture with SASRec", "", f"{SASREC} + LLM", GAIN),
    ("category scores on counting, mean of three seeds", "", f"{ON_COUNTING}, 3 seeds", GAIN),
    ("... forecasts averaged over the seeds", "", f"{ON_COUNTING}, 3 averaged", GAIN),
    ("... on the gated mixture", "", f"LLM on {MIXTURE}, 3 averaged", GAIN),
    ("title probabilities in counting, mean of three seeds", "", f"{TITLES}, 3 seeds", GAIN),
    ("... forecasts averaged over the seeds", "", f"{TITLES}, 3 averaged", GAIN),
    ("... in the gated mixture", "", f"LLM titles in {MIXTURE}, 3 averaged", GAIN),
    ("... in the mixture with SASRec", "", f"LLM titles in {SASREC}, 3 averaged", GAIN),
    ("T5 of two million parameters, new: scores on counting", "", f"T5 on {COUNTING}", GAIN),
    ("... title probabilities in counting", "", f"T5 titles in {COUNTING}", GAIN),
    ("... title probabilities in the gated mixture", "", f"T5 titles in {MIXTURE}", GAIN),
    ("category scores as trained, no history", "last 0 periods", RAW, "log_loss_gain"),
    ("... the last period only", "last 1 periods", RAW, "log_loss_gain"),
    ("... the last two only", "last 2 periods", RAW, "log_loss_gain"),
    ("title probabilities, no history", "last 0 periods", TITLES, "log_loss_gain"),
    ("... the last period only", "last 1 periods", TITLES, "log_loss_gain"),
    ("... the last two only", "last 2 periods", TITLES, "log_loss_gain"),
    ("title probabilities, after shuffling the order", "order shuffled", TITLES, CHANGE),
    ("... with names of like meaning", "names of like meaning", TITLES, CHANGE),
    ("... with names without meaning", "names without meaning", TITLES, CHANGE),
    ("... with titles without meaning", "titles without meaning", TITLES, CHANGE),
    ("category scores, after shuffling the order", "order shuffled", ON_COUNTING, CHANGE),
    ("... with names of like meaning", "names of like meaning", ON_COUNTING, CHANGE),
    ("... with names without meaning", "names without meaning", ON_COUNTING, CHANGE),
    ("... with titles without meaning", "titles without meaning", ON_COUNTING, CHANGE),
)


def forecast_table() -> str:
    """Log-loss and gain on counting of every test: engines, then forecasters, the best first."""
    rows: Rows = {}
    tests = [
        one
        for one in (*FORECAST_TESTS, *RETAIL_FORECAST_TESTS)
        if one[0] != ONLINE_RETAIL or has_results(f"forecasting/quality_{ONLINE_RETAIL}")
    ]
    for dataset in (*dict.fromkeys(dataset for dataset, *_ in tests), "synthetic"):
        rows |= load_rows(f"forecasting/quality_{dataset}")
    first = FORECAST_TESTS[0][:2]
    models = [model for *test, model, metric in rows if (*test, metric) == (*first, "log_loss")]
    gains = {model: rows[(*first, model, "log_loss_gain")] for model in models}
    # Those that were evaluated on some of the people only come last.
    models.sort(key=lambda model: (-gains[model]["n"], -gains[model]["value"]))
    for dataset in dict.fromkeys(dataset for dataset, *_ in tests):
        rows |= load_rows_if_any(f"forecasting/engines_{dataset}")
    models = [*ENGINES, *models]
    lines = [
        [model, *(loss_and_gain(rows, log, split, model) for log, split, _ in tests)]
        for model in models
    ]
    header = ["", *(title for *_, title in tests)]
    n = [f"{rows[log, split, 'Mean', 'log_loss']['n']:,}" for log, split, _ in tests]
    people = f"{join_words(n)} people"
    return f"{render_table(header, lines)}\n\n{_forecast_text(rows, people)}\n"


def loss_and_gain(rows: Rows, dataset: str, split: str, model: str) -> str:
    """Format a model's log-loss, and its gain on counting with the interval."""
    if (dataset, split, model, "log_loss") not in rows:
        return MISSING
    loss = rows[dataset, split, model, "log_loss"]["value"]
    return f"{loss:.3f}, {format_gain(rows[dataset, split, model, 'log_loss_gain'], 3)}"


def _forecast_text(rows: Rows, people: str) -> str:
    """Tell what the table of forecasts lacks: people, drift captured, distance from the optimum."""

    def values(model: str, metric: str, dataset: str = "completejourney") -> list[float]:
        return [rows[dataset, f"test {n}", model, metric]["value"] for n in (1, 2)]

    def excess(model: str) -> str:
        pairs = zip(*(values(m, "log_loss", "synthetic") for m in (model, "Optimum")), strict=True)
        return " and ".join(f"{loss - best:.3f}" for loss, best in pairs)

    n_llm = rows["completejourney", "test 1", "LLM alone (zero-shot)", "log_loss"]["n"]
    weights = [
        rows[dataset, "validation", f"LLM on {prior}", "a"]["value"]
        for prior in (COUNTING, MIXTURE)
        for dataset in ("completejourney", "ml-100k")
    ]
    captured = " and ".join(f"{v:.0%}" for v in values(MIXTURE, "drift_captured"))
    return wrap_text(
        f"{people}; {n_llm} a test for the LLM without fine-tuning, "
        "to which validation gives the calibration weight a = {:.2f} (Complete Journey) and {:.2f} "
        "(MovieLens) on counting, {:.2f} and {:.2f} on the mixture. ".format(*weights)
        + f"On Complete Journey the gated mixture gets {captured} of the way from the mean "
        "(nothing changes) to the informed reference, which was shown half of the period. "
        "On a synthetic log whose best possible forecast is known (`--data synthetic`) the "
        f"mixture is {excess(MIXTURE)} nats above that optimum on the two tests, counting "
        f"{excess(COUNTING)}, the mean {excess('Mean')}."
    )


def ranking_table() -> str:
    """NDCG@10 of baselines and of engines; how these compare with the best baseline."""
    columns: list[dict[str, str]] = []
    people = []
    tests = [one for one in RETAIL_RANKING_TESTS if has_results(f"ranking/compare_{one[0]}")]
    tests = [*RANKING_TESTS, *tests]
    for name, part, _ in tests:
        rows = part_rows(f"ranking/compare_{name}", part)
        ndcg = {model: row for (model, metric), row in rows.items() if metric == NDCG}
        people.append(f"{next(iter(ndcg.values()))['n']:,}")
        column = {model: format_ndcg(row["value"]) for model, row in ndcg.items()}
        columns.append(column | _comparisons(rows))
    names = list(dict.fromkeys(name for column in columns for name in column))
    names = [name for name in names if not name.startswith("llmrec")]
    names += [*ENGINES, *(f"{engine}, to the best baseline" for engine in ENGINES), LLM_GAIN]
    lines = [[name, *(column.get(name, MISSING) for column in columns)] for name in names]
    table = render_table(["NDCG@10", *(title for *_, title in tests)], lines)
    return f"{table}\n\n{', '.join(people)} people.\n"


def part_rows(name: str, part: str) -> dict[tuple[str, str], Row]:
    """Rows of one part of the split of a result file, by model and metric."""
    return {key[2:]: row for key, row in load_rows(name).items() if key[1] == part}


def _comparisons(rows: dict[tuple[str, str], Row]) -> dict[str, str]:
    """Cells of engines' ratios to the best baseline compared with, and of the LLM's gain."""
    cells = {}
    for engine in ENGINES:
        ratios = {
            metric.removeprefix("ratio to "): row
            for (model, metric), row in rows.items()
            if model == engine and metric.startswith("ratio to ")
        }
        if ratios:
            best = max(ratios, key=lambda name: float(rows[name, NDCG]["value"]))
            cells[f"{engine}, to the best baseline"] = f"{format_interval(ratios[best])} of {best}"
    if gain := rows.get((BEST_WITH_LLM, f"{NDCG} above {BEST}")):
        cells[LLM_GAIN] = format_difference(gain)
    return cells


def edit_and_explanation_summary() -> str:
    """How often the laws of edits hold, how many explanations are true, corruptions caught."""
    laws, truths = load_rows("explanations/edit_laws"), load_rows("explanations/truthfulness")
    shares = {(dataset, metric): row for (dataset, _, _, metric), row in truths.items()}
    cases = {data: row["n"] for (data, *_), row in laws.items()}
    has_learned = any(split == LEARNED for _, split, *_ in laws)
    learned = ", in as many on trees and nets," * has_learned
    violations = sum(row["value"] for row in laws.values())
    logs = list(dict.fromkeys(dataset for dataset, _ in shares))

    corruptions: list[Row] = [shares[log, "corruptions caught, all"] for log in logs]
    caught = sum(round(row["value"] * row["n"]) for row in corruptions)
    true, with_evidence = (
        [f"{shares[log, metric]['value']:.1%}" for log in logs]
        for metric in ("explanations that are true", "items with evidence")
    )
    names = [LOG_TITLES[log].removesuffix(" 100K") for log in logs]
    true = [f"{share} ({name})" for share, name in zip(true, names, strict=True)]
    text = (
        f"{len({model for _, _, model, _ in laws})} laws of edits hold in {cases['synthetic']:,} "
        f"random cases each{learned} and for {cases['ml-100k']} people of each log: {violations:g} "
        f"violations. Of {shares[logs[0], 'items with evidence']['n']:,} explained items a log "
        f"{join_words(true)} are true in every number, {join_words(with_evidence)} cite the "
        f"person's own events, and {caught:,} "
        f"of {sum(row['n'] for row in corruptions):,} corrupted statements and explanations are "
        "caught."
    )
    return wrap_text(text) + "\n"


def ranking_speed_summary() -> str:
    """How long a ranking takes, what memory, and that it equals a full sort."""
    rows = load_rows("speed/ranking")
    small, large = dict.fromkeys(split for _, split, *_ in rows)
    dataset = next(iter(rows))[0]

    def value(split: str, model: str, metric: str) -> float:
        return float(rows[dataset, split, model, metric]["value"])

    variants = list(dict.fromkeys(model for _, split, model, _ in rows if split == small))[1:]
    wall = " and ".join(f"{value(small, name, 'milliseconds'):.1f}" for name in variants)
    cpu, share, ratio = (
        value(small, variants[0], metric)
        for metric in ("CPU milliseconds", "... share of the scorers", "... ratio to plain pass")
    )
    lists = [row for (*_, metric), row in rows.items() if metric.startswith("lists equal to")]
    equal = sum(round(row["value"] * row["n"]) for row in lists)
    text = (
        f"Ranking {small} for one person after the forecast takes {wall} ms (as forecast, and with "
        f"a muted and a raised category; medians), {cpu:.1f} ms of one processor: {ratio:.0f} "
        f"times one plain pass of numpy over the same parts, {share:.0%} of it the four scorers. A "
        f"process that makes a catalog of {large} and its log, fits the scorers and ranks batches "
        f"holds {value(large, '... and batches ranked', 'peak_gib'):.2f} GiB at most; {equal} of "
        f"{sum(row['n'] for row in lists)} lists are, bit for bit, the head of a full sort by "
        "score, popularity and item id (`speed.ranking`)."
    )
    return wrap_text(text) + "\n"


def finetuning_table() -> str:
    """Render what the tuned LLM gains, on whom, and which part of a history it needs."""
    rows: Rows = {}
    for dataset in ("completejourney", "ml-100k"):
        rows |= load_rows(f"finetuning/quality_{dataset}")
    lines = []
    for text, part, model, metric in GAIN_ROWS:
        cells = []
        for dataset, split, _ in FORECAST_TESTS:
            row = rows.get((dataset, f"{split} / {part}" if part else split, model, metric))
            row = negate(row) if row and metric == CHANGE else row
            cells.append(f"{format_gain(row, 4)}, n {row['n']:,}" if row else "-")
        lines.append([text, *cells])
    table = render_table(["gain of", *(title for *_, title in FORECAST_TESTS)], lines)
    return f"{table}\n\n{wrap_text(f'{_calendar_and_cost_text()} {_generation_text(rows)}')}\n"


def _calendar_and_cost_text() -> str:
    """Tell what knowledge of the calendar gains, and what a training step costs."""
    holidays = load_rows("forecasting/holidays")
    key = (f"HolidayForecaster({MIXTURE})", "gain_on_prior")
    gains = [format_gain(holidays["completejourney", f"test {n}", *key], 5) for n in (1, 2)]
    speed = {metric: row["value"] for (*_, metric), row in load_rows("speed/training").items()}
    return (
        "On Complete Journey what the LLM without fine-tuning knows of the calendar "
        f"(`HolidayForecaster`) gains {gains[0]} and {gains[1]} on the gated mixture on the two "
        "tests (1 and 2), and nothing on counting or drift; two periods are two observations of a "
        "season, whatever the households say. A supervised read position of a timeline costs "
        f"{speed['ratio of positions']:.0f} times fewer positions than a sequence of its own, and "
        f"a training step runs at {speed['ratio to bare matrix products']:.0%} of the rate of its "
        "bare matrix products."
    )


def _generation_text(rows: Rows) -> str:
    """How good the lines are that the tuned models generate."""

    def share(model: str, metric: str) -> str:
        return format_share(rows["ml-100k", "test / statements", model, metric])

    def ratio(model: str, dataset: str = "ml-100k", split: str = "test") -> str:
        name = f"{model} generated (share 0.1)"
        row = rows[dataset, f"{split} / generated", name, "ratio_to_category_scores"]
        return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}, n {row['n']})"

    return (
        "Of the claims about MovieLens's viewers that the tuned decoder generates without "
        f"constraint {share('LLM unconstrained', 'claims_supported')} pass the checker; so it is "
        f"constrained to true ones, of which {share('LLM', 'claims_supported')} pass. Of the "
        f"statements shown {share('LLM', 'statements_realized')} came true. Counting with "
        f"generated lines mixed in has {ratio('LLM')} times the log-loss of the category scores, "
        f"with the T5's {ratio('T5')}; on Complete Journey's tests "
        f"{ratio('LLM', 'completejourney', 'test 1')} and "
        f"{ratio('LLM', 'completejourney', 'test 2')}."
    )
