package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/zrpc"
)

// session is one client: it implements stubs.StorageServer for the client's
// connection. Methods of the ordered lane have it to themselves; the methods
// of the free lane share only what is safe for concurrent use.
type session struct {
	server *Server
	conn   *zrpc.Conn
	log    *slog.Logger
	ctx    context.Context // ends with the connection
	cancel context.CancelCauseFunc

	ordered orderedLane
	free    freeLane

	// Set by register, which is the first call.
	*export
	registered atomic.Bool
	readOnly   bool
	late       *time.Timer // disconnects who does not register: see expire
	catchingUp atomic.Bool // the client has, but the storage makes it wait

	// The client's transaction and upload: ordered lane only.
	txn    *transaction
	upload zeolite.BlobUpload
	early  *commitLock // for the vote that begins: see orderedNow
	retry  retry       // after a conflict

	iterators iterators

	// What the log has told once.
	askedWrong   bool // for an unknown storage: reading goroutine only
	askedToWrite bool // what is read-only: reading goroutine only
	labelled     bool // ordered lane only
	refusedOnce  bool // a vote failed by what only the client did: ordered lane only

	// unanswered is between loadNow and quickSession, in the reading goroutine.
	unanswered bool
}

// maxUnregistered is the largest message before a client has registered.
const maxUnregistered = 64 << 10

// errDisconnected is why calls of a client that is gone are given up.
var errDisconnected = errors.New("client disconnected")

func newSession(s *Server, nc net.Conn, enc zrpc.Encoding, log *slog.Logger) *session {
	se := &session{server: s, log: log, retry: retry{first: s.retryFirst}}
	lim := s.opt.Limits
	se.conn = zrpc.NewConn(nc, enc, zrpc.Options{
		MaxFrame:    maxUnregistered,
		FrameLimit:  se.frameLimit,
		MaxBulk:     maxUnregistered,
		OutboxLimit: lim.Outbox,
		PauseReads:  lim.Unread,
		Excepted:    s.counters.failed,
		Ended:       se.end,
	})
	se.late = time.AfterFunc(math.MaxInt64, se.expire)
	se.ctx, se.cancel = context.WithCancelCause(context.Background())
	room := func() {
		if lim.Unread > 0 {
			_ = se.conn.WaitRoom(se.ctx, lim.Unread)
		}
	}
	se.ordered.init(se.dispatch, se.conn.Push, room, &s.workers)
	se.free.init(se.dispatch, &s.workers, lim.Workers, se.conn.Done())
	return se
}

// frameLimit allows for messages with bulk data, from registered clients that may
// store it.
func (s *session) frameLimit(name []byte) int {
	if !s.registered.Load() || s.readOnly {
		return 0
	}
	switch string(name) {
	case "storea", "restorea", "storeBlobEnd", "storeBlobChunk", "storeBlobShared", "storeEmptyBlob":
		return s.server.opt.Limits.MaxRecord
	}
	return 0
}

// start begins to serve the client, which must register before the deadline.
// There is no goroutine that waits for the end: with many idle clients its stack
// would be a good part of their memory.
func (s *session) start(deadline time.Time) {
	// In this order, since the deadline may be now: what ends the connection must
	// not find it half started. The client may have registered before late runs.
	s.conn.Start(s)
	s.late.Reset(time.Until(deadline))
}

// expire ends the connection unless the client has registered.
func (s *session) expire() {
	switch {
	case s.registered.Load():
	case s.catchingUp.Load():
		s.conn.End(s.silent())
	default:
		s.conn.End(fmt.Errorf("the client did not register within %v", s.server.opt.Limits.Handshake))
	}
}

// silent is the error of a storage that does not catch up.
func (s *session) silent() error {
	return &zeolite.StorageError{
		Message: fmt.Sprintf("register: the storage did not say within %v what is new", s.server.opt.Limits.Handshake)}
}

// end cleans up when the connection has ended.
func (s *session) end() {
	s.late.Stop()
	reason := s.conn.Err()
	s.cancel(fmt.Errorf("%w: %w", errDisconnected, reason))
	// The locks first: others wait for them, and no read of this client that
	// hangs may delay that. With the lane closed the transaction is ours.
	s.ordered.close()
	s.clearTransaction()
	s.retry.drop()
	s.dropUpload()
	s.conn.Close()
	if s.registered.Load() {
		s.publisher.leave(s)
	}
	s.free.close()
	s.iterators.closeAll()
	s.logEnd(reason)
	s.server.left(s)
}

// logEnd logs why the connection ended.
func (s *session) logEnd(reason error) {
	switch {
	case errors.As(reason, new(*zeolite.StorageError)):
		// Before what looks like the network: a storage may have one, too.
		s.log.Error("client was disconnected", "reason", brief(reason))
	case errors.Is(reason, io.EOF), errors.Is(reason, zrpc.ErrClosed), errors.Is(reason, net.ErrClosed):
		s.log.Info("client disconnected")
	case errors.As(reason, new(*net.OpError)), errors.Is(reason, io.ErrUnexpectedEOF):
		s.log.Info("connection lost", "error", brief(reason))
	case errors.As(reason, new(*zrpc.FrameTooLargeError)):
		switch {
		case !s.registered.Load():
			s.log.Warn("client was disconnected", "reason", brief(reason), "the limit is for", "clients that have not registered")
		case s.readOnly:
			s.log.Warn("client was disconnected", "reason", brief(reason), "to raise the limit", "--max-message; the client is read-only, so it may not send records and blobs")
		default:
			s.log.Warn("client was disconnected", "reason", brief(reason), "to raise the limit", "--max-record for records and blobs, --max-message for the rest")
		}
	case errors.Is(reason, zrpc.ErrSlowPeer):
		if s.registered.Load() {
			s.counters.slow.Add(1)
		}
		s.log.Warn("client was disconnected", "reason", brief(reason), "to raise the limit", "--max-outbox")
	default:
		s.log.Warn("client was disconnected", "reason", brief(reason))
	}
}

