"""What the scenario programs in this directory have in common.

A program consists of functions marked with ``@check``. Each is run with a
fresh working directory and a ``Context`` through which it starts servers.
The Go test that started the program owns the servers: requests go to it as
lines of JSON on standard output, answers come back on standard input. So
nothing else may print there; ``print`` goes to standard error.

Run by hand, a program does nothing useful; see README.md.
"""
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback

import transaction
import ZEO
import ZODB.utils
from ZEO.ClientStorage import ClientStorage
from ZODB.Connection import TransactionMetaData

TARGET = os.environ['ZEOLITE_TARGET']        # 'runzeo' or 'zeolite'
ENCODING = os.environ['ZEOLITE_ENCODING']    # 'Z5' or 'M5'
LONG = bool(os.environ.get('ZEOLITE_LONG'))

# Seconds before something that should happen soon counts as a failure.
SOON = 30

z64 = ZODB.utils.z64
maxtid = ZODB.utils.maxtid

_checks = []
_out = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)
_lock = threading.Lock()


def check(function=None, *, limit=180):
    """Mark a function as a check that must end within limit seconds."""
    def mark(function):
        _checks.append((function.__name__, function, limit))
        return function
    return mark if function is None else mark(function)


def ask(do, **arguments):
    """Have the Go side do something; return its answer."""
    with _lock:
        _tell(do, **arguments)
        line = sys.stdin.readline()
    if not line:
        raise EOFError('the test that runs this program is gone')
    reply = json.loads(line)
    if 'error' in reply:
        raise RuntimeError(reply['error'])
    return reply


def _tell(do, **arguments):
    _out.write(json.dumps(dict(arguments, do=do)) + '\n')
    _out.flush()


def _address(text):
    if '/' in text:
        return text
    host, port = text.rsplit(':', 1)
    return host, int(port)


class Server:
    """A server process."""

    def __init__(self, **options):
        reply = ask('start', options=options)
        self.number = reply['server']
        self.address = _address(reply['address'])
        self.path = reply['path']
        self.blob_dir = reply['blob_dir']

    def stop(self):
        """End it in good order; it is an error if it does not."""
        ask('stop', server=self.number)

    def kill(self):
        ask('kill', server=self.number)

    def restart(self):
        """Start it again on the same address and files."""
        ask('restart', server=self.number)

    def log(self):
        return ask('log', server=self.number)['log']

    def proxy(self):
        """Return a new proxy in front of the server."""
        return Proxy(self)


class Proxy:
    """Forwards connections, counts messages, and cuts where it is told to."""

    def __init__(self, server):
        reply = ask('proxy', server=server.number)
        self.number = reply['proxy']
        self.address = _address(reply['address'])

    def sent(self):
        """Names of the messages from clients, with how often they passed."""
        return ask('counts', proxy=self.number)['c2s']

    def received(self):
        """The same for messages from the server."""
        return ask('counts', proxy=self.number)['s2c']

    def reset(self):
        ask('reset', proxy=self.number)

    def drop(self):
        """Cut all connections now."""
        ask('drop', proxy=self.number)

    def cut(self, method, when, direction='c2s'):
        """Cut the connection that next carries such a message.

        when is 'before' (it is lost) or 'after' (it arrives).
        """
        ask('cut', proxy=self.number, method=method, when=when, dir=direction)


class Context:
    """The world of one check: its servers, clients and directory."""

    def __init__(self):
        self._exit = contextlib.ExitStack()
        self.dir = tempfile.mkdtemp('-check')
        self._exit.callback(shutil.rmtree, self.dir, ignore_errors=True)

    def close(self):
        self._exit.close()

    def defer(self, function, *args):
        """Call function(*args) when the check is over."""
        self._exit.callback(function, *args)

    def start(self, **options):
        """Start a server; options are the fields of peers.Options."""
        return Server(**options)

    def new_dir(self):
        return tempfile.mkdtemp(dir=self.dir)

    def storage(self, at, **options):
        """Return a ClientStorage. at is a Server, Proxy or address."""
        options.setdefault('wait_timeout', SOON)
        storage = ClientStorage(getattr(at, 'address', at), **options)
        self.defer(storage.close)
        return storage

    def db(self, at, **options):
        """Return a DB over a ClientStorage with a blob cache of its own."""
        options.setdefault('wait_timeout', SOON)
        options.setdefault('blob_dir', self.new_dir())
        db = ZEO.DB(getattr(at, 'address', at), **options)
        self.defer(_close_db, db)
        return db

    def connection(self, at, **options):
        """Open a connection of a new DB with its own transaction manager."""
        db = at if isinstance(at, ZODB.DB) else self.db(at, **options)
        connection = db.open(transaction.TransactionManager())
        self.defer(_close_connection, connection)
        return connection


