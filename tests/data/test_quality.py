import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import plain_rules, plain_words

from qwenops.contracts.document import check_documents, documents_from_rows, read_documents, read_funnel, write_part
from qwenops.data.ingest.language import identify_language
from qwenops.data.quality.batch import Batch
from qwenops.data.quality.classifier import fold_of, make_examples, train
from qwenops.data.quality.config import (
    C4Config,
    ClassifierConfig,
    CodeConfig,
    FinewebConfig,
    GopherConfig,
    OffensiveConfig,
    PerplexityConfig,
    PiiConfig,
    QualityConfig,
    RepetitionConfig,
    RubricConfig,
)
from qwenops.data.quality.ngrams import NGrams
from qwenops.data.quality.offensive import train_offensive
from qwenops.data.quality.rules import apply_rules, code, fineweb, first_reasons, gopher, repetition
from qwenops.data.quality.run import run
from qwenops.data.quality.scores import SCORES_SCHEMA, reasons_of, thresholds_of
from qwenops.errors import ContractError, RecipeError

_GOPHER, _REPETITION, _FINEWEB, _CODE = GopherConfig(), RepetitionConfig(), FinewebConfig(), CodeConfig()


def _reason(family, text: str, lang: str, config) -> str:
    """The first rule of a family that a text fails, words standing between blanks."""
    return first_reasons(family(Batch([text]), [lang], config), 1)[0]


def _judge(text: str, lang: str, domain: str, config: QualityConfig) -> tuple[str, str]:
    judged = apply_rules([text], [lang], [domain], config)
    return judged.texts[0], judged.reasons[0]


def _c4_only(text: str, **settings) -> tuple[str, str]:
    off = {name: {"domains": ()} for name in ("gopher", "repetition", "fineweb")}
    config = QualityConfig(
        counting="blanks",
        gopher=GopherConfig(**off["gopher"]),
        repetition=RepetitionConfig(**off["repetition"]),
        fineweb=FinewebConfig(**off["fineweb"]),
        c4=C4Config(**settings),
    )
    return _judge(text, "en", "web", config)


def _distinct(count: int, length: int = 6) -> list[str]:
    """Words that never repeat: consonants that count."""
    letters = "bcdfghjklm"
    return ["".join(letters[int(digit)] for digit in f"{number:0{length}}") for number in range(count)]


def _plain(words: int, *extra: str) -> str:
    """A text with stop words that passes Gopher's rules; `extra` words replace as many of its own."""
    return " ".join(["the", "and", *extra, *_distinct(words - 2 - len(extra))])


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        (_plain(50), _plain(49), "gopher_too_few_words"),
        (_plain(100_000), _plain(100_001), "gopher_too_many_words"),
        ("the and " + " ".join(["abc"] * 98), "the and a " + " ".join(["abc"] * 97), "gopher_word_length"),
        ("the and " + " ".join(["a" * 10] * 98), "the and " + " ".join(["a" * 11] * 98), "gopher_word_length"),
        (_plain(100, *["#"] * 10), _plain(100, *["#"] * 11), "gopher_hashes"),
        (_plain(100, *["..."] * 10), _plain(100, *["..."] * 11), "gopher_ellipses"),
        (_plain(100, *["123456"] * 20), _plain(100, *["123456"] * 21), "gopher_few_letters"),
        (_plain(60), _plain(60).replace("and", "bcd"), "gopher_stop_words"),
        ("the and\n" + "- some words that follow it\n" * 9, "- the and\n" + "- some words that follow it\n" * 10,
         "gopher_bullets"),
        ("the and\n" * 7 + "some words that are following here\u2026\n" * 3 + _plain(60),
         "the and\n" * 6 + "some words that are following here\u2026\n" * 4 + _plain(60), "gopher_ellipsis_lines"),
    ],
)  # fmt: skip
def test_gopher_rule_just_inside_passes_and_just_outside_is_named(inside, outside, reason):
    assert _reason(gopher, inside, "en", _GOPHER) == ""
    assert _reason(gopher, outside, "en", _GOPHER) == reason


