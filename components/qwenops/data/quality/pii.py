"""Mask personal data in text: e-mail and public IP addresses, phone numbers, IBANs and payment cards.

A placeholder keeps the shape of what it stands for, as FineWeb's published masking does, so that a model still learns
how such things are written: reserved names and addresses (RFC 2606, 5737, 3849), zeros for digits. Numbers are masked
only where their own checksum holds, since a text is full of numbers that merely look alike.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence

_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]{2,24}\b")
_RESERVED_HOSTS = ("example.com", "example.org", "example.net")
# Not behind "v", "version" or "release", and not part of a longer dotted number.
_IPV4 = re.compile(r"(?i)(?<![\w.-])(?<!version )(?<!release )\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?i)(?<![\w:.])[23][0-9a-f]{3}(?::[0-9a-f]{0,4}){2,7}(?![\w:])")
_PHONE = re.compile(
    r"(?<![\w+/.-])(?:\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,6}"
    r"|(?:\+?1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4})"
    r"(?![\w/]|[.-]\d)"
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_CARD = re.compile(
    r"(?<![\w.,/-])(?:[3-6]\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,7}|3[47]\d\d[ -]?\d{6}[ -]?\d{5})(?![\w/-]|[.,]\d)"
)
_EMAIL_PLACEHOLDER, _IPV4_PLACEHOLDER, _IPV6_PLACEHOLDER = "email@example.com", "192.0.2.1", "2001:db8::1"
_PHONE_DIGITS = range(8, 16)
_CARD_DIGITS = range(13, 20)
_IBAN_CHARACTERS = range(15, 35)

KINDS = ("email", "iban", "card", "ip", "phone")


def mask(text: str, kinds: Sequence[str] = KINDS) -> tuple[str, dict[str, int]]:
    """Replace personal data; masking a masked text changes nothing.

    Args:
        text: Any text.
        kinds: Which of `KINDS` to look for.

    Returns:
        The text, and how many of each kind were replaced.
    """
    found: Counter[str] = Counter()
    for kind in (kind for kind in KINDS if kind in kinds):
        for pattern, placeholder in _PATTERNS[kind]:
            text = pattern.sub(_Replacement(kind, placeholder, found), text)
    return text, {kind: count for kind, count in found.items() if count}


class _Replacement:
    """Counts what its pattern finds and its check confirms."""

    def __init__(self, kind: str, placeholder: Callable[[str], str], found: Counter[str]) -> None:
        self.kind, self.placeholder, self.found = kind, placeholder, found

    def __call__(self, match: re.Match[str]) -> str:
        whole = match.group()
        new = self.placeholder(whole)
        self.found[self.kind] += new != whole
        return new


def _email(address: str) -> str:
    host = address.rpartition("@")[2].lower()
    reserved = any(host == name or host.endswith("." + name) for name in _RESERVED_HOSTS)
    return address if reserved else _EMAIL_PLACEHOLDER


def _ipv4(address: str) -> str:
    return _IPV4_PLACEHOLDER if _is_public(address) else address


def _ipv6(address: str) -> str:
    bare = address.rstrip(":") if not address.endswith("::") else address
    return _IPV6_PLACEHOLDER + address[len(bare) :] if _is_public(bare) else address


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _phone(number: str) -> str:
    return _zeros(number) if len(_digits(number)) in _PHONE_DIGITS else number


def _iban(number: str) -> str:
    bare = number.replace(" ", "")
    if len(bare) not in _IBAN_CHARACTERS:
        return number
    value = int("".join(str(int(letter, 36)) for letter in bare[4:] + bare[:4]))
    return number[:2] + _zeros(number[2:]) if value % 97 == 1 else number


def _card(number: str) -> str:
    digits = [int(digit) for digit in _digits(number)]
    if len(digits) not in _CARD_DIGITS or len(set(digits)) == 1:
        return number
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return _zeros(number) if (sum(digits[-1::-2]) + doubled) % 10 == 0 else number


def _digits(text: str) -> str:
    return "".join(letter for letter in text if letter.isdigit())


def _zeros(text: str) -> str:
    return re.sub(r"[A-Z0-9]", "0", text)


_PATTERNS: dict[str, tuple[tuple[re.Pattern[str], Callable[[str], str]], ...]] = {
    "email": ((_EMAIL, _email),),
    "iban": ((_IBAN, _iban),),
    "card": ((_CARD, _card),),
    "ip": ((_IPV4, _ipv4), (_IPV6, _ipv6)),
    "phone": ((_PHONE, _phone),),
}
