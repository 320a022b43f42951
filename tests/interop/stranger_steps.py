"""What the checks of stranger.py are made of."""
import sys

from stranger_wire import MAXTID, Z64, Connection, Ended, Failed

ADDRESS = sys.argv[1]
ROOT_RECORD = b'\x80\x03cpersistent.mapping\nPersistentMapping\n.\x80\x03}X\x04\x00\x00\x00data}s.'
BLOB_RECORD = b'\x80\x03cZODB.blob\nBlob\n.\x80\x03N.'

checks = []


def check(f):
    checks.append(f)
    return f


def equal(got, want, what=''):
    if got != want:
        raise AssertionError('%s: got %r, want %r' % (what, got, want))


def fails(name, connection, *call):
    """Make a call that must fail; return the state of the error."""
    try:
        got = connection.call(*call)
    except Failed as e:
        equal(e.name, name, 'class of the error of %r' % (call,))
        return e.state
    raise AssertionError('%r did not fail: %r' % (call, got))


def ends(connection):
    """The server must end the connection."""
    try:
        while True:
            connection.hear()
    except Ended:
        connection.close()


def connect(read_only=False, letter=None):
    c = Connection(ADDRESS, letter)
    c.registered = c.call('register', '1', read_only)
    return c


class Transaction:
    ids = 1 << 40

    def __init__(self, c, user=b'stranger', description=b'', extension=None, *identity):
        Transaction.ids += 1
        self.c, self.id = c, Transaction.ids
        c.one_way('tpc_begin', self.id, user, description, extension or {}, *identity)

    def store(self, oid, serial, data):
        self.c.one_way('storea', oid, serial, data, self.id)

    def blob(self, oid, serial, data, blob):
        self.c.one_way('storeBlobStart')
        for at in range(0, len(blob), 59000):
            self.c.one_way('storeBlobChunk', blob[at:at + 59000])
        self.c.one_way('storeBlobEnd', oid, serial, data, self.id)

    def vote(self):
        return self.c.call('vote', self.id)

    def finish(self):
        return self.c.call('tpc_finish', self.id)

    def commit(self):
        equal(list(self.vote()), [], 'vote')
        return self.finish()


def new_oid(c):
    return c.call('new_oids', 1)[0]


def put(c, data, oid=None, serial=Z64, **meta):
    oid = oid or new_oid(c)
    t = Transaction(c, **meta)
    t.store(oid, serial, data)
    return oid, t.commit()


def load(c, oid, before=MAXTID):
    return c.call('loadBefore', oid, before)


class Cache:
    """A cache as 9.2 has it: (start, end or None, data) by oid."""

    def __init__(self, c):
        self.c, self.last, self.by = c, c.registered, {}

    def load(self, oid, before=MAXTID):
        for start, end, data in sorted(self.by.get(oid, ()), reverse=True):
            if start < before:
                if end is None or end >= before:
                    return data
                break
        data, start, end = load(self.c, oid, before)
        self.hear()
        self.by.setdefault(oid, []).append((start, end, data))
        return data

    def hear(self):
        for tid, oids in self.c.told('invalidateTransaction'):
            assert tid > self.last, 'in order, and once'
            for oid in oids:
                self.by[oid] = [(s, tid if e is None else e, d) for s, e, d in self.by.get(oid, ())]
            self.last = tid


def download(c, oid, tid):
    c.told('receiveBlobStart')
    equal(c.call('sendBlob', oid, tid), None)
    whole, content = c.blobs.pop((oid, tid))
    assert whole, 'the reply came before receiveBlobStop'
    equal([n for n, _ in c.heard if n.startswith('receiveBlob')][-1], 'receiveBlobStop')
    c.heard = []
    return content.getvalue()