def test_gopher_stop_words_are_asked_of_the_configured_languages_only():
    text = _plain(60).replace("and", "bcd")
    assert _reason(gopher, text, "de", GopherConfig(stop_word_languages=("en",))) == ""


# Short prose of three languages that says each thing once.
_UNSPACED = {
    "zh": "守灯人每天黄昏都要爬上石阶。他先把玻璃擦干净，然后点燃油灯。\n\n风大的夜里，海浪会打到窗户上，"
    "可是灯光从来没有灭过。\n\n村里的渔民说，只要看见那一点亮，就知道家在哪里。\n\n有一年冬天下了很大的雪，路全被盖住了，没有人能送来粮食。"
    "\n\n孩子们却想出办法，用木板做成雪橇，把面粉和干鱼拉到塔下。",
    "ja": "灯台守は夕暮れになると石段を登ります。まずガラスを磨き、それから油に火をともします。\n\n"
    "風の強い夜には波が窓まで届きますが、明かりが消えたことは一度もありません。\n\n村の漁師はその小さな光を見て、自分の家がどこにあるかを知るのです。\n\n"
    "ある冬、大雪で道がすっかり埋まり、食べ物を運べる人がいなくなりました。"
    "\n\n子どもたちは板でそりを作り、粉と干物を塔の下まで引いていきました。",
    "th": "คนเฝ้าประภาคารเดินขึ้นบันไดหินทุกเย็น เขาเช็ดกระจกให้สะอาดก่อนแล้วจึงจุดตะเกียง\n\nในคืนที่ลมแรง คลื่นซัดมาถึงหน้าต่าง"
    " แต่แสงไฟไม่เคยดับ\n\nชาวประมงบอกว่าเมื่อเห็นแสงนั้นก็รู้ว่าบ้านอยู่ที่ไหน",
}  # fmt: skip
_PROSE_ONLY = QualityConfig(c4=C4Config(domains=()), fineweb=FinewebConfig(domains=()))
CASES = Path(__file__).parents[2].parent / "shared/cases/data/unspaced.jsonl"


@pytest.mark.parametrize("lang", _UNSPACED)
def test_prose_without_blanks_is_kept_and_a_phrase_of_it_repeated_is_not(lang):
    text = _UNSPACED[lang]
    assert _judge(text, lang, "prose", _PROSE_ONLY) == (text, "")
    for phrase in (text.split("\n")[0], text[:9], text[:9] + " "):
        assert _judge(phrase * 60, lang, "prose", _PROSE_ONLY)[1].startswith(("top_", "repeated_"))


def test_characters_drawn_by_lot_are_no_chinese():
    rng = random.Random(5)
    common = [bytes((row, cell)).decode("gb2312") for row in range(0xB0, 0xD7) for cell in range(0xA1, 0xFA)]
    for alphabet in (common, [chr(number) for number in range(0x4E00, 0x9FA6)]):
        text = "".join(rng.choices(alphabet, k=900))
        assert _judge(text, "zh", "prose", _PROSE_ONLY)[1] == "gopher_stop_words"


def test_every_row_of_the_cases_in_unspaced_scripts_gets_its_verdict():
    if not CASES.exists():
        pytest.skip("the shared cases are not here")
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    languages = [identify_language(row["text"])[0] for row in rows]
    judged = apply_rules([row["text"] for row in rows], languages, ["prose"] * len(rows), QualityConfig())
    assert [not reason for reason in judged.reasons] == [row["keep"] for row in rows]


def test_rules_that_need_words_pass_over_scripts_without_spaces():
    text = _UNSPACED["zh"].replace("\n\n", "")
    assert _judge(text, "zh", "web", QualityConfig())[1] == ""
    assert _judge(text[:60], "zh", "web", QualityConfig())[1] == "gopher_too_few_words"


