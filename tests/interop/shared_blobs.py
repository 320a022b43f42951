"""Clients that write into the server's blob directory themselves."""
import os

import ZODB.blob
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import POSKeyError
from ZODB.tests.StorageTestBase import zodb_pickle

from harness import check, commit, equal, main, raises, wait_until, z64


@check
def store_and_load(t):
    server = t.start()
    proxy = server.proxy()
    one = t.connection(proxy, blob_dir=server.blob_dir, shared_blob_dir=True)
    for i in range(5):
        one.root()[i] = Blob(b'%d' % i * 100000)
    one.transaction_manager.commit()
    equal(proxy.sent()['storeBlobShared'], 5)
    equal([m for m in proxy.sent() if m in ('storeBlobStart', 'sendBlob')], [])

    shared = t.connection(server, blob_dir=server.blob_dir, shared_blob_dir=True)
    remote = t.connection(server)
    for i in range(5):
        for connection in shared, remote:
            equal(open(connection.root()[i].committed(), 'rb').read(), b'%d' % i * 100000)
    blob = one.root()[0]
    blob._p_activate()
    path = os.path.join(server.blob_dir, ZODB.blob.BushyLayout().getBlobFilePath(blob._p_oid, blob._p_serial))
    equal(os.path.exists(path), True)
    equal(os.stat(path).st_mode & 0o222, 0, 'write permission of a committed blob')

    # A client without the directory stores, the sharing one reads it there.
    remote.root()['remote'] = Blob(b'sent over the wire')
    remote.transaction_manager.commit()
    wait_until('invalidation arrives',
               lambda: shared.db().storage.lastTransaction() == remote.db().storage.lastTransaction())
    shared.transaction_manager.begin()
    equal(open(shared.root()['remote'].committed(), 'rb').read(), b'sent over the wire')


@check
def missing(t):
    server = t.start()
    storage = t.storage(server, blob_dir=server.blob_dir, shared_blob_dir=True)
    raises(POSKeyError, storage.loadBlob, storage.new_oid(), z64)


@check
def abort(t):
    """An aborted shared blob is no committed one."""
    server = t.start()
    storage = t.storage(server, blob_dir=server.blob_dir, shared_blob_dir=True)
    for stage in 'stored', 'voted':
        with open(os.path.join(server.blob_dir, 'tmp', stage), 'wb') as f:
            f.write(b'x')
        oid, txn = storage.new_oid(), TransactionMetaData()
        storage.tpc_begin(txn)
        storage.storeBlob(oid, z64, zodb_pickle(Blob()), f.name, '', txn)
        if stage == 'voted':
            storage.tpc_vote(txn)
        storage.tpc_abort(txn)
        raises(POSKeyError, storage.load, oid)
    left = [n for _, _, names in os.walk(server.blob_dir) for n in names if n.endswith('.blob')]
    equal(left, [], 'committed blob files')


def bad_name(name):
    def check_it(t):
        server = t.start()
        storage = t.storage(server, blob_dir=server.blob_dir, shared_blob_dir=True)
        with open(os.path.join(server.path), 'rb') as f:
            before = f.read()
        oid = storage.new_oid()
        generation = storage._connection_generation
        storage._async('tpc_begin', 1, b'', b'', {}, None, ' ')
        storage._async('storeBlobShared', oid, z64, zodb_pickle(Blob()), name, 1)
        wait_until('connection is closed', lambda: storage._connection_generation > generation)
        with open(server.path, 'rb') as f:
            equal(f.read(), before, 'Data.fs')
        wait_until('connected again', storage.is_connected)
        commit(storage, (oid, z64, b'x'))
    return check_it


for label, name in [('separator', '../x.tmp'), ('absolute', '/etc/x.tmp'), ('other_suffix', 'x.blob'), ('empty', '')]:
    function = bad_name(name)
    function.__name__ = f'bad_name_{label}'
    check(function)


@check
def missing_file(t):
    """A name of no file fails at the vote and leaves nothing."""
    server = t.start()
    storage = t.storage(server, blob_dir=server.blob_dir, shared_blob_dir=True)
    oid = storage.new_oid()
    storage._async('tpc_begin', 1, b'', b'', {}, None, ' ')
    storage._async('storeBlobShared', oid, z64, zodb_pickle(Blob()), 'nothing.tmp', 1)
    try:
        storage._call('vote', 1)
    except Exception as error:
        print('vote failed as it should:', repr(error))
    else:
        raise AssertionError('a missing file was voted for')
    wait_until('connected', storage.is_connected)
    raises(POSKeyError, storage.load, oid)
    commit(storage, (oid, z64, b'x'))


if __name__ == '__main__':
    main()