// brief is the text of an error for the log. Clients may have a say in it, and are
// not to fill the disk.
func brief(err error) string {
	const most = 500
	text := err.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// firstAt is the level at which something is logged that a client can do as often as
// it likes: debug from the second time on.
func firstAt(level slog.Level, done *bool) slog.Level {
	if *done {
		return slog.LevelDebug
	}
	*done = true
	return level
}

// HandleCall follows zrpc.Handler.
func (s *session) HandleCall(call *zrpc.Call) {
	lane := stubs.StorageServerLane(call.Name)
	if !s.registered.Load() && string(call.Name) != "register" {
		lane = stubs.LaneUnknown
	}
	switch lane {
	case stubs.LaneInline:
		s.conn.Hold()
		s.dispatch(call)
	case stubs.LaneOrdered:
		if s.orderedNow(call) {
			return
		}
		s.conn.Flush()
		s.ordered.put(call)
	case stubs.LaneFree:
		if s.quick != nil && string(call.Name) == "loadBefore" && s.loadNow(call) {
			return
		}
		s.conn.Flush()
		s.free.put(call)
	default:
		why := "unknown method"
		if !s.registered.Load() {
			why = "call before register"
		}
		s.conn.End(fmt.Errorf("%s: %.60q", why, call.Name))
		call.Release()
	}
}

// dispatch runs one call. A panic in it is a bug of ours: it costs this client
// its connection, and nobody else anything.
func (s *session) dispatch(call *zrpc.Call) {
	defer s.contain()
	running := s.server.counters.begin(call)
	defer running.end()
	stubs.DispatchStorageServer(s.ctx, s, call)
}

// contain ends the connection if a call panicked. It is to be deferred.
func (s *session) contain() {
	if r := recover(); r != nil {
		s.log.Error("panic in a call", "panic", r, "stack", string(debug.Stack()))
		s.conn.End(fmt.Errorf("internal error: %v", r))
	}
}

// Register follows stubs.StorageServer; RespondRegister is what is called.
func (s *session) Register(context.Context, string, bool) (stubs.OptionalTID, error) {
	return stubs.OptionalTID{}, errors.New("register needs its call")
}

// RespondRegister registers the client and queues the reply in one step.
func (s *session) RespondRegister(ctx context.Context, call *zrpc.Call, name string, readOnly bool) {
	if s.registered.Load() {
		s.conn.End(errors.New("second register"))
		call.Release()
		return
	}
	e, ok := s.server.exports[name]
	switch {
	case !ok:
		s.log.Log(ctx, firstAt(slog.LevelWarn, &s.askedWrong), "client asked for an unknown storage", "storage", fmt.Sprintf("%.100q", name))
		stubs.ReplyError(call, stubs.Exception(stubs.ClassValueError, "unknown storage: "+name))
		return
	case e.readOnly && !readOnly:
		// As long as there is no other server, a client of Python's asks again
		// every few seconds. One that falls back to reading asks like this, too.
		s.log.Log(ctx, firstAt(slog.LevelInfo, &s.askedToWrite), "client refused: it asked to write, and the storage is read-only", "storage", name)
		stubs.ReplyError(call, zeolite.ErrReadOnly)
		return
	}
	if e.follower != nil {
		// This may take a moment, in which the client has nothing to say. It has
		// done its part, so the time begins anew. The timer is for a storage that
		// does not obey its context.
		limit := s.server.opt.Limits.Handshake
		s.late.Reset(limit)
		s.catchingUp.Store(true)
		ctx, cancel := context.WithTimeout(ctx, limit)
		err := e.follower.CatchUp(ctx)
		late := errors.Is(ctx.Err(), context.DeadlineExceeded)
		cancel()
		if err != nil {
			if err = fmt.Errorf("register: %w", err); late {
				err = s.silent()
			}
			s.conn.End(err)
			call.Release()
			return
		}
	}
	s.export, s.readOnly = e, e.readOnly || readOnly
	s.log = s.log.With("storage", name)
	s.late.Stop()
	lim := s.server.opt.Limits
	s.conn.SetMaxFrame(lim.MaxMessage, max(lim.MaxMessage, lim.MaxRecord))
	s.registered.Store(true)
	s.log.Info("client registered", "read_only", s.readOnly, "encoding", s.conn.Encoding().String())
	if !s.publisher.join(s, func(last zeolite.TID) {
		m := call.BeginReply()
		stubs.PutRegister(m, stubs.SomeTID(last))
		call.QueueReply(m) // what is inline is pushed when no call is at hand
	}) {
		s.conn.End(errChangesLost)
		call.Release()
	}
}

// SetClientLabel follows stubs.StorageServer.
func (s *session) SetClientLabel(ctx context.Context, label string) error {
	printable := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?' // nobody is to forge lines of the log
		}
		return r
	}
	s.log.Log(ctx, firstAt(slog.LevelInfo, &s.labelled), "client label", "label", strings.Map(printable, fmt.Sprintf("%.100s", label)))
	return nil
}

// Ping follows stubs.StorageServer.
func (s *session) Ping(context.Context) error { return nil }

// ServerStatus follows stubs.StorageServer.
func (s *session) ServerStatus(context.Context) (zrpc.Value, error) {
	return s.status().value(), nil
}
