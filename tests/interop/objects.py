"""The main job: objects, BTrees and blobs, two processes, and the files.

One process commits, another one sees each commit by its invalidation. Then
the server stops, and Python's own FileStorage must find the same in the files.
"""
import hashlib
import io
import multiprocessing
import os
import random
import subprocess
import sys

import transaction
import ZEO
import ZODB.FileStorage
import ZODB.scripts.fstest
import ZODB.utils
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob

from harness import LONG, SOON, check, equal, main, sha256, short, wait_until

CHUNK = 59000  # what Python puts into one message
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 << 20]
if LONG:
    SIZES.append(1 << 30)


def pattern(size):
    """Yield size bytes that do not repeat at any power of two."""
    block = random.Random(size).randbytes(999983)
    while size > 0:
        yield block[:size]
        size -= len(block)


def digest(size):
    h = hashlib.sha256()
    for part in pattern(size):
        h.update(part)
    return h.hexdigest()


def reader(address, blob_dir, pipe):
    """Second process: report the digest of everything at each new commit."""
    db = ZEO.DB(address, blob_dir=blob_dir, wait_timeout=SOON)
    seen = None
    with db.transaction() as conn:
        seen = conn.root().get('round')
    pipe.send(('ready', seen))
    while True:
        wanted = pipe.recv()
        if wanted is None:
            break
        tm = transaction.TransactionManager()
        conn = db.open(tm)

        def arrived():
            tm.begin()
            return conn.root().get('round') == wanted

        try:
            wait_until(f'round {wanted} in the second process', arrived)
            pipe.send(('state', state_of(conn)))
        except AssertionError as error:
            pipe.send(('error', str(error)))
        tm.abort()
        conn.close()
    db.close()


def state_of(connection):
    """All that the database holds, as plain values."""
    root = connection.root()
    return {
        'round': root['round'],
        'tree': dict(root['tree']),
        'mapping': dict(root['mapping']),
        'blobs': {name: sha256(blob.committed()) for name, blob in root['blobs'].items()},
    }


@check(limit=900)
def objects_and_blobs(t):
    server = t.start()
    connection = t.connection(server)
    tm = connection.transaction_manager
    root = connection.root()

    ours, theirs = multiprocessing.get_context('spawn').Pipe()
    second = multiprocessing.get_context('spawn').Process(
        target=reader, args=(server.address, t.new_dir(), theirs), daemon=True)
    second.start()
    t.defer(second.kill)
    theirs.close()
    equal(receive(ours), ('ready', None))

    root['round'] = 0
    root['tree'], root['mapping'], root['blobs'] = OOBTree(), PersistentMapping(), OOBTree()
    for number, size in enumerate(SIZES, 1):
        for i in range(200):
            root['tree'][f'{i:06}'] = (number, i)
        root['mapping'][number] = 'x' * number
        blob = root['blobs'][f'{size}'] = Blob()
        with blob.open('w') as f:
            for part in pattern(size):
                f.write(part)
        root['round'] = number
        tm.commit()
        ours.send(number)
        kind, state = receive(ours)
        equal(kind, 'state', short(state))
        equal(state, state_of(connection), f'what the second process reads in round {number}')
    equal(state['blobs'], {str(size): digest(size) for size in SIZES}, 'digests of blobs')

    # A new revision of a blob does not touch the one before.
    old = root['blobs']['1'].committed()
    with root['blobs']['1'].open('w') as f:
        f.write(b'second revision')
    root['round'] += 1
    tm.commit()
    equal(open(old, 'rb').read(), b''.join(pattern(1)), 'old revision of a blob')
    ours.send(root['round'])
    kind, state = receive(ours)
    equal((kind, state), ('state', state_of(connection)))
    ours.send(None)
    second.join(SOON)

    objects = {oid: storage_state(connection.db().storage, oid) for oid in oids_of(connection)}
    expected = state_of(connection)
    server.stop()
    same_in_files(server, objects, expected)
    equal(trouble_in_files(server), '', 'what fstest and fsrefs say')


def receive(pipe):
    if not pipe.poll(600):
        raise AssertionError('the second process says nothing')
    return pipe.recv()


def oids_of(connection):
    """All oids, by walking over the current records."""
    oids, cursor = [], None
    while True:
        oid, tid, data, cursor = connection.db().storage.record_iternext(cursor)
        oids.append(oid)
        if cursor is None:
            return oids


