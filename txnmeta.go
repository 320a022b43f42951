package zeolite

import (
	"bytes"
	"fmt"
)

// MaxText is the limit for each of user, description and extension of a
// transaction, in bytes: Data.fs and the protocol's peers count them in 16
// bits.
const MaxText = 1<<16 - 1

// TxnMeta is what a writer says about a transaction. User and Description are
// UTF-8 by convention. Extension is empty or the pickle (protocol 3 or lower)
// of a dict.
type TxnMeta struct {
	User, Description, Extension []byte
	// TID is zero, except when a transaction is copied with its identity; it
	// must then be later than the storage's last.
	TID TID
	// Status is zero for normal transactions, else the status byte to keep
	// when one is copied (' ' or 'p').
	Status byte
}

// Check tells, by a *StorageError, what no storage accepts: a text that is too
// long, or an unknown status. The TID is for CheckTID.
func (m *TxnMeta) Check() error {
	for _, text := range []struct {
		what string
		b    []byte
	}{{"user", m.User}, {"description", m.Description}, {"extension", m.Extension}} {
		if len(text.b) > MaxText {
			return &StorageError{Message: fmt.Sprintf("the %s of a transaction has %d bytes, more than %d", text.what, len(text.b), MaxText)}
		}
	}
	switch m.Status {
	case 0, ' ', 'p':
		return nil
	}
	return &StorageError{Message: fmt.Sprintf("a transaction cannot have status %q", m.Status)}
}

// Clone returns a copy that shares no bytes with m.
func (m *TxnMeta) Clone() TxnMeta {
	c := *m
	c.User, c.Description, c.Extension = bytes.Clone(m.User), bytes.Clone(m.Description), bytes.Clone(m.Extension)
	return c
}

// lastGivenTID is in the year 5877: a TID that is given has to leave room for those
// that follow.
const lastGivenTID = MaxTID - 1<<56

// CheckTID tells, by a *StorageError, whether a transaction that asks for a TID
// may follow the transaction last. ZeroTID asks for none. It must not be so late
// that hardly any could follow it, unless it is the very next one.
func CheckTID(tid, last TID) error {
	if tid != ZeroTID && (tid <= last || tid >= MaxTID || tid > lastGivenTID && tid != last.Successor()) {
		return &StorageError{Message: fmt.Sprintf("transaction %v cannot follow %v", tid, last)}
	}
	return nil
}

// Storages count oids up from the largest that they know. DemoStorage begins at
// any oid up to 1<<62.
const (
	lastGivenOID OID = 3 << 61
	lastOID      OID = 1<<63 - 2
)

// CheckOID tells, by a *StorageError, whether an object may have an oid, if last
// is the largest that the storage handed out or stored. An oid that the storage
// did not hand out has to leave room for new ones.
func CheckOID(oid, last OID) error {
	if oid > lastOID || oid > lastGivenOID && oid > last {
		return &StorageError{Message: fmt.Sprintf("oid %v is too large", oid)}
	}
	return nil
}
