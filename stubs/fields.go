package stubs

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// The types that stand for arguments and results which have no Go type of
// their own. For every type in protocol.go there is a pair of functions here
// that write it to and read it from a message; the generator knows them by
// the type's name.

// TxnID is the id of an open transaction, chosen by the client. Python clients
// use memory addresses and use them again.
type TxnID uint64

// LegacyTxnID is a TxnID in front of which clients of 2007 sent the name of a
// version, an idea that ZODB has given up: it must be empty.
type LegacyTxnID TxnID

// Serial is the serial of a store. Python programs also say None, or write the
// 8 bytes as text.
type Serial = zeolite.TID

// StoredOID is the oid of a store, which Python programs may write as text.
type StoredOID = zeolite.OID

// Text is what should be bytes and may come as text from Python programs: user
// and description, the record of a test, or the id for an undo, out of a form.
type Text = []byte

// OptionalTID is a tid or None.
type OptionalTID struct {
	TID zeolite.TID
	Set bool
}

// SomeTID makes an OptionalTID that is set.
func SomeTID(tid zeolite.TID) OptionalTID { return OptionalTID{tid, true} }

// OptionalOID is an oid or None.
type OptionalOID struct {
	OID zeolite.OID
	Set bool
}

// OptionalBytes are bytes or None, which is nil.
type OptionalBytes []byte

// Invalidations says which objects changed up to a transaction.
type Invalidations struct {
	TID  zeolite.TID
	OIDs []zeolite.OID
}

// TransactionEntry is a transaction as iterator_next tells of it. Extension is
// a dict.
type TransactionEntry struct {
	TID               zeolite.TID
	Status            byte
	User, Description []byte
	Extension         zrpc.Value
}

// Loaded is one result of LoadMany. Found is false if LoadBefore would fail, or
// answer that there was no such revision yet.
type Loaded struct {
	Found bool
	zeolite.Revision
}

// BlobInfo describes a blob: its size in bytes and the SHA-256 of its content.
type BlobInfo struct {
	Size   int64
	SHA256 [sha256.Size]byte
}

// VoteResult is what a vote that did not fail says.
type VoteResult struct {
	// Conflicts are the stores to resolve and to store again before the next
	// vote. The transaction is not voted if there are any.
	Conflicts []StoreConflict
	// Changed are the objects whose new state is not what the client stored:
	// undone, or resolved by the server.
	Changed []zeolite.OID
}

// StoreConflict is a store that met a conflict.
type StoreConflict struct {
	OID             zeolite.OID
	Committed, Seen zeolite.TID
	Data            []byte
}

func putOID(e *zrpc.Encoder, v zeolite.OID) { e.ID(uint64(v)) }
func getOID(d *zrpc.Decoder) zeolite.OID    { return zeolite.OID(d.ID()) }

func putTID(e *zrpc.Encoder, v zeolite.TID) { e.ID(uint64(v)) }
func getTID(d *zrpc.Decoder) zeolite.TID    { return zeolite.TID(d.ID()) }

func putSerial(e *zrpc.Encoder, v Serial) { e.ID(uint64(v)) }
func getSerial(d *zrpc.Decoder) Serial {
	if d.IsNil() {
		return 0
	}
	return Serial(looseID(d))
}

func putStoredOID(e *zrpc.Encoder, v StoredOID) { e.ID(uint64(v)) }
func getStoredOID(d *zrpc.Decoder) StoredOID    { return StoredOID(looseID(d)) }

// looseID reads an id as bytes, or as text of 8 characters that stand for
// bytes.
func looseID(d *zrpc.Decoder) uint64 {
	if !d.IsStr() {
		return d.ID()
	}
	id, n := uint64(0), 0
	for _, r := range string(d.Str()) {
		if r > 0xff {
			n = -1
			break
		}
		id, n = id<<8|uint64(r), n+1
	}
	if n != zeolite.IDLen {
		d.Fail(&zrpc.ShapeError{Want: "8 bytes", Got: "text", Item: -1})
	}
	return id
}

func putText(e *zrpc.Encoder, v Text) { e.Bytes(v) }
func getText(d *zrpc.Decoder) Text {
	if d.IsStr() {
		return d.Str()
	}
	return d.Bytes()
}

func putTxnID(e *zrpc.Encoder, v TxnID) { e.Uint(uint64(v)) }
func getTxnID(d *zrpc.Decoder) TxnID    { return TxnID(d.Uint()) }

