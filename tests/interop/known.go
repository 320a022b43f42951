// Package interop tests zeolite with real Python peers: ZEO's client and
// ZODB's own test suites against our server, and all of it against Python's
// server too, which proves the tests. README.md says how to run it.
package interop

import (
	"github.com/zeolite-go/zeolite/tests/peers"
)

// known returns the checks of a program that fail with a server, with reasons.
func known(target peers.Target, script string) []peers.Known {
	return append(knownFailures[target.Kind][script], unfit[script]...)
}

// unfit lists checks of the foreign suites that cannot pass here, whatever the
// server.
var unfit = map[string][]peers.Known{
	"zodb_suites.py blobs": {
		{Check: "*Shared.blob_transaction_txt", Sometimes: true,
			Reason: "expects that a read-only file cannot be opened for writing, which root can"},
	},
	"zodb_suites.py connections": {
		{Check: "FileStorageTimeoutTests.checkTimeout", Reason: "reads the log file that Python's server writes"},
	},
	"zodb_suites.py doctests": {
		{Check: "testZEO.client_labels", Reason: "reads the log file that Python's server writes"},
		{Check: "testZEO.dont_log_poskeyerrors_on_server", Reason: "reads the log file that Python's server writes"},
		{Check: "testZEO.quick_close_doesnt_kill_server", Reason: "needs TLS, which the test servers are not set up for"},
		{Check: "testZEO.test_runzeo_msgpack_support", Reason: "chooses encodings itself by ZEO's configuration"},
	},
}

// knownFailures lists, by server and program, each check that fails. Faults of
// Python's server stand under RunZEO; where ours differs on purpose, the
// difference stands under Zeolite.
var knownFailures = map[peers.Kind]map[string][]peers.Known{
	peers.RunZEO: {
		"conflicts.py": {
			{Check: "blob_survives_a_resolved_conflict",
				Reason: "the first vote uses up the blob's file, the second commits a record without a blob"},
		},
		"crash.py": {
			{Check: "killed_upload", Reason: "temporary files of uploads stay for ever"},
		},
		"errors.py": {
			{Check: "voted_and_then_bad",
				Reason: "a connection that the server itself closes keeps the commit lock"},
		},
		"locks.py": {
			{Check: "transaction_timeout",
				Reason: "a connection that the server itself closes keeps the commit lock"},
		},
	},
	peers.Zeolite: {
		"zodb_suites.py connections": {
			{Check: "FileStorageInvqTests.checkVerificationWith2ClientsInvqOverflow",
				Reason: "expects that a cache gets too old; we answer from what is stored, so it does not"},
		},
		"zodb_suites.py doctests": {
			{Check: "drop_cache_rather_than_verify_txt",
				Reason: "expects that a cache gets too old; we answer from what is stored, so it does not"},
		},
		"zodb_suites.py storage": {
			{Check: "BlobAdaptedFileStorageTests.testNotUndoable",
				Reason: "that its objects cannot be merged is found by the client, which raises ConflictError, not UndoError"},
			{Check: "BlobAdaptedFileStorageTests.testUndoUnresolvable",
				Reason: "that its objects cannot be merged is found by the client, which raises ConflictError, not UndoError"},
			{Check: "BlobAdaptedFileStorageTests.testTransactionExtensionFromIterator", Sometimes: true,
				Reason: "in pickle, the extension comes as a call of a class; we read plain dicts only"},
		},
	},
}