def storage_state(storage, oid):
    return ZODB.utils.load_current(storage, oid)


def same_in_files(server, objects, expected):
    """Python's FileStorage reads the files that the server left."""
    storage = ZODB.FileStorage.FileStorage(server.path, blob_dir=server.blob_dir, read_only=True)
    db = ZODB.DB(storage)
    try:
        equal({oid: storage_state(storage, oid) for oid in objects}, objects, 'records in Data.fs')
        equal(len(storage), len(objects), 'number of objects in Data.fs')
        with db.transaction() as connection:
            equal(state_of(connection), expected, 'what FileStorage reads')
    finally:
        db.close()
    layout = open(os.path.join(server.blob_dir, '.layout')).read().strip()
    equal(layout, 'bushy', 'layout of the blob directory')


def trouble_in_files(server):
    """What ZODB's own checkers complain about."""
    complaints = []
    try:
        ZODB.scripts.fstest.check(server.path)
    except ZODB.scripts.fstest.FormatError as error:
        complaints.append(f'fstest: {error}')
    refs = subprocess.run([sys.executable, '-m', 'ZODB.scripts.fsrefs', server.path],
                          capture_output=True, text=True, timeout=SOON)
    if refs.returncode or refs.stdout.strip():
        complaints.append(f'fsrefs ({refs.returncode}): {refs.stdout}{refs.stderr}')
    return '\n'.join(complaints)


@check
def files_of_python_served(t):
    """A database that Python wrote is served as it is, and goes on."""
    import ZODB.blob
    path, blob_dir = os.path.join(t.dir, 'Data.fs'), os.path.join(t.dir, 'blobs')
    db = ZODB.DB(ZODB.FileStorage.FileStorage(path, blob_dir=blob_dir))
    with db.transaction() as connection:
        connection.root()['tree'] = OOBTree({i: str(i) for i in range(1000)})
        connection.root()['blob'] = Blob(b'written without a server')
    last = db.storage.lastTransaction()
    db.close()

    server = t.start(path=path, blob_dir=blob_dir)
    connection = t.connection(server)
    equal(connection.db().storage.lastTransaction(), last, 'last transaction')
    root = connection.root()
    equal(dict(root['tree']), {i: str(i) for i in range(1000)})
    equal(open(root['blob'].committed(), 'rb').read(), b'written without a server')
    root['tree'][0] = 'new'
    connection.transaction_manager.commit()
    connection.db().close()
    server.stop()

    db = ZODB.DB(ZODB.FileStorage.FileStorage(path, blob_dir=blob_dir))
    with db.transaction() as connection:
        equal(connection.root()['tree'][0], 'new')
        equal(connection.root()['tree'][999], '999')
    db.close()
    equal(trouble_in_files(server), '')


@check
def large_records(t):
    """Records at the sizes where encodings and buffers change."""
    server = t.start()
    connection = t.connection(server)
    sizes = [n + d for n in (0x80, 0x100, 0x1000, 0x10000, 1 << 20) for d in (-40, -1, 0, 1)]
    for size in sizes + [20 << 20]:
        connection.root()[size] = PersistentMapping(data=b'\xfe' * size)
    connection.transaction_manager.commit()
    other = t.connection(server)
    for size in sizes + [20 << 20]:
        equal(other.root()[size]['data'], b'\xfe' * size, f'record of {size} bytes')


@check
def unix_socket(t):
    server = t.start(address=os.path.join(t.dir, 'zeo.sock'))
    connection = t.connection(server)
    connection.root()['blob'] = Blob(b'over a file name')
    connection.transaction_manager.commit()
    other = t.connection(server)
    equal(open(other.root()['blob'].committed(), 'rb').read(), b'over a file name')


@check
def export_and_import(t):
    """ZODB's export format goes through with blobs."""
    connection = t.connection(t.start())
    connection.root()['tree'] = OOBTree({1: Blob(b'one'), 2: Blob(b'two' * 50000)})
    connection.transaction_manager.commit()
    exported = io.BytesIO()
    connection.exportFile(connection.root()['tree']._p_oid, exported)
    exported.seek(0)
    other = t.connection(t.start())
    other.root()['copy'] = other.importFile(exported)
    other.transaction_manager.commit()
    equal(sha256(other.root()['copy'][2].committed()), hashlib.sha256(b'two' * 50000).hexdigest())


if __name__ == '__main__':
    main()
