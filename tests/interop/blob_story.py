"""What the change that gave ZEO its blobs promised, step by step.

A blob written as one million numbered lines is stored. The uncommitted file
is gone after the commit. The server's directory and the client's cache hold
the same bytes. After it is removed from the cache, ten threads load it at
once: all get the same path, and the server is asked once. A load costs one
round trip.
"""
import os
import threading

import ZODB.blob
import ZODB.utils
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import POSKeyError, Unsupported
from ZODB.tests.StorageTestBase import zodb_pickle

from harness import check, commit, equal, in_thread, main, raises, sha256, wait_until, z64

CALLS_BY_THEMSELVES = {'', 'ping', '.reply'}  # handshake and keep-alive


def store_blob(storage, data, oid=None, serial=z64, lines=None):
    """Commit a blob; return oid, tid and the name of the file it came from."""
    with open('uncommitted', 'wb') as f:
        f.write(data)
    oid = oid or storage.new_oid()
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.storeBlob(oid, serial, zodb_pickle(Blob()), 'uncommitted', '', txn)
    storage.tpc_vote(txn)
    return oid, storage.tpc_finish(txn), 'uncommitted'


def server_file(server, oid, tid):
    return os.path.join(server.blob_dir, ZODB.blob.BushyLayout().getBlobFilePath(oid, tid))


def calls(proxy):
    return {name: n for name, n in proxy.sent().items() if name not in CALLS_BY_THEMSELVES}


