"""Mask personal data in text: addresses, telephone numbers, accounts, national identities and keys.

A placeholder keeps the shape of what it stands for, as FineWeb's published masking does, so that a model still learns
how such things are written: reserved names and addresses (RFC 2606, 5737, 3849), zeros for digits. Numbers are masked
only where their own checksum or numbering plan holds, since a text is full of numbers that merely look alike.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import regex

from qwenops.data.quality import keys, numbers, phones
from qwenops.tasks.overlap import UNSPACED_SCRIPTS

# Scripts without blanks may stand at both sides of what is looked for.
_LOCAL = rf"[[\w.+%-]--[{UNSPACED_SCRIPTS}]]"
_EMAIL = regex.compile(
    rf"(?<!{_LOCAL}){_LOCAL}{{1,64}}@(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?\.)+[a-zA-Z]{{2,24}}(?![a-zA-Z0-9_])",
    regex.V1,
)
_RESERVED_HOSTS = ("example.com", "example.org", "example.net")
_IPV4 = re.compile(r"(?<![A-Za-z0-9_.-])\d{1,3}(?:\.\d{1,3}){3}(?![A-Za-z0-9_-]|\.\d)")
_IPV6 = re.compile(r"(?i)(?<![a-z0-9_:.])[23][0-9a-f]{3}(?::[0-9a-f]{0,4}){2,7}(?![a-z0-9_:])")
# What counts releases, parts and identifiers in four numbers, too.
_VERSION = re.compile(
    r"(?i)(?:\b(?:v|ver|vers|versions?|releases?|builds?|rev|revision|firmware|driver|packages?|update|upgrade|oids?|asn\.1"
    r"|sections?|sect|chapters?|clauses?|figures?|fig|tables?|paragraphs?|article|appendix|item|rule)\b|版本|版|章|节|§)"
    r"(?:\W|\b(?:no|number|to|from|the|of|identifier)\b){0,6}\Z"
)
_ADDRESS = re.compile(
    r"(?i)\b(?:ips?|ipv4|addr|address(?:es)?|hosts?|servers?|ping|dns|gateway|router|proxy|client|peer|subnet|from|at|by)\b\W{0,4}\Z"
)
_PORT = re.compile(r"(?::\d{1,5}\b|/(?:[89]|[12]\d|3[0-2])\b)")
_BEFORE = 32
# The largest part of a release is seldom above, the largest of an address below in one of 256.
_LARGEST_PART = 63
_EMAIL_PLACEHOLDER, _IPV4_PLACEHOLDER, _IPV6_PLACEHOLDER = "email@example.com", "192.0.2.1", "2001:db8::1"

KINDS = ("key", "email", "iban", "national_id", "card", "ip", "phone")


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

    def __init__(self, kind: str, placeholder: Callable[[re.Match[str]], str], found: Counter[str]) -> None:
        self.kind, self.placeholder, self.found = kind, placeholder, found

    def __call__(self, match: re.Match[str]) -> str:
        new = self.placeholder(match)
        self.found[self.kind] += new != match.group()
        return new


def _email(match: re.Match[str]) -> str:
    address = match.group()
    host = address.rpartition("@")[2].lower()
    reserved = any(host == name or host.endswith("." + name) for name in _RESERVED_HOSTS)
    return address if reserved else _EMAIL_PLACEHOLDER


def _ipv4(match: re.Match[str]) -> str:
    address, text = match.group(), match.string
    before = text[max(match.start() - _BEFORE, 0) : match.start()].rpartition("\n")[2]
    if not _is_public(address) or _VERSION.search(before):
        return address
    large = max(map(int, address.split("."))) > _LARGEST_PART
    if large or _ADDRESS.search(before) or _PORT.match(text, match.end()):
        return _IPV4_PLACEHOLDER
    return address


def _ipv6(match: re.Match[str]) -> str:
    address = match.group()
    bare = address.rstrip(":") if not address.endswith("::") else address
    return _IPV6_PLACEHOLDER + address[len(bare) :] if _is_public(bare) else address


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


_PATTERNS: dict[str, tuple[tuple[Any, Callable[[re.Match[str]], str]], ...]] = {
    "key": ((keys.PRIVATE_KEY, lambda _: keys.PRIVATE_KEY_PLACEHOLDER), (keys.KEY, keys.key)),
    "email": ((_EMAIL, _email),),
    "iban": ((numbers.IBAN, numbers.iban),),
    "national_id": (
        (numbers.CHINESE, numbers.chinese),
        (numbers.DISTINCT, numbers.distinct),
        (numbers.NAMED, numbers.named),
    ),
    "card": ((numbers.CARD, numbers.card),),
    "ip": ((_IPV4, _ipv4), (_IPV6, _ipv6)),
    "phone": ((phones.CANDIDATE, phones.phone),),
}