def _lines(distinct: int, repeated: int) -> str:
    """`distinct` long lines, then one short line written `repeated` + 1 times."""
    words = _distinct(distinct * 40, 8)
    rows = [" ".join(words[40 * n : 40 * n + 40]) for n in range(distinct)]
    return "\n".join(rows + ["short"] * (repeated + 1))


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        (_lines(13, 6), _lines(12, 6), "repeated_lines"),
        (_lines(13, 6).replace("\n", "\n\n"), _lines(12, 6).replace("\n", "\n\n"), "repeated_lines"),
        (_lines(9, 0) + "\n" + "q" * 1000 + "\n" + "q" * 1000, _lines(9, 0) + "\n" + "q" * 1200 + "\n" + "q" * 1200,
         "repeated_line_characters"),
    ],
)  # fmt: skip
def test_repetition_rule_just_inside_passes_and_just_outside_is_named(inside, outside, reason):
    assert _reason(repetition, inside, "en", _REPETITION) == ""
    assert _reason(repetition, outside, "en", _REPETITION) == reason


@pytest.mark.parametrize(("n", "unit"), [(2, 26), (3, 45), (4, 69)])
def test_repetition_of_one_ngram_is_judged_at_its_threshold(n, unit):
    phrase = " ".join(["aa", "bb", "cc", "dd"][:n])

    def text(unit: int) -> str:
        return " ".join(f"{phrase} {word}" for word in _distinct(40, unit - len(phrase) - 2))

    assert _reason(repetition, text(unit), "en", _REPETITION) == ""
    assert _reason(repetition, text(unit - 1), "en", _REPETITION) == f"top_{n}_gram"


@pytest.mark.parametrize(("n", "most"), list(enumerate(_REPETITION.max_repeated_ngram, start=5)))
def test_repetition_of_many_passages_is_judged_at_its_threshold(n, most):
    words = _distinct(20 * n, 3)
    phrases = [" ".join(words[n * k : n * k + n]) for k in range(20)] * 2
    unit = int((60 * n / most + 1) // 40)  # 20 phrases of 3 n letters occur a second time in 40 units

    def text(unit: int) -> str:
        fill = _distinct(40, unit - len(phrases[0]) - 2)
        return " ".join(f"{phrase} {word}" for phrase, word in zip(phrases, fill, strict=True))

    assert _reason(repetition, text(unit + 1), "en", _REPETITION) == ""
    assert _reason(repetition, text(unit - 1), "en", _REPETITION) == f"repeated_{n}_grams"


@settings(deadline=None)  # the first call makes the tables of characters
@given(st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=60), min_size=1, max_size=3))
def test_word_grams_agree_with_the_plain_definition(documents):
    batch = Batch([" ".join(words) for words in documents])
    grams = NGrams(batch, batch.words, 1)
    for found in grams.repeats(7):
        assert grams.top_characters(found).tolist() == [
            plain_rules.top_characters(words, found.n) for words in documents
        ]
        assert grams.repeated_characters(found).tolist() == [
            plain_rules.repeated_characters(words, found.n) for words in documents
        ]


_PIECES = st.sampled_from(
    ["the", "and", "word", "Word", "a", "#", "...", "\u2026", "- ", "* ", "\u2022", ".", "?", "\"", "\n", "\n\n",
     "\n \n", " ", "\t", "[1]", "[edit]", "{", "privacy policy", "lorem ipsum", "123", "\u4f60\u597d", "\u3002",
     "\u00e9t\u00e9", "x" * 40]
)  # fmt: skip
_LOOSE = {
    "counting": "blanks",
    "gopher": GopherConfig(min_words=5, min_mean_word=1, stop_word_languages=("en",)),
    "c4": C4Config(min_sentences=1, max_word_characters=90),
}


