"""The test suites of ZEO and ZODB themselves, run against the server.

They come with the installed packages. Those of ZEO start servers through one
function, which is replaced here by one that starts the server under test.

Usage: zodb_suites.py SUITE
"""
import doctest
import os
import re
import sys
import unittest

import ZEO._forker
import ZEO.tests.forker
import ZEO.tests.IterationTests
import ZEO.tests.testConnection as testConnection
import ZEO.tests.testZEO as testZEO
import ZODB.FileStorage
import zope.testing.setupstack
from ZODB.tests import HistoryStorage, racetest, testblob
from zope.testing import renormalizing

import harness

# Files of a server that is not asked to keep them.
STORAGE_FILES = '', '.index', '.tmp', '.lock', '.old', '.pack'


def start_zeo_server(storage_conf=None, zeo_conf=None, port=None, keep=False, path='Data.fs',
                     blob_dir=None, **ignored):
    """Stand in for ZEO's own function: return an address and a stop function."""
    conf = storage_conf or ''
    for section in re.findall(r'<(\w+)', conf):
        if section not in ('filestorage', 'blobstorage'):
            raise unittest.SkipTest(f'the server under test has no {section}')

    def key(name, default=None):
        found = re.search(rf'^\s*{name}\s+(\S+)', conf, re.M)
        return found.group(1) if found else default

    path = key('path', path)
    options = {'dir': os.getcwd(), 'path': path, 'blob_dir': key('blob-dir', blob_dir) or '-'}
    zeo = zeo_conf if isinstance(zeo_conf, dict) else vars(zeo_conf) if zeo_conf else {}
    address = zeo.get('address')
    if not address and port:
        address = port if isinstance(port, str) else '127.0.0.1:%d' % (port if isinstance(port, int) else port[1])
    if address and not address.endswith(':0'):
        options['address'] = address
    options['read_only'] = bool(zeo.get('read_only')) or key('read-only') in ('yes', 'true')
    if options['read_only'] and harness.TARGET == 'zeolite' and not os.path.exists(path):
        # Python's server makes a missing file although it serves it
        # read-only; ours does not make files for that.
        ZODB.FileStorage.FileStorage(path, create=True).close()
    for name in 'transaction_timeout', 'invalidation_queue_size', 'client_conflict_resolution':
        if zeo.get(name):
            options[name] = zeo[name]
    server = harness.Server(**options)

    def stop(stop_timeout=None):
        server.stop()
        if not keep:
            for suffix in STORAGE_FILES:
                if os.path.exists(path + suffix):
                    os.remove(path + suffix)

    return server.address, stop


ZEO._forker.start_zeo_server = ZEO.tests.forker.start_zeo_server = start_zeo_server


class HistoryTests(testZEO.GenericTestBase, HistoryStorage.HistoryStorage):
    getConfig = testZEO.CommonBlobTests.getConfig


class RaceTests(testZEO.GenericTestBase, racetest.RaceTests):
    """ZODB's races between loads, invalidations and disconnections."""
    getConfig = testZEO.CommonBlobTests.getConfig


def methods_of(*classes):
    """Tests of both naming schemes, old (check...) and new (test...)."""
    for cls in classes:
        for name in dir(cls):
            if re.match('check|test', name) and callable(getattr(cls, name)):
                yield f'{cls.__name__}.{name}', cls(name)


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield re.sub(r'^.*/|^ZODB\.tests\.|^ZEO\.tests\.|\w+\.(?=\w+Tests\.)', '', test.id()), test


def storage():
    races = set(dir(racetest.RaceTests))
    for name, test in methods_of(testZEO.BlobAdaptedFileStorageTests, HistoryTests):
        if test._testMethodName not in races:  # they are a suite of their own
            yield name, test


def races():
    return methods_of(RaceTests)


def other_storages():
    """What storage() does not cover: no blobs, shared blobs, recovery."""
    yield 'FileStorageTests.checkInterfaceFromRemoteStorage', \
        testZEO.FileStorageTests('checkInterfaceFromRemoteStorage')
    blobs = {name for name in dir(testZEO.CommonBlobTests) if name.startswith('check')}
    for name, test in methods_of(testZEO.BlobWritableCacheTests):
        if test._testMethodName in blobs:
            yield name, test
    yield from methods_of(testZEO.FileStorageRecoveryTests)


def connections():
    return methods_of(testConnection.FileStorageConnectionTests, testConnection.FileStorageInvqTests,
                      testConnection.FileStorageTimeoutTests)


def reconnections():
    return methods_of(testConnection.FileStorageReconnectionTests)


def blobs():
    for prefix, factory in (('NotShared', testZEO.ServerManagingClientStorage),
                            ('Shared', testZEO.create_storage_shared)):
        for name, test in flat(testblob.storage_reusable_suite(prefix, factory)):
            yield f'{prefix}.{name}', test


def doctests():
    """Stories that need nothing of the server but its protocol."""
    normal = renormalizing.RENormalizing([
        (re.compile(r"'start': '[^\n]+'"), 'start'),
        (re.compile(r"'last-transaction': '[0-9a-f]+'"), 'last-transaction'),
        (re.compile(r'ZODB\.POSException\.(ConflictError|POSKeyError)'), r'\1'),
        (re.compile(r'ZEO\.Exceptions\.(ClientStorageError|ClientDisconnected)'), r'\1')])
    options = dict(setUp=ZEO.tests.forker.setUp, tearDown=zope.testing.setupstack.tearDown, checker=normal)
    for module in testZEO, testConnection, ZEO.tests.IterationTests:
        yield from flat(doctest.DocTestSuite(module, **options))
    for name in 'zeo_blob_cache.test', 'drop_cache_rather_than_verify.txt', 'new_addr.test':
        yield from flat(doctest.DocFileSuite(name, package='ZEO.tests', **options))


SUITES = {f.__name__: f for f in (storage, races, other_storages, connections, reconnections, blobs, doctests)}


def run(test):
    """Return a check that runs one test case."""
    def check(context):
        result = unittest.TestResult()
        test.run(result)
        problems = [text for _, text in result.errors + result.failures]
        problems += [f'skipped: {reason}' for _, reason in result.skipped]
        if problems:
            raise AssertionError('\n'.join(problems))
    return check


if __name__ == '__main__':
    for name, test in SUITES[sys.argv[1]]():
        harness.run_check(name, run(test), 300)
    sys.stderr.flush()
    os._exit(0)
