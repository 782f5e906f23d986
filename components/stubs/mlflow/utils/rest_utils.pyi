from mlflow.utils.credentials import MlflowHostCreds
from requests import Response

def http_request(
    host_creds: MlflowHostCreds,
    endpoint: str,
    method: str,
    *,
    max_retries: int | None = ...,
    timeout: float | None = ...,
) -> Response: ...
