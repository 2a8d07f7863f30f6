"""A real S3 server on loopback (moto's, in this process), for tests of the bucket.

It keeps what it holds when it is stopped and started again; a stopped one refuses connections.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pytest

from resources.bucket import mirror, store
from resources.bucket.address import NOTE
from resources.lake import Lake

ADDRESS = "s3://news/lake"


class Server:
    """The server, with one empty bucket `news`. `objects()` reads it without the project's code."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._make = lambda: ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = self._make()
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @cached_property
    def client(self):
        import boto3

        return boto3.client("s3", endpoint_url=self.url)

    def empty(self) -> None:
        client = self.client
        for bucket in client.list_buckets()["Buckets"]:
            for item in client.list_objects_v2(Bucket=bucket["Name"]).get("Contents", []):
                client.delete_object(Bucket=bucket["Name"], Key=item["Key"])
            client.delete_bucket(Bucket=bucket["Name"])
        client.create_bucket(Bucket="news")

    def objects(self) -> dict[str, bytes]:
        client = self.client
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="news")
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: client.get_object(Bucket="news", Key=key)["Body"].read() for key in keys}


@contextmanager
def environment(url: str) -> Iterator[None]:
    """The variables that a deployment sets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL_S3", url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ):
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "NEWSREC_BUCKET"):
            patch.delenv(name, raising=False)
        yield


@contextmanager
def serving() -> Iterator[Server]:
    """A server with the environment that points to it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server()
    with environment(server.url):
        server.empty()
        yield server
        server.stop()


def machine(root: Path, address: str = ADDRESS) -> Lake:
    """The lake of a machine that belongs to the bucket, up to date."""
    (root / NOTE).parent.mkdir(parents=True, exist_ok=True)
    (root / NOTE).write_text(address)
    lake = Lake(root)
    lake.catch_up()
    return lake


def first_command(root: Path) -> Lake:
    """The same, bound to the bucket as the first command on a machine does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWSREC_LAKE", str(root))
        patch.setenv("NEWSREC_BUCKET", ADDRESS)
        forget_clients()
        lake = Lake(root)
        lake.catch_up()
    return lake


def forget_clients() -> None:
    """A process makes its own connections."""
    mirror._mirror.cache_clear()


def fail_fast(patch: pytest.MonkeyPatch) -> None:
    """Do not wait long for a server that is away."""
    patch.setattr(store, "TRIES", 2)
    forget_clients()
