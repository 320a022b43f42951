package server

import "github.com/zeolite-go/zeolite/zrpc"

// What a small transaction consists of is taken down by the goroutine that reads
// the connection, and voted if that need not wait: to hand it to another one
// takes longer. It is also finished there, if it can be written to a quick disk
// at once. Should the disk not be quick this time, another goroutine reads on.

// nowBytes and nowObjects bound the transactions for which this is so. More
// would keep the client's loads waiting.
const (
	nowBytes   = 64 << 10
	nowObjects = 16
)

// orderedNow runs a call of the ordered lane in the reading goroutine, unless it
// would have to wait: for calls before it, locks, or a disk. Then the call is as
// it was.
func (s *session) orderedNow(call *zrpc.Call) (done bool) {
	ready := func() bool { return true }
	switch string(call.Name) {
	case "tpc_begin", "storea", "deleteObject", "checkCurrentSerialInTransaction":
	case "vote":
		ready = s.lockNow
	case "tpc_finish":
		return s.finishNow(call)
	default:
		return false
	}
	if !s.ordered.enter() {
		return false
	}
	defer s.ordered.leave()
	if !s.smallWith(call) || !ready() {
		return false
	}
	s.conn.Hold()
	s.dispatch(call)
	if s.early != nil { // it was no vote of the open transaction
		s.early.release()
		s.early = nil
	}
	return true
}

// smallWith says whether the open transaction, if there is one, will be small,
// and in memory, when it has taken down this call.
func (s *session) smallWith(call *zrpc.Call) bool {
	bytes := int64(call.Size())
	if t := s.txn; t != nil {
		if t.log.Len() > nowObjects {
			return false
		}
		bytes += t.log.Bytes()
	}
	return bytes <= nowBytes && 4*bytes <= int64(s.opt.Limits.TransactionMemory)
}

// lockNow says whether the open transaction can be voted at once, and takes its
// locks. Without one the vote fails at once.
func (s *session) lockNow() bool {
	t := s.txn
	if t == nil {
		return true
	}
	// With a blob, or an upload that did not end, there are files to deal with.
	if s.quickCommits == nil || t.locks != nil || t.failed != nil || len(t.blobs) > 0 || s.upload != nil {
		return false
	}
	oids, whole, err := t.objects()
	if err != nil || whole || !s.quickCommits.VoteNow(oids, int(t.log.Bytes())) {
		return false
	}
	if s.early = s.retry.take(oids, false); s.early == nil {
		s.early = s.locks.try(oids)
	}
	return s.early != nil
}

// finishNow runs a tpc_finish if it waits for nothing, or else for a moment.
func (s *session) finishNow(call *zrpc.Call) (done bool) {
	if !s.ordered.enter() {
		return false
	}
	t := s.txn
	if t == nil || t.voted == nil || s.quickCommits == nil || !s.smallWith(call) || !s.quickCommits.FinishNow(t.blobs) {
		s.ordered.leave()
		return false
	}
	s.conn.MayBlock(func() {
		s.dispatch(call)
		s.ordered.leave()
	})
	return true
}