@settings(deadline=None)  # the first call makes the tables of characters
@given(
    st.lists(
        st.tuples(st.lists(_PIECES, min_size=1, max_size=60).map("".join), st.sampled_from(["en", "de", "zh"])),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["web", "prose", "math"]),
    st.sampled_from([QualityConfig(**_LOOSE), QualityConfig(**_LOOSE, repetition=RepetitionConfig(domains=()))]),
)
def test_rules_over_a_batch_agree_with_the_plain_definitions(rows, domain, config):
    rows = [(text, lang) for text, lang in rows if text.strip()] or [("a", "en")]
    judged = apply_rules([text for text, _ in rows], [lang for _, lang in rows], [domain] * len(rows), config)
    expected = [plain_rules.judge(text, lang, domain, config) for text, lang in rows]
    assert list(zip(judged.texts, judged.reasons, strict=True)) == expected


def _words(text: str) -> list[str]:
    batch = Batch([text], "marks")
    return [text[start - 1 : end - 1] for start, end in zip(batch.words.starts, batch.words.ends, strict=True)]


def test_words_with_marks_apart_are_those_of_published_tokenizers():
    assert _words("It's 3.5 or 1,000... (see example.com)!") == [
        "It", "'s", "3.5", "or", "1,000", "...", "(", "see", "example.com", ")", "!"
    ]  # fmt: skip
    assert _words("Ask me@example.com, or http://a.org/b-c?d.") == [
        "Ask", "me@example.com", ",", "or", "http://a.org/b-c?d", "."
    ]  # fmt: skip


_WORD_PIECES = st.sampled_from(
    ["word", "A", "U.S", "Dr.", "e.g.", "p.m.", "5", "12", "km", "K", "pm", ".", "..", ",", "-", "--", "/", ":", "=",
     "+", "%", "$", "(", ")", "\"", "'", "\u2019", "'s", "n't", "'ll", "s", "\u2026", "\u3002", "\u4f60", "\u00a9", "_",
     "*", "@", "x.com", "http://a.org/b-c", "and/or", " ", "\n", "\u2013", "b-Cd", "n", "t"]
)  # fmt: skip


@settings(deadline=None, max_examples=400)  # the first call makes the tables of characters
@given(st.lists(_WORD_PIECES, min_size=1, max_size=30).map("".join))
def test_words_of_a_batch_agree_with_the_plain_definition(text):
    assert _words(text) == plain_words.words(text)


def test_stop_words_are_asked_in_the_language_of_the_text():
    text = _plain(60).replace("and", "bcd").replace("the", "bdc")
    config = GopherConfig(stop_word_languages=("de",))
    assert _reason(gopher, text, "en", config) == ""
    assert _reason(gopher, text, "de", config) == "gopher_stop_words"
    assert _reason(gopher, text + " Der Mann und die Frau", "de", config) == ""


def test_c4_cuts_lines_that_no_mark_ends_where_that_is_asked():
    text = _FIVE + "\nA line that nothing ends\nA line that trails off...\nOne more line that is ended."
    assert _c4_only(text)[0] == text
    assert _c4_only(text, line_end="terminal")[0].split("\n")[1:] == ["One more line that is ended."]


_FIVE = "This is the first sentence. Here is a second one! Is this the third? " + "And this is the fourth. "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_FIVE + "Five is enough.", ""),
        (_FIVE, "c4_few_sentences"),
        (_FIVE + "Lorem ipsum dolor sit amet.", "c4_lorem_ipsum"),
        (_FIVE + "Some code { follows here.", "c4_curly_bracket"),
    ],
)
def test_c4_document_rules(text, reason):
    assert _c4_only(text)[1] == reason


_PROGRAM = "for row in rows:\n    first = row[0]\n    names = {row[1]: first}\n    print(first)"