func putLegacyTxnID(e *zrpc.Encoder, v LegacyTxnID) { e.Uint(uint64(v)) }
func getLegacyTxnID(d *zrpc.Decoder) LegacyTxnID {
	switch v := d.Value().(type) {
	case string:
		if v != "" {
			d.Fail(fmt.Errorf("versions are not supported: %.40q", v))
		}
		return LegacyTxnID(d.Uint())
	case int64:
		if v >= 0 {
			return LegacyTxnID(v)
		}
	case uint64:
		return LegacyTxnID(v)
	}
	d.Fail(&zrpc.ShapeError{Want: "a version or a transaction id", Got: "another value", Item: -1})
	return 0
}

func putOptionalTID(e *zrpc.Encoder, v OptionalTID) {
	if !v.Set {
		e.Nil()
		return
	}
	e.ID(uint64(v.TID))
}

func getOptionalTID(d *zrpc.Decoder) OptionalTID {
	if d.IsNil() {
		return OptionalTID{}
	}
	return OptionalTID{zeolite.TID(d.ID()), true}
}

func putOptionalOID(e *zrpc.Encoder, v OptionalOID) {
	if !v.Set {
		e.Nil()
		return
	}
	e.ID(uint64(v.OID))
}

func getOptionalOID(d *zrpc.Decoder) OptionalOID {
	if d.IsNil() {
		return OptionalOID{}
	}
	return OptionalOID{zeolite.OID(d.ID()), true}
}

func putBytes(e *zrpc.Encoder, v []byte) { e.Bytes(v) }
func getBytes(d *zrpc.Decoder) []byte    { return d.Bytes() }

func putOptionalBytes(e *zrpc.Encoder, v OptionalBytes) {
	if v == nil {
		e.Nil()
		return
	}
	e.Bytes(v)
}

func getOptionalBytes(d *zrpc.Decoder) OptionalBytes {
	if d.IsNil() {
		return nil
	}
	return OptionalBytes(d.Bytes())
}

func putString(e *zrpc.Encoder, v string) { e.Str(v) }
func getString(d *zrpc.Decoder) string    { return string(d.Str()) }

func putBool(e *zrpc.Encoder, v bool) { e.Bool(v) }
func getBool(d *zrpc.Decoder) bool    { return !d.IsNil() && d.Bool() }

func putInt64(e *zrpc.Encoder, v int64) { e.Int(v) }
func getInt64(d *zrpc.Decoder) int64    { return d.Int() }

func putFloat64(e *zrpc.Encoder, v float64) { e.Float(v) }
func getFloat64(d *zrpc.Decoder) float64    { return d.Float() }

func putValue(e *zrpc.Encoder, v zrpc.Value) { e.Value(v) }
func getValue(d *zrpc.Decoder) zrpc.Value {
	if d.IsNil() {
		return nil
	}
	return d.Value()
}

func putOIDs(e *zrpc.Encoder, v []zeolite.OID) { zrpc.PutIDs(e, v) }
func getOIDs(d *zrpc.Decoder) []zeolite.OID    { return zrpc.AppendIDs(d, []zeolite.OID{}) }

func putInt64s(e *zrpc.Encoder, v []int64) {
	e.List(len(v))
	for _, n := range v {
		e.Int(n)
	}
	e.EndList(len(v))
}

func getInt64s(d *zrpc.Decoder) []int64 {
	var ns []int64
	for d.List(); d.More(); {
		ns = append(ns, d.Int())
	}
	d.CloseList()
	return ns
}

func putRevision(e *zrpc.Encoder, v zeolite.Revision) {
	e.Tuple(3)
	e.Bytes(v.Data)
	e.ID(uint64(v.TID))
	putOptionalTID(e, OptionalTID{v.End, v.End != 0})
	e.EndTuple(3)
}

func getRevision(d *zrpc.Decoder) (rev zeolite.Revision) {
	d.Tuple(3)
	rev.Data = d.Bytes()
	rev.TID = getTID(d)
	rev.End = getOptionalTID(d).TID
	d.EndTuple(3)
	return rev
}

func putLoadeds(e *zrpc.Encoder, v []Loaded) {
	e.List(len(v))
	for i, l := range v {
		e.Item(i)
		if l.Found {
			putRevision(e, l.Revision)
		} else {
			e.Nil()
		}
	}
	e.EndList(len(v))
}

func getLoadeds(d *zrpc.Decoder) []Loaded {
	v := []Loaded{}
	for d.List(); d.More(); {
		if d.IsNil() {
			v = append(v, Loaded{})
		} else {
			v = append(v, Loaded{true, getRevision(d)})
		}
	}
	d.CloseList()
	return v
}

