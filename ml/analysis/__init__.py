"""What a click log looks like: the dataset analysis of document 1 (Sec. 3.2, App. A.2.1, A.4.1) over a span of days.

Belongs here: reading the daily canonical tables in order, what is counted of them, the figures, tables and page made
from the counts. Does not belong here: definitions that others use too (`ml.popularity_skew`, `ml.lifecycle`).

Nothing is held but numbers by article, by reader, by day and by minute of age, and one day of clicks at a time.
"""
