"""Repeated paragraphs: one kept document keeps each, what is cut is accounted for, order and parts do not matter."""

import random
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.test_dedup import one_by_one, write_corpus

from qwenops.contracts.document import part_paths, read_documents
from qwenops.data.dedup.config import DedupConfig, ParagraphsConfig
from qwenops.data.dedup.paragraphs import find_paragraphs, paragraph_at, remove_paragraphs
from qwenops.data.dedup.repeats import REASON, RepeatedParagraphs
from qwenops.data.dedup.run import run
from qwenops.data.dedup.search import DuplicateSearch

CONFIG = ParagraphsConfig(min_words=4, min_document_words=3)
BANNER = "We use cookies to improve this site"
# By `write_corpus` a document's quality is its number modulo 7, so that of these the second is the best.
PAGES = [
    f"{BANNER}\nThe first page is about the sea",
    f"{BANNER}\nThe second page is about the sky\nThe end",
    "WE USE COOKIES, to improve this site!\n\nThe third page is about the land\nThe end",
    f"{BANNER}\nToo short",
]


def cut(folder, texts, config=CONFIG, rows_of_range=3, **layout):
    """Texts that are left by id, ids that are dropped, the account; whole duplicates are left alone."""
    write_corpus(folder, texts, **layout)
    bands = DedupConfig(bands=1, rows=1, jaccard=1.0)
    search = DuplicateSearch(bands, part_paths(folder), folder / "search")
    search.index(one_by_one)
    search.find(one_by_one)
    repeats = RepeatedParagraphs(config, search, folder / "none", folder / "cut", rows_of_range)
    account = repeats.cut(one_by_one)
    removed = [
        row for path in sorted((folder / "cut" / "removed").iterdir()) for row in pq.read_table(path).to_pylist()
    ]
    assert {row["reason"] for row in removed} <= {REASON}
    left = {row["id"]: row["text"] for row in read_documents(folder / "cut", ["id", "text"]).to_pylist()}
    return left, {row["id"] for row in removed}, account


def test_paragraph_stays_in_the_best_document_and_short_remains_are_dropped(tmp_path):
    left, dropped, account = cut(tmp_path, [*PAGES[:3], "of words", *["none"] * 3, PAGES[3]])
    assert dropped == {"d007"}
    assert left["d000"] == "The first page is about the sea"
    assert left["d001"] == "The second page is about the sky\nThe end"
    assert left["d002"] == PAGES[2]
    assert left["d007"] == PAGES[3]
    lost = len(BANNER) + 1
    assert account.by_source == {"s": {"documents": 2, "paragraphs": 2, "characters": 2 * lost, "bytes": 2 * lost}}
    assert account.by_domain["web"] == account.by_source["s"]
    # Three and not four: what is dropped is no rival and no holder.
    assert account.examples == [{"text": "WE USE COOKIES, to improve this site!", "documents": 3, "survivor": "d002"}]


def test_paragraph_of_a_dropped_document_stays_with_the_next_best(tmp_path):
    last, middle, best = "f g h i j\n1 2 3 4 5 6 7", "a b c d e\nf g h i j\nz", "a b c d e\nu v w"
    left, dropped, _ = cut(tmp_path, [last, middle, best], ParagraphsConfig(min_words=5, min_document_words=7))
    # Without its first line the middle one is too short, so that f to j has no better place than the last.
    assert dropped == {"d001"}
    assert (left["d000"], left["d002"]) == (last, best)


@pytest.mark.parametrize(("unit", "expected"), [("line", ["a b", "c d", "e"]), ("block", ["a b\nc d", "e"])])
def test_paragraphs_are_lines_or_what_stands_between_blank_lines(unit, expected):
    text, config = "a b\nc d\n \n...\n\ne", ParagraphsConfig(min_words=1, unit=unit)
    found = find_paragraphs([text], config)
    assert [paragraph_at(text, place, config) for place in found.place.tolist()] == expected


def test_paragraphs_say_the_same_when_their_words_do():
    texts = ["Hello,  World!\nhello world", "\u4f60\u597d\u4e16\u754c", "hello word", "Stra\u00dfe STRASSE"]
    found = find_paragraphs(texts, CONFIG)
    assert found.keys[0] == found.keys[1] and len(set(found.keys.tolist())) == 4
    assert found.words.tolist() == [2, 2, 4, 2, 2]
    assert found.document.tolist() == [0, 0, 1, 2, 3]


