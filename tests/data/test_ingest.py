# ruff: noqa: E501 - sample texts are long lines
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenops.contracts.document import PAGE_SCHEMA, check_documents, part_paths, read_documents, read_funnel, write_part
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.ingest.documents import ingest_pages, page_text, split_of
from qwenops.data.ingest.language import identify_language
from qwenops.data.ingest.main_text import boilerplate_share, extract, trim_boilerplate
from qwenops.data.ingest.markup import nesting_depth
from qwenops.data.ingest.run import run
from qwenops.data.ingest.text import damaged_share, decode, normalise, normalise_code

_FAST = IngestConfig(extractor="resiliparse")
# Article 1 and 2 of the Universal Declaration of Human Rights, or plain sentences of that kind.
_SENTENCES = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de consciência.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en geweten.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았다.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. Mọi con người đều được tạo hoá ban cho.",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً وعليهم أن يعامل بعضهم بعضاً بروح الإخاء.",
    "he": "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem.",
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím.",
}
_ARTICLE = "<p>{0} {0}</p><p>{0} {0} {0}</p>"


def _html(text: str) -> bytes:
    return (
        "<html><head><title>Title</title><script>var secretscript = 1;</script><style>.secretstyle{}</style></head><body>"
        "<nav><ul><li><a href='/'>secretmenu home</a></li><li><a href='/b'>secretmenu products</a></li></ul></nav>"
        f"<main><article><h1>Heading</h1>{_ARTICLE.format(text)}</article></main>"
        "<!-- secretcomment --><footer><a href='/legal'>secretfooter imprint</a></footer></body></html>"
    ).encode()


def _pages(*rows: dict) -> pa.Table:
    common = {
        "source": "s",
        "domain": "web",
        "url": "u",
        "license": "CC0-1.0",
        "fetched_at": "",
        "lang_hint": "",
        "record_id": "",
    }
    table = [common | {"id": f"p{n}", "mime": "text/plain"} | row for n, row in enumerate(rows)]
    return pa.Table.from_pylist(table, schema=PAGE_SCHEMA)


def test_trimming_cuts_head_labels_footers_and_repeated_captions():
    prose = [
        "A first sentence of the article, long enough to be prose.",
        "Another one follows it, as long as the first.",
    ]
    lines = ["The title", "By A. Writer", prose[0], "Advertisement", "A caption", prose[1], "A caption",
             "\u00a9 2020 Some paper. All rights reserved.", "A closing line"]  # fmt: skip
    assert trim_boilerplate("\n".join(lines)).split("\n") == [*prose, "A closing line"]


def test_trimming_leaves_a_text_without_prose_as_it_is():
    assert trim_boilerplate("One\nTwo\nThree") == "One\nTwo\nThree"
    assert boilerplate_share("One\nTwo\nThree") == 1.0
    assert (
        boilerplate_share("\u8fd9\u662f\u4e00\u4e2a\u8db3\u591f\u957f\u7684\u4e2d\u6587\u53e5\u5b50\u4e86\u5417\uff1f")
        == 0.0
    )


@pytest.mark.parametrize("lang", ["en", "zh", "de", "ru", "ja", "ar"])
@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "combined"])
def test_extraction_keeps_the_article_and_drops_scripts_and_menus(lang, extractor):
    text = extract(_html(_SENTENCES[lang]).decode(), extractor)
    assert text.count(_SENTENCES[lang]) == 5 or (extractor == "trafilatura" and _SENTENCES[lang] in text)
    assert "secret" not in text


def test_language_of_labelled_sentences_is_right_for_nearly_all():
    wrong = {lang: identify_language(text) for lang, text in _SENTENCES.items() if identify_language(text)[0] != lang}
    assert len(wrong) <= 0.05 * len(_SENTENCES), wrong
    assert all(0 <= identify_language(text)[1] <= 1 for text in _SENTENCES.values())


