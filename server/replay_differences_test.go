package server

// intended are the differences between this server's answers and those of
// ZEO's own that are meant to be.
var intended = []difference{
	{"", "info", ".size", sizesDiffer},
	{"", "get_info", ".size", sizesDiffer},
	{"", "get_info", "[extensions]", "methods beyond ZEO, which a client that does not know them ignores"},
	{"", "undoLog", ".size", sizesDiffer},
	{"", "undoInfo", ".size", sizesDiffer},
	{"", "history", ".size", sizesDiffer},
	{"undo", "vote", "[1]._reason", undoFailures},
	{"undo", "vote", "[1]._oid", undoFailures},
	{"undo", "vote", "[1]._errs", undoFailures},
	{"undo", "vote", "flag: 0 (int64), recorded 2", undoConflicts},
	{"undo", "vote", ": a list, recorded a tuple", undoConflicts},
	{"undo", "vote", "recorded ZODB.POSException.MultipleUndoErrors", undoConflicts},
	{"undo", "vote", "[1]: [0 0 0 0 0 0 0 2]", undoConflicts},
	{"undo", "vote", "not base64", "the text of binascii.Error is Python's own; the class is what counts"},
	{"", "invalidateTransaction", "1 items, recorded 2", "each object is named once, however often it was written"},
	{"blob", "sendBlob", "[1][0]", "the text names no path of the server"},
	{"iterator", "iterator_record_start", "Out-of-order", "the tid in hexadecimal, not as Python prints bytes"},
	{"locks", "server_status", ".waiting", "transactions without common objects do not wait for each other"},
	{"locks", "server_status", ".stores", raceOfVotes},
	{"locks", "server_status", ".active_txns", raceOfVotes},
	{"mappingstorage", "get_info", ".interfaces", "the order in the list means nothing"},
	{"mappingstorage", "undoLog", "a list, recorded a tuple", "a list, as from other storages"},
	{"mappingstorage", "undoInfo", "a list, recorded a tuple", "a list, as from other storages"},
	{"mappingstorage", "record_iternext", "[1][0]", "the text of AttributeError"},
	{"mappingstorage", "loadSerial", "1 items, recorded 2", "FileStorage's arguments, for all storages"},
	{"mappingstorage", "history", "no key", "FileStorage's keys, for all storages"},
	{"mappingstorage", "vote", "", "conflicts go to the client to resolve; restoring with a tid is possible, or refused as a StorageError"},
}

const (
	sizesDiffer = "extensions are pickled without a memo, a few bytes shorter; an object that is stored or undone twice in a " +
		"transaction has one record; other back ends count in their own way"
	undoFailures  = "reasons are text, not exceptions inside of an exception, which some clients could not print"
	undoConflicts = "what was changed later is left to the client to merge"
	raceOfVotes   = "what other clients sent at the same time may or may not have arrived"
)
