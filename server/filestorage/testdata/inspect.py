"""Describe databases as Python's FileStorage sees them.

Reads lines of JSON from stdin, {"path": ..., "blobs": ... or null, "full": bool,
"read_only": bool, "pack": seconds since 1970, "gc": bool}, the last three optional,
and writes a line of JSON for each.
"""
import base64
import json
import logging
import sys

from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import maxtid, p64, u64

logging.disable(logging.CRITICAL)


def hexof(b):
    return None if b is None else b.hex()


def text(b):
    return base64.b64encode(b or b'').decode()


def load(storage, oid, before):
    try:
        r = storage.loadBefore(oid, before)
    except POSKeyError:
        return 'notfound'
    if r is None:
        return 'notyet'
    data, tid, end = r
    return [text(data), hexof(tid), hexof(end)]


def describe(storage, full):
    d = {'last': hexof(storage.lastTransaction()), 'txns': []}
    oids = set()
    tids = []
    for t in storage.iterator():
        tids.append(t.tid)
        records = []
        for r in t:
            oids.add(r.oid)
            records.append([hexof(r.oid), hexof(r.tid), None if r.data is None else text(r.data), hexof(r.data_txn)])
        d['txns'].append([hexof(t.tid), t.status, text(t.user), text(t.description), text(t.extension_bytes), records])
    if not full:
        return d
    d['loads'] = {}
    d['history'] = {}
    d['current'] = {}
    for oid in sorted(oids):
        d['loads'][hexof(oid)] = {
            hexof(b): load(storage, oid, b)
            for tid in tids for b in (tid, p64(u64(tid) + 1))}
        d['loads'][hexof(oid)][hexof(maxtid)] = load(storage, oid, maxtid)
        try:
            d['history'][hexof(oid)] = [
                [hexof(h['tid']), h['size'], text(h['user_name']), text(h['description'])]
                for h in storage.history(oid, size=1000)]
        except POSKeyError:
            d['history'][hexof(oid)] = []
        if storage.blob_dir:
            for tid in tids:
                try:
                    with open(storage.loadBlob(oid, tid), 'rb') as f:
                        d.setdefault('blobs', {})[hexof(oid) + hexof(tid)] = text(f.read())
                except POSKeyError:
                    pass
    d['undolog'] = [
        [base64.b64decode(u['id']).hex(), u['size'], text(u['user_name']), text(u['description'])]
        for u in storage.undoLog(0, 10000)]
    return d


for line in sys.stdin:
    job = json.loads(line)
    try:
        storage = FileStorage(job['path'], blob_dir=job['blobs'], read_only=job.get('read_only', False))
        try:
            if 'pack' in job:
                storage.pack(job['pack'], referencesf, gc=job['gc'])
            answer = describe(storage, job['full'])
        finally:
            storage.close()
    except Exception as e:
        answer = {'error': '%s: %s' % (type(e).__name__, e)}
    print(json.dumps(answer), flush=True)
