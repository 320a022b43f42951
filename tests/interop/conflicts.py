"""Conflicts: resolved by BTrees and Length, not resolvable, and of reads."""
import time

import transaction
import ZODB.utils
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ServerException
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import BTreesConflictError, ConflictError, POSKeyError, ReadConflictError
from ZODB.tests.StorageTestBase import zodb_pickle

from harness import check, commit, equal, in_thread, main, raises, up_to_date, z64


def start(t):
    """A server that lets its clients resolve conflicts, and two connections."""
    server = t.start(client_conflict_resolution=True)
    one = t.connection(server)
    one.root()['length'] = Length()
    one.root()['tree'] = IOBTree()
    one.root()['plain'] = PersistentMapping()
    one.root()['blob'] = Blob(b'old')
    one.transaction_manager.commit()
    two = t.connection(server)
    equal(two.root()['length'](), 0)
    return server, one, two


def touch(connection):
    """Load everything into the connection, so that it works on what is now."""
    up_to_date(connection)
    root = connection.root()
    root['length'](), root['tree'].get(0), root['plain'].get(0), root['blob'].committed()
    return root


@check
def length_is_resolved(t):
    server, one, two = start(t)
    for n in range(1, 6):
        a, b = touch(one), touch(two)
        a['length'].change(n)
        b['length'].change(10 * n)
        one.transaction_manager.commit()
        two.transaction_manager.commit()
        equal(touch(one)['length'](), touch(two)['length']())
    equal(touch(one)['length'](), 11 * 15)
    equal(t.connection(server).root()['length'](), 11 * 15, 'sum on the server')


@check
def btree_is_resolved(t):
    server, one, two = start(t)
    a, b = touch(one), touch(two)
    a['tree'][1] = 'one'
    b['tree'][2] = 'two'
    one.transaction_manager.commit()
    two.transaction_manager.commit()
    equal(dict(t.connection(server).root()['tree']), {1: 'one', 2: 'two'})


@check
def btree_same_key(t):
    _, one, two = start(t)
    a, b = touch(one), touch(two)
    a['tree'][1] = 'one'
    b['tree'][1] = 'other'
    one.transaction_manager.commit()
    try:
        two.transaction_manager.commit()
    except (BTreesConflictError, ConflictError) as error:
        equal(isinstance(error, ConflictError), True)
    else:
        raise AssertionError('two values for one key were committed')
    two.transaction_manager.abort()


@check
def blob_survives_a_resolved_conflict(t):
    """A conflict beside a blob costs a second vote; the blob must be kept."""
    server, one, two = start(t)
    a, b = touch(one), touch(two)
    a['length'].change(1)
    one.transaction_manager.commit()
    b['length'].change(1)
    with b['blob'].open('w') as f:
        f.write(b'new' * 50000)
    b['another'] = Blob(b'another')
    two.transaction_manager.commit()
    root = t.connection(server).root()
    equal(root['length'](), 2)
    equal(open(root['blob'].committed(), 'rb').read(), b'new' * 50000)
    equal(open(root['another'].committed(), 'rb').read(), b'another')


@check
def unresolvable(t):
    _, one, two = start(t)
    a, b = touch(one), touch(two)
    read = b['plain']._p_serial
    a['plain']['x'] = 1
    b['plain']['x'] = 2
    one.transaction_manager.commit()
    committed = a['plain']._p_serial
    error = raises(ConflictError, two.transaction_manager.commit)
    equal(error.oid, a['plain']._p_oid, 'oid')
    equal(error.serials, (committed, read), 'serials')
    two.transaction_manager.abort()
    # Both can go on.
    touch(two)['plain']['x'] = 3
    two.transaction_manager.commit()
    equal(touch(one)['plain']['x'], 3)


