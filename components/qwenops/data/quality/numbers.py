"""Numbers of people and accounts that carry a check of their own: bank accounts, payment cards, national identities.

The checks are those of `python-stdnum`. A text is full of numbers that merely look alike, so a form that any number
may have counts only behind a word for an identity, and a card's or a citizen's digits are not what a program computes.
"""

import re

from stdnum import iban as iban_numbers
from stdnum import luhn
from stdnum.br import cpf
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr as german
from stdnum.es import dni, nie
from stdnum.exceptions import ValidationError
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.in_ import aadhaar
from stdnum.iso7064 import mod_11_2
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.th import pin
from stdnum.tr import tckimlik
from stdnum.us import ssn
from stdnum.za import idnr as south_african

# No part of a longer word or number; scripts without blanks may stand at both sides.
_START, _END = r"(?<![A-Za-z0-9_])(?<!\d[.,/-])", r"(?![A-Za-z0-9_]|[.,/-]\d)"
IBAN = re.compile(_START + r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9_])")
CARD = re.compile(
    r"(?<!= )(?<!=)(?<!-)(?<![/.,])" + _START
    + r"(?:[3-6]\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,7}|3[47]\d\d[ -]?\d{6}[ -]?\d{5})(?![/-])" + _END
)  # fmt: skip
_CARD_DIGITS = range(13, 20)

CHINESE = re.compile(_START + r"[1-9]\d{5}[ -]?(?:18|19|20)\d{6}[ -]?\d{3}[\dXx]" + _END)
# Forms that little else has.
DISTINCT = re.compile(
    _START + r"(?:\d{3}-\d\d-\d{4}|\d{3}\.\d{3}\.\d{3}-\d\d|\d{6}-[1-8]\d{6}|[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z0-9]\d"
    r"|[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z])" + _END
)  # fmt: skip
_DISTINCT = (ssn, cpf, rrn, curp, codicefiscale)
NAMED = re.compile(_START + r"[A-Z]{0,2} ?\d(?:[ ./-]?\d){5,14}(?:[ -]?[A-Z\d]{1,4})?" + _END)
_NAMED = (
    *_DISTINCT, aadhaar, bsn, dni, german, hetu, nie, nir, pesel, personnummer, pin, rc, south_african, tckimlik,
)  # fmt: skip
_BRITISH = re.compile(r"[A-CEGHJ-PR-TW-Z]{2}(?: ?\d\d){3} ?[A-D]")
_IDENTITY = re.compile(
    r"(?i)(?:\b(?:ssn|social security|national (?:insurance|identity|id)|identity|id (?:card|no|number)|aadhaar|pesel"
    r"|bsn|dni|nie|cpf|nir|nin|nino|nric|tckn|t\.?c\.? kimlik|personnummer|hetu|steuer-?id(?:entifikationsnummer)?"
    r"|rodné číslo|sécurité sociale|codice fiscale)\b|身份证|身分證|주민등록|บัตรประชาชน|आधार)"
    r"(?:\W|\b(?:number|no|nr|num|card|is|code|numéro|número|numero|es|est|è|ist)\b|号码|號碼|号|號|是|为|번호)*\Z"
)
_BEFORE = 48


def iban(match: re.Match[str]) -> str:
    """A match of `IBAN` with zeros behind its country where its checks hold."""
    whole = match.group()
    return whole[:2] + _zeros(whole[2:]) if iban_numbers.is_valid(whole) else whole


def card(match: re.Match[str]) -> str:
    """A match of `CARD` in zeros where its checksum (Luhn) holds."""
    whole = match.group()
    digits = re.sub(r"\D", "", whole)
    if len(digits) not in _CARD_DIGITS or len(set(digits)) == 1:
        return whole
    return _zeros(whole) if luhn.is_valid(digits) else whole


def chinese(match: re.Match[str]) -> str:
    """A match of `CHINESE` in zeros where it holds a day and its check character (ISO 7064) is right."""
    whole = match.group()
    bare = re.sub(r"[ -]", "", whole).upper()
    try:
        ric.get_birth_date(bare)
    except ValidationError:
        return whole
    return _zeros(whole) if mod_11_2.is_valid(bare) else whole


def distinct(match: re.Match[str]) -> str:
    """A match of `DISTINCT` in zeros where one of the numbers of that form it is."""
    whole = match.group()
    return _zeros(whole) if any(kind.is_valid(whole) for kind in _DISTINCT) else whole


def named(match: re.Match[str]) -> str:
    """A match of `NAMED` in zeros where a word for an identity stands before it and one country's check holds."""
    whole = match.group()
    before = match.string[max(match.start() - _BEFORE, 0) : match.start()].rpartition("\n")[2]
    if not _IDENTITY.search(before):
        return whole
    bare = re.sub(r"[ ./-]", "", whole)
    right = _BRITISH.fullmatch(whole) or any(kind.is_valid(bare) for kind in _NAMED)
    return _zeros(whole) if right else whole


def _zeros(text: str) -> str:
    return re.sub(r"[A-Za-z\d]", "0", text)
