"""The pinned helm and kubectl, where they can be had."""

from tests.helm.conftest import tools

__all__ = ["tools"]
