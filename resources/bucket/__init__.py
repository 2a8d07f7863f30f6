"""The lake in a bucket: an S3-compatible store that holds the same versions as the lake's folder, for other machines.

Belongs here: the store, what of the lake lies in it, giving and taking. Does not belong here: publishing
(`resources.lake`) and what the lake holds.

The folder is the working copy: everything is computed and read there. A *unit* is one folder that changes as a whole: a
partition, or a book of the lake (`.landing/<dataset>`, `<dataset>/.champion`, `.erasures`, `.logs`, `.gc`). Each has
one *head* in the bucket, `heads/<unit>.json`, which names all its files with sha256 and the object that holds each:
`objects/<unit>/<token>/<file>`. Objects are never written twice. A change uploads its objects, then puts the head in
one conditional request: readers of the bucket see the unit before or after it. A head that another machine has put in
the meantime counts, and the change is made again on top of it, or refused.
"""
