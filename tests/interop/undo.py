"""Undo and the logs that tell what can be undone."""
import base64

from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ServerException
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import MultipleUndoErrors, POSKeyError
from ZODB.tests.MinPO import MinPO
from ZODB.tests.StorageTestBase import zodb_pickle

from harness import check, commit, equal, main, raises, up_to_date, z64


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
    second = storage.undoLog(1, -1)[0]['id']
    error = raises(MultipleUndoErrors, undo, storage, second)
    equal([entry[0] for entry in error._errs], [oid], 'objects that stand in the way')
    equal(storage.load(oid)[1], tids[-1], 'nothing changed')
    commit(storage, (oid, tids[-1], zodb_pickle(MinPO('on'))))


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
