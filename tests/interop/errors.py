"""What each error of the server becomes in a Python client."""
import time

import ZODB
import ZODB.interfaces
from ZEO.Exceptions import ClientDisconnected, ServerException
from ZODB.blob import Blob
from ZODB.POSException import POSKeyError, ReadOnlyError, StorageTransactionError, Unsupported
from ZODB.tests.StorageTestBase import zodb_pickle
from ZODB.utils import maxtid, p64

from harness import check, commit, equal, in_thread, main, raises, wait_until, z64

UNKNOWN = p64(4711)


def served(t):
    """A storage with one object; the object's oid and tid."""
    storage = t.storage(t.start(), blob_dir=t.new_dir())
    oid = storage.new_oid()
    return storage, oid, commit(storage, (oid, z64, zodb_pickle(1)))


def server_exception(class_name, storage, *call):
    error = raises(ServerException, storage._call, *call)
    equal(error.args[0], class_name, f'class of the error of {call}')
    return error.args[1]


@check
def unknown_object(t):
    storage, oid, tid = served(t)
    for call in (('loadBefore', UNKNOWN, maxtid), ('loadSerial', UNKNOWN, tid), ('getTid', UNKNOWN),
                 ('history', UNKNOWN, 1), ('loadSerial', oid, p64(1))):
        error = raises(POSKeyError, storage._call, *call)
        equal(error.args[0], call[1], f'first argument of the error of {call}')
    error = raises(POSKeyError, storage._call, 'sendBlob', UNKNOWN, tid)
    equal(error.args[1:], (UNKNOWN, tid))
    equal(storage._call('getTid', oid), tid, 'the connection goes on')


@check
def read_only(t):
    server = t.start()
    t.storage(server)
    storage = t.storage(server, read_only=True)
    for call in ('new_oids',), ('tpc_finish', 1), ('tpc_abort', 1), ('vote', 1):
        equal(raises(ReadOnlyError, storage._call, *call).args, ())


@check
def no_transaction(t):
    storage, oid, _ = served(t)
    equal(raises(StorageTransactionError, storage._call, 'vote', 99).args, (None, 99))
    equal(storage._call('tpc_finish', 99), None, 'finish of nothing')
    equal(storage._call('tpc_abort', 99), None, 'abort of nothing')


@check
def other_transaction(t):
    storage, oid, _ = served(t)
    storage._async('tpc_begin', 1, b'', b'', {}, None, ' ')
    equal(raises(StorageTransactionError, storage._call, 'vote', 2).args, (1, 2))
    equal(storage._call('tpc_finish', 2), None)
    equal(storage._call('tpc_abort', 2), None)
    equal(list(storage._call('vote', 1)), [], 'the transaction is still there')
    raises(StorageTransactionError, storage._call, 'vote', 1)
    storage._call('tpc_abort', 1)


@check
def iterators(t):
    storage, oid, tid = served(t)
    second = commit(storage, (oid, tid, zodb_pickle(2)))
    for method in 'iterator_next', 'iterator_record_next':
        equal(raises(KeyError, storage._call, method, 99).args, (99,))
    raises(KeyError, storage._call, 'iterator_record_start', 99, tid)
    iid = storage._call('iterator_start', None, None)
    equal(storage._call('iterator_next', iid)[0], tid)
    server_exception('builtins.Exception', storage, 'iterator_record_start', iid, second)
    equal(storage._call('iterator_next', iid)[0], second)
    equal(storage._call('iterator_next', iid), None)
    raises(KeyError, storage._call, 'iterator_next', iid)
    server_exception('builtins.ValueError', storage, 'record_iternext', UNKNOWN)


@check
def wrong_arguments(t):
    storage, oid, tid = served(t)
    for call in (('loadBefore', oid), ('getTid',), ('getTid', oid, tid), ('lastTransaction', 1)):
        raises(TypeError, storage._call, *call)
    equal(storage._call('getTid', oid), tid, 'the connection goes on')


@check
def pack_without_root(t):
    storage, oid, _ = served(t)
    equal(raises(KeyError, storage._call, 'pack', time.time() + 1, True).args, (z64,))


def closes(t, provoke):
    """provoke makes the server end the connection; a new one works."""
    server = t.start()
    storage = t.storage(server)
    oid = storage.new_oid()
    generation = storage._connection_generation
    provoke(storage, oid)
    # The generation grows when a connection ends and when another begins.
    wait_until('connection is closed', lambda: storage._connection_generation > generation)
    wait_until('connected again', storage.is_connected)
    in_thread(commit, storage, (oid, z64, zodb_pickle(1)))(20)
    commit(t.storage(server), (p64(99), z64, zodb_pickle(1)))


@check
def unknown_method(t):
    closes(t, lambda storage, oid: raises(ClientDisconnected, storage._call, 'nonsense'))


@check
def failing_async_call(t):
    closes(t, lambda storage, oid: storage._async('storea', oid, z64, b'', 99))


@check
def second_begin(t):
    def provoke(storage, oid):
        storage._async('tpc_begin', 1, b'', b'', {}, None, ' ')
        storage._async('tpc_begin', 2, b'', b'', {}, None, ' ')
    closes(t, provoke)


@check
def second_register(t):
    closes(t, lambda storage, oid: raises(ClientDisconnected, storage._call, 'register', '1', False))


@check
def chunk_without_start(t):
    closes(t, lambda storage, oid: storage._async('storeBlobChunk', b'x'))


@check
def second_blob_start(t):
    def provoke(storage, oid):
        # In a transaction, so that only the second start ends the connection:
        # if the first did, the second might find it ended already.
        storage._async('tpc_begin', 1, b'', b'', {}, None, ' ')
        storage._async('storeBlobStart')
        storage._async('storeBlobStart')
    closes(t, provoke)


@check
def voted_and_then_bad(t):
    """A client that misbehaves after its vote does not keep the lock."""
    def provoke(storage, oid):
        storage._async('tpc_begin', 1, b'', b'', {}, None, ' ')
        storage._async('storea', oid, z64, zodb_pickle(1), 1)
        storage._call('vote', 1)
        raises(ClientDisconnected, storage._call, 'nonsense')
    closes(t, provoke)


@check
def blobs_not_supported(t):
    storage = t.storage(t.start(blob_dir='-'))
    equal(ZODB.interfaces.IBlobStorage.providedBy(storage), False)
    connection = t.connection(ZODB.DB(storage))
    connection.root()['blob'] = Blob(b'x')
    raises(Unsupported, connection.transaction_manager.commit)
    connection.transaction_manager.abort()


if __name__ == '__main__':
    main()
