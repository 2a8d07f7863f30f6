"""Names that can be folders, and names that could leave them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.errors import UsageError
from resources.ref import Ref

names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
partitions = st.sampled_from(["2023-05-18", "2023-05-18.rolling", "2023-05-18.lag_3", "static"])


@given(names, names, partitions, st.none() | names)
def test_text_and_back(dataset: str, stage: str, partition: str, model: str | None) -> None:
    ref = Ref(dataset, stage, partition, model)
    assert Ref.parse(str(ref)) == ref


@pytest.mark.parametrize("bad", ["..", ".", "", "a/b", "../x", "a b", "2023..05", ".hidden", "a\n", "a\0", "x" * 100])
def test_a_partition_cannot_leave_its_folder(bad: str) -> None:
    with pytest.raises(UsageError, match="partition"):
        Ref("simulated", "clicks", bad)


@pytest.mark.parametrize("bad", ["..", "", "A", "a/b", ".staging", "1a", "a-b", "a\n"])
@pytest.mark.parametrize("field", ["dataset", "stage", "model"])
def test_no_name_can_leave_its_folder(field: str, bad: str) -> None:
    fields = {"dataset": "d", "stage": "s", "model": "m", field: bad}
    with pytest.raises(UsageError, match=field):
        Ref(fields["dataset"], fields["stage"], "2023-05-18", fields["model"])


@pytest.mark.parametrize("bad", ["a", "a/b", "a/b/c/d/e", "a/b/../d"])
def test_parse_refuses_what_is_no_reference(bad: str) -> None:
    with pytest.raises(UsageError):
        Ref.parse(bad)


def test_the_command_that_makes_it() -> None:
    assert Ref("globo", "clicks", "2017-10-02").command == "newsrec run --dataset globo"
    expected = "newsrec run --dataset globo --as-of 2017-10-11 --split rolling --models snert"
    assert Ref("globo", "checkpoint", "2017-10-11.rolling", "snert").command == expected
