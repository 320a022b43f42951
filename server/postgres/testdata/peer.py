"""Opens a database with RelStorage, does what is asked on standard input, a
line of JSON at a time, and answers each with a line of JSON."""

import hashlib
import json
import sys
import time

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from relstorage.adapters.postgresql import PostgreSQLAdapter
from relstorage.options import Options
from relstorage.storage import RelStorage
from ZODB.blob import Blob
from ZODB.POSException import ConflictError, POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import maxtid, u64


def digest(data):
    return None if data is None else hashlib.md5(data).hexdigest()


class Peer:
    def __init__(self, dsn, blob_dir):
        options = Options(keep_history=True, blob_dir=blob_dir, shared_blob_dir=False)
        self.storage = RelStorage(PostgreSQLAdapter(dsn=dsn, options=options), options=options)
        self.db = ZODB.DB(self.storage)

    def fresh(self):
        """A storage that sees what the database has now."""
        storage = self.storage.new_instance()
        storage.poll_invalidations()
        return storage

    def last(self):
        storage = self.fresh()
        try:
            return storage.lastTransaction().hex()
        finally:
            storage.release()

    def root(self):
        self.connection = self.db.open()
        self.connection.sync()
        return self.connection.root()

    def commit(self, note):
        transaction.get().note(note)
        transaction.commit()
        self.connection.close()
        return self.last()

    def fill(self):
        """A history with all that a history can have."""
        root = self.root()
        root["map"] = PersistentMapping(n=0)
        root["blob"] = Blob(b"first " * 1000)
        self.commit("fill")
        for n in range(1, 4):
            self.root()["map"]["n"] = n
            self.commit("n %d" % n)
        with self.root()["blob"].open("w") as f:
            f.write(b"second" * 70000)
        self.commit("blob")
        self.root()["gone"] = PersistentMapping()
        self.commit("made")
        for _ in range(2):
            self.db.undo(self.db.undoLog(0, 1)[0]["id"])
            transaction.get().note("undo")
            transaction.commit()
        return self.last()

    def set(self, key, value):
        self.root()[key] = value
        return self.commit("set")

    def get(self, key):
        value = self.root().get(key)
        self.connection.close()
        return value

    def blob(self, key, size):
        self.root()[key] = Blob(b"x" * size)
        return self.commit("blob")

    def read_blob(self, key):
        with self.root()[key].open() as f:
            n = len(f.read())
        self.connection.close()
        return n

    def begin(self, key, value):
        """Changes an object, and leaves it to finish to commit that."""
        self.root()[key] = value

    def finish(self):
        try:
            return self.commit("finish")
        except ConflictError:
            transaction.abort()
            self.connection.close()
            return "conflict"

    def pack(self):
        self.storage.pack(time.time() + 10, referencesf)

    def dump(self):
        """All there is: transactions, current records, histories, blobs."""
        storage = self.fresh()
        transactions, oids, blobs = [], set(), {}
        for t in storage.iterator():
            records = []
            for r in t:
                oids.add(r.oid)
                records.append([u64(r.oid), digest(r.data)])
                if r.data is not None and b"ZODB.blob" in r.data[:40]:
                    with open(storage.loadBlob(r.oid, t.tid), "rb") as f:
                        blobs["%d@%s" % (u64(r.oid), t.tid.hex())] = digest(f.read())
            status = t.status if isinstance(t.status, str) else t.status.decode()
            transactions.append([t.tid.hex(), status, t.user.decode(), t.description.decode(), sorted(records)])
        current, history = {}, {}
        for oid in oids:
            name = str(u64(oid))
            try:
                data, tid, end = storage.loadBefore(oid, maxtid)
                current[name] = [tid.hex(), digest(data)]
            except POSKeyError:
                current[name] = None
            history[name] = [[h["tid"].hex(), h["size"]] for h in storage.history(oid, size=1000)]
        storage.release()
        return dict(transactions=transactions, current=current, history=history, blobs=blobs)


def main():
    peer = Peer(*sys.argv[1:])
    for line in sys.stdin:
        name, *args = json.loads(line)
        print(json.dumps(getattr(peer, name)(*args)), flush=True)
    peer.db.close()


if __name__ == "__main__":
    main()