@pytest.mark.parametrize("program", ["```python\n" + _PROGRAM + "\n```", _PROGRAM, "    x = row[0]\n    use({x})"])
def test_c4_leaves_programs_in_a_page_alone(program):
    text, reason = _c4_only(
        f"{_FIVE}\n\n{program}\n\nThe first item of a row has the index [0] in the text.[3]\ntwo words"
    )
    assert reason == ""
    assert text == f"{_FIVE}\n\n{program}\n\nThe first item of a row has the index  in the text."


def test_c4_cuts_bad_lines_and_citation_marks_and_keeps_the_rest():
    bad = ["two words", "Please enable JavaScript to see this page.", "Read our privacy policy before you go on.",
           "a line with a word " + "x" * 1001]  # fmt: skip
    text, reason = _c4_only("\n".join([_FIVE, *bad, "A fact.[12] It has a source.[citation needed]"]))
    assert reason == ""
    assert text == _FIVE + "\nA fact. It has a source."


@pytest.mark.parametrize(("terminated", "reason"), [(12, ""), (11, "fineweb_unterminated_lines")])
def test_fineweb_wants_lines_that_end_sentences(terminated, reason):
    words = _distinct(1000, 7)
    rows = [" ".join(words[8 * n : 8 * n + 8]) + "." * (n < terminated) for n in range(100)]
    assert _reason(fineweb, "\n".join(rows), "en", _FINEWEB) == reason


@pytest.mark.parametrize(("short", "reason"), [(67, ""), (68, "fineweb_short_lines")])
def test_fineweb_wants_long_lines(short, reason):
    words = _distinct(2000, 5)
    rows = [" ".join(words[9 * n : 9 * n + (4 if n < short else 9)]) + "." for n in range(100)]
    assert _reason(fineweb, "\n".join(rows), "en", _FINEWEB) == reason


@pytest.mark.parametrize(("repeated", "reason"), [(9, ""), (12, "fineweb_duplicated_lines")])
def test_fineweb_wants_lines_once(repeated, reason):
    rows = [" ".join(_distinct(200, 8)[10 * n : 10 * n + 10]) + "." for n in range(11)]
    text = "\n".join([*rows, "x" * (repeated - 1) + ".", "x" * (repeated - 1) + "."])
    assert _reason(fineweb, text, "en", _FINEWEB) == reason


@pytest.mark.parametrize(("words", "reason"), [(4, ""), (3, "fineweb_newlines")])
def test_fineweb_wants_more_words_than_line_breaks(words, reason):
    pieces = _distinct(400, 12)
    text = "\n".join(" ".join(pieces[words * n : words * n + words]) + "." for n in range(100))
    assert _reason(fineweb, text, "en", _FINEWEB) == reason


_LINE = "value = compute(number) + 1\n"


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        (_LINE * 20, "x = 1\n", "code_too_short"),
        (_LINE * 50 + "#" + "x" * 999, _LINE * 50 + "#" + "x" * 1000, "code_long_line"),
        (("x" * 98 + "\n") * 20, ("x" * 110 + "\n") * 20, "code_long_lines"),
        ("abc" + "+" * 9 + "\n" + _LINE * 9, "ab" + "+ - * /\n" * 90, "code_few_letters"),
        (
            _LINE * 20 + "# generated by hand",
            "# This file is generated by a tool, do not edit\n" + _LINE * 20,
            "code_generated",
        ),
    ],
)
def test_code_rule_just_inside_passes_and_just_outside_is_named(inside, outside, reason):
    assert code(inside, _CODE) == ""
    assert code(outside, _CODE) == reason


def test_judge_gives_programs_the_code_rules_alone():
    text = "def f(x):\n    return {x: [y for y in range(x)]}\n" * 20
    assert _judge(text, "code", "code", QualityConfig()) == (text, "")


@settings(deadline=None)  # the first call makes the tables of characters
@given(
    st.text(min_size=1, max_size=400).filter(str.strip),
    st.sampled_from(["en", "zh", "th"]),
    st.sampled_from(["web", "math"]),
)
def test_judge_answers_for_any_text(text, lang, domain):
    judged, reason = _judge(text, lang, domain, QualityConfig())
    assert judged and isinstance(reason, str)


