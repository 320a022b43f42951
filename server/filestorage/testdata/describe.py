"""Describe databases as Python's FileStorage, or its ZEO client, sees them.

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


def describe(storage, full, sparse=False):
    """Describe a storage as a dict of texts and numbers.

    full adds what it answers about each object, with loads just before and just
    after each transaction; with sparse the former only if it changed the object.
    """
    d = {'last': hexof(storage.lastTransaction()), 'txns': []}
    oids = set()
    tids = []
    blobs = set()
    changed = set()
    for t in storage.iterator():
        tids.append(t.tid)
        records = []
        for r in t:
            oids.add(r.oid)
            changed.add((r.oid, t.tid))
            if r.data and b'ZODB.blob' in r.data:
                blobs.add(r.oid)
            records.append([hexof(r.oid), hexof(r.tid), None if r.data is None else text(r.data), hexof(r.data_txn)])
        d['txns'].append([hexof(t.tid), t.status, text(t.user), text(t.description), text(t.extension_bytes), records])
    if not full:
        return d
    d['loads'] = {}
    d['history'] = {}
    for oid in sorted(oids):
        d['loads'][hexof(oid)] = {
            hexof(b): load(storage, oid, b)
            for tid in tids for b in (tid, p64(u64(tid) + 1))
            if not sparse or b != tid or (oid, tid) in changed}
        d['loads'][hexof(oid)][hexof(maxtid)] = load(storage, oid, maxtid)
        try:
            d['history'][hexof(oid)] = [
                [hexof(h['tid']), h['size'], text(h['user_name']), text(h['description'])]
                for h in storage.history(oid, size=1000)]
        except POSKeyError:
            d['history'][hexof(oid)] = []
        if oid in blobs and has_blobs(storage):
            for tid in tids:
                try:
                    with open(storage.loadBlob(oid, tid), 'rb') as f:
                        d.setdefault('blobs', {})[hexof(oid) + hexof(tid)] = text(f.read())
                except POSKeyError:
                    pass
    d['undolog'] = undo_entries(storage.undoLog(0, 10000))
    return d


def has_blobs(storage):
    return bool(getattr(storage, 'blob_dir', None) or getattr(storage, 'fshelper', None))


def undo_entries(entries):
    return [
        [base64.b64decode(u['id']).hex(), u['size'], text(u['user_name']), text(u['description'])]
        for u in entries]


def describe_more(storage, described):
    """What else can be asked of a storage; described is what describe returned."""
    d = {'size': storage.getSize(), 'objects': len(storage), 'serials': {}, 'newest': {}}
    for tid, _, _, _, _, records in described['txns']:
        for oid, serial, _, _ in records:
            key = bytes.fromhex(oid), bytes.fromhex(serial)
            d['serials'][oid + serial] = attempt(lambda: text(storage.loadSerial(*key)))
    for oid, loads in described['loads'].items():
        # FileStorage forgets that an object is gone, for getTid alone, if that
        # was undone and redone.
        if loads[hexof(maxtid)] == 'notfound':
            continue
        d['newest'][oid] = attempt(lambda: hexof(storage.getTid(bytes.fromhex(oid))))
    d['iteration'] = iteration(storage)
    d['undoinfo'] = undo_entries(storage.undoInfo(1, -5))
    d['undosome'] = undo_entries(storage.undoInfo(0, 100, {'user_name': b'j\xc3\xbcrgen'}))
    if described['txns']:
        tids = [bytes.fromhex(t[0]) for t in described['txns']]
        start, stop = tids[len(tids) // 3], tids[len(tids) * 2 // 3]
        d['part'] = [hexof(t.tid) for t in storage.iterator(start, stop)]
        d['between'] = [hexof(t.tid) for t in storage.iterator(p64(u64(start) + 1), p64(u64(stop) - 1))]
    return d


def attempt(function):
    try:
        return function()
    except POSKeyError:
        return 'notfound'


def iteration(storage):
    """All that record_iternext yields.

    FileStorage raises an error for an object that is gone, where ours goes on
    to the next one.
    """
    records, at = [], None
    while True:
        try:
            oid, tid, data, following = storage.record_iternext(at)
        except POSKeyError as e:
            at = p64(u64(e.args[0]) + 1)
            continue
        except ValueError:
            return records  # there is none, after some that are gone
        records.append([hexof(oid), hexof(tid), text(data)])
        at = following
        if at is None:
            return records


def main():
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


if __name__ == '__main__':
    main()