def test_language_of_asian_text_full_of_product_names_goes_by_script():
    assert identify_language("使用 LibreOffice Calc 和 Microsoft Excel 打开 CSV 文件，然后点击保存按钮")[0] == "zh"
    assert identify_language("LibreOffice Calc で CSV ファイルを開き、Microsoft Excel の形式で保存します")[0] == "ja"


@pytest.mark.parametrize("text", ["12345 67890 --- +++ 2024", "", "\U0001f600 \U0001f680"])
def test_language_of_text_without_letters_is_undecided(text):
    assert identify_language(text) == ("", 0.0)


@pytest.mark.parametrize(
    ("lang", "charset"),
    [("zh", "gb18030"), ("ja", "shift_jis"), ("ru", "windows-1251"), ("de", "utf-16"), ("zh", "utf-8-sig")],
)
def test_decode_finds_the_charset_that_a_page_declares_or_shows(lang, charset):
    text = f"<html><head><meta charset='{charset}'></head><body>{_SENTENCES[lang] * 5}</body></html>"
    assert _SENTENCES[lang] in decode(text.encode(charset))


_KOREAN = (
    "등대지기는 매일 저녁 물 위의 등불을 켠 시간을 적는다. 항구는 조용했고 배들은 회색 빛 속에 머물러 있었다. " * 4
)


@pytest.mark.parametrize(
    ("text", "charset", "stated"),
    [
        (_KOREAN, "euc_kr", ""),
        (_KOREAN + "뷁", "cp949", ""),
        ("뷁", "cp949", "EUC-KR"),
        ("①", "cp932", "shift_jis"),
        ("㐂", "gb18030", "gb2312"),
        (_SENTENCES["ru"], "koi8-r", "koi8-r"),
        (_SENTENCES["ru"] * 5, "cp1251", "iso-8859-1"),
        (_SENTENCES["ru"] * 5, "cp1251", "us-ascii"),
        (_SENTENCES["de"], "utf-8", "windows-1251"),
        (_SENTENCES["ru"] * 5, "cp1251", "x-no-such"),
        (_SENTENCES["ru"] * 5, "cp1251", "hex"),
        (_SENTENCES["ja"] * 5, "iso2022_jp", ""),
        ("\x1b[31mred\x1b[0m and plain", "ascii", ""),
    ],
)
def test_decode_believes_utf8_then_the_server_then_the_bytes(text, charset, stated):
    assert decode(text.encode(charset), stated) == text


@pytest.mark.parametrize(
    ("raw", "mime", "reason"),
    [
        (b"", "text/html", "empty"),
        (b"<html><body><script>x</script></body></html>", "text/html", "empty"),
        (b"<div>" * 100_000 + b"text", "text/html", "deep_markup"),
        (b"<b><i>" * 300 + b"text", "text/html", "deep_markup"),
        (bytes(range(128, 256)) * 20 + b"\x00\x01\x02" * 50, "text/plain", "undecodable"),
        (b"word " * 1_200_000, "text/plain", "too_large"),
        (b"caf\xe9 is good " * 50 + b"and this is an English sentence for the test.", "text/plain", ""),
    ],
    ids=["nothing", "only-script", "nested-div", "nested-inline", "binary", "huge-line", "latin-1"],
)
def test_page_text_of_bad_input_has_a_reason(raw, mime, reason):
    assert page_text(raw, mime, "web", _FAST)[1] == reason


def test_nesting_of_a_long_list_is_flat():
    assert nesting_depth("<ul>" + "<li>item<p>text<br>" * 5000 + "</ul>", 200) == 1


def _plain_nesting(html: str) -> int:
    """The depth, a tag at a time."""
    depth = deepest = 0
    for closing, name, empty in re.findall(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)[^<>]*?(/?)>", html):
        if empty or name.lower() in ("br", "img", "li", "p", "td", "tr", "option"):
            continue
        depth = max(depth - 1, 0) if closing else depth + 1
        deepest = max(deepest, depth)
    return deepest


