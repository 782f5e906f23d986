"""Create a bucket unless it is there; waits for the server, which may start after this pod."""

import os
import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ATTEMPTS = 60
PAUSE_SECONDS = 5


def create(bucket: str, endpoint: str | None) -> None:
    """Create `bucket` at `endpoint` (None is AWS); done when it exists and belongs to these keys."""
    client = boto3.client("s3", endpoint_url=endpoint)
    if bucket not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)


def main(bucket: str, endpoint: str | None) -> None:
    """Try until it works; exit with the last error otherwise."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            create(bucket, endpoint)
        except (BotoCoreError, ClientError) as error:
            if attempt == ATTEMPTS:
                sys.exit(f"no bucket {bucket} at {endpoint}: {error}")
            time.sleep(PAUSE_SECONDS)
        else:
            print(f"bucket {bucket} is there")
            return


if __name__ == "__main__":
    main(sys.argv[1], os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
