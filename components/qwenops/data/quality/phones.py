"""Telephone numbers in text, judged by the numbering plans of `phonenumbers`.

A number with a country code, or in the form of North America, is known by itself. Every other country writes numbers
that look like any number, so those are believed only behind a word for a telephone, and where some country's plan
holds them.
"""

import re
from functools import lru_cache

import phonenumbers

# Countries of the languages that the recipe names, and their neighbours in language.
_REGIONS = (
    "US", "GB", "CN", "TW", "HK", "SG", "JP", "KR", "DE", "AT", "CH", "FR", "BE", "ES", "MX", "AR", "CO", "PT", "BR",
    "IT", "NL", "RU", "UA", "CZ", "PL", "TR", "SA", "AE", "EG", "IR", "IL", "VN", "TH", "ID", "MY", "LA", "MM", "KH",
    "PH", "IN", "PK", "BD", "AU", "NZ", "IE", "ZA", "SE", "NO", "DK", "FI",
)  # fmt: skip
# Digits in groups; no part of a longer row of digits, a decimal number, a word or a path.
CANDIDATE = re.compile(
    r"(?<![A-Za-z0-9_+/#])(?<!\d[.,:-])(?:\+ ?)?\(?\+?\d(?:(?:[ .\u2010-\u2013-]|\) ?|\)-| ?\(| - |/)?\d){5,16}"
    r"(?![A-Za-z0-9_/]|[.,:-]\d|%)"
)
_BORDER = re.compile(r"(?<=\d)\D+(?=\d)")
_NORTH_AMERICAN = re.compile(
    r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ -]?[2-9]\d\d[ .-]|([2-9]\d\d)([.-])[2-9]\d\d\2|(?<=1 )[2-9]\d\d [2-9]\d\d )\d{4}"
)
_GROUPED = re.compile(r"[2-9]\d\d ?[2-9]\d\d ?\d{4}|[2-9]\d\d-\d{4}")
_DATES = re.compile(
    r"(?:19|20)\d\d ?[-\u2013/.] ?(?:(?:19|20)\d\d|[01]?\d[-/.][0-3]?\d)|[0-3]?\d[-/.][0-3]?\d[-/.](?:19|20)\d\d"
)
_TELEPHONE = (
    "tel telephone telephones phone phones cellphone cell\\ phone mobile mobil"
    " móvil celular cellulare handy fax hotline"
    " whatsapp sms call rufnummer telefon telefone telefono teléfono telefoon telemóvel téléphone tél"
    " appelez ligue llame bel kom cep telepon telp hubungi тел телефон телефону моб звоните điện\\ thoại đt sđt"
)
_UNSPACED_TELEPHONE = (
    "电话 電話 座机 手机 手機 热线 熱線 传真 傳真 联系方式 聯絡 致电 拨打 微信 携帯 ファックス"
    " 전화 휴대폰 핸드폰 연락처 팩스"
    " โทร มือถือ هاتف جوال تلفن موبایل فون טלפון נייד फोन फ़ोन मोबाइल ফোন"
)
_BETWEEN = (
    "number numbers nummer numéro número numero no nr me us him her is at on to am or ist office home work mobile phone"
    " free au al unter или номер"
)
_UNSPACED_BETWEEN = "号码 號碼 番号 号 號 是 为 번호 ศัพท์ ที่"


def _any_of(words: str) -> str:
    return "|".join(re.split(r"(?<!\\) ", words))


_NAMED = re.compile(
    rf"(?i)(?:\b(?:{_any_of(_TELEPHONE)}|[tmpf](?=[.:]))(?![^\W\d_])|{_any_of(_UNSPACED_TELEPHONE)})"
    rf"(?:\W|\b(?:{_any_of(_BETWEEN)})\b|{_any_of(_UNSPACED_BETWEEN)})*\Z"
)
_BEFORE = 48
_FEWEST_DIGITS = 7


def phone(match: re.Match[str]) -> str:
    """A match of `CANDIDATE` with zeros for the digits of the telephone number that it begins with, if it does."""
    whole = match.group()
    before = match.string[max(match.start() - _BEFORE, 0) : match.start()]
    named = _NAMED.search(before.rpartition("\n")[2]) is not None
    if not named and not whole.lstrip("( ").startswith("+"):
        return _zeros(whole) if _NORTH_AMERICAN.fullmatch(whole) else whole
    borders = [found.start() for found in _BORDER.finditer(whole)]
    for end in (len(whole), *reversed(borders)):
        if is_number(whole[:end], named):
            return _zeros(whole[:end]) + whole[end:]
    return whole


@lru_cache(maxsize=4096)
def is_number(text: str, named: bool) -> bool:
    """Whether a text of digits and signs is a telephone number.

    Args:
        text: What might be one.
        named: Whether a word for a telephone stands before it, so that national forms count.
    """
    if sum(map(str.isdigit, text)) < _FEWEST_DIGITS or not text.strip("+()0 .-") or _DATES.fullmatch(text.strip("()")):
        return False
    if _NORTH_AMERICAN.fullmatch(text) or (named and _GROUPED.fullmatch(text)):
        return True
    return any(_is_valid(text, region) for region in (_REGIONS if named and "+" not in text else (None,)))


def _is_valid(text: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def _zeros(text: str) -> str:
    return re.sub(r"\d", "0", text)