_MARKUP = st.sampled_from(
    ["<div>", "</div>", "<b class='x'>", "</b>", "<BR>", "<br/>", "<img src=x/>", "<li>", "<p>", "</p>", "<i/>", "<", ">",
     "/", "text", "<!-- note -->", "<1>", "<h1>", "</h1>", "<options>", "<abbreviation>", "</ div>", "\u00e9"]
)  # fmt: skip


@given(st.lists(_MARKUP, max_size=60).map("".join), st.integers(1, 40))
def test_nesting_agrees_with_counting_a_tag_at_a_time(html, limit):
    assert nesting_depth(html, limit) == min(_plain_nesting(html), limit + 1)


@given(st.text(st.characters() | st.sampled_from("\x00\x1f\t\n\x7f\x80\x9f\ufffd\ufeff\u200b\u2060"), max_size=80))
def test_damaged_share_counts_control_and_replacement_characters(text):
    damaged = [
        c for c in text if (ord(c) < 32 and c not in "\t\n\r") or 127 <= ord(c) < 160 or c in "\ufffd\ufeff\u200b\u2060"
    ]
    assert damaged_share(text) == pytest.approx(len(damaged) / max(len(text), 1))


@given(st.text(max_size=200))
def test_normalise_is_idempotent_and_leaves_no_control_characters(text):
    once = normalise(text)
    assert normalise(once) == once
    assert "\n\n\n\n" not in once and not any(ord(letter) < 32 and letter not in "\t\n" for letter in once)


def test_normalise_code_keeps_indentation():
    assert normalise_code("def f():\r\n    return 1  # e\u0301\r\n") == "def f():\n    return 1  # \u00e9"


@given(st.binary(max_size=300), st.sampled_from(["text/html", "text/plain"]), st.sampled_from(["web", "code"]))
def test_ingest_any_bytes_are_kept_or_dropped_never_raised(raw, mime, domain):
    kept, dropped, _ = ingest_pages(_pages({"raw": raw, "mime": mime, "domain": domain}), _FAST)
    assert kept.num_rows + dropped.num_rows == 1
    check_documents(kept, "test")


def test_ingest_program_keeps_its_domain_and_has_no_human_language():
    kept, _, _ = ingest_pages(_pages({"raw": b"import os\nprint(os.name)\n", "domain": "code"}), _FAST)
    assert (kept["lang"][0].as_py(), kept["domain"][0].as_py()) == ("code", "code")


def test_ingest_language_that_is_not_listed_is_dropped():
    config = IngestConfig(extractor="resiliparse", languages=("en",))
    kept, dropped, _ = ingest_pages(_pages({"raw": _SENTENCES["de"].encode()}), config)
    assert kept.num_rows == 0 and dropped["reason"].to_pylist() == ["lang_not_listed"]


def test_ingest_uncertain_language_is_dropped():
    config = IngestConfig(extractor="resiliparse", min_language_score=1.0)
    _, dropped, _ = ingest_pages(_pages({"raw": b"Menu File Edit"}, {"raw": b"123 456"}), config)
    assert dropped["reason"].to_pylist() == ["lang_low_conf", "lang_low_conf"]


def test_split_has_the_share_asked_for_and_depends_on_the_id_alone():
    splits = [split_of(str(n), 0.04) for n in range(20_000)]
    assert 0.035 < splits.count("heldout") / len(splits) < 0.045
    assert splits == [split_of(str(n), 0.04) for n in range(20_000)]


def _artifact(folder: Path) -> Path:
    rows = [{"id": f"{lang}{n}", "raw": _html(text + f" {n}."), "mime": "text/html", "lang_hint": lang}
            for lang, text in _SENTENCES.items() for n in range(4)]  # fmt: skip
    rows.append({"id": "bomb", "raw": b"<div>" * 5000, "mime": "text/html"})
    for part in range(4):
        write_part(_pages(*rows[part::4]), folder / "pages" / f"part-{part:05}.parquet")
    return folder


