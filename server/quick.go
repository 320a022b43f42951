package server

import (
	"context"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// quickRecord is the size in bytes of the buffer for a record that is loaded by
// the reading goroutine. Larger ones are left to the workers, for which a hand
// over costs little beside copying the record.
const quickRecord = 20 << 10

// loadNow answers a loadBefore in the goroutine that reads the connection, if
// the storage need not wait for it. Else the call is as it was.
func (s *session) loadNow(call *zrpc.Call) (done bool) {
	if call.Args.InTree() {
		return false // what was read could not be read again
	}
	done = true // also if it panics
	defer s.contain()
	s.conn.Hold()
	args := call.Args
	s.unanswered = false
	stubs.DispatchStorageServer(s.ctx, quickSession{s}, call)
	if s.unanswered {
		call.Args = args
		return false
	}
	return true
}

// quickSession is a session that answers loadBefore at once or leaves it
// unanswered. It is used by the reading goroutine.
type quickSession struct{ *session }

// RespondLoadBefore keeps the rules as session.RespondLoadBefore does.
func (q quickSession) RespondLoadBefore(_ context.Context, call *zrpc.Call, oid zeolite.OID, before zeolite.TID) {
	q.unanswered = true
	epoch := q.publisher.epoch.Load()
	if epoch&1 != 0 {
		return // something is being published
	}
	buf := zrpc.GetBuffer(quickRecord)
	defer buf.Release()
	rev, ok := q.quick.LoadNow(oid, before, buf.B)
	if !ok {
		return
	}
	running := q.server.counters.begin(call)
	m := call.BeginReply()
	stubs.CopyRevision(m, rev)
	n := int64(len(rev.Data))
	if rev.End != 0 {
		call.SendReply(m)
	} else if !call.SendReplyIf(m, &q.publisher.epoch, epoch) {
		q.server.counters.takeBack(call, running)
		return
	}
	q.unanswered = false
	q.counters.loads.Add(1)
	q.counters.loaded.Add(n)
	running.end()
}
