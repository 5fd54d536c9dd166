"""The figures by which an engine's members were chosen: read from its report, and in lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from llmrec.forecasters.selective import GainGroup

Interval = tuple[float, float, float]  # mean, low, high; 95 %
MAX_NAME = 24  # characters of a member's name in a table
FORECAST_LEGEND = (
    "loss: nats per event, on people whom the fit did not see; gain: on counting; without: what "
    "the mixture loses without it."
)
LIST_LEGEND = (
    "alone: NDCG@10 by itself; without: what the blend loses without it. "
    "The weights were chosen on the same lists."
)
Column = tuple[str, Callable[["MemberInfo"], str]]


@dataclass(frozen=True)
class MemberInfo:
    """One of those that could forecast, or rank.

    Attributes
    ----------
    alone
        Held-out log-loss in nats per event, or NDCG@10, of the member alone; None if it could not
        be fitted.
    gain
        What it takes off the loss of counting; None where nothing is compared with counting.
    weight
        In the mixture, or in the blend.
    worth
        What all together lose without it; None if that was not tried.
    kept, reason
        Whether the engine has it, and why.
    """

    name: str
    alone: float | None
    gain: float | None
    weight: float
    worth: float | None
    kept: bool
    reason: str

    @classmethod
    def of_forecast(cls, values: Mapping[str, Any]) -> Self:
        """Read a member of what forecasts."""
        gain, worth = (read_interval(values[name]) for name in ("gain", "worth"))
        return cls(
            str(values["name"]),
            read_number(values["loss"]),
            gain and gain[0],
            float(values["weight"]),
            worth and worth[0],
            bool(values["kept"]),
            str(values["reason"]),
        )

    @classmethod
    def of_list(cls, values: Mapping[str, Any]) -> Self:
        """Read a member of what ranks."""
        return cls(
            str(values["name"]),
            read_number(values["ndcg"]),
            None,
            float(values["weight"]),
            read_number(values["loss_without"]) if values["weight"] else None,
            bool(values["kept"]),
            str(values["reason"]),
        )


@dataclass(frozen=True)
class StatementKindInfo:
    """What is known of a kind of statements about the next period.

    Attributes
    ----------
    cases
        Statements of the kind that its probabilities are calibrated on.
    usual_rate
        Share of all on the last period that came true; None where there were too few: none is made.
    """

    kind: str
    cases: int
    usual_rate: float | None

    @classmethod
    def of_report(cls, report: Mapping[str, Any]) -> tuple[Self, ...]:
        """Read all kinds from the report of a fit; none if it has none."""
        return tuple(
            cls(str(kind), int(one["cases"]), read_number(one["usual_rate"]))
            for kind, one in report.get("statements", {}).items()
        )


def statement_lines(kinds: Sequence[StatementKindInfo]) -> list[str]:
    """Say which statements have probabilities."""
    if not kinds:
        return ["They have no probabilities: nothing was fitted that gives them."]
    rates = [
        f"{one.kind} {one.usual_rate:.0%} ({one.cases:,})"
        for one in kinds
        if one.usual_rate is not None
    ]
    unknown = [one.kind for one in kinds if one.usual_rate is None]
    said = "How often they come true, on the last period (statements calibrated on)"
    lines = [f"{said}: {', '.join(rates)}."] if rates else []
    if unknown:
        lines.append(f"Not made, there were too few to calibrate on: {', '.join(unknown)}.")
    return lines


@dataclass(frozen=True)
class ForecastInfo:
    """How an engine forecasts.

    Attributes
    ----------
    form, reason
        How members are mixed, or that one of them was taken, and why.
    loss, gain
        Held-out log-loss in nats per event, and what that takes off the loss of counting; None if
        there was too little to judge by.
    windows
        How many of the last period it was judged on.
    """

    form: str
    reason: str
    loss: float | None
    gain: Interval | None
    windows: int
    members: tuple[MemberInfo, ...]

    @classmethod
    def of_report(cls, report: Mapping[str, Any]) -> Self | None:
        """Read it from the report of a fit; None if it has none."""
        if (found := report.get("forecast")) is None:
            return None
        return cls(
            form=str(found["form"]),
            reason=str(found["reason"]),
            loss=read_number(found["loss"]),
            gain=read_interval(found["gain"]),
            windows=int(report["windows"]),
            members=_ordered(MemberInfo.of_forecast(one) for one in found["members"]),
        )

    def lines(self) -> list[str]:
        """Say it in lines, with a table of the members."""
        kept = [one.name for one in self.members if one.kept]
        reason = self.reason.rstrip(".")
        mixed = f"{len(kept)} experts, mixed by {self.form}: {reason}"
        what = {"single": reason, "counting": f"counting: {reason}"}.get(self.form, mixed)
        lines = [f"{what[:1].upper()}{what[1:]}."]
        if self.loss is not None and self.gain is not None:
            lines.append(
                f"Log-loss {self.loss:.4f} nats per event on {self.windows:,} windows of the last "
                f"period, {describe_gain(self.gain)} on counting."
            )
        columns: Sequence[Column] = (
            ("loss", lambda one: _cell("{:.4f}", one.alone)),
            ("gain", lambda one: _cell("{:+.4f}", one.gain)),
            ("weight", lambda one: _cell("{:.3f}", one.weight)),
            ("without", lambda one: _cell("{:+.4f}", one.worth)),
        )
        table = _table("expert", self.members, columns)
        return [*lines, *table, *_reasons(self.members), FORECAST_LEGEND]


@dataclass(frozen=True)
class ListInfo:
    """How an engine ranks: NDCG@10 of its blend on that many windows of the last period.

    Attributes
    ----------
    new_items
        What lists of items that nobody has taken yet were fitted on, see `NewItemLists`; None: the
        blend ranks them, too.
    reason
        Which windows these are, where they are not all; "" otherwise.
    """

    ndcg: float
    windows: int
    members: tuple[MemberInfo, ...]
    new_items: Mapping[str, Any] | None = None
    reason: str = ""

    @classmethod
    def of_report(cls, report: Mapping[str, Any]) -> Self | None:
        """Read it from the report of a fit; None if it has none."""
        if (found := report.get("list")) is None:
            return None
        members = _ordered(MemberInfo.of_list(one) for one in found["members"])
        new, reason = report.get("new_items"), str(found.get("reason", ""))
        windows = int(found["windows"])
        return cls(float(found["ndcg"]), windows, members, new and dict(new), reason)

    def lines(self) -> list[str]:
        """Say it in lines, with a table of the members."""
        columns: Sequence[Column] = (
            ("alone", lambda one: _cell("{:.4f}", one.alone)),
            ("weight", lambda one: _cell("{:.3f}", one.weight)),
            ("without", lambda one: _cell("{:+.4f}", one.worth)),
        )
        which = f": {self.reason}" if self.reason else ""
        return [
            f"NDCG@10 {self.ndcg:.4f} on {self.windows:,} windows of the last period{which}.",
            *_table("scorer", self.members, columns),
            *_reasons(self.members),
            LIST_LEGEND,
            *([] if self.new_items is None else _new_item_lines(self.new_items)),
        ]


def _new_item_lines(values: Mapping[str, Any]) -> list[str]:
    """Say what lists of items that nobody has taken yet were fitted on."""
    by = " and ".join(values["weights"])
    found = f"{int(values['items']):,} items were new in the last period"
    if "ndcg" not in values:
        return [f"New items are ranked by {by}; {found}, too few to judge that."]
    return [
        f"New items are ranked by {by}: NDCG@10 {values['ndcg']:.3f} (random "
        f"{values['random_ndcg']:.3f}); {found}, for {int(values['people']):,} people."
    ]


@dataclass(frozen=True)
class LanguageInfo:
    """The language model of an engine, and what it adds.

    Attributes
    ----------
    adapter
        What its adapter learned from, and up to when; "" without an adapter.
    titles
        Share of the titles that it expects in the forecast.
    title_weight
        Of the titles as a scorer of the blend.
    a, gain
        Weight of its category scores, and what they take off the held-out loss, in nats per event;
        None if it was not calibrated.
    """

    model: str
    adapter: str
    precision: str
    titles: float
    title_weight: float
    a: float | None
    gain: Interval | None
    groups: tuple[GainGroup, ...] = ()

    def lines(self) -> list[str]:
        """Say it in lines."""
        adapter = f" with an adapter that learned from {self.adapter}" if self.adapter else ""
        precision = "" if self.precision == "auto" else f", in {self.precision}"
        lines = [f"{self.model}{adapter}{precision}."]
        if self.a is None:
            return [*lines, "It was not calibrated: it words descriptions, and forecasts nothing."]
        gain = "" if self.gain is None else f", {describe_gain(self.gain)} on the forecast above"
        lines.append(f"Its category scores have weight a = {self.a:.4f}{gain}.")
        if self.groups:
            each = "; ".join(
                f"from {one.min_events} {describe_gain(one.gain)}" for one in self.groups
            )
            lines.append(f"What it gains in all, by past events of a person: {each}.")
        lines.append(
            f"The titles that it expects are {self.titles:.0%} of the forecast, and have weight "
            f"{self.title_weight:.3f} in the list."
        )
        return lines


def describe_gain(gain: Interval) -> str:
    """Give "gain +0.0138 (+0.0104 to +0.0172)"."""
    mean, low, high = gain
    return f"gain {mean:+.4f} ({low:+.4f} to {high:+.4f})"


def read_number(value: Any) -> float | None:
    """Read a number of JSON, or null."""
    return None if value is None else float(value)


def read_interval(value: Any) -> Interval | None:
    """Read mean, low and high of JSON, or null."""
    if value is None:
        return None
    mean, low, high = map(float, value)
    return mean, low, high


def _ordered(members: Iterable[MemberInfo]) -> tuple[MemberInfo, ...]:
    """Put those that are kept first, by weight, and the others by name."""

    def place(one: MemberInfo) -> tuple[bool, float, str]:
        return not one.kept, -abs(one.weight) if one.kept else 0.0, one.name

    return tuple(sorted(members, key=place))


def _table(label: str, members: Sequence[MemberInfo], columns: Sequence[Column]) -> list[str]:
    """Lay out members in rows, between empty lines."""
    if not members:
        return []
    width = min(MAX_NAME, max(len(label), *(len(one.name) for one in members)))
    head = f"{label:<{width}}" + "".join(f"{name:>9}" for name, _ in columns) + "  kept"
    rows = [
        f"{one.name[:MAX_NAME]:<{width}}"
        + "".join(f"{show(one):>9}" for _, show in columns)
        + ("  yes" if one.kept else "  no")
        for one in members
    ]
    return ["", *(f"  {row}" for row in (head, *rows)), ""]


def _reasons(members: Sequence[MemberInfo]) -> list[str]:
    """Say why members are left out, and why they are kept where not all are for one reason."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for one in members:
        groups.setdefault((one.kept, one.reason), []).append(one.name)
    n_kept = sum(kept for kept, _ in groups)
    return [
        f"{'Kept' if kept else 'Left out'}, {reason.rstrip('.')}: {', '.join(names)}."
        for (kept, reason), names in groups.items()
        if not kept or n_kept > 1
    ]


def _cell(form: str, value: float | None) -> str:
    return "-" if value is None else form.format(value)
