package demostorage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
)

// TestSameAsOne makes the same random history in one storage, and in two of
// which one is over the other: whatever is asked, the answers are the same.
func TestSameAsOne(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("STORAGETEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for name, changes := range map[string]func(t *testing.T) zeolite.Storage{
		"memory": openMemory,
		"file":   func(t *testing.T) zeolite.Storage { return openFile(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(4) {
				t.Logf("seed %d (STORAGETEST_SEED)", seed+i)
				p := &pair{T: t, rnd: rand.New(rand.NewPCG(seed+i, 1)), whole: openMemory(t)}
				p.run(changes(t))
				if t.Failed() {
					return
				}
			}
		})
	}
}

// pair is a history in two places. It is used by one goroutine.
type pair struct {
	*testing.T
	rnd         *rand.Rand
	whole, demo zeolite.Storage // demo is nil while the base is made
	tids        []zeolite.TID
	split       zeolite.TID // the last transaction of the base
}

const objects = 6

func (p *pair) run(changes zeolite.Storage) {
	defer p.whole.Close()
	for range p.rnd.IntN(25) {
		p.step()
	}
	base := openMemory(p.T)
	if err := storagetest.Copy(p.Context(), base, p.whole); err != nil {
		p.Fatal(err)
	}
	p.split = base.LastTID()
	p.demo = open(p.T, base, changes)
	defer p.demo.Close()
	p.compare()
	for range 40 {
		p.step()
	}
	p.compare()
	for t, err := range base.Transactions(p.Context(), p.split+1, zeolite.MaxTID) {
		p.Errorf("the base has a new transaction: %v, %v", t, err)
	}

	// And a copy of the history, from where the base ends.
	again := open(p.T, base, openMemory(p.T))
	if err := storagetest.Copy(p.Context(), again, later{p.whole, p.split + 1}); err != nil {
		p.Fatal(err)
	}
	p.demo = again
	p.compare()
}

// step commits a transaction, or finds that both storages refuse it.
func (p *pair) step() {
	var tids [2]zeolite.TID
	var errs [2]error
	seed := p.rnd.Uint64()
	tid := at(len(p.tids) + 1)
	undo := zeolite.ZeroTID
	if n := len(p.tids); n > 0 && p.rnd.IntN(4) == 0 {
		undo = p.tids[p.rnd.IntN(n)]
	}
	stores := []zeolite.Storage{p.whole}
	if p.demo != nil {
		stores = append(stores, p.demo)
		if undo <= p.split {
			undo = 0
		}
	}
	// The storages are asked in turn, with what is committed held back, so
	// that one that refuses makes the other abort.
	var txns []zeolite.Txn
	for i, s := range stores {
		tx, err := s.Begin(p.Context(), zeolite.TxnMeta{TID: tid, User: fmt.Append(nil, tid)})
		if err != nil {
			p.Fatal(err)
		}
		defer tx.Abort()
		txns = append(txns, tx)
		if undo != 0 {
			if _, errs[i] = tx.Undo(p.Context(), undo); errs[i] == nil {
				errs[i] = tx.Vote(p.Context()) // where it may report what has to be merged
			}
		} else {
			errs[i] = p.fill(s, tx, rand.New(rand.NewPCG(seed, 2)))
		}
	}
	if len(txns) == 2 && kind(errs[0]) != kind(errs[1]) {
		// An object that got its old state back by undoing it twice is, to
		// the changes, not as it was before.
		refused := func(err error) bool {
			return errors.As(err, new(*zeolite.MultipleUndoErrors)) || zeolite.Conflicts(err) != nil
		}
		if undo == 0 || errs[0] != nil && !refused(errs[0]) || !refused(errs[1]) {
			p.Fatalf("%v: one storage says %v, two say %v", tid, errs[0], errs[1])
		}
	}
	if errs[0] != nil || errs[1] != nil {
		return
	}
	for i, tx := range txns {
		if undo == 0 {
			if err := tx.Vote(p.Context()); err != nil {
				p.Fatal(err)
			}
		}
		if tids[i], errs[i] = tx.Finish(p.Context(), nil); errs[i] != nil || tids[i] != tid {
			p.Fatal(tids[i], errs[i])
		}
	}
	p.tids = append(p.tids, tid)
}

