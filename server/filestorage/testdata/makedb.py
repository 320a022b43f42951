"""Make a random database with Python's FileStorage.

usage: makedb.py SEED TRANSACTIONS PATH [BLOBDIR]
"""
import base64
import logging
import os
import random
import sys

import ZODB.blob
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSError
from ZODB.utils import p64, z64
from ZODB._compat import dumps

logging.disable(logging.CRITICAL)
seed, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
blob_dir = sys.argv[4] if len(sys.argv) > 4 else None
rnd = random.Random(seed)
storage = FileStorage(path, blob_dir=blob_dir)
serials = {}
gone = set()
blobs = set()
tids = []
blob_record = dumps(ZODB.blob.Blob, 3) + dumps(None, 3)


def metadata():
    return TransactionMetaData(
        rnd.choice(['', 'jürgen', '/ admin']),
        rnd.choice(['', 'Änderung \u65e5\u672c', 'a\nb']),
        rnd.choice([None, {'key': 'wert ü', 'n': rnd.randrange(100)}]))


def commit(fill):
    t = metadata()
    storage.tpc_begin(t)
    try:
        changed = fill(t)
        storage.tpc_vote(t)
        tid = storage.tpc_finish(t)
    except POSError:
        storage.tpc_abort(t)
        return
    tids.append(tid)
    for oid in changed:
        serials[oid] = tid


def store(t):
    changed = set()
    for _ in range(rnd.randrange(5)):
        oid = p64(rnd.choice([rnd.randrange(30), rnd.randrange(1 << 40)]) * 2)
        if oid in blobs:
            continue
        data = rnd.randbytes(rnd.choice([1, 10, 500, 9000]))
        storage.store(oid, serials.get(oid, z64), data, '', t)
        changed.add(oid)
    return changed


def store_blob(t):
    oid = p64(rnd.randrange(10) * 2 + 1)
    name = os.path.join(blob_dir, 'tmp', 'upload')
    with open(name, 'wb') as f:
        f.write(rnd.randbytes(rnd.randrange(3000)))
    storage.storeBlob(oid, serials.get(oid, z64), blob_record, name, '', t)
    blobs.add(oid)
    return {oid}


def undo(t):
    changed = set()
    for tid in rnd.sample(tids[-5:], min(rnd.randrange(1, 3), len(tids[-5:]))):
        changed.update(storage.undo(base64.b64encode(tid), t)[1])
    return changed


def delete(t):
    oid = rnd.choice(sorted(serials))
    storage.deleteObject(oid, serials[oid], t)
    return {oid}


for i in range(count):
    kinds = [store, store, store]
    if i > 5:
        kinds += [undo, undo, delete]
    if blob_dir:
        kinds += [store_blob, store_blob]
    commit(rnd.choice(kinds))
storage.close()
