"""Which addresses can be read and written, known when a recipe or a placement is read and not hours later."""

import importlib.util
import re

EXTRAS = {"s3": "cluster", "http": "cluster", "https": "cluster", "hf": "data", "file": "data"}
"""Kind of address that pages are read from to the extra of this package that brings its library."""
# Kinds that no extra brings: they are read where their library was installed beside it.
_LIBRARIES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?")


def split_hub_id(source: str) -> tuple[str, str] | None:
    """Id and revision (branch, tag or commit; empty for the main branch) of `owner/name[@revision]`, else None."""
    match = _HUB_ID.fullmatch(source)
    return (match["id"], match["revision"] or "") if match else None


def scheme_of(place: str) -> str:
    """The kind of an address; empty for a path."""
    scheme, colon, _ = place.partition("://")
    return scheme if colon else ""


def check_readable(place: str) -> None:
    """Check that pages can be read from `place`, a path or an address.

    Raises:
        ValueError: addresses of this kind cannot be read here.
    """
    scheme = scheme_of(place)
    library = _LIBRARIES.get(scheme)
    if not scheme or scheme in EXTRAS or (library and importlib.util.find_spec(library)):
        return
    known = ", ".join(f"{name}://" for name in EXTRAS)
    needs = f" ({library} is not installed and no extra brings it)" if library else ""
    raise ValueError(f"a path, or an address of a kind that can be read: {known}; not {place}{needs}")


def check_path(place: str) -> None:
    """Check that `place` is a path of this machine or a plain name.

    Raises:
        ValueError: it is an address.
    """
    if scheme_of(place):
        raise ValueError(f"a path, a hub id or a pypi: source (only collect reads addresses): not {place}")


def check_store(place: str) -> None:
    """Check that artifacts can be kept at `place`.

    Raises:
        ValueError: it is an address of another kind than `s3://`, or one without a bucket.
    """
    scheme, bucket = scheme_of(place), place.partition("://")[2].strip("/")
    if scheme and (scheme != "s3" or not bucket):
        raise ValueError(f"a folder or an s3://bucket/... address, the one kind of store for artifacts: not {place}")
