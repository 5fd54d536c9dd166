"""Days as texts name them: months and weekdays in seven languages, weeks and days of a year."""

from __future__ import annotations

import numpy as np

from llmrec.data.number_times import to_milliseconds
from llmrec.types import FloatArray, IntArray

_MS_PER_DAY = 86_400_000
# Names and usual short forms without accents, in English, German, French, Spanish, Italian, Dutch
# and Portuguese; no name means two months.
_MONTH_NAMES = (
    "jan january januar janner janvier janv ene enero gen gennaio januari janeiro",
    "feb february februar feber fevrier fevr fev febrero febbraio febr februari fevereiro",
    "mar march marz maerz mrz mars marzo mrt maart marco",
    "apr april avr avril abr abril aprile",
    "may mai mayo mag maggio mei maio",
    "jun june juni juin junio giu giugno junho",
    "jul july juli juil juillet julio lug luglio julho",
    "aug august aout ago agosto augustus",
    "sep sept september septembre septiembre setiembre set sett settembre setembro",
    "oct october okt oktober octobre octubre ott ottobre out outubro",
    "nov november novembre noviembre novembro",
    "dec december dez dezember decembre dic diciembre dicembre dezembro",
)
_WEEKDAYS = (
    "mon monday mo montag lun lundi lunes lunedi ma maandag seg segunda segunda-feira",
    "tue tues tuesday di dienstag mardi martes martedi dinsdag ter terca terca-feira",
    "wed wednes wednesday mi mittwoch mer mercredi mie miercoles mercoledi wo woensdag qua quarta"
    " quarta-feira",
    "thu thur thurs thursday do donnerstag jeu jeudi jue jueves gio giovedi donderdag qui quinta"
    " quinta-feira",
    "fri friday fr freitag ven vendredi vie viernes venerdi vr vrijdag sex sexta sexta-feira",
    "sat satur saturday sa samstag sonnabend sam samedi sab sabado sabato za zaterdag",
    "sun sunday so sonntag dim dimanche dom domingo domenica zo zondag",
)
MONTHS = {name: month for month, names in enumerate(_MONTH_NAMES, 1) for name in names.split()}
MONTH_PATTERN = "|".join(MONTHS)
WEEKDAY_PATTERN = "|".join(" ".join(_WEEKDAYS).split())


def week_day_to_milliseconds(year: IntArray, week: IntArray, weekday: IntArray) -> FloatArray:
    """(n,) midnights of days of weeks of ISO 8601, Monday being 1; NaN where there is none."""
    day = _first_monday(year) + (week - 1) * 7 + weekday - 1
    valid = (week >= 1) & (weekday >= 1) & (weekday <= 7) & (day < _first_monday(year + 1))
    return np.where(valid, day * _MS_PER_DAY, np.nan)


def year_day_to_milliseconds(year: IntArray, day: IntArray) -> FloatArray:
    """(n,) midnights of days of a year, the first being 1; NaN where there is none."""
    millis = to_milliseconds(year, 1, 1) + (day - 1) * float(_MS_PER_DAY)
    return np.where((day >= 1) & (millis < to_milliseconds(year + 1, 1, 1)), millis, np.nan)


def _first_monday(year: IntArray) -> FloatArray:
    """(n,) days after 1970 of the Monday of the week that has 4 January."""
    fourth = to_milliseconds(year, 1, 4) / _MS_PER_DAY
    return fourth - (fourth + 3) % 7  # 1 January 1970 was a Thursday
