"""The clients of an operator who changes the server under them.

usage: operator_story.py HOST PORT CA CERTIFICATE KEY REVOKED-CERTIFICATE REVOKED-KEY

Reads the name of a step a line, and answers "ok", or what went wrong as a JSON
text. One client lives all the time, with a persistent cache; another comes and
goes, with another cache. What must be there is remembered from step to step.
"""
import json
import os
import ssl
import sys
import time
import traceback

import transaction
import ZEO
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ClientDisconnected
from ZODB.blob import Blob
from ZODB.POSException import POSKeyError

SOON = 60


def wait_until(what, condition):
    end = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f'not within {SOON} s: {what}')
        time.sleep(0.01)


def equal(got, want, what):
    if got != want:
        raise AssertionError(f'{what} is {got!r:.300}, want {want!r:.300}')


class Story:
    def __init__(self, host, port, ca, certificate, key, revoked, revoked_key):
        self.address, self.ca, self.pair = (host, int(port)), ca, (certificate, key)
        self.revoked = revoked, revoked_key
        self.phase = 0
        self.texts = {}     # what the mapping must hold
        self.blobs = {}     # name -> contents
        self.old = []       # (name, contents, tid) of revisions of blobs
        self.later = []     # keys of what the next server has to undo
        self.undoable = None
        self.staying = None

    def context(self, pair):
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca)
        if pair:
            context.load_cert_chain(*pair)
        return context

    def open(self, name, **options):
        return ZEO.DB(self.address, ssl=self.context(self.pair), ssl_server_hostname='localhost', wait_timeout=SOON,
                      client=name, var='.', blob_dir=f'blobs-{name}', **options)

    # Steps.

    def refuse_strangers(self):
        """Who has no certificate, or one that was revoked, gets nowhere. Why, the
        log of the server says."""
        for context in self.context(None), self.context(self.revoked), None:
            try:
                ZEO.client(self.address, ssl=context, ssl_server_hostname='localhost' if context else None, wait_timeout=0.5).close()
            except ClientDisconnected:
                continue
            raise AssertionError('a client without a good certificate was let in')

    def begin(self):
        self.staying = self.open('staying')
        with self.staying.transaction('begin') as c:
            c.root()['texts'] = PersistentMapping()
            c.root()['blobs'] = PersistentMapping()
            c.root()['later'] = PersistentMapping()
        self.work()

    def go_on(self):
        """The server is another one: find all, and go on working."""
        wait_until('the staying client is back', self.staying.storage.is_connected)
        self.work()

    def work(self):
        self.phase += 1
        self.look(self.staying)
        db = self.open('coming')
        try:
            self.look(db)
            self.change(db)
            self.look(db)
            self.undo(db)
            self.look(db)
        finally:
            db.close()
        self.look(self.staying)
        self.change(self.staying)
        self.look(self.staying)

    def pack(self):
        """Everything that is current survives, what is old goes."""
        size = self.staying.storage.getSize()
        self.staying.pack(time.time())
        old, self.old = self.old, []
        self.look(self.staying)
        db = self.open(f'after-pack-{self.phase}')
        self.look(db)
        for oid, _, tid in old:
            try:
                db.storage.loadBlob(oid, tid)
            except POSKeyError:
                continue
            raise AssertionError('a blob is there that was packed away')
        if db.storage.getSize() >= size:
            raise AssertionError(f'{db.storage.getSize()} bytes after a pack, {size} before')
        db.close()

    def end(self):
        self.look(self.staying)
        self.staying.close()

    # What they are made of.

    def look(self, db):
        """Compare all there is with what must be there."""
        db.storage.sync()
        db.storage._call('ping')  # invalidations come before the answer
        manager = transaction.TransactionManager()
        c = db.open(manager)
        try:
            equal(dict(c.root().get('texts', {})), self.texts, 'the mapping')
            equal(list(c.root().get('later', ())), self.later, 'what is to be undone')
            blobs = c.root().get('blobs', {})
            equal(sorted(blobs), sorted(self.blobs), 'names of blobs')
            for name, want in self.blobs.items():
                with blobs[name].open() as f:
                    equal(f.read(), want, f'blob {name}')
        finally:
            manager.abort()
            c.close()
        for oid, want, tid in self.old:
            with open(db.storage.loadBlob(oid, tid), 'rb') as f:
                equal(f.read(), want, 'an old revision of a blob')

    def change(self, db):
        for i in range(10):
            name = f'{self.phase}-{len(self.texts)}'
            with db.transaction('änderung') as c:
                c.root()['texts'][name] = name * 100
            self.texts[name] = name * 100
        name = f'blob {self.phase}'
        contents = [os.urandom(300_000), os.urandom(10)]
        with db.transaction('blob') as c:
            # New, or what an earlier phase made.
            blob = c.root()['blobs'].setdefault(name, Blob())
            with blob.open('w') as f:
                f.write(contents[0])
        with db.transaction() as c:
            blob = c.root()['blobs'][name]
            blob._p_activate()
            self.old.append((blob._p_oid, contents[0], blob._p_serial))
            with blob.open('w') as f:
                f.write(contents[1])
        self.blobs[name] = contents[1]

    def undo(self, db):
        """Undo something of now and, in a later phase, of another server."""
        with db.transaction('to be undone') as c:
            c.root()['texts']['undone'] = 'x'
        self.undo_last(db, 'to be undone')
        if self.undoable:
            db.undo(self.undoable, transaction.get())
            transaction.commit()
            self.later.pop()
            self.undoable = None

    def leave_to_undo(self):
        """Commit something that the next server has to undo."""
        with self.staying.transaction('to be undone later') as c:
            c.root()['later'][self.phase] = 'x'
        self.later.append(self.phase)
        self.look(self.staying)
        self.undoable = self.find(self.staying, 'to be undone later')

    def find(self, db, description):
        return next(u['id'] for u in db.undoLog(0, 20) if u['description'].rstrip().endswith(description))

    def undo_last(self, db, description):
        db.undo(self.find(db, description), transaction.get())
        transaction.commit()


def main():
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    story = Story(*sys.argv[1:])
    for line in sys.stdin:
        try:
            getattr(story, line.strip())()
            answer = 'ok'
        except BaseException:
            answer = traceback.format_exc()
        out.write(json.dumps(answer) + '\n')
        out.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