@check
def million_lines(t):
    server = t.start()
    proxy = server.proxy()
    storage = t.storage(proxy, blob_dir=t.new_dir())
    data = b''.join(b'%d\n' % i for i in range(1000000))
    oid, tid, source = store_blob(storage, data)

    equal(os.path.exists(source), False, 'uncommitted file is still there')
    cached = storage.fshelper.getBlobFilename(oid, tid)
    equal(open(cached, 'rb').read() == data, True, 'cache holds the bytes')
    equal(open(server_file(server, oid, tid), 'rb').read() == data, True, 'server holds the bytes')
    equal(os.listdir(os.path.join(server.blob_dir, 'tmp')), [], 'temporary files of the server')
    chunks = -(-len(data) // 59000)
    equal(proxy.sent()['storeBlobChunk'], chunks, 'chunks sent')

    ZODB.blob.remove_committed(cached)
    proxy.reset()
    start = threading.Barrier(10)

    def load():
        start.wait()
        return storage.loadBlob(oid, tid)

    results = [in_thread(load) for _ in range(10)]
    equal([result() for result in results], [cached] * 10, 'paths')
    equal(open(cached, 'rb').read() == data, True, 'loaded bytes')
    equal(calls(proxy), {'sendBlob': 1}, 'calls for ten loads')


@check
def load_is_one_round_trip(t):
    server = t.start()
    oid, tid, _ = store_blob(t.storage(server, blob_dir=t.new_dir()), b'some bytes' * 30000)
    proxy = server.proxy()
    storage = t.storage(proxy, blob_dir=t.new_dir())
    proxy.reset()
    equal(sha256(storage.loadBlob(oid, tid)), sha256(server_file(server, oid, tid)))
    equal(calls(proxy), {'sendBlob': 1}, 'calls')
    got = proxy.received()
    equal((got['receiveBlobStart'], got['receiveBlobStop'], got['.reply']), (1, 1, 1))
    proxy.reset()
    storage.loadBlob(oid, tid)
    equal(calls(proxy), {}, 'calls for a blob in the cache')


@check
def empty_blob(t):
    server = t.start()
    proxy = server.proxy()
    storage = t.storage(proxy, blob_dir=t.new_dir())
    oid, tid, _ = store_blob(storage, b'')
    equal(proxy.sent().get('storeBlobChunk'), None, 'chunks sent')
    equal(os.path.getsize(server_file(server, oid, tid)), 0)
    other = t.storage(server, blob_dir=t.new_dir())
    equal(os.path.getsize(other.loadBlob(oid, tid)), 0)


@check
def missing_blobs(t):
    """No blob, no such revision, no such object: POSKeyError at once, no file."""
    server = t.start()
    storage = t.storage(server, blob_dir=t.new_dir())
    oid, tid, _ = store_blob(storage, b'data')
    plain = storage.new_oid()
    plain_tid = commit(storage, (plain, z64, zodb_pickle('no blob')))
    for wanted in ((oid, ZODB.utils.p64(ZODB.utils.u64(tid) + 1)), (plain, plain_tid),
                   (ZODB.utils.p64(4711), tid)):
        error = raises(POSKeyError, storage.loadBlob, *wanted)
        equal(error.args[1:], wanted, 'arguments of POSKeyError')
    left = [name for _, _, names in os.walk(storage.fshelper.base_dir) for name in names if name.endswith('.dl')]
    equal(left, [], 'unfinished downloads')


@check
def without_blob_dir(t):
    server = t.start()
    oid, tid, _ = store_blob(t.storage(server, blob_dir=t.new_dir()), b'data')
    raises(Unsupported, t.storage(server).loadBlob, oid, tid)


@check
def abort_leaves_nothing(t):
    """Aborted before the vote, after it, or by disconnecting: no file stays."""
    server = t.start()

    def files():
        return [os.path.join(d, n) for d, _, names in os.walk(server.blob_dir) for n in names
                if n != '.layout']

    for stage in 'stored', 'voted', 'disconnected', 'voted and disconnected':
        storage = t.storage(server, blob_dir=t.new_dir())
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        with open('uncommitted', 'wb') as f:
            f.write(b'x' * 200000)
        storage.storeBlob(storage.new_oid(), z64, zodb_pickle(Blob()), 'uncommitted', '', txn)
        storage.server_status()  # all that was sent before has arrived
        if 'voted' in stage:
            storage.tpc_vote(txn)
        if 'disconnected' in stage:
            storage.close()
        else:
            storage.tpc_abort(txn)
        wait_until(f'no file after abort when {stage}', lambda: not files())


@check
def revisions(t):
    """Every revision has its own file, and old ones can be loaded."""
    server = t.start()
    storage = t.storage(server, blob_dir=t.new_dir())
    oid, first, _ = store_blob(storage, b'first')
    _, second, _ = store_blob(storage, b'second', oid, first)
    other = t.storage(server, blob_dir=t.new_dir())
    equal(open(other.loadBlob(oid, first), 'rb').read(), b'first')
    equal(open(other.loadBlob(oid, second), 'rb').read(), b'second')
    mode = os.stat(server_file(server, oid, second)).st_mode & 0o222
    equal(mode, 0, 'write permission of a committed blob')


@check
def many_blobs_in_one_transaction(t):
    server = t.start()
    connection = t.connection(server)
    root = connection.root()
    for i in range(100):
        root[i] = Blob(b'%d' % i * (i * 100))
    connection.transaction_manager.commit()
    other = t.connection(server).root()
    for i in range(100):
        equal(open(other[i].committed(), 'rb').read(), b'%d' % i * (i * 100), f'blob {i}')


@check
def loads_pass_a_blob_upload(t):
    """While one thread commits a large blob, loads of another one go on."""
    server = t.start()
    connection = t.connection(server)
    connection.root()['x'] = 1
    connection.transaction_manager.commit()
    storage = connection.db().storage
    with open('big', 'wb') as f:
        f.truncate(64 << 20)

    def upload():
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        storage.storeBlob(storage.new_oid(), z64, zodb_pickle(Blob()), 'big', '', txn)
        storage.tpc_vote(txn)
        return storage.tpc_finish(txn)

    done = in_thread(upload)
    loads = 0
    while not done.done():
        storage._call('loadBefore', z64, ZODB.utils.maxtid)
        loads += 1
    done()
    equal(loads > 0, True, 'loads meanwhile')


if __name__ == '__main__':
    main()