def _close_db(db):
    if hasattr(db, '_mvcc_storage'):  # it is not after a close
        db.close()


def _close_connection(connection):
    if connection.opened:
        connection.transaction_manager.abort()
        connection.close()


def commit(storage, *stores, user='', description='', extension=None):
    """Commit (oid, serial, data) triples; return the tid."""
    txn = TransactionMetaData(user, description, extension or {})
    storage.tpc_begin(txn)
    try:
        for oid, serial, data in stores:
            storage.store(oid, serial, data, '', txn)
        storage.tpc_vote(txn)
        return storage.tpc_finish(txn)
    except BaseException:
        storage.tpc_abort(txn)
        raise


def up_to_date(connection):
    """Begin a transaction that sees all that others committed before."""
    connection.transaction_manager.abort()
    connection.db().storage.ping()  # invalidations come before the answer
    connection.transaction_manager.begin()


def wait_until(what, condition, limit=SOON):
    """Poll until condition() is true; return its value."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f'not within {limit} s: {what}')
        time.sleep(0.005)


def equal(got, want, what=''):
    if got != want:
        raise AssertionError(f'{what or "value"} is {short(got)}, want {short(want)}')


def short(value):
    text = repr(value)
    return text if len(text) < 400 else text[:200] + ' ... ' + text[-150:]


def raises(kind, function, *args, **kw):
    """Call function and return the exception, which must be exactly kind."""
    try:
        result = function(*args, **kw)
    except kind as error:
        if type(error) is not kind:
            raise AssertionError(f'raised a {type(error)}, want exactly {kind}') from error
        return error
    raise AssertionError(f'returned {short(result)}, want {kind}')


def in_thread(function, *args):
    """Run function in a thread; return a function that waits for its result."""
    outcome = {}

    def run():
        try:
            outcome['value'] = function(*args)
        except BaseException as error:
            outcome['error'] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result(limit=SOON):
        thread.join(limit)
        if thread.is_alive():
            raise AssertionError(f'{function.__name__} is not done after {limit} s')
        if 'error' in outcome:
            raise outcome['error']
        return outcome['value']

    result.done = lambda: not thread.is_alive()
    return result


def sha256(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest() \
            if hasattr(hashlib, 'file_digest') else hashlib.sha256(f.read()).hexdigest()


def run_check(name, function, limit):
    """Run one check and report it. function takes a Context."""
    with _lock:
        _tell('begin', check=name)
    try:
        context = Context()
        os.chdir(context.dir)
        print(f'--- {name}', file=sys.stderr)
        failure = _attempt(function, context, limit)
        os.chdir('/')
        try:
            context.close()
        except BaseException:
            failure = failure or 'while cleaning up: ' + traceback.format_exc()
    except BaseException:
        failure = traceback.format_exc()
    with _lock:
        _tell('end', check=name, failure=failure)


def _attempt(function, context, limit):
    """Return '' or the text of what went wrong."""
    failures = []

    def run():
        try:
            function(context)
        except BaseException:
            failures.append(traceback.format_exc())

    thread = threading.Thread(target=run, daemon=True, name='check')
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        return f'not done after {limit} s\n' + _stacks()
    return ''.join(failures)


def _stacks():
    """Where all threads are."""
    names = {t.ident: t.name for t in threading.enumerate()}
    return '\n'.join(
        f'thread {names.get(ident)}:\n' + ''.join(traceback.format_stack(frame))
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident())


def main():
    """Run all checks of the program."""
    for name, function, limit in _checks:
        run_check(name, function, limit)
    # A check that was given up may have left a thread that never ends.
    sys.stderr.flush()
    os._exit(0)
