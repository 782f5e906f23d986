"""A folder as somebody else fills it: archives of warcio, pages and texts of many charsets, rows, tables, packed files.

Everything is written by a program that is not ours, and what must come of each file and record stands beside it.
"""

import bz2
import gzip
import io
import json
import os
import random
import tarfile
import zipfile
import zlib
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

# The same words in each language: a page whose charset was guessed wrong is not the words that went in.
WORDS = {
    "en": "The keeper writes down every evening the hour at which she lights the lamp above the water. ",
    "de": "Der Wärter schreibt jeden Abend auf, um wieviel Uhr er die Lampe über dem Fluß anzündet. ",
    "fr": "Le gardien note chaque soir l'heure à laquelle il allume la lampe au-dessus de l'eau, même l'été. ",
    "pl": "Latarnik każdego wieczoru zapisuje godzinę, o której zapala lampę nad wodą, choćby wiał wiatr. ",
    "ru": "Смотритель каждый вечер записывает час, когда зажигает лампу над водой. ",
    "zh": "守灯人每天晚上都会记下点亮水面上那盏灯的时间，朱镕基先生也曾来过这座港口。",
    # One syllable (뷁) is in Windows' Korean charset and not in EUC-KR as it was first written down.
    "ko": "등대지기는 매일 저녁 물 위의 등불을 켠 시간을 적고 뷁 소리를 낸다. 항구는 조용했다. ",
    # One character (①) is in Windows' Japanese charset alone.
    "ja": "灯台守は毎晩、水の上のランプを灯した時刻を①冊の帳面に書き留める。港は静かだった。",
}
WORDS = {language: (text * 5).strip() for language, text in WORDS.items()}
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00"


class Expected:
    """What must come of the folder: by address the text of what is kept and the reason of what is dropped.

    What is no text but cannot be told by name is kept by `collect`, and dropped as "undecodable" when it is decoded.
    """

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.dropped: dict[str, str] = {}
        self.undecodable: set[str] = set()


def page(text: str, charset: str = "") -> str:
    meta = f'<meta charset="{charset}">' if charset else ""
    return (
        f"<!DOCTYPE html><html><head>{meta}<title>lamp</title><script>var x = 1;</script></head>"
        f"<body><nav><a href='/'>home</a></nav><article><p>{text}</p></article></body></html>"
    )


def chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


class Crawl:
    """A WARC file by warcio; `damage` spoils one of its records afterwards."""

    def __init__(self, *, packed: bool) -> None:
        self.file = io.BytesIO()
        self.writer = WARCWriter(self.file, gzip=packed)
        self.writer.write_record(self.writer.create_warcinfo_record("crawl.warc", {"software": "warcio"}))
        self.places: dict[str, tuple[int, int]] = {}

    def response(self, url, body, mime="text/html", status="200 OK", **headers):
        lines = [("Content-Type", mime), *((name.replace("_", "-"), value) for name, value in headers.items())]
        head = StatusAndHeaders(status, lines, protocol="HTTP/1.1")
        return self.record(url, "response", io.BytesIO(body), http_headers=head)

    def record(self, url, kind, stream, **options):
        start = self.file.tell()
        self.writer.write_record(self.writer.create_warc_record(url, kind, payload=stream, **options))
        self.places[url] = (start, self.file.tell())

    def damage(self, url, replace=None):
        start, end = self.places[url]
        raw = self.file.getvalue()
        if replace:
            block = raw[start:end].replace(*replace, 1)
            assert block != raw[start:end]
        else:  # a bit in the middle of its gzip member
            middle = (end - start) // 2
            block = raw[start : start + middle] + bytes([raw[start + middle] ^ 0x10]) + raw[start + middle + 1 : end]
        return raw[:start] + block + raw[end:]


