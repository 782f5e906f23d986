"""Deduplication: duplicates are found, distinct texts are not, and order and parts do not matter."""

import random
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwenops.contracts.document import documents_from_rows, part_paths, write_part
from qwenops.data.dedup.clusters import bucket_edges, candidate_pairs, connected_components, group_by_keys
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.duplicates import save_numbers
from qwenops.data.dedup.minhash import band_keys, exact_key, jaccard, shingles, signatures
from qwenops.data.dedup.planted import perturb, plant_and_score
from qwenops.data.dedup.ranges import ranges_for
from qwenops.data.dedup.search import DuplicateSearch
from qwenops.data.dedup.shingles import find_words, normalised, shingle
from qwenops.data.spans import Texts
from qwenops.tasks.overlap import is_unspaced, words

CONFIG = DedupConfig(planted_documents=120)
WORDS = [a + b for a in ("ka", "lo", "mi", "su", "ter", "van", "wol", "zen") for b in ("ra", "ndi", "pos", "que", "li")]


def make_texts(count, length=300, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=length)) for _ in range(count)]


def write_corpus(folder, texts, parts=1, order=None):
    """Documents in the given order; id and quality belong to the text, wherever it lies."""
    rows = [
        {
            "id": f"d{n:03}",
            "text": text,
            "source": "s",
            "domain": "web",
            "url": "",
            "license": "MIT",
            "lang": "en",
            "lang_score": 1.0,
            "quality": (n % 7) / 7,
            "split": "train",
        }
        for n, text in enumerate(texts)
    ]
    rows = [rows[n] for n in order] if order is not None else rows
    size = -(-len(rows) // parts)
    for part in range(parts):
        table = documents_from_rows(rows[part * size : (part + 1) * size])
        write_part(table, folder / f"documents/part-{part:05}.parquet")
    return folder


def one_by_one(names, function, out):
    """The pieces of a search in this process, last one first: their order must not matter."""
    out.mkdir(parents=True, exist_ok=True)
    done = {name: function(name) for name in reversed(names)}
    return [done[name] for name in names]


def removed_ids(folder, rows_of_range=1 << 20):
    search = DuplicateSearch(CONFIG, part_paths(folder), folder / "search", rows_of_range)
    search.index(one_by_one)
    rows = search.table(search.find(one_by_one)).to_pylist()
    listed = [row for part in search.parts for row in search.removed(part).to_pylist()]
    assert sorted(listed, key=lambda row: row["id"]) == [{name: row[name] for name in ("id", "reason")} for row in rows]
    return rows


def test_exact_key_ignores_case_space_and_punctuation():
    same = ("Hello,  World!", "hello world", "HELLO\n(world)")
    assert len({exact_key(text, CONFIG) for text in same}) == 1
    assert exact_key("hello world", CONFIG) != exact_key("hello word", CONFIG)
    assert exact_key("hello world", CONFIG) != exact_key("world hello", CONFIG)
    assert exact_key("...", CONFIG) != exact_key("!!!", CONFIG)


_LETTERS = (
    "abZ\u00c9\u00df19_ .,-\n\u0301\u0130\u4f60\u597d\u3042\u30a2\u0e01\u0e33\u0e49\u0e31\u0915\u093f\u1000\u102d\ud55c"
)


@settings(deadline=None)  # the first call makes the tables of characters
@given(st.lists(st.text(st.sampled_from(_LETTERS), max_size=30), min_size=1, max_size=5))
def test_words_by_class_are_the_words_of_decontamination(texts):
    batch = Texts([normalised(text) for text in texts])
    spans, unspaced = find_words(batch)
    joined = "\n" + "\n".join(normalised(text) for text in texts) + "\n"
    found = [[] for _ in texts]
    for start, end, document in zip(spans.starts, spans.ends, spans.document, strict=True):
        found[document].append(joined[start:end].casefold())
    assert found == [words(text) for text in texts]
    assert [is_unspaced(words(text)) for text in texts] == [
        2 * unspaced[spans.document == n].sum() > (spans.document == n).sum() for n in range(len(texts))
    ]


def test_shingles_do_not_depend_on_the_batch():
    texts = [*make_texts(5, length=40), "...", "", "one two", "\u6211\u4eec\u4eca\u5929\u5728\u8fd9\u91cc\u8ba8\u8bba"]
    together = shingle(texts, CONFIG)
    for number, text in enumerate(texts):
        alone = shingle([text], CONFIG)
        assert alone.hashes.tolist() == together.hashes[together.starts[number] : together.starts[number + 1]].tolist()
        assert alone.exact[0].tolist() == together.exact[number].tolist()


def test_shingles_have_the_jaccard_similarity_of_the_plain_definition():
    rng = random.Random(5)
    text = make_texts(1, length=80)[0]
    copy = perturb(text, 0.4, 0.9, CONFIG, rng)
    plain = [set(zip(*(words(t)[k:] for k in range(5)), strict=False)) for t in (text, copy)]
    expected = len(plain[0] & plain[1]) / len(plain[0] | plain[1])
    assert jaccard(shingles(text, CONFIG), shingles(copy, CONFIG)) == pytest.approx(expected)


def test_signature_estimates_jaccard_within_three_deviations():
    rng, hashes = random.Random(1), 2000
    text = make_texts(1)[0]
    for low, high in ((0.85, 0.95), (0.5, 0.6)):
        copy = perturb(text, low, high, CONFIG, rng)
        exact = jaccard(shingles(text, CONFIG), shingles(copy, CONFIG))
        left, right = signatures(shingle([text, copy], CONFIG), hashes)
        estimate = np.mean(left == right)
        assert abs(estimate - exact) < 3 * np.sqrt(exact * (1 - exact) / hashes)


def test_bands_find_near_pairs_and_leave_distant_ones():
    rng = random.Random(2)
    texts = make_texts(60, length=150)
    near = [perturb(text, 0.93, 0.97, CONFIG, rng) or text for text in texts]
    far = [perturb(text, 0.25, 0.3, CONFIG, rng) for text in texts]
    near_keys, far_keys, keys = (band_keys(group, CONFIG) for group in (near, [f for f in far if f], texts))
    assert (keys == near_keys).any(axis=1).all()
    assert (keys[: len(far_keys)] == far_keys).any(axis=1).mean() < 0.05


def test_planted_copies_are_found_and_near_misses_are_not():
    score = plant_and_score(make_texts(120), CONFIG, seed=3)
    assert score.copies >= 40 and score.misses >= 40
    assert score.recall >= 0.95
    assert score.precision >= 0.95


def test_planted_recall_falls_with_too_few_bands():
    score = plant_and_score(make_texts(120), DedupConfig(planted_documents=120, bands=1, rows=16), seed=3)
    assert score.recall < 0.8


def test_forest_is_transitive_and_the_best_document_stays():
    assert connected_components(np.array([[0, 4], [2, 4], [3, 5]])).tolist() == [[2, 0], [4, 0], [5, 3]]
    assert connected_components(np.zeros((0, 2), dtype=np.int64)).tolist() == []


def components_by_walking(edges):
    """The definition, without arrays: document to the smallest one that it is linked with."""
    links = {}
    for left, right in edges:
        links.setdefault(left, set()).add(right)
        links.setdefault(right, set()).add(left)
    least = {}
    for start in sorted(links):
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node not in least:
                least[node] = start
                waiting += links[node]
    return {node: small for node, small in least.items() if node != small}


_EDGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda e: e[0] != e[1]), max_size=40)


