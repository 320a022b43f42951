"""Do one thing with a database, through ZEO or with RelStorage in this process,
and print when it began, when it ended (seconds), and how many there were.

usage: bench.py fill   zeo HOST:PORT OIDS COUNT
       bench.py load   zeo|relstorage TARGET OIDS PART PARTS
       bench.py commit zeo|relstorage TARGET OIDS PART PARTS COUNT OBJECTS
       bench.py export|lo_get psycopg DSN LOID FILE

OIDS is a file with a line for each object. TARGET is HOST:PORT or a DSN. PART of
PARTS says which of the objects are for this process.
"""
import logging
import random
import sys
import tempfile
import time

import ZODB
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData
from ZODB.tests.StorageTestBase import zodb_pickle
from ZODB.utils import p64, u64, z64

logging.disable(logging.CRITICAL)


def opened(kind, target):
    """A database, and the storage of one connection to it."""
    blobs = tempfile.mkdtemp(prefix="bench-")
    if kind == "zeo":
        import ZEO
        host, port = target.split(":")
        db = ZEO.DB((host, int(port)), blob_dir=blobs, wait_timeout=60)
    else:
        from relstorage.adapters.postgresql import PostgreSQLAdapter
        from relstorage.options import Options
        from relstorage.storage import RelStorage
        options = Options(keep_history=True, blob_dir=blobs, shared_blob_dir=False)
        db = ZODB.DB(RelStorage(PostgreSQLAdapter(dsn=target, options=options), options=options))
    connection = db.open()
    connection.sync()
    return db, connection._storage


def record():
    return zodb_pickle(PersistentMapping(data=random.randbytes(500).hex()))


def commit(storage, serials):
    """Commits a new state of some objects; serials are brought up to date."""
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    for oid, serial in serials.items():
        storage.store(oid, serial, record(), "", txn)
    storage.tpc_vote(txn)
    tid = storage.tpc_finish(txn)
    for oid in serials:
        serials[oid] = tid


def part_of(name, part, parts):
    with open(name) as f:
        return [p64(int(line)) for line in f][int(part)::int(parts)]


def fill(kind, target, name, count):
    db, storage = opened(kind, target)
    with open(name, "w") as f:
        for _ in range(int(count) // 100):
            serials = {storage.new_oid(): z64 for _ in range(100)}
            commit(storage, serials)
            f.writelines("%d\n" % u64(oid) for oid in serials)
    return time.time(), time.time(), int(count)


def load(kind, target, name, part, parts):
    db, storage = opened(kind, target)
    oids = part_of(name, part, parts)
    random.shuffle(oids)
    began = time.time()
    for oid in oids:
        storage.load(oid)
    return began, time.time(), len(oids)


def commits(kind, target, name, part, parts, count, objects):
    db, storage = opened(kind, target)
    oids = part_of(name, part, parts)[:int(objects)]
    serials = {oid: storage.load(oid)[1] for oid in oids}
    commit(storage, serials)
    began = time.time()
    for _ in range(int(count)):
        storage.poll_invalidations()
        commit(storage, serials)
    return began, time.time(), int(count)


def export(_, dsn, loid, name):
    import psycopg2
    connection = psycopg2.connect(dsn)
    began = time.time()
    connection.lobject(int(loid), "rb").export(name)
    return began, time.time(), 1


def lo_get(_, dsn, loid, name):
    import psycopg2
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    cursor = connection.cursor()
    piece = 1 << 20
    began = time.time()
    with open(name, "wb") as f:
        at = 0
        while True:
            cursor.execute("SELECT lo_get(%s, %s, %s)", (int(loid), at, piece))
            data = cursor.fetchone()[0]
            f.write(data)
            at += len(data)
            if len(data) < piece:
                break
    return began, time.time(), 1


what, *args = sys.argv[1:]
print(*{"fill": fill, "load": load, "commit": commits, "export": export, "lo_get": lo_get}[what](*args))