def write_crawls(folder: Path, expected: Expected) -> None:
    crawl, at = Crawl(packed=False), "http://plain.test"
    pages = {
        "utf8": ("en", "utf-8", "text/html; charset=utf-8", ""),
        "header-says": ("ru", "cp1251", "text/html; charset=Windows-1251", ""),
        "header-alone": ("ko", "cp949", 'text/html;charset="EUC-KR"', ""),
        "meta-says": ("ja", "cp932", "text/html", "shift_jis"),
        "nobody-says": ("pl", "iso8859-2", "text/html", ""),
        "header-is-a-default": ("ru", "koi8-r", "text/html; charset=ISO-8859-1", ""),
        "header-lies": ("de", "utf-8", "text/html; charset=iso-8859-1", ""),
    }
    for name, (language, charset, mime, meta) in pages.items():
        crawl.response(f"{at}/{name}", page(WORDS[language], meta).encode(charset), mime)
        expected.kept[f"{at}/{name}"] = WORDS[language]
    crawl.record(f"{at}/utf8", "request", io.BytesIO(b"GET /utf8 HTTP/1.1\r\nHost: plain.test\r\n\r\n"))
    crawl.response(f"{at}/gone", page("no such page").encode(), status="404 Not Found")
    crawl.response(f"{at}/moved", b"", status="301 Moved Permanently", Location="/utf8")
    crawl.response(f"{at}/picture", PNG, "image/png")
    crawl.response(f"{at}/says-html", PDF)
    crawl.response(f"{at}/bad", page(WORDS["en"]).encode())
    packed = chunked(gzip.compress(page(WORDS["fr"]).encode()))
    crawl.response(f"{at}/packed", packed, Transfer_Encoding="chunked", Content_Encoding="gzip")
    crawl.response(f"{at}/last", WORDS["en"].encode(), "text/plain")
    (folder / "plain.warc").write_bytes(crawl.damage(f"{at}/bad", (b"Content-Length: ", b"Content-Length: 9")))
    expected.kept |= {f"{at}/packed": WORDS["fr"], f"{at}/last": WORDS["en"]}
    expected.dropped |= {f"{at}/gone": "http_status", f"{at}/moved": "http_status", f"{at}/picture": "not_text"}
    expected.dropped |= {f"{at}/says-html": "unsupported_pdf", f"{at}/bad": "unreadable"}

    crawl, at = Crawl(packed=True), "http://packed.test"
    for number, language in enumerate(("en", "de", "zh", "fr")):
        crawl.response(f"{at}/{number}", page(WORDS[language]).encode(), "text/html; charset=utf-8")
        expected.kept[f"{at}/{number}"] = WORDS[language]
    del expected.kept[f"{at}/2"]
    (folder / "packed.warc.gz").write_bytes(crawl.damage(f"{at}/2"))
    # What is left of the record whose member is damaged does not hold its address.
    expected.dropped["folder://own/crawl/packed.warc.gz#rest"] = "unreadable"

    crawl, at = Crawl(packed=True), "http://texts.test"
    for language in ("en", "zh"):
        text = io.BytesIO(WORDS[language].encode())
        crawl.record(f"{at}/{language}", "conversion", text, warc_content_type="text/plain")
        expected.kept[f"{at}/{language}"] = WORDS[language]
    (folder / "texts.warc.wet.gz").write_bytes(crawl.file.getvalue())


def write_texts(folder: Path, expected: Expected) -> None:
    files = {
        "page.html": ("en", page(WORDS["en"]).encode()),
        "latin.htm": ("fr", page(WORDS["fr"]).encode("latin-1")),
        "chinese.html": ("zh", page(WORDS["zh"], "gb2312").encode("gbk")),
        "korean.html": ("ko", page(WORDS["ko"], "euc-kr").encode("cp949")),
        "japanese.html": ("ja", page(WORDS["ja"].replace("①", "一"), "iso-2022-jp").encode("iso2022_jp")),
        "an entry?id=3&x=#top": ("de", page(WORDS["de"]).encode()),
        "readme.md": ("en", WORDS["en"].encode()),
        "gb18030.txt": ("zh", WORDS["zh"].encode("gb18030")),
        "latin1.txt": ("de", WORDS["de"].encode("latin-1")),
        "korean.txt": ("ko", WORDS["ko"].replace("뷁", "북").encode("euc_kr")),
        "utf16.txt": ("pl", WORDS["pl"].encode("utf-16")),
        "koi8.txt.bz2": ("ru", bz2.compress(WORDS["ru"].encode("koi8-r"))),
        "mail.txt": ("ja", WORDS["ja"].replace("①", "一").encode("iso2022_jp")),
    }
    for name, (language, raw) in files.items():
        (folder / name).write_bytes(raw)
        text = WORDS[language].replace("①", "一") if name in ("mail.txt", "japanese.html") else WORDS[language]
        expected.kept[f"folder://own/texts/{name}"] = text.replace("뷁", "북") if name == "korean.txt" else text
    for name, shown in ((b"caf\xe9.txt", r"caf\xe9.txt"), (b"\xb5\xc6.md", r"\xb5\xc6.md")):
        with open(os.fsencode(folder) + b"/" + name, "wb") as stream:
            stream.write(WORDS["en"].encode())
        expected.kept[f"folder://own/texts/{shown}"] = WORDS["en"]


