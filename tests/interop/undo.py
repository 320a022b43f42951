"""Undo and the logs that tell what can be undone."""
import base64

import transaction
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ServerException
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ConflictError, MultipleUndoErrors, POSKeyError
from ZODB.tests.MinPO import MinPO
from ZODB.tests.StorageTestBase import zodb_pickle

from harness import TARGET, check, commit, equal, main, raises, up_to_date, z64


def undo(storage, *ids):
    """Undo transactions in one new one; return its tid."""
    txn = TransactionMetaData('undoer', 'undo')
    storage.tpc_begin(txn)
    try:
        for id in ids:
            storage.undo(id, txn)
        storage.tpc_vote(txn)
        return storage.tpc_finish(txn)
    except BaseException:
        storage.tpc_abort(txn)
        raise


def revisions(storage, n=5):
    """Commit n revisions of one object; return oid and tids."""
    oid, tid, tids = storage.new_oid(), z64, []
    for i in range(n):
        tid = commit(storage, (oid, tid, zodb_pickle(MinPO(i))), user=f'user{i % 2}',
                     description=f'number {i}', extension={'i': i, 'text': 'é'})
        tids.append(tid)
    return oid, tids


@check
def undo_log(t):
    storage = t.storage(t.start())
    equal(list(storage.undoLog(0, -10)), [], 'undoLog of an empty storage')
    oid, tids = revisions(storage)
    log = storage.undoLog(0, -20)
    equal([base64.b64decode(entry['id'] + b'\n') for entry in log], tids[::-1], 'ids')
    newest = log[0]
    equal((newest['user_name'], newest['description']), (b'user0', b'number 4'))
    equal((newest['i'], newest['text']), (4, 'é'), 'extension')
    equal(sorted(newest), ['description', 'i', 'id', 'size', 'text', 'time', 'user_name'], 'keys')
    equal(isinstance(newest['size'], int) and newest['size'] > 0, True, 'size')
    ranges = {(0, 2): log[0:2], (1, 3): log[1:3], (3, 100): log[3:], (0, -2): log[0:2],
              (2, -2): log[2:4], (100, -1): [], (0, 0): []}
    for (first, last), want in ranges.items():
        equal(list(storage.undoLog(first, last)), list(want), f'undoLog({first}, {last})')


@check
def undo_info_filters(t):
    storage = t.storage(t.start())
    revisions(storage, 6)
    for specification, want in [
            (None, [5, 4, 3, 2, 1, 0]),
            ({'user_name': b'user1'}, [5, 3, 1]),
            ({'description': b'number 2'}, [2]),
            ({'user_name': b'user0', 'description': b'number 4'}, [4]),
            ({'i': 3}, [3]),
            ({'user_name': b'nobody'}, [])]:
        got = [entry['i'] for entry in storage.undoInfo(0, -20, specification)]
        equal(got, want, f'undoInfo with {specification}')
    got = [entry['i'] for entry in storage.undoInfo(1, 2, {'user_name': b'user1'})]
    equal(got, [3], 'undoInfo counts entries that match')


@check
def undo_and_redo(t):
    storage = t.storage(t.start())
    oid, tids = revisions(storage, 3)
    first_undo = undo(storage, storage.undoLog(0, -1)[0]['id'])
    equal(storage.loadBefore(oid, b'\x7f' + b'\xff' * 7)[:2], (zodb_pickle(MinPO(1)), first_undo))
    undo(storage, storage.undoLog(0, -1)[0]['id'])
    equal(storage.load(oid)[0], zodb_pickle(MinPO(2)), 'undo of the undo')
    equal(storage.loadSerial(oid, first_undo), zodb_pickle(MinPO(1)))
    equal([entry['description'] for entry in storage.history(oid, 9)],
          [b'undo', b'undo', b'number 2', b'number 1', b'number 0'])


@check
def undo_of_creation(t):
    storage = t.storage(t.start())
    oid = storage.new_oid()
    created = commit(storage, (oid, z64, zodb_pickle(MinPO(1))))
    undo(storage, storage.undoLog(0, -1)[0]['id'])
    raises(POSKeyError, storage.load, oid)
    equal(storage.loadSerial(oid, created), zodb_pickle(MinPO(1)), 'it can be read in the past')
    undo(storage, storage.undoLog(0, -1)[0]['id'])
    equal(storage.load(oid)[0], zodb_pickle(MinPO(1)), 'undo of the undo')


@check
def several_undos_in_one_transaction(t):
    storage = t.storage(t.start())
    oid, tids = revisions(storage, 4)
    ids = [entry['id'] for entry in storage.undoLog(0, -3)]
    undo(storage, *ids)
    equal(storage.load(oid)[0], zodb_pickle(MinPO(0)))


@check
def undo_through_connections(t):
    """An undo reaches the other client's objects, with blobs."""
    server = t.start()
    one, two = t.connection(server), t.connection(server)
    root = one.root()
    root['a'], root['blob'] = PersistentMapping(x=1), Blob(b'one')
    one.transaction_manager.commit()
    root['a']['x'] = 2
    with root['blob'].open('w') as f:
        f.write(b'two')
    one.transaction_manager.get().note('second')
    one.transaction_manager.commit()
    up_to_date(two)
    equal(two.root()['a']['x'], 2)
    equal(open(two.root()['blob'].committed(), 'rb').read(), b'two')

    db = one.db()
    db.undo(db.undoLog(0, -1)[0]['id'], one.transaction_manager.get())
    one.transaction_manager.commit()
    for connection in one, two, t.connection(server):
        up_to_date(connection)
        equal(connection.root()['a']['x'], 1)
        equal(open(connection.root()['blob'].committed(), 'rb').read(), b'one')


