package server

import (
	"context"
	"errors"
	"time"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// LoadBefore follows stubs.StorageServer; RespondLoadBefore is what is called.
func (s *session) LoadBefore(context.Context, zeolite.OID, zeolite.TID) (zeolite.Revision, error) {
	return zeolite.Revision{}, errors.New("loadBefore needs its call")
}

// optimisticLoads is how often a load is tried again because something was
// published meanwhile, before it holds up publishing.
const optimisticLoads = 3

// RespondLoadBefore loads and queues the reply by the rules: see publisher.
func (s *session) RespondLoadBefore(ctx context.Context, call *zrpc.Call, oid zeolite.OID, before zeolite.TID) {
	s.counters.loads.Add(1)
	s.replyInOrder(call, "load", func() (*zrpc.Message, bool, error) {
		rev, err := s.storage.LoadBefore(ctx, oid, before)
		if err != nil {
			return nil, false, err
		}
		s.counters.loaded.Add(int64(len(rev.Data)))
		m := call.BeginReply()
		stubs.PutRevision(m, rev)
		return m, rev.End == 0, nil
	})
}

// replyInOrder answers a call whose reply may call revisions current: reply makes
// it, as often as needed, and says whether it does.
func (s *session) replyInOrder(call *zrpc.Call, what string, reply func() (m *zrpc.Message, current bool, err error)) {
	p := &s.publisher
	for range optimisticLoads {
		epoch := p.stableEpoch()
		m, current, err := reply()
		switch {
		case err != nil:
			s.replyFailed(call, what, err)
			return
		case !current:
			call.SendReply(m)
			return
		case call.SendReplyIf(m, &p.epoch, epoch):
			return
		}
	}
	// Nothing is written to the log or the socket with order.
	if err := func() error {
		p.order.RLock()
		defer p.order.RUnlock()
		m, _, err := reply()
		if err == nil {
			call.QueueReply(m)
		}
		return err
	}(); err != nil {
		s.replyFailed(call, what, err)
	}
	s.conn.Push()
}

func (s *session) replyFailed(call *zrpc.Call, what string, err error) {
	s.logError(what, err)
	stubs.ReplyError(call, err)
}

// LoadMany follows stubs.StorageServer; RespondLoadMany is what is called.
func (s *session) LoadMany(context.Context, []zeolite.OID, zeolite.TID) ([]stubs.Loaded, error) {
	return nil, errors.New("loadMany needs its call")
}

// loadManyBytes is how many bytes of records a reply to loadMany may have
// before it stops short, and loadManyMost how many entries.
const (
	loadManyBytes = 1 << 20
	loadManyMost  = 1000
)

// RespondLoadMany loads and queues the reply by the rules, for all objects or
// the first of them.
func (s *session) RespondLoadMany(ctx context.Context, call *zrpc.Call, oids []zeolite.OID, before zeolite.TID) {
	oids = oids[:min(len(oids), loadManyMost)]
	s.counters.loads.Add(int64(len(oids)))
	tries := 0
	s.replyInOrder(call, "loadMany", func() (*zrpc.Message, bool, error) {
		switch tries++; {
		case tries > optimisticLoads:
			// Publishing is held up: that must not take longer than one load.
			oids = oids[:min(len(oids), 1)]
		case tries > 1:
			// Fewer are more likely to be loaded before the next is published.
			oids = oids[:(len(oids)+9)/10]
		}
		loaded, err := s.loadMany(ctx, oids, before)
		if err != nil {
			return nil, false, err
		}
		m := call.BeginReply()
		stubs.PutLoadMany(m, loaded)
		return m, true, nil
	})
}

func (s *session) loadMany(ctx context.Context, oids []zeolite.OID, before zeolite.TID) ([]stubs.Loaded, error) {
	loaded := []stubs.Loaded{}
	size := 0
	for _, oid := range oids {
		if size >= loadManyBytes {
			break
		}
		rev, err := s.storage.LoadBefore(ctx, oid, before)
		switch {
		case err == nil:
			loaded = append(loaded, stubs.Loaded{Found: true, Revision: rev})
			size += len(rev.Data)
			s.counters.loaded.Add(int64(len(rev.Data)))
		case errors.Is(err, zeolite.ErrNotYet), errors.As(err, new(*zeolite.NotFoundError)):
			loaded = append(loaded, stubs.Loaded{})
		default:
			return nil, err
		}
	}
	return loaded, nil
}

// LoadSerial follows stubs.StorageServer.
func (s *session) LoadSerial(ctx context.Context, oid zeolite.OID, serial zeolite.TID) ([]byte, error) {
	s.counters.loads.Add(1)
	data, err := s.storage.LoadSerial(ctx, oid, serial)
	s.counters.loaded.Add(int64(len(data)))
	s.logError("loadSerial", err)
	return data, err
}

// GetTid follows stubs.StorageServer.
func (s *session) GetTid(ctx context.Context, oid zeolite.OID) (zeolite.TID, error) {
	tid, err := s.storage.CurrentTID(ctx, oid)
	s.logError("getTid", err)
	return tid, err
}

// RecordIternext follows stubs.StorageServer.
func (s *session) RecordIternext(ctx context.Context, next stubs.OptionalOID) (zeolite.CurrentRecord, error) {
	rec, err := s.storage.NextRecord(ctx, next.OID)
	switch {
	case errors.As(err, new(*zeolite.NotFoundError)):
		return rec, stubs.Exception(stubs.ClassValueError, "there is no object at or after this oid")
	case errors.Is(err, zeolite.ErrUnsupported):
		return rec, stubs.Exception(stubs.ClassAttributeError, "this storage has no record_iternext")
	}
	s.logError("record_iternext", err)
	return rec, err
}

// maxNewOIDs is how many oids a client gets at once.
const maxNewOIDs = 100

// NewOIDs follows stubs.StorageServer.
func (s *session) NewOIDs(ctx context.Context, n int64) ([]zeolite.OID, error) {
	if s.readOnly {
		return nil, zeolite.ErrReadOnly
	}
	oids, err := s.storage.NewOIDs(ctx, int(min(max(n, 1), maxNewOIDs)))
	s.logError("new_oids", err)
	return oids, err
}

// LastTransaction follows stubs.StorageServer.
func (s *session) LastTransaction(context.Context) (zeolite.TID, error) {
	return s.publisher.lastTID(), nil
}

// GetInvalidations answers from what is stored, for any tid that the options
// allow.
func (s *session) GetInvalidations(ctx context.Context, since zeolite.TID) (*stubs.Invalidations, error) {
	// Whatever is published later than this is sent to the client as an
	// invalidation of its own.
	last := s.publisher.lastTID()
	inv := &stubs.Invalidations{TID: last, OIDs: []zeolite.OID{}}
	if since >= last {
		return inv, nil
	}
	old := s.opt.InvalidationAge > 0 && time.Since(since.Time()) > s.opt.InvalidationAge
	followed := 0
	seen := map[zeolite.OID]struct{}{}
	for change, err := range s.storage.Changes(ctx, since) {
		if err != nil {
			s.logError("getInvalidations", err)
			return nil, err
		}
		if change.TID > last {
			break
		}
		if followed++; old && followed > s.opt.InvalidationQueueSize {
			return nil, nil
		}
		for _, oid := range change.OIDs {
			seen[oid] = struct{}{}
		}
		if len(seen) > s.opt.Limits.Invalidations {
			// Cheaper for the client to start with an empty cache.
			return nil, nil
		}
	}
	for oid := range seen {
		inv.OIDs = append(inv.OIDs, oid)
	}
	return inv, nil
}

// logError logs failures that are not everyday answers.
func (s *session) logError(what string, err error) {
	if !everyday(err) {
		s.log.Error(what+" failed", "error", brief(err))
	}
}

// everyday says that an error is nothing to look at: that an object is not there
// is not, a read error of the disk is.
func everyday(err error) bool {
	return err == nil || errors.Is(err, zeolite.ErrNotYet) || errors.Is(err, context.Canceled) || errors.Is(err, errDisconnected) ||
		errors.As(err, new(*zeolite.NotFoundError)) || errors.As(err, new(*zeolite.ConflictError)) ||
		errors.Is(err, zeolite.ErrReadOnly) || errors.As(err, new(*zeolite.TransactionError)) ||
		errors.As(err, new(*zeolite.UndoError)) || errors.As(err, new(*zeolite.MultipleUndoErrors))
}
