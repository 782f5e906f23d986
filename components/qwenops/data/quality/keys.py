"""Credentials in text, known by the prefixes their issuers give them: the patterns of `detect-secrets`, and newer ones.

What has no prefix of its own (passwords, secrets of high entropy) is not looked for: in documents most of it is
digests, identifiers and encoded data.
"""

import re

from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.stripe import StripeDetector

_DETECTORS = (
    GitHubTokenDetector, GitLabTokenDetector, OpenAIDetector, PypiTokenDetector, SendGridDetector, SlackDetector,
    StripeDetector,
)  # fmt: skip
_NEWER = (
    r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
    r"github_pat_\w{22}_\w{59}",
    r"npm_[A-Za-z0-9]{36}",
    r"hf_[A-Za-z]{34}",
    r"AIza[\w-]{35}",
    r"sk-(?:ant-|proj-|svcacct-)[\w-]{32,}",
    r"sk_test_[0-9a-zA-Z]{24}",
)


def _inline(pattern: re.Pattern[str]) -> str:
    """A pattern as a part of another one, with its own case rule."""
    return f"(?{'i' if pattern.flags & re.IGNORECASE else ''}:{pattern.pattern})"


KEY = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    + "|".join([*_NEWER, *(_inline(found) for kind in _DETECTORS for found in kind().denylist)])
    + ")"
)
# The block to its end, or its first line where the end is missing.
PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----)[\s\S]){0,20000}-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----)?"
)
PRIVATE_KEY_PLACEHOLDER = "[private key]"
_PREFIX = re.compile(r"[A-Za-z]{1,6}[_.-]|[A-Za-z]{4}")


def key(match: re.Match[str]) -> str:
    """A credential with zeros for everything behind the prefix."""
    whole = match.group()
    prefix = found.group() if (found := _PREFIX.match(whole)) else ""
    return prefix + re.sub(r"[A-Za-z0-9]", "0", whole[len(prefix) :])