@given(edges=_EDGES, cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 9))
def test_forests_of_any_pieces_of_the_edges_merge_to_the_same_clusters(edges, cuts, seed):
    random.Random(seed).shuffle(edges)
    borders = [0, *sorted(cuts), len(edges)]
    pieces = [np.array(edges[a:b], dtype=np.int64).reshape(-1, 2) for a, b in pairwise(borders)]
    merged = connected_components(np.concatenate([connected_components(piece) for piece in pieces]))
    assert dict(merged.tolist()) == components_by_walking(edges)


@given(
    keys=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=30),
    seed=st.integers(0, 9),
)
def test_groups_of_equal_keys_name_the_best_of_each(keys, seed):
    order = np.random.default_rng(seed).permutation(len(keys))
    columns = [np.array([keys[number][half] for number in order], dtype=np.uint64) for half in range(2)]
    best = {}
    for number, key in enumerate(keys):
        best.setdefault(key, number)
    expected = {number: best[key] for number, key in enumerate(keys) if best[key] != number}
    assert dict(group_by_keys(columns, order.astype(np.int64)).tolist()) == expected


@given(keys=st.lists(st.integers(0, 6), max_size=40))
def test_small_buckets_give_every_pair(keys):
    pairs = {(a, b) for b in range(len(keys)) for a in range(b) if keys[a] == keys[b]}
    assert set(map(tuple, candidate_pairs([np.array(keys, dtype=np.uint64)]).tolist())) == pairs


