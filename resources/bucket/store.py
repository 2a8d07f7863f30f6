"""An S3-compatible object store: objects, conditional writes, and errors in one line.

Belongs here: requests and what their failures mean. Does not belong here: what the objects are (`resources.bucket.
head`). The client (boto3) is imported on first use; address, region and credentials come from its usual environment
(AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ml.errors import LakeError, TransientError, UsageError
from resources.bucket.address import parse

TRIES = 4
SECONDS_TO_CONNECT, SECONDS_TO_READ = 5, 60
LARGEST_HEAD = 16 << 20
DELETED_AT_ONCE = 1000
AWAY = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException", "ServiceUnavailable"}


class BucketError(LakeError):
    """The bucket refuses, or holds something else than it should."""


class BucketAway(BucketError, TransientError):
    """The bucket may answer in a moment."""


class Overtaken(BucketError, TransientError):
    """Another machine has written the same place since it was read."""


class Store:
    """The objects below an address `s3://BUCKET[/PREFIX]`; keys are relative to it. Safe for threads, not for forks."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._bucket, self._prefix = parse(address)

    def __repr__(self) -> str:
        return f"Store({self.address!r})"

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Bytes and ETag of a small object, None where there is none."""
        with self._telling(key):
            try:
                answer = self._client.get_object(**self._at(key))
            except self._client.exceptions.NoSuchKey:
                return None
            if answer["ContentLength"] > LARGEST_HEAD:
                raise BucketError(f"{self.address}/{key} is larger than anything of its kind: remove it")
            return answer["Body"].read(), answer["ETag"]

    def put_whole(self, key: str, data: bytes, etag: str) -> str:
        """Put `data` in the place of the object that has `etag` ("": of none), in one request; its ETag. Raises
        Overtaken where another is there."""
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        with self._telling(key):
            return str(self._client.put_object(**self._at(key), Body=data, **condition)["ETag"])

    def upload(self, path: Path, key: str) -> None:
        """Copy a file to an object."""
        with self._telling(key), path.open("rb") as stream:
            self._client.upload_fileobj(stream, self._bucket, self._prefix + key)

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a file. Raises BucketError where it is not there."""
        with self._telling(key):
            self._client.download_file(self._bucket, self._prefix + key, str(path))

    def list(self, prefix: str) -> dict[str, str]:
        """ETags by key."""
        return {key: str(item["ETag"]) for key, item in self._items(prefix)}

    def ages(self, prefix: str) -> dict[str, datetime]:
        """Times of the last change by key."""
        return {key: item["LastModified"] for key, item in self._items(prefix)}

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        names = sorted(self._prefix + key for key in keys)
        for start in range(0, len(names), DELETED_AT_ONCE):
            batch = [{"Key": name} for name in names[start : start + DELETED_AT_ONCE]]
            with self._telling(batch[0]["Key"]):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True})
            for error in answer.get("Errors", []):
                raise BucketError(f"{self.address}: {error['Key']} is not removed: {error.get('Message', 'refused')}")

    def abort_uploads(self, prefix: str, until: datetime | None = None) -> None:
        """Remove the parts of large objects whose upload did not end, of those begun `until` then; default: of all."""
        with self._telling(prefix):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for part in page.get("Uploads", []):
                    if until is not None and part["Initiated"] > until:
                        continue
                    self._client.abort_multipart_upload(Bucket=self._bucket, Key=part["Key"], UploadId=part["UploadId"])

    def require_fit(self) -> None:
        """Raises BucketError for a bucket that would break the lake's promises: one that keeps old versions (what was
        erased would stay), or a server that ignores the conditions of conditional writes."""
        with self._telling(""):
            status = self._client.get_bucket_versioning(Bucket=self._bucket).get("Status")
        if status is not None:
            raise BucketError(
                f"{self.address} keeps old versions of objects ({status}), so nothing could be erased: use a bucket "
                "that never had versioning on"
            )
        key = "probe"
        self.delete([key])
        self.put_whole(key, b"1", "")
        for etag in ("", '"00000000000000000000000000000000"'):
            try:
                self.put_whole(key, b"2", etag)
            except Overtaken:
                continue
            raise BucketError(
                f"the server of {self.address} ignores conditional writes (If-Match, If-None-Match): two machines "
                "could overwrite each other's publications; use a server that has them"
            )
        self.delete([key])

    @cached_property
    def _client(self) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise UsageError(f"a lake in {self.address} needs boto3: pip install 'newsrec[server]'") from error
        return boto3.Session().client(
            "s3",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": TRIES},
                connect_timeout=SECONDS_TO_CONNECT,
                read_timeout=SECONDS_TO_READ,
            ),
        )

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _items(self, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._telling(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self._prefix), item

    @contextmanager
    def _telling(self, key: str) -> Iterator[None]:
        """Errors of the client in one line, by whether they may pass."""
        _ = self._client
        from botocore import exceptions as boto
        from s3transfer.exceptions import RetriesExceededError

        away = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError, RetriesExceededError)
        where = f"{self.address}/{key}"
        try:
            yield
        except boto.ClientError as error:
            raise _refusal(where, error.response) from error
        except (*away, ConnectionError, TimeoutError) as error:
            raise BucketAway(f"{where}: the bucket is away ({_first_line(error)}): run again later") from error
        except boto.BotoCoreError as error:
            raise UsageError(f"{where}: {_first_line(error)}: see to AWS_ACCESS_KEY_ID and the rest") from error


def _refusal(where: str, response: dict[str, Any]) -> BucketError:
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(response.get("Error", {}).get("Code", status))
    if status in (409, 412):
        return Overtaken(f"{where}: another machine has written it at the same moment: run the same command again")
    if status >= 500 or status == 429 or code in AWAY:
        return BucketAway(f"{where}: the bucket cannot answer now ({code}): run again later")
    if status == 404:
        return BucketError(f"{where} is not there ({code}): see to NEWSREC_BUCKET, or run `newsrec lake sync --verify`")
    return BucketError(f"{where}: the bucket refuses ({code}): see to its credentials and rights")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
