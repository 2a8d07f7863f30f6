"""Small outputs for tests of the lake."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from resources.lake import Lake, Ref, Version, write_parquet


def publish_text(lake: Lake, ref: Ref, text: str, key: str = "key", inputs: Sequence[Version] = ()) -> Version:
    """Publish one file `a.txt`."""
    with lake.staging(ref) as staged:
        (staged.path / "a.txt").write_text(text)
        return lake.publish(staged, {str(v.ref): v for v in inputs}, key, {"k": key}, {}, None, [], {"run": text})


def publish_tables(
    lake: Lake, ref: Ref, tables: Mapping[str, Mapping[str, Any] | pa.Table], inputs: Sequence[Version] = ()
) -> Version:
    """Publish parquet files by name."""
    with lake.staging(ref) as staged:
        for name, table in tables.items():
            write_parquet(
                table if isinstance(table, pa.Table) else pa.table(dict(table)), staged.path / f"{name}.parquet"
            )
        return lake.publish(staged, {str(v.ref): v for v in inputs}, "key", {}, {}, None, [], {})
