"""Which evaluations are of one checkpoint, by their manifests."""

from assets.decay import _lacks, of_other_checkpoints
from resources.lake import Lake, Ref, Version
from tests.resources.lake_help import publish_text

ROLLING, LAG_1, LAG_2 = (f"2023-05-04.{name}" for name in ("rolling", "lag_1", "lag_2"))


def trained(lake: Lake, text: str) -> Version:
    return publish_text(lake, Ref("simulated", "checkpoint", ROLLING, "snert"), text)


def evaluated(lake: Lake, partition: str, checkpoint: Version, text: str = "") -> Version:
    """An evaluation that reads the model's predictions beside the baseline's."""
    said = text or f"{partition} {checkpoint.content}"
    predicted = publish_text(lake, Ref("simulated", "predictions", partition, "snert"), said, inputs=[checkpoint])
    usual = publish_text(lake, Ref("simulated", "predictions", partition, "popular_15"), "usual")
    return publish_text(lake, Ref("simulated", "evaluation_rq1", partition, "snert"), said, inputs=[predicted, usual])


def others(lake: Lake, *found: Version) -> set[tuple[str, str]]:
    by_name = {"rq1": {v.ref.partition: v for v in found}}
    return of_other_checkpoints(lake.root, by_name, [ROLLING, LAG_1, LAG_2])


def test_an_age_of_another_checkpoint_is_not_the_same_model_grown_old(tmp_path):
    lake = Lake(tmp_path)
    before = evaluated(lake, LAG_1, trained(lake, "before"))
    now = trained(lake, "now")
    tested = evaluated(lake, ROLLING, now), before, evaluated(lake, LAG_2, now)
    assert others(lake, *tested) == {("rq1", LAG_1)}
    assert others(lake, tested[0], evaluated(lake, LAG_1, now), tested[2]) == set()
    assert "another checkpoint" in _lacks(LAG_1, False, {("rq1", LAG_1)})
    assert _lacks(LAG_2, False, set()) == "not evaluated yet" and _lacks(LAG_2, True, set()) == ""


def test_without_its_own_day_the_youngest_age_says_which_checkpoint(tmp_path):
    lake = Lake(tmp_path)
    first, second = evaluated(lake, LAG_1, trained(lake, "a")), evaluated(lake, LAG_2, trained(lake, "b"))
    assert others(lake, first, second) == {("rq1", LAG_2)}


def test_equal_predictions_of_two_checkpoints_are_those_of_either(tmp_path):
    """Equal bytes keep their manifest, which names the first; the ledger names both."""
    lake = Lake(tmp_path)
    evaluated(lake, LAG_1, trained(lake, "a"), "same")
    now = trained(lake, "b")
    assert others(lake, evaluated(lake, ROLLING, now), evaluated(lake, LAG_1, now, "same")) == set()


def test_what_was_made_from_nothing_known_does_not_count(tmp_path):
    lake = Lake(tmp_path)
    ref = Ref("simulated", "evaluation_rq1", LAG_1, "snert")
    stray = publish_text(lake, ref, "stray")
    assert others(lake, evaluated(lake, ROLLING, trained(lake, "a")), stray) == {("rq1", LAG_1)}
