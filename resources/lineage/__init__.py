"""The Merkle graph of the lake, read from manifests and ledgers alone.

Belongs here: finding, walking and checking what a number was made from, without Dagster, MLflow or the packages that
read tables, so that it answers at once and also in a damaged lake. Does not belong here: writing to the lake
(`resources.lake`), and what the commands print (`pipeline.audit`).
"""
