"""Make a random database with Python's FileStorage.

usage: makedb.py SEED TRANSACTIONS PATH [BLOBDIR]
"""
import base64
import io
import logging
import os
import random
import sys
import tempfile

import ZODB.blob
from persistent.mapping import PersistentMapping
from ZODB._compat import PersistentPickler, dumps
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSError, POSKeyError
from ZODB.serialize import referencesf
from ZODB.TimeStamp import TimeStamp
from ZODB.utils import load_current, p64, u64, z64

BLOB_RECORD = dumps(ZODB.blob.Blob, 3) + dumps(None, 3)
BLOBS = 1 << 20     # oids from here on are blobs
LONERS = 1 << 30    # nothing refers to oids from here on


class Reference:
    def __init__(self, oid, form):
        self.id = {'class': (oid, PersistentMapping), 'plain': oid, 'weak': ['w', (oid,)]}[form]


def record(payload, references):
    """Return the data record of a PersistentMapping."""
    f = io.BytesIO()
    p = PersistentPickler(lambda o: o.id if isinstance(o, Reference) else None, f, 3)
    p.dump(PersistentMapping)
    p.dump({'data': {'payload': payload, 'references': references}})
    return f.getvalue()


def pack_time(tid):
    """The time of a transaction, for pack."""
    return TimeStamp(tid).timeTime() + 0.00001


class Maker:
    """Makes a history in a storage, a FileStorage or a ClientStorage."""

    def __init__(self, storage, rnd, blobs, packs=False):
        self.storage, self.rnd, self.packs = storage, rnd, packs
        self.serials = {}
        self.tids = []
        self.kinds = [self.store] * 6 + [self.undo] * 3 + [self.delete, self.add_loner, self.twice, self.nothing, self.big]
        if blobs:
            self.kinds += [self.store_blob] * 4

    def run(self, count):
        self.commit(self.start)
        for _ in range(count):
            if self.packs and self.rnd.random() < 1.5 / count:
                try:
                    self.storage.pack(pack_time(self.rnd.choice(self.tids)), referencesf)
                except (KeyError, AssertionError):
                    pass  # as when undoing has left a reference that leads nowhere
                self.refresh()
            self.commit(self.rnd.choice(self.kinds))

    def metadata(self):
        return TransactionMetaData(
            self.rnd.choice(['', 'jürgen', '/ admin']),
            self.rnd.choice(['', 'Änderung \u65e5\u672c', 'a\nb']),
            self.rnd.choice([None, {'key': 'wert ü', 'n': self.rnd.randrange(100)}]))

    def commit(self, fill):
        t = self.metadata()
        self.storage.tpc_begin(t)
        try:
            changed = fill(t)
            self.storage.tpc_vote(t)
            tid = self.storage.tpc_finish(t)
        except POSError:
            self.storage.tpc_abort(t)
            return
        self.tids.append(tid)
        if changed is None:
            self.refresh()
            return
        for oid in changed:
            self.serials[oid] = tid

    def refresh(self):
        """Find out what there is now."""
        for oid in list(self.serials):
            try:
                self.serials[oid] = load_current(self.storage, oid)[1]
            except POSKeyError:
                del self.serials[oid]

    def live(self, start, stop):
        return sorted(oid for oid in self.serials if start <= u64(oid) < stop)

    def put(self, oid, data, t):
        self.storage.store(oid, self.serials.get(oid, z64), data, '', t)
        return oid

    def data(self, size=None):
        objects = self.live(0, LONERS)
        if size is None:
            size = self.rnd.choice([1, 10, 500, 9000])
        references = [Reference(self.rnd.choice(objects), self.rnd.choice(['class', 'class', 'plain', 'weak']))
                      for _ in range(self.rnd.randrange(4))] if objects else []
        return record(self.rnd.randbytes(size), references)

    def start(self, t):
        oids = [p64(i) for i in range(8)]
        for oid in oids:
            self.put(oid, record(b'start', [Reference(o, 'class') for o in oids[1:4]]), t)
        return oids

    def store(self, t):
        oids = {p64(self.rnd.choice([self.rnd.randrange(12), self.rnd.randrange(12), self.rnd.randrange(BLOBS)]))
                for _ in range(1 + self.rnd.randrange(4))}
        return [self.put(oid, self.data(), t) for oid in sorted(oids)]

    def big(self, t):
        oids = [p64(self.rnd.randrange(12, 40)) for _ in range(1 + self.rnd.randrange(6))]
        return [self.put(oid, self.data(self.rnd.choice([10, 70000])), t) for oid in sorted(set(oids))]

    def twice(self, t):
        oid = p64(self.rnd.randrange(8))
        if oid not in self.serials:
            return []
        self.put(oid, self.data(), t)
        return [self.put(oid, self.data(), t)]

    def nothing(self, t):
        return []

    def add_loner(self, t):
        return [self.put(p64(LONERS + self.rnd.randrange(1 << 20)), self.data(), t)]

    def delete(self, t):
        loners = self.live(LONERS, 1 << 62)
        if loners:
            oid = self.rnd.choice(loners)
            self.storage.deleteObject(oid, self.serials[oid], t)
        return None

    def store_blob(self, t):
        oid = p64(BLOBS + self.rnd.randrange(3))
        handle, name = tempfile.mkstemp(dir=self.storage.temporaryDirectory())
        with os.fdopen(handle, 'wb') as f:
            f.write(self.rnd.randbytes(self.rnd.choice([0, 100, 3000])))
        self.storage.storeBlob(oid, self.serials.get(oid, z64), BLOB_RECORD, name, '', t)
        return [oid]

    def undo(self, t):
        recent = self.tids[1:][-5:]  # everything needs the first
        for tid in self.rnd.sample(recent, min(self.rnd.randrange(1, 3), len(recent))):
            self.storage.undo(base64.b64encode(tid), t)
        return None


def main():
    logging.disable(logging.CRITICAL)
    blob_dir = sys.argv[4] if len(sys.argv) > 4 else None
    storage = FileStorage(sys.argv[3], blob_dir=blob_dir)
    Maker(storage, random.Random(int(sys.argv[1])), blob_dir).run(int(sys.argv[2]))
    storage.close()


if __name__ == '__main__':
    main()