@check
def conflict_of_a_blob(t):
    server, one, two = start(t)
    a, b = touch(one), touch(two)
    for root, data in ((a, b'first'), (b, b'second')):
        with root['blob'].open('w') as f:
            f.write(data)
    one.transaction_manager.commit()
    raises(ConflictError, two.transaction_manager.commit)
    two.transaction_manager.abort()
    equal(open(t.connection(server).root()['blob'].committed(), 'rb').read(), b'first')


@check
def conflict_leaves_nothing(t):
    """What a failing transaction stored beside the conflict is not there."""
    server, one, two = start(t)
    a, b = touch(one), touch(two)
    a['plain']['x'] = 1
    b['plain']['x'] = 2
    b['tree'][7] = 'never'
    one.transaction_manager.commit()
    last = one.db().storage.lastTransaction()
    raises(ConflictError, two.transaction_manager.commit)
    two.transaction_manager.abort()
    equal(dict(t.connection(server).root()['tree']), {})
    equal(one.db().storage._call('lastTransaction'), last)


@check
def read_current(t):
    """readCurrent: a transaction that relied on a changed object fails."""
    _, one, two = start(t)
    a, b = touch(one), touch(two)
    read = b['plain']._p_serial
    two.readCurrent(b['plain'])
    b['length'].change(1)
    a['plain']['x'] = 1
    one.transaction_manager.commit()
    error = raises(ReadConflictError, two.transaction_manager.commit)
    equal((error.oid, error.serials), (a['plain']._p_oid, (a['plain']._p_serial, read)))
    two.transaction_manager.abort()
    b = touch(two)
    two.readCurrent(b['plain'])
    b['length'].change(1)
    two.transaction_manager.commit()


@check
def check_current_serial(t):
    """checkCurrentSerialInTransaction, call by call."""
    storage = t.storage(t.start())
    oid, other = storage.new_oid(), storage.new_oid()
    first = commit(storage, (oid, z64, zodb_pickle(1)))
    second = commit(storage, (oid, first, zodb_pickle(2)))

    def try_it(oid, serial):
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        try:
            storage.store(other, z64, zodb_pickle('x'), '', txn)
            storage.checkCurrentSerialInTransaction(oid, serial, txn)
            storage.tpc_vote(txn)
        finally:
            storage.tpc_abort(txn)

    try_it(oid, second)
    error = raises(ReadConflictError, try_it, oid, first)
    equal((error.oid, error.serials), (oid, (second, first)))
    raises(POSKeyError, try_it, ZODB.utils.p64(4711), first)


@check
def delete_conflict(t):
    storage = t.storage(t.start())
    oid = storage.new_oid()
    first = commit(storage, (oid, z64, zodb_pickle(1)))
    second = commit(storage, (oid, first, zodb_pickle(2)))
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    storage.deleteObject(oid, first, txn)
    error = raises(ConflictError, storage.tpc_vote, txn)
    equal((error.oid, error.serials), (oid, (second, first)))
    storage.tpc_abort(txn)


@check
def many_writers(t):
    """Eight writers on one counter and one tree lose nothing.

    After ten rounds of conflicts ZEO's client finishes a transaction it has
    not voted for; the server refuses, and nothing may be committed.
    """
    server, one, _ = start(t)
    writers, rounds = 8, 20

    def write(me):
        db = t.db(server)
        for i in range(rounds):
            for _ in range(200):
                tm = transaction.TransactionManager()
                connection = db.open(tm)
                try:
                    connection.root()['length'].change(1)
                    connection.root()['tree'][me * 1000 + i] = me
                    tm.commit()
                    break
                except (ConflictError, ServerException) as error:
                    if isinstance(error, ServerException):
                        equal(error.args[0], 'builtins.AssertionError', str(error))
                    tm.abort()
                    time.sleep(0.001 * me)
                finally:
                    connection.close()
            else:
                raise AssertionError('200 conflicts in a row')

    for result in [in_thread(write, n) for n in range(writers)]:
        result(120)
    root = t.connection(server).root()
    equal(root['length'](), writers * rounds)
    equal(len(root['tree']), writers * rounds)


if __name__ == '__main__':
    main()