def test_ingest_run_accounts_for_every_page_and_resumes_with_the_parts_it_lacks(tmp_path, make_stage):
    pages = _artifact(tmp_path / "pages")
    stage = make_stage("ingest")
    run(_FAST, pages=pages, stage=stage)
    funnel = read_funnel(stage.out)
    assert funnel.read == 4 * len(_SENTENCES) + 1 == funnel.kept + sum(funnel.dropped.values())
    assert funnel.dropped["deep_markup"] == 1
    assert stage.metrics["language.accuracy"] >= 0.9
    documents = read_documents(stage.out)
    check_documents(documents, "all")
    assert set(documents["lang"].to_pylist()) >= {"en", "zh", "ja", "ko", "ru", "ar"}
    assert sum(row["pages"] for row in json.loads((stage.out / "languages.json").read_text()).values()) > 60

    again = make_stage("ingest_resumed")
    parts = again.scratch / "parts"
    (stage.scratch / "parts").rename(parts)
    lost = part_paths(parts)[1]
    lost.unlink()
    (parts / ".summaries" / f"{lost.stem}.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in part_paths(parts)}
    run(_FAST, pages=pages, stage=again)
    after = {path.name: path.stat().st_mtime_ns for path in part_paths(parts)}
    assert all(after[name] == time for name, time in before.items()) and lost.name in after
    assert read_documents(again.out).equals(documents)


_PROGRAM = """def squares(numbers):
    found = []

    for number in numbers:
        if number:
            found.append(number ** 2)
        else:
            continue


    return found, "a  b"
"""
_TALK = "The function takes the numbers in their order and gives the square of each of them. Zeros are left out."
_MANUAL = f"""<html><head><title>Squares</title></head><body><article><h1>About squares</h1><p>{_TALK}</p>
<pre><code class="language-python">{_PROGRAM}</code></pre><p>{_TALK}</p><ul><li>takes an iterable</li><li>gives a list</li>
</ul><p>Load it so:</p><pre>import squares</pre><p>or once more:</p><pre>import squares</pre></article></body></html>"""


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "combined"])
def test_page_keeps_its_programs_title_lists_and_lines_that_occur_twice(extractor):
    text, reason = page_text(_MANUAL.encode(), "text/html", "web", IngestConfig(extractor=extractor))
    start = text.index("def squares")
    names: dict = {}
    exec(compile(text[start : text.index('"a  b"') + 6], "page", "exec"), names)
    assert names["squares"]([1, 0, 3]) == ([1, 9], "a  b")
    assert not reason and text.count("import squares") == 2 and text.count(_TALK) == 2
    assert "About squares" in text and "takes an iterable" in text and "gives a list" in text


@pytest.mark.parametrize("domain", ["web", "prose", "math", "code"])
def test_text_keeps_its_indentation_whatever_its_domain(domain):
    raw = f"# Squares\r\n\r\n{_TALK}\u00a0\r\n\r\n```python\r\n{_PROGRAM}```\n".encode()
    text, _ = page_text(raw, "text/markdown", domain, _FAST)
    assert _PROGRAM in text and text.startswith("# Squares\n\n")


def test_heading_of_a_page_without_one_is_its_title_and_menus_near_the_root_still_go():
    menu = "<ul><li><a href='/'>menu one</a></li><li><a>two</a></li></ul>"
    body = f"{menu}<p>{_TALK}</p><ul><li>an item</li></ul>"
    page = f"<html><head><title>The  title</title></head><body>{body}</body></html>"
    text = extract(page, "resiliparse")
    assert text.startswith("The title\n\n") and "menu one" not in text and "an item" in text


def test_documents_of_the_cases_hold_the_program_whole():
    folder = Path(__file__).parents[2].parent / "shared/cases/data/code"
    if not folder.exists():
        pytest.skip("the shared cases are not here")
    program = json.loads((folder / "expected.json").read_text())["program"].rstrip()
    for extractor in ("trafilatura", "resiliparse", "combined"):
        page, _ = page_text((folder / "page.html").read_bytes(), "text/html", "web", IngestConfig(extractor=extractor))
        assert program in page and page.count("import rows") == 2 and "first item" in page and "Grouping" in page
    assert program in page_text((folder / "page.md").read_bytes(), "text/markdown", "web", _FAST)[0]