@check
def failing_undo(t):
    storage = t.storage(t.start())
    oid, tids = revisions(storage, 3)
    second, first = [entry['id'] for entry in storage.undoLog(1, -2)]
    error = raises(MultipleUndoErrors, undo, storage, first)
    equal([entry[0] for entry in error._errs], [oid], 'objects that stand in the way')
    # Where it would take a merge, ours leaves it to the client that there is none.
    error = raises(ConflictError if TARGET == 'zeolite' else MultipleUndoErrors, undo, storage, second)
    if TARGET == 'zeolite':
        equal((error.oid, error.serials), (oid, (tids[2], tids[1])))
    equal(storage.load(oid)[1], tids[-1], 'nothing changed')
    commit(storage, (oid, tids[-1], zodb_pickle(MinPO('on'))))


def catalog(t):
    """Commit to a tree and its length, five times; return server and connection."""
    server = t.start()
    connection = t.connection(server)
    root = connection.root()
    # A tree cannot merge the removal of its first key: there is one that stays.
    root['tree'], root['length'] = OOBTree({'a': 0, 'zero': 0}), Length(1)
    connection.transaction_manager.commit()
    for n, key in enumerate(['one', 'two', 'three', 'four', 'five'], 1):
        root['tree'][key] = n
        root['length'].change(n)
        connection.transaction_manager.get().note(key)
        connection.transaction_manager.commit()
    return server, connection


def undo_notes(connection, *notes):
    """Undo transactions by their notes, through the database."""
    db = connection.db()
    ids = {entry['description']: entry['id'] for entry in db.undoLog(0, -99)}
    tm = transaction.TransactionManager()
    db.undoMultiple([ids[note] for note in notes], tm.get())
    tm.get().note('undo ' + ' '.join(notes))
    tm.commit()


def holds(t, server, connection, keys, length):
    for reader in connection, t.connection(server):
        up_to_date(reader)
        root = reader.root()
        equal((sorted(set(root['tree']) - {'a'}), root['length']()), (sorted(keys.split()), length))


@check
def undo_merges(t):
    """What changed in trees and numbers since stays."""
    server, connection = catalog(t)
    reader = t.connection(server)
    equal(len(reader.root()['tree']), 7)
    undo_notes(connection, 'two')
    holds(t, server, connection, 'zero one three four five', 14)
    up_to_date(reader)
    equal((len(reader.root()['tree']), reader.root()['length']()), (6, 14), 'in a cache')
    undo_notes(connection, 'one')
    holds(t, server, connection, 'zero three four five', 13)
    undo_notes(connection, 'undo two')
    holds(t, server, connection, 'zero two three four five', 15)
    connection.root()['tree']['on'] = 1
    connection.transaction_manager.commit()
    holds(t, server, connection, 'on zero two three four five', 15)


@check
def several_undos_merge(t):
    """Neighbours in one transaction; also if the newest is one."""
    for notes in ('three', 'two'), ('two', 'three'):
        server, connection = catalog(t)
        undo_notes(connection, *notes)
        holds(t, server, connection, 'zero one four five', 11)
    server, connection = catalog(t)
    undo_notes(connection, 'five', 'four', 'one')
    holds(t, server, connection, 'zero two three', 6)
    undo_notes(connection, 'undo five four one')
    holds(t, server, connection, 'zero one two three four five', 16)


@check
def two_merges_of_one_object(t):
    """Undone in one transaction, ours refuses them; one by one they are fine."""
    server, connection = catalog(t)
    if TARGET == 'zeolite':
        raises(MultipleUndoErrors, undo_notes, connection, 'four', 'two')
        holds(t, server, connection, 'zero one two three four five', 16)
        undo_notes(connection, 'four')
        undo_notes(connection, 'two')
    else:
        undo_notes(connection, 'four', 'two')
    holds(t, server, connection, 'zero one three five', 10)


@check
def undo_that_does_not_merge(t):
    """The same key, changed later."""
    server, connection = catalog(t)
    connection.root()['tree']['two'] = 'changed'
    connection.transaction_manager.commit()
    raises(ConflictError if TARGET == 'zeolite' else MultipleUndoErrors, undo_notes, connection, 'two')
    holds(t, server, connection, 'zero one two three four five', 16)


@check
def bad_ids(t):
    storage = t.storage(t.start())
    oid, tids = revisions(storage, 1)
    unknown = base64.b64encode(b'\1' * 8)
    error = raises(ServerException, undo, storage, unknown)
    equal(error.args[0], 'ZODB.POSException.UndoError', 'class of an unknown id')
    raises(ServerException, undo, storage, b'!')
    commit(storage, (oid, tids[0], zodb_pickle(MinPO('on'))))


if __name__ == '__main__':
    main()
