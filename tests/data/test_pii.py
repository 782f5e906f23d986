import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenops.data.quality.config import QualityConfig
from qwenops.data.quality.pii import KINDS, mask

CASES = Path(__file__).parents[2].parent / "shared/cases/data/pii.jsonl"


@pytest.mark.parametrize(
    ("text", "masked", "kind"),
    [
        ("Write to jane.doe+news@mail.company.co.uk.", "Write to email@example.com.", "email"),
        ("mailto:j@firm.de, please", "mailto:email@example.com, please", "email"),
        ("ping 8.8.8.8, then", "ping 192.0.2.1, then", "ip"),
        ("from [93.184.216.34]:80", "from [192.0.2.1]:80", "ip"),
        ("at 2606:4700:4700::1111 too", "at 2001:db8::1 too", "ip"),
        ("call +49 30 901820 now", "call +00 00 000000 now", "phone"),
        ("call (212) 736-5000.", "call (000) 000-0000.", "phone"),
        ("call 212-736-5000 or", "call 000-000-0000 or", "phone"),
        ("to DE89 3704 0044 0532 0130 00.", "to DE00 0000 0000 0000 0000 00.", "iban"),
        ("to GB82WEST12345698765432,", "to GB00000000000000000000,", "iban"),
        ("card 4111 1111 1111 1111 ok", "card 0000 0000 0000 0000 ok", "card"),
        ("card 3782-822463-10005 ok", "card 0000-000000-00000 ok", "card"),
        ("卡号4111111111111111。", "卡号0000000000000000。", "card"),
        ("邮箱bo@lamp.test谢谢", "邮箱email@example.com谢谢", "email"),
        ("请拨打电话18612345678。", "请拨打电话00000000000。", "phone"),
        ("传真：021-62345678", "传真：000-00000000", "phone"),
        ("Tel. 089 1234567, Büro", "Tel. 000 0000000, Büro", "phone"),
        ("Tél : 01 42 68 53 00", "Tél : 00 00 00 00 00", "phone"),
        ("телефон: 8 (495) 123-45-67", "телефон: 0 (000) 000-00-00", "phone"),
        ("전화 010-1234-5678", "전화 000-0000-0000", "phone"),
        ("โทร 02-123-4567", "โทร 00-000-0000", "phone"),
        ("phone: 020 7946 0123 or", "phone: 000 0000 0000 or", "phone"),
        ("身份证号440524188001010014，", "身份证号000000000000000000，", "national_id"),
        ("born 529-98-1234 there", "born 000-00-0000 there", "national_id"),
        ("SSN: 529981234", "SSN: 000000000", "national_id"),
        ("CPF 390.533.447-05", "CPF 000.000.000-00", "national_id"),
        ("DNI 54362315K", "DNI 000000000", "national_id"),
        ("Aadhaar 2341 2341 2346", "Aadhaar 0000 0000 0000", "national_id"),
        ("id AS" + "IA" + "QRSTUVWXYZ234567", "id ASIA" + "0" * 16, "key"),
        ("use gh" + "o_" + "b2C3" * 9 + ".", "use gh" + "o_" + "0" * 36 + ".", "key"),
        ("hook xo" + "xb-" + "12-3456-" + "abcdef", "hook xo" + "xb-" + "00-0000-000000", "key"),
        (
            "a\n-----BEGIN EC PRIV" + "ATE KEY-----\nMHcC\n-----END EC PRIV" + "ATE KEY-----\nb",
            "a\n[private key]\nb",
            "key",
        ),
    ],
)
def test_personal_data_is_masked_in_its_shape_and_counted(text, masked, kind):
    assert mask(text) == (masked, {kind: 1})


@pytest.mark.parametrize(
    "text",
    [
        "nobody@example.com and info@mail.example.org are reserved",
        "a @decorator, name@ and user@localhost",
        "10.0.0.1, 127.0.0.1, 192.168.1.20 and 172.16.5.4 are private",
        "version 1.2.3.4, v8.8.8.8 and 8.8.8.8.8 are no addresses",
        "999.8.8.8 is none, and fe80::1 is local",
        "std::vector, a::b, 12:30:45 and 2001:db8::1",
        "2024-01-15, 15.01.2024, 1990-1995 and 12345-6789",
        "ISBN 978-3-16-148410-0 and 0-306-40615-2",
        "pi is 3.14159265358979, e is 2.71828182845904",
        "4111 1111 1111 1112 fails its checksum",
        "DE89 3704 0044 0532 0130 01 fails its checksum",
        "0000 0000 0000 0000 and 4444 4444 4444 4444 name nobody",
        "order 20240115093000, article 4006381333931",
        "10 000 000 people, 1,234,567.89 dollars, 123-456-7890",
        "sha 4111111111111111abcd and path/212-736-5000/x",
        "the constant is 2.718 212 736 5000 cm, as 1.618 415 408 5500 is",
        "seed = 4155550123, n=13912345678 and x = 2127365000 * 2",
        "state = 4111111111111111",
        "OID 1.3.14.3 of SHA-1, section 5.2.1.3, build 8.4.120.1",
        "the update to 114.0.57.199, libssl 3.0.13.2",
        "tel 1985-1989, phone 2023-01-15",
        "440524188001010015 fails its check, and so does 666-12-3456",
        "-----BEGIN PUBLIC KEY-----",
        "54362315K names nobody here",
    ],
)
def test_text_that_only_looks_like_personal_data_stays(text):
    assert mask(text) == (text, {})


def test_only_the_kinds_asked_for_are_masked():
    text = "jane@firm.de at 8.8.8.8"
    assert mask(text, ("ip",)) == ("jane@firm.de at 192.0.2.1", {"ip": 1})
    assert mask(text, ()) == (text, {})


_PIECES = st.sampled_from(
    ["jane@firm.de", "8.8.8.8", "+49 30 901820", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", " ", ", ", ".",
     "-", "1", "word", ":", "2606:4700:4700::1111", "(212) 736-5000", "\n", "@", "/", "tel ", "电话", "SSN ",
     "529-98-1234", "440524188001010014", "gh" + "p_" + "b2C3" * 9, "02 9876 5432", "="]
)  # fmt: skip


@settings(deadline=None)  # the first call reads the numbering plans
@given(st.lists(_PIECES, max_size=20).map("".join))
def test_masking_a_masked_text_changes_nothing(text):
    once, _ = mask(text)
    assert mask(once) == (once, {})


def test_every_kind_is_found_in_one_text():
    text = (
        "jane@firm.de 93.184.216.34 +49 30 901820, DE89 3704 0044 0532 0130 00 4111 1111 1111 1111 529-98-1234"
        " gh" + "p_" + "b2C3" * 9
    )
    assert mask(text)[1] == dict.fromkeys(KINDS, 1)


def test_every_kind_is_masked_by_default():
    assert QualityConfig().pii.kinds == KINDS


def test_every_row_of_the_cases_is_masked_as_its_kind_or_left():
    if not CASES.exists():
        pytest.skip("the shared cases are not here")
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    texts = ["".join(row["parts"]) for row in rows]
    masked = [mask(text, QualityConfig().pii.kinds) for text in texts]
    assert [found for _, found in masked] == [{row["masked"]: 1} if row["masked"] else {} for row in rows]
    assert [text for row, (text, _) in zip(rows, masked, strict=True) if not row["masked"]] == [
        text for row, text in zip(rows, texts, strict=True) if not row["masked"]
    ]
