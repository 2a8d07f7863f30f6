"""Make the buckets that are named on the command line, where they are not there yet. boto3's usual environment says
where and as whom. Belongs here: nothing else."""

import sys

import boto3


def make(names: list[str]) -> list[str]:
    """The buckets that were made."""
    client = boto3.client("s3")
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    missing = [name for name in names if name not in there]
    for name in missing:
        client.create_bucket(Bucket=name)
    return missing


if __name__ == "__main__":
    print("\n".join(make(sys.argv[1:])))
