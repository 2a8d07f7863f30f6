"""`newsrec audit`: where a number came from, whether it still holds, and how to show that to somebody else.

Belongs here: one module a command, over `resources.lineage`. Does not belong here: walking and hashing the lake
(`resources.lineage`) and making anything in it (`assets`).
"""
