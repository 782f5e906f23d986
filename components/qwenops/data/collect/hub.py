"""Copy a data set of the Hugging Face Hub, through the Hub's own client and cache.

A copy is resumed when cut short, shared with other programs, and found again without a network (`HF_HUB_OFFLINE=1`).
To stream a data set instead of copying it, name its `hf://datasets/...` address as the path of a `folder`.
"""

from pathlib import Path

from huggingface_hub import DatasetCard, snapshot_download

from qwenops.data.collect.config import HubSource
from qwenops.data.collect.repositories import UNKNOWN
from qwenops.errors import PlatformError
from qwenops.platform.storage.remote_files import as_os_errors

_CARD = "README.md"


def copy_dataset(source: HubSource) -> Path:
    """The folder with the files of the data set that its rules name, and its card.

    Raises:
        PlatformError: the Hub cannot be reached and the cache lacks the files, or there is no such data set.
    """
    patterns = [_CARD, *(rule.pattern for rule in source.rules)]
    try:
        with as_os_errors():
            return Path(
                snapshot_download(
                    source.dataset, repo_type="dataset", revision=source.revision, allow_patterns=patterns
                )
            )
    except OSError as error:
        raise PlatformError(
            f"{source.name}: the Hub does not give it",
            expected=f"data set {source.dataset} at {source.revision}",
            found=str(error).strip().splitlines()[0],
            action="check the id, the revision and the network, or HF_TOKEN for a gated data set",
        ) from error


def card_license(folder: Path) -> str:
    """Licence that the card of a copied data set states, "unknown" where it states none."""
    path = folder / _CARD
    stated = DatasetCard.load(path).data.get("license") if path.is_file() else None
    return ", ".join(stated) if isinstance(stated, list) else stated or UNKNOWN
