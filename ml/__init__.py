"""The science as a plain library: tables, time, features, models, training, retrieval, metrics.

Belongs here: what knows arrays, tables and files. Does not belong here: Dagster, MLflow,
Great Expectations, or any knowledge of where things live and who asked for them.
"""