// fill does a few random things.
func (p *pair) fill(s zeolite.Storage, tx zeolite.Txn, rnd *rand.Rand) error {
	for range 1 + rnd.IntN(3) {
		oid := zeolite.OID(rnd.IntN(objects))
		// What a writer would have read, or would have read earlier.
		before := zeolite.MaxTID
		if n := len(p.tids); n > 0 && rnd.IntN(8) == 0 {
			before = p.tids[rnd.IntN(n)]
		}
		infos, _ := p.whole.History(p.Context(), oid, 1)
		serial := zeolite.ZeroTID
		if len(infos) == 1 {
			serial = min(infos[0].TID, before)
		}
		data := storagetest.Record(fmt.Sprint(rnd.Uint32()))
		var err error
		_, gone := p.whole.CurrentTID(p.Context(), oid)
		switch what := rnd.IntN(8); {
		case what < 2 && gone == nil:
			err = tx.Delete(p.Context(), oid, serial)
		case what == 2 && gone == nil: // else back ends differ in what they say
			err = tx.CheckCurrent(p.Context(), oid, serial)
		case what == 3:
			err = tx.Restore(p.Context(), oid, data, serial)
		case what == 4:
			var up zeolite.BlobUpload
			if up, err = upload(p.Context(), s, data); err == nil {
				p.Cleanup(func() { up.Discard() })
				err = tx.StoreBlob(p.Context(), oid, serial, storagetest.BlobRecord(), up)
			}
		default:
			err = tx.Store(p.Context(), oid, serial, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func upload(ctx context.Context, s zeolite.Storage, data []byte) (zeolite.BlobUpload, error) {
	up, err := s.(zeolite.BlobStorage).CreateBlob(ctx)
	if err == nil {
		_, err = up.Write(data)
	}
	if err == nil {
		err = up.Complete()
	}
	return up, err
}

// kind describes an error by what a caller would look at.
func kind(err error) string {
	var missing *zeolite.NotFoundError
	var conflict *zeolite.ConflictError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &missing):
		return fmt.Sprint("not found ", missing.OID, missing.Blob)
	case errors.As(err, &conflict):
		return fmt.Sprintf("%+v", *conflict)
	}
	return fmt.Sprintf("%T %v", err, errors.Is(err, zeolite.ErrNotYet))
}

// compare asks both storages everything.
func (p *pair) compare() {
	p.Helper()
	one, two := describe(p.Context(), p.whole, p.tids), describe(p.Context(), p.demo, p.tids)
	for i := range max(len(one), len(two)) {
		if i >= len(one) || i >= len(two) || one[i] != two[i] {
			p.Fatalf("the base ends with %v; one storage says\n%s\ntwo say\n%s", p.split, one[min(i, len(one)-1)], two[min(i, len(two)-1)])
		}
	}
}

// describe says what a storage answers.
func describe(ctx context.Context, s zeolite.Storage, tids []zeolite.TID) (lines []string) {
	say := func(v ...any) { lines = append(lines, fmt.Sprintln(v...)) }
	say("last", s.LastTID())
	moments := []zeolite.TID{0, 1, zeolite.MaxTID}
	for _, tid := range tids {
		moments = append(moments, tid-1, tid, tid+1)
	}
	for oid := range zeolite.OID(objects + 1) {
		tid, err := s.CurrentTID(ctx, oid)
		say("current", oid, tid, kind(err))
		for _, n := range []int{1, 2, 1000} {
			infos, err := s.History(ctx, oid, n)
			say("history", oid, kind(err))
			for _, info := range infos {
				say("-", info.TID, string(info.Status), string(info.User))
			}
		}
		for _, tid := range moments {
			rev, err := s.LoadBefore(ctx, oid, tid)
			if err != nil {
				rev = zeolite.Revision{}
			}
			say("before", oid, tid, string(rev.Data), rev.TID, rev.End, kind(err))
			data, err := s.LoadSerial(ctx, oid, tid)
			say("serial", oid, tid, string(data), kind(err))
			blob, err := s.(zeolite.BlobStorage).OpenBlob(ctx, oid, tid)
			say("blob", oid, tid, kind(err))
			if err == nil {
				data, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
				say("-", string(data), err, blob.Close())
			}
		}
		rec, err := s.NextRecord(ctx, oid)
		say("next", oid, kind(err), rec.OID, rec.TID, string(rec.Data), rec.Next, rec.More)
	}
	for _, start := range moments {
		n := 0
		for t, err := range s.Transactions(ctx, start, zeolite.MaxTID) {
			say("transaction", kind(err), t.TID, string(t.Status), string(t.User))
			at := len(lines)
			for r, err := range t.Records {
				say("-", r.OID, r.TID, string(r.Data), r.Data == nil, kind(err))
			}
			slices.Sort(lines[at:]) // the order of replaced records is free
			if n++; n == 3 {
				break
			}
		}
		for c, err := range s.Changes(ctx, start) {
			say("change", c.TID, slices.Sorted(slices.Values(c.OIDs)), kind(err))
		}
	}
	return lines
}

// later shows transactions from a TID on.
type later struct {
	zeolite.Storage
	from zeolite.TID
}

func (l later) OpenBlob(ctx context.Context, oid zeolite.OID, tid zeolite.TID) (zeolite.Blob, error) {
	return l.Storage.(zeolite.BlobStorage).OpenBlob(ctx, oid, tid)
}

func (l later) CreateBlob(ctx context.Context) (zeolite.BlobUpload, error) {
	return l.Storage.(zeolite.BlobStorage).CreateBlob(ctx)
}

func (l later) Transactions(ctx context.Context, start, stop zeolite.TID) iter.Seq2[*zeolite.TransactionRecord, error] {
	return l.Storage.Transactions(ctx, max(start, l.from), stop)
}