func putBlobInfo(e *zrpc.Encoder, v BlobInfo) {
	e.Tuple(2)
	e.Int(v.Size)
	e.Bytes(v.SHA256[:])
	e.EndTuple(2)
}

func getBlobInfo(d *zrpc.Decoder) (v BlobInfo) {
	d.Tuple(2)
	v.Size = d.Int()
	sum := d.Bytes()
	if copy(v.SHA256[:], sum) < len(sum) || len(sum) < len(v.SHA256) {
		d.Fail(&zrpc.ShapeError{Want: "32 bytes", Got: fmt.Sprintf("%d", len(sum)), Item: 1})
	}
	d.EndTuple(2)
	return v
}

func putInvalidations(e *zrpc.Encoder, v *Invalidations) {
	if v == nil {
		e.Nil()
		return
	}
	e.Tuple(2)
	putTID(e, v.TID)
	putOIDs(e, v.OIDs)
	e.EndTuple(2)
}

func getInvalidations(d *zrpc.Decoder) *Invalidations {
	if d.IsNil() {
		return nil
	}
	v := &Invalidations{}
	d.Tuple(2)
	v.TID = getTID(d)
	v.OIDs = getOIDs(d)
	d.EndTuple(2)
	return v
}

func putCurrentRecord(e *zrpc.Encoder, v zeolite.CurrentRecord) {
	e.Tuple(4)
	putOID(e, v.OID)
	putTID(e, v.TID)
	e.Bytes(v.Data)
	putOptionalOID(e, OptionalOID{v.Next, v.More})
	e.EndTuple(4)
}

func getCurrentRecord(d *zrpc.Decoder) (v zeolite.CurrentRecord) {
	d.Tuple(4)
	v.OID = getOID(d)
	v.TID = getTID(d)
	v.Data = d.Bytes()
	next := getOptionalOID(d)
	v.Next, v.More = next.OID, next.Set
	d.EndTuple(4)
	return v
}

func putTransactionEntry(e *zrpc.Encoder, v *TransactionEntry) {
	if v == nil {
		e.Nil()
		return
	}
	e.Tuple(5)
	putTID(e, v.TID)
	e.Str(string(rune(v.Status)))
	e.Bytes(v.User)
	e.Bytes(v.Description)
	e.Value(v.Extension)
	e.EndTuple(5)
}

func getTransactionEntry(d *zrpc.Decoder) *TransactionEntry {
	if d.IsNil() {
		return nil
	}
	v := &TransactionEntry{}
	d.Tuple(5)
	v.TID = getTID(d)
	if status := d.Str(); len(status) > 0 {
		v.Status = status[0]
	}
	v.User = d.Bytes()
	v.Description = d.Bytes()
	v.Extension = d.Value()
	d.EndTuple(5)
	return v
}

func putDataRecord(e *zrpc.Encoder, v *zeolite.DataRecord) {
	if v == nil {
		e.Nil()
		return
	}
	e.Tuple(4)
	putOID(e, v.OID)
	putTID(e, v.TID)
	putOptionalBytes(e, v.Data)
	putOptionalTID(e, OptionalTID{v.DataTID, v.DataTID != 0})
	e.EndTuple(4)
}

func getDataRecord(d *zrpc.Decoder) *zeolite.DataRecord {
	if d.IsNil() {
		return nil
	}
	v := &zeolite.DataRecord{}
	d.Tuple(4)
	v.OID = getOID(d)
	v.TID = getTID(d)
	v.Data = getOptionalBytes(d)
	v.DataTID = getOptionalTID(d).TID
	d.EndTuple(4)
	return v
}

func putVoteResult(e *zrpc.Encoder, v VoteResult) {
	n := len(v.Conflicts) + len(v.Changed)
	e.List(n)
	for _, c := range v.Conflicts {
		e.Dict(3)
		e.Str("oid")
		putOID(e, c.OID)
		e.Str("serials")
		e.Tuple(2)
		putTID(e, c.Committed)
		putTID(e, c.Seen)
		e.EndTuple(2)
		e.Str("data")
		e.Bytes(c.Data)
		e.EndDict(3)
	}
	for _, oid := range v.Changed {
		putOID(e, oid)
	}
	e.EndList(n)
}