def test_candidate_pairs_of_a_large_bucket_stay_linear():
    pairs = candidate_pairs([np.zeros(1000, dtype=np.uint64)])
    assert len(pairs) < 2000
    assert connected_components(pairs).tolist() == [[number, 0] for number in range(1, 1000)]


def test_large_bucket_is_thinned_in_the_same_way_whatever_the_order():
    order = np.random.default_rng(1).permutation(200)
    plain = bucket_edges(np.zeros(200, dtype=np.uint64), np.arange(200))
    assert plain.tolist() == bucket_edges(np.zeros(200, dtype=np.uint64), order).tolist()


def test_documents_are_numbered_by_quality_and_then_by_id(tmp_path):
    table = pa.table({"id": ["b", "a", "d", "c"], "quality": pa.array([0.5, 0.5, 0.1, 0.9], pa.float32())})
    for number in range(2):
        write_part(table.slice(2 * number, 2), tmp_path / f"part-{number}.parquet")
    save_numbers(sorted(tmp_path.glob("*.parquet")), tmp_path / "numbers.npy")
    assert np.load(tmp_path / "numbers.npy").tolist() == [2, 1, 3, 0]


def test_duplicates_do_not_depend_on_order_or_parts(tmp_path):
    rng = random.Random(4)
    texts = make_texts(40)
    texts += [perturb(text, 0.9, 0.96, CONFIG, rng) or text for text in texts[:10]]
    texts += [texts[20].upper().replace(" ", ", ")]
    shuffled = rng.sample(range(len(texts)), len(texts))
    one = removed_ids(write_corpus(tmp_path / "one", texts))
    three = removed_ids(write_corpus(tmp_path / "three", texts, parts=3, order=shuffled), rows_of_range=5)
    assert one == three
    assert {row["reason"] for row in one} == {"exact", "near"}
    assert all(row["survivor_quality"] >= row["quality"] for row in one)
    assert len(one) == 11


def test_duplicates_of_distinct_texts_are_none(tmp_path):
    assert removed_ids(write_corpus(tmp_path, make_texts(50, seed=9))) == []


def test_unspaced_scripts_are_compared_by_characters():
    text = "我们今天在这里讨论数据清洗的方法并且比较不同的重复检测算法" * 3
    copy = text[:60] + "很" + text[60:]
    assert jaccard(shingles(text, CONFIG), shingles(copy, CONFIG)) > 0.5


@pytest.mark.parametrize("text", ["a", "...", "one two"])
def test_short_text_is_one_shingle(text):
    assert len(shingles(text, CONFIG)) == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    copies=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=25),
    parts=st.integers(1, 5),
    rows_of_range=st.sampled_from([1, 4]),
    seed=st.integers(0, 99),
)
def test_what_is_removed_depends_on_the_documents_alone(copies, parts, rows_of_range, seed, tmp_path_factory):
    texts = make_texts(10, length=60)
    made = [texts[number].replace(WORDS[0], "x" * times, times) for number, times in copies]
    order = random.Random(seed).sample(range(len(made)), len(made))
    folder = tmp_path_factory.mktemp("corpus")
    one = removed_ids(write_corpus(folder / "one", made))
    layout = {"parts": min(parts, len(made)), "order": order}
    other = removed_ids(write_corpus(folder / "other", made, **layout), rows_of_range)
    assert one == other
    gone = {row["id"] for row in one}
    assert gone.isdisjoint(row["survivor"] for row in one)
    assert len({texts[number] for number, _ in copies}) <= len(made) - len(gone)


@pytest.mark.parametrize("rows", [1, 1000, 1001, 16_000])
def test_ranges_cover_all_keys_once_and_hold_about_as_many_each(rows):
    keys = np.sort(np.random.default_rng(0).integers(0, 2**64, rows, dtype=np.uint64))
    ranges = ranges_for(rows, 1000)
    slices = [ranges.slice_of(name, keys) for name in ranges.names]
    assert [place for here in slices for place in range(here.start, here.stop)] == list(range(rows))
    assert max(here.stop - here.start for here in slices) < 1.2 * 1000
