"""The buckets that the mixture weighs: a document's domain, and for natural text its group of languages.

English and Chinese stand alone because the report names them as the main languages (section 3.1); the others share a
bucket, since a proxy cannot tell thirty weights apart. Code and mathematics are one bucket each.
"""

_OWN_GROUP = ("en", "zh")
_WITHOUT_LANGUAGE = ("code", "math")


def bucket_of(domain: str, language: str) -> str:
    """Bucket of a document, for example "web_en", "web_other", "code"."""
    if domain in _WITHOUT_LANGUAGE:
        return domain
    return f"{domain}_{language if language in _OWN_GROUP else 'other'}"