_CLASSIFIER = ClassifierConfig(num_features=1 << 14, num_documents=1200, num_characters=500)
_STORIES = {
    "en": ("The {0} walked along the {1} and told everybody that the {2} would come back before winter.",
           ["farmer", "teacher", "doctor", "river", "village", "market", "ship", "letter", "garden", "storm"]),
    "zh": ("那个{0}沿着{1}慢慢走去，告诉大家{2}会在冬天以前回来，大家听了都很高兴。",
           ["农民", "老师", "医生", "小河", "村庄", "市场", "大船", "书信", "花园", "风暴"]),
}  # fmt: skip


def _story(lang: str, rng: random.Random) -> str:
    pattern, names = _STORIES[lang]
    return "\n\n".join(" ".join(pattern.format(*rng.sample(names, 3)) for _ in range(3)) + f" ({n})" for n in range(4))


def _spam(rng: random.Random) -> str:
    return "\n".join(rng.choice(["Buy now", "Home", "Login | Register", "50% OFF", "Click here >>"]) for _ in range(40))


def _corpus(count: int = 300) -> tuple[pa.Table, pa.Table]:
    rng = random.Random(1)
    good = [
        {"id": f"g{n}", "lang": ("en", "zh")[n % 2], "text": _story(("en", "zh")[n % 2], rng)} for n in range(count)
    ]
    bad = [{"id": f"b{n}", "lang": "en", "text": _spam(rng)} for n in range(count // 3)]
    return pa.Table.from_pylist(good), pa.Table.from_pylist(bad)


def test_classifier_tells_good_from_bad_texts_it_has_not_seen():
    good, bad = _corpus()
    examples = make_examples(good, bad, _CLASSIFIER, seed=1)
    assert set(examples.kinds) == {"passed", "failed", "shuffled", "garbled", "menu"}
    model, areas = train(examples, _CLASSIFIER)
    assert areas["all"] > 0.9 and areas["failed"] > 0.9
    rng = random.Random(9)
    fresh = [_story("en", rng), _story("zh", rng), _spam(rng)]
    scores = model.score(["x", "y", "z"], fresh, _CLASSIFIER)
    assert min(scores[:2]) > scores[2]


def test_classifier_scores_a_document_without_having_trained_on_it():
    examples = make_examples(*_corpus(120), _CLASSIFIER, seed=1)
    model, _ = train(examples, _CLASSIFIER)
    texts = [text[::-1] if fold_of(i) == 0 else text for i, text in zip(examples.ids, examples.texts, strict=True)]
    changed, _ = train(replace(examples, texts=texts), _CLASSIFIER)
    assert (changed.weights[0] == model.weights[0]).all()
    assert not (changed.weights[1] == model.weights[1]).all()


def test_classifier_without_good_documents_is_a_contract_error():
    good, bad = _corpus(6)
    with pytest.raises(ContractError, match="too few documents pass"):
        make_examples(good, bad, _CLASSIFIER, seed=1)


def _artifact(folder: Path) -> Path:
    good, bad = _corpus(240)
    rows = [row | {"domain": "web"} for row in (*good.to_pylist(), *bad.to_pylist())]
    rows += [{"id": f"c{n}", "lang": "code", "text": _LINE * 20 + f"# {n}", "domain": "code"} for n in range(20)]
    common = {"source": "s", "url": "", "license": "CC0-1.0", "lang_score": 1.0, "split": "train"}
    for part in range(3):
        table = documents_from_rows(common | row for row in rows[part::3])
        write_part(table, folder / "documents" / f"part-{part:05}.parquet")
    return folder


def test_quality_run_accounts_for_every_document_and_strict_is_within_relaxed(tmp_path, make_stage):
    documents = _artifact(tmp_path / "documents")
    kept: dict[str, set[str]] = {}
    rules = RepetitionConfig(domains=())
    for keep in ("strict", "relaxed"):
        stage = make_stage(keep)
        config = QualityConfig(classifier=_CLASSIFIER, repetition=rules, fineweb=FinewebConfig(domains=()), keep=keep)
        run(config, documents=documents, stage=stage)
        funnel = read_funnel(stage.out)
        assert funnel.read == read_documents(documents).num_rows == funnel.kept + sum(funnel.dropped.values())
        table = read_documents(stage.out)
        check_documents(table, keep)
        kept[keep] = set(table["id"].to_pylist())
        assert stage.metrics["classifier.auc"] > 0.9
        facts = json.loads((stage.out / "quality.json").read_text())
        assert facts["documents"][keep] == len(kept[keep])
    assert kept["strict"] <= kept["relaxed"]
    assert {f"c{n}" for n in range(20)} <= kept["strict"]
    assert not any(name.startswith("b") for name in kept["strict"])


def _scores(*rows: dict) -> pa.Table:
    blank = {"source": "s", "domain": "web", "lang": "en", "bytes": 1, "rules": [], "quality": 1.0}
    return pa.Table.from_pylist([blank | {"id": str(n)} | row for n, row in enumerate(rows)], schema=SCORES_SCHEMA)


def test_thresholds_of_both_sets_are_applied_to_the_same_scores():
    config = QualityConfig(
        forgiven_rules=("fineweb_short_lines",), perplexity=PerplexityConfig(strict_share=0.5, relaxed_share=1.0)
    )
    table = _scores(
        {}, {"rules": ["fineweb_short_lines"]}, {"rules": ["fineweb_short_lines", "c4_lorem_ipsum"], "quality": None},
        {"quality": 0.3}, {"quality": 0.1}, {"offensive": 0.6}, {"offensive": 0.9}, {"grade": 2.0}, {"grade": 1.0},
        {"perplexity": 10.0}, {"perplexity": 20.0}, {"perplexity": 30.0, "lang": "de"},
        {"perplexity": 99.0, "lang": "de"},
    )  # fmt: skip
    limits = thresholds_of(config, table)
    assert reasons_of(table, limits["strict"]) == [
        "", "fineweb_short_lines", "fineweb_short_lines", "classifier", "classifier", "offensive", "offensive",
        "rubric", "rubric", "", "perplexity", "", "perplexity"
    ]  # fmt: skip
    relaxed = ["", "", "c4_lorem_ipsum", "", "classifier", "", "offensive", "", "rubric", "", "", "", ""]
    assert reasons_of(table, limits["relaxed"]) == relaxed


def test_a_relaxed_set_that_is_stricter_is_refused():
    with pytest.raises(ValueError, match="classifier threshold"):
        QualityConfig(classifier=ClassifierConfig(strict_threshold=0.2, relaxed_threshold=0.5))


def test_forgiven_rules_let_a_document_go_on_to_the_later_rules():
    config = QualityConfig(forgiven_rules=("gopher_too_few_words",), counting="blanks")
    texts = [_FIVE + "Five is enough, the end and more of it to read.", _FIVE + "Lorem ipsum.", _FIVE]
    judged = apply_rules(texts, ["en"] * 3, ["web"] * 3, config)
    assert judged.failed[0] == ["gopher_too_few_words"]
    assert judged.failed[1] == ["gopher_too_few_words", "c4_lorem_ipsum"]
    assert judged.failed[2] == ["gopher_too_few_words", "c4_few_sentences"]
    assert judged.reasons == ["gopher_too_few_words"] * 3


def _labelled(folder: Path, count: int) -> Path:
    rng = random.Random(5)
    rows = [{"text": _story("en", rng), "label": 0} for _ in range(count)]
    words = ["fool", "swine", "toad", "worm"]
    rows += [{"text": "You are a " + " ".join(rng.choices(words, k=30)), "label": 1} for _ in range(count)]
    path = folder / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_offensive_model_learns_from_labelled_lines(tmp_path):
    config = OffensiveConfig(labelled=str(_labelled(tmp_path, 40)))
    model, area = train_offensive(config, _CLASSIFIER)
    assert area > 0.95
    kind, insult = model.score(["a", "b"], [_story("en", random.Random(6)), "fool swine toad worm " * 20], _CLASSIFIER)
    assert kind < 0.5 < insult


def test_offensive_model_refuses_a_file_it_cannot_learn_from(tmp_path):
    with pytest.raises(RecipeError, match="is not a file"):
        train_offensive(OffensiveConfig(labelled=str(tmp_path / "none.jsonl")), _CLASSIFIER)
    with pytest.raises(ContractError, match="too few labelled texts"):
        train_offensive(OffensiveConfig(labelled=str(_labelled(tmp_path, 3))), _CLASSIFIER)
    for line in ('{"text": "a"}', '{"text": "a", "label": 2}', "[]", "no json"):
        (tmp_path / "bad.jsonl").write_text(line + "\n", encoding="utf-8")
        with pytest.raises(ContractError, match="line 1: not a labelled text"):
            train_offensive(OffensiveConfig(labelled=str(tmp_path / "bad.jsonl")), _CLASSIFIER)


def test_quality_run_stores_every_score_and_masks_personal_data(tmp_path, make_stage):
    documents = _artifact(tmp_path / "documents")
    rows = read_documents(documents).to_pylist()
    for row in rows:
        row["text"] += "\nWrite to jane@firm.de about it." if row["id"] == "g0" else ""
    write_part(documents_from_rows(rows), documents / "documents" / "part-00000.parquet")
    for part in (1, 2):
        (documents / "documents" / f"part-{part:05}.parquet").unlink()
    config = QualityConfig(
        classifier=_CLASSIFIER, repetition=RepetitionConfig(domains=()), fineweb=FinewebConfig(domains=()),
        pii=PiiConfig(kinds=("email",)), perplexity=PerplexityConfig(sources=("s",)),
        offensive=OffensiveConfig(labelled=str(_labelled(tmp_path, 40))),
    )  # fmt: skip
    stage = make_stage("quality")
    run(config, documents=documents, stage=stage)
    scores = pa.concat_tables(pq.read_table(path) for path in sorted((stage.out / "scores").glob("part-*.parquet")))
    assert scores.schema.names == SCORES_SCHEMA.names and scores.num_rows == len(rows)
    facts = json.loads((stage.out / "quality.json").read_text())
    limits = thresholds_of(config, scores)
    for name in ("strict", "relaxed"):
        inside = [not reason for reason in reasons_of(scores, limits[name])]
        assert sum(inside) == facts["documents"][name]
        assert np.array(scores["bytes"].to_pylist())[inside].sum() == facts["bytes"][name]
    strict = {i for i, r in zip(scores["id"].to_pylist(), reasons_of(scores, limits["strict"]), strict=True) if not r}
    kept = read_documents(stage.out)
    assert strict == set(kept["id"].to_pylist())
    scored = [row for row in scores.to_pylist() if not row["rules"] and row["lang"] != "code"]
    assert scored and all(None not in (row["quality"], row["perplexity"], row["offensive"]) for row in scored)
    assert stage.metrics["offensive.auc"] > 0.95 and stage.metrics["pii.email"] == 1
    assert not any("jane@firm.de" in text for text in kept["text"].to_pylist())


def test_rubric_without_a_model_is_a_recipe_error(tmp_path, make_stage):
    config = QualityConfig(classifier=_CLASSIFIER, repetition=RepetitionConfig(domains=()),
                           fineweb=FinewebConfig(domains=()), rubric=RubricConfig(num_documents=5))  # fmt: skip
    with pytest.raises(RecipeError, match="rubric has no model"):
        run(config, documents=_artifact(tmp_path / "documents"), stage=make_stage("quality"))