def test_text_without_a_paragraph_keeps_its_other_lines():
    assert remove_paragraphs("a\n\nb\n\nc", [2], CONFIG) == "a\n\nc"
    assert remove_paragraphs("a\nb\nc", [2], CONFIG) == "a\nb"
    assert remove_paragraphs("a\nb\nc", [0], CONFIG) == "b\nc"
    assert remove_paragraphs("a\nb\n\nc\n  d", [1], ParagraphsConfig(unit="block")) == "a\nb"


def test_domains_that_are_not_named_stay_whole(tmp_path):
    left, dropped, account = cut(tmp_path, PAGES, ParagraphsConfig(min_words=4, domains=("prose",)))
    assert list(left.values()) == PAGES and not dropped and account.by_domain == {}


def by_definition(texts, config):
    """What should be left: the rule of `RepeatedParagraphs`, document by document."""
    best_first = sorted(range(len(texts)), key=lambda n: (-(n % 7), n))
    lines = [[(line, tuple(line.lower().split())) for line in text.split("\n")] for text in texts]

    def losses(among):
        owner = {}
        for number in (n for n in best_first if n in among):
            for _, words in lines[number]:
                owner.setdefault(words, number)
        return {
            n: [at for at, (_, words) in enumerate(lines[n]) if len(words) >= config.min_words and owner[words] != n]
            for n in among
        }

    def words_left(number, lost):
        return sum(len(words) for at, (_, words) in enumerate(lines[number]) if at not in lost)

    first = losses(set(range(len(texts))))
    dropped = {n for n, lost in first.items() if lost and words_left(n, lost) < config.min_document_words}
    second = losses(set(range(len(texts))) - dropped)
    return dropped, {n: "\n".join(line for at, (line, _) in enumerate(lines[n]) if at not in second[n]) for n in second}


_LINES = [
    "one two three",
    "ONE two three",
    "four five six seven",
    "eight nine ten",
    "eleven twelve thirteen",
    "x",
    "y z",
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    picks=st.lists(st.lists(st.sampled_from(_LINES), min_size=1, max_size=5), min_size=1, max_size=12),
    parts=st.integers(1, 4),
    rows_of_range=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 99),
)
def test_what_is_cut_follows_the_rule_whatever_order_parts_and_ranges(
    picks, parts, rows_of_range, seed, tmp_path_factory
):
    texts = ["\n".join(lines) for lines in picks]
    config = ParagraphsConfig(min_words=3, min_document_words=3)
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    folder = tmp_path_factory.mktemp("corpus")
    left, dropped, account = cut(folder, texts, config, rows_of_range, parts=min(parts, len(texts)), order=order)
    shutil.rmtree(folder)
    expected_dropped, expected = by_definition(texts, config)
    assert dropped == {f"d{n:03}" for n in expected_dropped}
    assert {n: left[f"d{n:03}"] for n in expected} == expected
    lost = sum(len(texts[n]) - len(text) for n, text in expected.items())
    assert sum(row["characters"] for row in account.by_source.values()) == lost
    said = Counter(
        words for text in expected.values() for words in {tuple(line.lower().split()) for line in text.split("\n")}
    )
    assert all(count == 1 for words, count in said.items() if len(words) >= 3)


def test_stage_accounts_for_every_byte(tmp_path, make_stage):
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(500)]
    texts = ["\n".join([BANNER, *(" ".join(rng.choice(words, 12)) for _ in range(8))]) for _ in range(60)]
    texts += [texts[0], f"{BANNER}\nand little more"]
    write_corpus(tmp_path / "in", texts, parts=3)
    stage = make_stage("dedup")
    config = DedupConfig(planted_documents=20, paragraphs=ParagraphsConfig(min_words=4))
    run(config, documents=tmp_path / "in", stage=stage)
    assert stage.counts == {"read": 62, "kept": 60, "dropped": {"exact": 1, REASON: 1}}
    kept = read_documents(stage.out, ["text"])["text"].to_pylist()
    assert sum(BANNER in text for text in kept) == 1
    lost = 59 * (len(BANNER) + 1)
    assert sum(map(len, texts)) == sum(map(len, kept)) + lost + len(texts[-1]) + len(texts[-2])
    page = (stage.out / "summary.md").read_text()
    assert f"| domain | web | 59 | 59 | {lost} |" in page
    assert f"| {BANNER} | 60 |" in page
    assert f"| source | s | 59 | 59 | {lost} |" in page
