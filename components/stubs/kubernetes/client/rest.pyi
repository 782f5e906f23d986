from collections.abc import Mapping

from urllib3 import PoolManager

class ApiException(Exception):
    status: int | None
    reason: str | None
    body: str | None
    headers: Mapping[str, str] | None
    def __init__(self, status: int | None = ..., reason: str | None = ...) -> None: ...

class RESTClientObject:
    pool_manager: PoolManager