func getVoteResult(d *zrpc.Decoder) (v VoteResult) {
	if d.IsNil() {
		return v
	}
	for d.List(); d.More(); {
		switch item := d.Value().(type) {
		case []byte:
			if oid, err := zeolite.OIDFromBytes(item); err == nil {
				v.Changed = append(v.Changed, oid)
			} else {
				d.Fail(err)
			}
		case *zrpc.Dict:
			c, err := conflictFromDict(item)
			d.Fail(err)
			v.Conflicts = append(v.Conflicts, c)
		default:
			d.Fail(fmt.Errorf("vote: neither an oid nor a conflict: %T", item))
		}
	}
	d.CloseList()
	return v
}

func conflictFromDict(dict *zrpc.Dict) (c StoreConflict, err error) {
	if c.OID, err = zeolite.OIDFromBytes(bytesAt(dict, "oid")); err != nil {
		return c, err
	}
	if c.Committed, c.Seen, err = serialsFrom(at(dict, "serials")); err != nil {
		return c, err
	}
	c.Data = bytes.Clone(bytesAt(dict, "data"))
	return c, nil
}

// at, bytesAt and textAt return the value of a key, or nothing.
func at(dict *zrpc.Dict, key string) zrpc.Value {
	v, _ := dict.Get(key)
	return v
}

func bytesAt(dict *zrpc.Dict, key string) []byte {
	b, _ := at(dict, key).([]byte)
	return b
}

func textAt(dict *zrpc.Dict, key string) string {
	s, _ := at(dict, key).(string)
	return s
}

// serialsFrom reads the pair (committed tid, tid the transaction read).
func serialsFrom(v zrpc.Value) (committed, seen zeolite.TID, err error) {
	items, ok := zrpc.Sequence(v)
	if !ok || len(items) != 2 {
		return 0, 0, fmt.Errorf("serials of a conflict must be a pair, not %v", v)
	}
	var tids [2]zeolite.TID
	for i, item := range items {
		b, _ := item.([]byte)
		if tids[i], err = zeolite.TIDFromBytes(b); err != nil {
			return 0, 0, err
		}
	}
	return tids[0], tids[1], nil
}

// The own functions make a decoded result independent of the reply's buffer.

func ownBytes(v *[]byte) { *v = bytes.Clone(*v) }
func ownLoadeds(v *[]Loaded) {
	for i := range *v {
		ownRevision(&(*v)[i].Revision)
	}
}

func ownRevision(v *zeolite.Revision)           { ownBytes(&v.Data) }
func ownCurrentRecord(v *zeolite.CurrentRecord) { ownBytes(&v.Data) }
func ownDataRecord(v **zeolite.DataRecord) {
	if *v != nil {
		ownBytes(&(*v).Data)
	}
}

func ownTransactionEntry(v **TransactionEntry) {
	if *v != nil {
		ownBytes(&(*v).User)
		ownBytes(&(*v).Description)
	}
}

// bodyFrom is the size from which on a record is sent from where it is,
// rather than copied into the message.
const bodyFrom = 8 << 10

// PutRevision adds a revision to a reply to loadBefore. Large data is not
// copied: it must not change any more.
func PutRevision(m *zrpc.Message, v zeolite.Revision) {
	m.Tuple(3)
	if len(v.Data) < bodyFrom {
		m.Bytes(v.Data)
	} else {
		m.BytesBody(zrpc.Body{Bytes: v.Data})
	}
	m.ID(uint64(v.TID))
	putOptionalTID(&m.Encoder, OptionalTID{v.End, v.End != 0})
	m.EndTuple(3)
}

// CopyRevision is PutRevision for a record whose memory is used again as soon as
// it returns.
func CopyRevision(m *zrpc.Message, v zeolite.Revision) { putRevision(&m.Encoder, v) }

// InvalidationFrame makes an invalidateTransaction message for any number of
// clients of one encoding.
func InvalidationFrame(enc zrpc.Encoding, tid zeolite.TID, oids []zeolite.OID) ([]byte, error) {
	return zrpc.Frame(enc, "invalidateTransaction", func(e *zrpc.Encoder) {
		e.Tuple(2)
		putTID(e, tid)
		putOIDs(e, oids)
		e.EndTuple(2)
	})
}

// QueueInfo is Info of a ClientStorageStub that only queues the message: see
// zrpc.Conn.Queue.
func QueueInfo(c *zrpc.Conn, info zrpc.Value) error {
	m := c.BeginSend("info")
	m.Tuple(1)
	putValue(&m.Encoder, info)
	m.EndTuple(1)
	return c.Queue(m)
}