def write_rows(folder: Path, expected: Expected) -> None:
    rows = [{"text": WORDS[language], "id": f"row-{language}"} for language in ("en", "zh", "de")]
    lines = "".join(json.dumps(row, ensure_ascii=language == 0) + "\n" for language, row in enumerate(rows)).encode()
    broken = lines + b'{"text": "cut in the mid\n' + json.dumps({"title": "no text"}).encode() + b"\n"
    files = {
        "lines.json": broken,
        "lines.json.gz": gzip.compress(broken),
        "lines.ndjson": broken,
        "array.json": json.dumps(rows, indent=1).encode(),
        "named.jsonl": json.dumps({"text": WORDS["fr"], "url": "http://rows.test/1"}).encode(),
    }
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
        at = f"folder://own/rows/{name}"
        if name.startswith("lines"):
            expected.dropped |= {f"{at}#4": "unreadable", f"{at}#5": "no_text"}
        if name != "named.jsonl":
            expected.kept |= {f"{at}#{number}": row["text"] for number, row in enumerate(rows, 1)}
    expected.kept["http://rows.test/1"] = WORDS["fr"]


def write_no_documents(folder: Path, expected: Expected) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = len(WORDS["en"])
        archive.addfile(member, io.BytesIO(WORDS["en"].encode()))
    document = io.BytesIO()
    with zipfile.ZipFile(document, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", f"<w:t>{WORDS['en']}</w:t>")
    notebook = {"cells": [{"cell_type": "markdown", "source": [WORDS["en"]]}], "nbformat": 4, "nbformat_minor": 5}
    chat = {"messages": [{"role": "user", "content": WORDS["en"]}, {"role": "assistant", "content": WORDS["de"]}]}
    table = "".join(f"{number},{WORDS['en'][:40]},{number * number}\n" for number in range(20))
    cut = gzip.compress("".join(f"{number}. {WORDS['en'][:80]}\n" for number in range(400)).encode())[:-200]
    files = {
        "table.csv": (table.encode(), "unsupported_csv"),
        "paper.pdf": (PDF, "unsupported_pdf"),
        "paper": (PDF, "unsupported_pdf"),
        "all.tar.gz": (packed.getvalue(), "unsupported_tar"),
        "letter.docx": (document.getvalue(), "unsupported_docx"),
        "analysis.ipynb": (json.dumps(notebook, indent=1).encode(), "no_text"),
        "chats.jsonl": (json.dumps(chat).encode() + b"\n", "unsupported_chat"),
        "empty.txt": (b"", "empty"),
        "blank.md": (b" \n\n", "empty"),
        "cut.txt.gz": (cut, "truncated"),
    }
    for name, (raw, reason) in files.items():
        (folder / name).write_bytes(raw)
        # A row or a part of a file is named by its number, a whole file by its name.
        inside = {"chats.jsonl": "#1", "analysis.ipynb": "#1", "cut.txt.gz": "#rest"}.get(name, "")
        expected.dropped[f"folder://own/others/{name}{inside}"] = reason
    expected.kept["folder://own/others/cut.txt.gz"] = zlib.decompressobj(wbits=31).decompress(cut).decode()
    (folder / "noise.dat").write_bytes(random.Random(1).randbytes(3000))
    expected.undecodable = {"folder://own/others/noise.dat"}


def write_all(folder: Path) -> Expected:
    """Fill `folder`; returns what must come of it."""
    expected = Expected()
    writers = {"crawl": write_crawls, "texts": write_texts, "rows": write_rows, "others": write_no_documents}
    for name, write in writers.items():
        (folder / name).mkdir(parents=True)
        write(folder / name, expected)
    return expected
