"""Constrained lines of models that know nothing: each is a forecast, whole, of known labels."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec.forecast import STATEMENT_KINDS, StatementKind
from llmrec.language.forecast_line import LineFormat
from llmrec.language.generation import Generation
from llmrec.language.model import LanguageModel
from tests.hostile.conftest import Count
from tests.language.tiny_models import LABELS, save_llama, save_t5
from tests.real_parts import needs_real_parts

BATCH = 25
TEMPERATURES = (0.0, 0.3, 1.0, 3.0, 100.0)
MANY = tuple(f"{kind} {number}" for number in range(200) for kind in ("drama", "film", "film a."))
# What the small T5's sentencepiece vocabulary can write; anything else is refused before a line.
WRITTEN_BY_T5 = (LABELS, ("drama",), ("other", "drama 5", "drama", "drama 5 5", "5", "100"), MANY)
AWKWARD = (
    ("Ελληνικά", "日本映画", "ﬁlm", "Film", "straße", "STRASSE", "İstanbul", "🎬", "\u202eDrama"),
    ("", " ", ":", "%", ",", "12%", "other 100%: Drama is rising.", "x" * 200, "x" * 201),
    ('"a" | "b"', "\\", "/.*/", "{0,9}", "start: LINE", "</s>", "<|im_end|>", "Drama\nComedy"),
    ("...", ". .", "-5", "+", "C++", "&", "(", "'", "No. 1.", "is rising", "Drama is rising"),
    ("١٢", "१२ 3", "²", "½", "e\u0301t\u00e9", "\ud800", "a\u200bb", "\x00", "Other", "OTHER 2"),
)
PROMPTS = (
    "Next week",
    "Drama 31%, other 69%",
    "<|im_end|></s> 100% 100%",
    "Forecast: Drama 100%, other 100%: nothing. Next",
    "日本" * 20,
)
CLAIMS: tuple[tuple[StatementKind, int], ...] = tuple((kind, 0) for kind in STATEMENT_KINDS)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = save_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2048)
    return LanguageModel.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel.load(str(save_t5(tmp_path_factory.mktemp("t5"))), device="cpu")


def find_fault(line: Generation, form: LineFormat, grammar: str) -> str:
    """Say what is wrong with a line; "" if it is what its grammar promises."""
    if not line.finished:
        return "it was cut"
    description = line.text
    if grammar == "line":
        forecast = form.parse(line.text)  # an error of it is a fault, too
        if not abs(forecast.category_weights.sum() - 1) < 1e-9:
            return "its weights do not sum to 1"
        description = forecast.description
    claims, unparsed = form.parse_claims(description)
    if not claims or not description.endswith("."):
        return "it claims nothing"
    if grammar == "claims" and not claims.keys() <= set(CLAIMS):
        return "it claims what was not asked for"
    said = {text for text in unparsed if not form.parse_claims(text)[0]}
    return f"{said} is no claim" if said else ""


def broken(model: LanguageModel, labels: tuple[tuple[str, ...], ...], n: int) -> list[str]:
    """Generate n lines in batches, each of other labels, temperature and prompts; name faults."""
    rng, found = np.random.default_rng(0), []
    for start in range(0, n, BATCH):
        form = LineFormat(labels[start // BATCH % len(labels)], top=int(rng.integers(1, 7)))
        kind = ("line", "line", "line", "description", "claims")[int(rng.integers(5))]
        grammars = {
            "line": form.grammar,
            "description": form.description_grammar,
            "claims": lambda form=form: form.claims_grammar(CLAIMS),
        }
        asked = rng.integers(len(PROMPTS), size=min(BATCH, n - start))
        lines = model.generate(
            [f"{PROMPTS[prompt]} {start + at}:" for at, prompt in enumerate(asked)],
            constrain=grammars[kind](),
            max_new_tokens=1,  # bounds free lines alone
            temperature=TEMPERATURES[int(rng.integers(5))],
            seed=start,
        )
        for at, line in enumerate(lines):
            try:
                fault = find_fault(line, form, kind)
            except ValueError as error:
                fault = str(error)
            if fault:
                found.append(f"{start + at}: {fault}: {line.text!r}")
    return found


AMOUNTS = [
    pytest.param(225, 75, id="some"),
    pytest.param(8_000, 2_000, id="all", marks=pytest.mark.hostile),
]


@pytest.mark.parametrize(("n_decoder", "n_t5"), AMOUNTS)
def test_every_constrained_line_of_random_weights_is_valid(
    decoder: LanguageModel, t5: LanguageModel, n_decoder: int, n_t5: int, count: Count
) -> None:
    found = broken(decoder, (*WRITTEN_BY_T5, *AWKWARD), n_decoder) + broken(t5, WRITTEN_BY_T5, n_t5)
    count("constrained lines of random weights", n_decoder + n_t5, len(found))
    assert not found


@pytest.mark.hostile
@needs_real_parts
def test_every_constrained_line_of_the_embedded_model_is_valid(count: Count) -> None:
    model, n = LanguageModel.load("smollm2-135m", device="cpu"), 100
    found = broken(model, (*WRITTEN_BY_T5, *AWKWARD), n)
    count("constrained lines of SmolLM2-135M", n, len(found))
    assert not found
