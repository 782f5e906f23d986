import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenops.data.quality.pii import KINDS, mask


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
     "-", "1", "word", ":", "2606:4700:4700::1111", "(212) 736-5000", "\n", "@", "/"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=20).map("".join))
def test_masking_a_masked_text_changes_nothing(text):
    once, _ = mask(text)
    assert mask(once) == (once, {})


def test_every_kind_is_found_in_one_text():
    text = "jane@firm.de 8.8.8.8 +49 30 901820 DE89 3704 0044 0532 0130 00 4111 1111 1111 1111"
    assert mask(text)[1] == dict.fromkeys(KINDS, 1)
