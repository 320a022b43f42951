package server

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/zrpc"
)

// TestBadHandshake: whoever does not speak the protocol is let go with one
// line in the log.
func TestBadHandshake(t *testing.T) {
	s := startServer(t, newMemory(t), Options{})
	b := s.newBystander(t)
	for name, frame := range map[string]string{
		"other letter":    "X5",
		"older version":   "Z4",
		"longer version":  "Z310",
		"empty":           "",
		"http":            "GET / HTTP/1.1\r\n\r\n",
		"longer than any": strings.Repeat("Z", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			p := s.dialRaw(t, zrpc.Pickle)
			p.readFrame()
			p.writeFrame([]byte(frame))
			p.waitClosed()
			p.assertOneLine("handshake failed")
			b.assertFine()
		})
	}
	t.Run("half a frame", func(t *testing.T) {
		p := s.dialRaw(t, zrpc.Pickle)
		p.readFrame()
		p.writeBytes([]byte{0, 0})
		p.close()
		p.waitGone()
		p.assertOneLine("handshake failed")
		b.assertFine()
	})
}

// TestProbe: a monitor that only connects is nothing to look at in the log.
func TestProbe(t *testing.T) {
	quiet := func(t *testing.T, s *testServer) {
		for _, r := range s.logs.all() {
			if r.level > slog.LevelInfo {
				t.Errorf("the log says %q", r.text)
			}
		}
	}
	t.Run("plain", func(t *testing.T) {
		s := startServer(t, newMemory(t), Options{})
		for _, reset := range []bool{false, true} {
			p := s.dialRaw(t, zrpc.Pickle)
			p.readFrame()
			if reset {
				if err := p.nc.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
			}
			p.close()
			p.waitGone()
		}
		quiet(t, s)
	})
	t.Run("TLS", func(t *testing.T) {
		s := startServer(t, newMemory(t), Options{TLS: &tls.Config{}})
		p := s.dialRaw(t, zrpc.Pickle)
		p.close()
		p.waitGone()
		quiet(t, s)
	})
	t.Run("TLS until shutdown", func(t *testing.T) {
		s := startServer(t, newMemory(t), Options{TLS: &tls.Config{}})
		p := s.dialRaw(t, zrpc.Pickle)
		eventually(t, "the server shakes hands", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.greeting) == 1
		})
		s.shutdown()
		p.waitGone()
		quiet(t, s)
	})
}

// tuple makes the payload of a call as a client would.
func tuple(name string, args ...any) func(*peer) []byte {
	return func(p *peer) []byte { return p.encode(zrpc.Tuple{int64(9), false, name, wireArgs(args)}) }
}

func oneWay(name string, args ...any) func(*peer) []byte {
	return func(p *peer) []byte { return p.encode(zrpc.Tuple{int64(0), true, name, wireArgs(args)}) }
}

// TestConnectionIsClosedWithOneLine: what the protocol has no error for ends
// the connection, and the log says why in one line.
func TestConnectionIsClosedWithOneLine(t *testing.T) {
	oid, id := zeolite.OID(1), newTxnID()
	begin := oneWay("tpc_begin", id, []byte("u"), []byte("d"), zrpc.NewDict())
	start := oneWay("storeBlobStart")
	vote := tuple("vote", id)
	for _, c := range []struct {
		name, line string
		frames     []func(*peer) []byte
	}{
		{"garbage", "bad message", frames(raw("\x00\x01\x02\x03"))},
		{"empty frame", "bad message", frames(raw(""))},
		{"not a tuple", "bad message", frames(func(p *peer) []byte { return p.encode("hello") })},
		{"a triple", "bad message", frames(func(p *peer) []byte { return p.encode(zrpc.Tuple{int64(1), false, "ping"}) })},
		{"five items", "bad message", frames(func(p *peer) []byte {
			return p.encode(zrpc.Tuple{int64(1), false, "ping", zrpc.Tuple{}, int64(5)})
		})},
		{"five items, wrong arguments", "bad message", frames(func(p *peer) []byte {
			return p.encode(zrpc.Tuple{int64(1), false, "vote", zrpc.Tuple{"id"}, int64(5)})
		})},
		{"name of bytes", "bad message", frames(func(p *peer) []byte {
			return p.encode(zrpc.Tuple{int64(1), false, []byte("ping"), zrpc.Tuple{}})
		})},
		{"unknown method", `unknown method: "tpc_explode"`, frames(tuple("tpc_explode"))},
		{"unknown one-way method", "unknown method", frames(oneWay("serialnos", nil))},
		{"second register", "second register", frames(tuple("register", "1", false))},
		{"one-way with too few arguments", "one-way call storea failed", frames(oneWay("storea", oid))},
		{"one-way with wrong types", "one-way call deleteObject failed", frames(oneWay("deleteObject", "a", "b", "c"))},
		{"one-way with a short oid", "one-way call deleteObject failed",
			frames(begin, oneWay("deleteObject", []byte("short"), zeolite.TID(0), id))},
		{"one-way without arguments", "one-way call storeBlobChunk failed", frames(begin, start, oneWay("storeBlobChunk"))},
		{"store without begin", "one-way call storea failed", frames(oneWay("storea", oid, zeolite.TID(0), []byte("x"), id))},
		{"store with another id", "one-way call storea failed",
			frames(begin, oneWay("storea", oid, zeolite.TID(0), []byte("x"), id+1))},
		{"store after vote", "one-way call storea failed",
			frames(begin, vote, oneWay("storea", oid, zeolite.TID(0), []byte("x"), id))},
		{"begin after begin", "one-way call tpc_begin failed",
			frames(begin, oneWay("tpc_begin", id+1, []byte("u"), []byte("d"), zrpc.NewDict()))},
		{"undo without begin", "one-way call undoa failed", frames(oneWay("undoa", []byte("AAAAAAAAAAA="), id))},
		{"chunk without start", "one-way call storeBlobChunk failed", frames(begin, oneWay("storeBlobChunk", []byte("x")))},
		{"end without start", "one-way call storeBlobEnd failed",
			frames(begin, oneWay("storeBlobEnd", oid, zeolite.TID(0), []byte("x"), id))},
		{"second start", "one-way call storeBlobStart failed", frames(begin, start, start)},
		{"blob with another id", "one-way call storeBlobEnd failed",
			frames(begin, start, oneWay("storeBlobEnd", oid, zeolite.TID(0), []byte("x"), id+1))},
		{"shared blob without directory", "one-way call storeBlobShared failed",
			frames(begin, oneWay("storeBlobShared", oid, zeolite.TID(0), []byte("x"), "a.tmp", id))},
		{"gc of no list", "one-way call iterator_gc failed", frames(oneWay("iterator_gc", 5))},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
				s := startServer(t, newMemory(t), Options{})
				b := s.newBystander(t)
				p := s.connect(t, enc)
				for _, f := range c.frames {
					p.writeFrame(f(p))
				}
				for _, m := range p.waitClosed() {
					if m.isException() {
						t.Errorf("received %v, want only the end", m.value)
					}
				}
				p.assertOneLine(c.line)
				b.assertFine()
			})
		})
	}
}

func frames(f ...func(*peer) []byte) []func(*peer) []byte { return f }

func raw(payload string) func(*peer) []byte { return func(*peer) []byte { return []byte(payload) } }

// TestCallBeforeRegister: nothing but register is possible before it.
func TestCallBeforeRegister(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		b := s.newBystander(t)
		for _, name := range []string{"ping", "get_info", "tpc_begin", "loadBefore", "no_such_method"} {
			p := s.dial(t, enc)
			p.begin(name)
			if got := p.waitClosed(); len(got) > 0 {
				t.Errorf("%s: received %v", name, got)
			}
			p.assertOneLine("call before register")
			b.assertFine()
		}
	})
}

// TestErrorReplies: mistakes in calls whose caller waits are told to it, with
// the class that ZEO has for them, and the connection goes on.
func TestErrorReplies(t *testing.T) {
	const (
		typeError   = "builtins.TypeError"
		txnError    = "ZODB.POSException.StorageTransactionError"
		keyError    = "builtins.KeyError"
		posKeyError = "ZODB.POSException.POSKeyError"
		valueError  = "builtins.ValueError"
	)
	nobody, nowhen := zeolite.OID(0x7777), zeolite.TID(0x1234)
	calls := []struct {
		class, name string
		args        []any
	}{
		{typeError, "loadBefore", []any{nobody}},
		{typeError, "loadBefore", []any{nobody, nowhen, nowhen}},
		{typeError, "loadBefore", []any{"text", nowhen}},
		{typeError, "loadBefore", []any{[]byte("short"), nowhen}},
		{typeError, "new_oids", []any{"many"}},
		{typeError, "vote", []any{}},
		{typeError, "vote", []any{"id"}},
		{typeError, "pack", []any{"now", true}},
		{typeError, "iterator_next", []any{nil}},
		{typeError, "getInvalidations", []any{7}},
		{typeError, "ping", []any{1}},
		{typeError, "undoInfo", []any{0, -20, "spec"}},
		{txnError, "vote", []any{newTxnID()}},
		{posKeyError, "loadBefore", []any{nobody, zeolite.MaxTID}},
		{posKeyError, "loadSerial", []any{nobody, nowhen}},
		{posKeyError, "getTid", []any{nobody}},
		{posKeyError, "history", []any{nobody, 3}},
		{posKeyError, "sendBlob", []any{nobody, nowhen}},
		{keyError, "iterator_next", []any{99}},
		{keyError, "iterator_record_next", []any{99}},
		{keyError, "iterator_record_start", []any{99, nowhen}},
		{valueError, "record_iternext", []any{nobody}},
		{valueError, "pack", []any{1e300, true}},
	}
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
			s := startServer(t, open(t), Options{})
			b := s.newBystander(t)
			p := s.connect(t, enc)
			for _, c := range calls {
				p.callRaises(c.class, c.name, c.args...)
			}
			oid, id := p.newOID(), p.tpcBegin()
			p.store(id, oid, 0, record("x"))
			p.callRaises(txnError, "vote", id+1)
			p.callRaises("builtins.AssertionError", "tpc_finish", id)
			p.call("vote", id)
			p.callRaises(txnError, "vote", id)
			p.callRaises(txnError, "vote", id+1)
			p.callRaises(typeError, "vote", "id")
			// None of these mistakes changed what is open.
			p.assertLoads(oid, p.finish(id), record("x"))
			p.call("tpc_abort", id)
			p.call("ping")
			b.assertFine()
			p.early = nil
		})
	})
}

// TestArgumentsThatAreNoSequence are answered like any other wrong arguments.
func TestArgumentsThatAreNoSequence(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		p := s.connect(t, enc)
		for _, args := range []zrpc.Value{nil, int64(3), "text", zrpc.NewDict("a", int64(1))} {
			p.lastID++
			p.writeFrame(p.encode(zrpc.Tuple{p.lastID, false, "getTid", args}))
			if e := p.exception(p.lastID); e.Class != "builtins.TypeError" {
				t.Errorf("getTid%v raised %v", args, e)
			}
		}
		p.call("ping")
	})
}

// TestOversizedFrames: each kind of message has a limit; the log says which.
func TestOversizedFrames(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{Limits: Limits{MaxMessage: 4 << 10, MaxRecord: 64 << 10}})
		b := s.newBystander(t)
		announce := func(p *peer, payload []byte) {
			// The whole need not come: its announcement is enough.
			p.writeBytes(append(zrpc.AppendFrameHeader(nil, len(payload)), payload[:1000]...))
		}
		t.Run("message", func(t *testing.T) {
			p := s.connect(t, enc)
			announce(p, p.encode(zrpc.Tuple{int64(0), true, "set_client_label", zrpc.Tuple{strings.Repeat("x", 5000)}}))
			p.waitClosed()
			p.assertOneLine("larger than the limit of 4096 bytes")
			b.assertFine()
		})
		t.Run("record", func(t *testing.T) {
			p := s.connect(t, enc)
			id := p.tpcBegin()
			p.store(id, 1<<40, 0, make([]byte, 60<<10)) // fits
			p.sync()
			announce(p, p.encode(zrpc.Tuple{int64(0), true, "storea",
				zrpc.Tuple{make([]byte, 8), make([]byte, 8), make([]byte, 70<<10), id}}))
			p.waitClosed()
			p.assertOneLine("larger than the limit of 65536 bytes")
			b.assertFine()
		})
		t.Run("before register", func(t *testing.T) {
			p := s.dial(t, enc)
			announce(p, p.encode(zrpc.Tuple{int64(1), false, "storea", zrpc.Tuple{make([]byte, 100<<10)}}))
			p.waitClosed()
			p.assertOneLine("larger than the limit")
			b.assertFine()
		})
	})
}

// TestTruncatedFrames cuts the connection at every byte of a commit.
func TestTruncatedFrames(t *testing.T) {
	eachEncoding(t, func(t *testing.T, enc zrpc.Encoding) {
		s := startServer(t, newMemory(t), Options{})
		b := s.newBystander(t)
		var session bytes.Buffer
		probe := &peer{t: t, enc: enc}
		id := newTxnID()
		for _, f := range frames(
			oneWay("tpc_begin", id, []byte("u"), []byte("d"), zrpc.NewDict()),
			oneWay("storea", b.oid, zeolite.TID(0), []byte("never"), id),
			tuple("vote", id),
		) {
			payload := f(probe)
			session.Write(zrpc.AppendFrameHeader(nil, len(payload)))
			session.Write(payload)
		}
		for n := range session.Len() {
			p := s.connect(t, enc)
			p.writeBytes(session.Bytes()[:n])
			p.close()
			p.waitGone()
		}
		b.assertFine()
	})
}

// TestHostileMessages: messages that cost much to read, or try to make the
// server import something, are refused or taken as data.
func TestHostileMessages(t *testing.T) {
	deepPickle := "\x80\x03(K\x01\x89X\x08\x00\x00\x00get_info" + strings.Repeat("(", 50_000)
	deepMsgpack := "\x94\x01\xc2\xa8get_info" + strings.Repeat("\x91", 50_000) + "\xc0"
	hugeArray := "\x94\x01\xc2\xa8get_info\xdd\xff\xff\xff\xff"
	hugeMap := "\x94\x01\xc2\xa8undoInfo\x93\x00\x01\xdf\xff\xff\xff\xff"
	hugeBytes := "\x80\x03(K\x01\x89X\x04\x00\x00\x00pingB\xff\xff\xff\xff"
	hugeBin := "\x94\x01\xc2\xa4ping\x91\xc6\xff\xff\xff\xff"
	hugeLong := "\x80\x03(\x8b\xff\xff\xff\x7f"
	// Each element of the list is the one before, twice.
	bomb := "\x80\x03(K\x01\x89X\x08\x00\x00\x00undoInfo(K\x00K\x01]q\x00" +
		strings.Repeat("h\x00h\x00\x86q\x00", 60) + "tt."
	for _, c := range []struct {
		name    string
		enc     zrpc.Encoding
		payload string
	}{
		{"deep pickle", zrpc.Pickle, deepPickle},
		{"deep msgpack", zrpc.Msgpack, deepMsgpack},
		{"huge array", zrpc.Msgpack, hugeArray},
		{"huge map", zrpc.Msgpack, hugeMap},
		{"huge bytes", zrpc.Pickle, hugeBytes},
		{"huge bin", zrpc.Msgpack, hugeBin},
		{"huge long", zrpc.Pickle, hugeLong},
		{"memo bomb", zrpc.Pickle, bomb},
		{"global as method name", zrpc.Pickle, "\x80\x03(K\x01\x89cbuiltins\neval\n)t."},
		{"reduce as the message", zrpc.Pickle, "\x80\x03cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R."},
		{"pickle protocol 5", zrpc.Pickle, "\x80\x05\x95\x10\x00\x00\x00\x00\x00\x00\x00(K\x01\x89\x8c\x04ping)t."},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startServer(t, newMemory(t), Options{})
			b := s.newBystander(t)
			p := s.connect(t, c.enc)
			p.writeFrame([]byte(c.payload))
			p.waitClosed()
			p.assertOneLine("bad message")
			b.assertFine()
		})
	}
}

// evilCall is a pickle of builtins.eval("...") as one value.
const evilCall = "cbuiltins\neval\nX\x0b\x00\x00\x00__boom__(1)\x85R"

// TestNoGlobalIsEverImported sends classes and calls in every place where a
// client may send a value of its choice: they are data, or refused.
func TestNoGlobalIsEverImported(t *testing.T) {
	short := func(s string) string { return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s }
	msg := func(id, async, name, args string) string {
		return "\x80\x03(" + id + async + short(name) + args + "t."
	}
	eachBackend(t, func(t *testing.T, open func(testing.TB) zeolite.Storage) {
		s := startServer(t, open(t), Options{})
		b := s.newBystander(t)

		t.Run("argument", func(t *testing.T) {
			p := s.connect(t, zrpc.Pickle)
			for _, name := range []string{"getTid", "loadBefore", "new_oids", "vote", "get_info", "iterator_next"} {
				p.lastID++
				p.writeFrame([]byte(msg("K"+string(rune(p.lastID)), "\x89", name, evilCall+"\x85")))
				if e := p.exception(p.lastID); e.Class != "builtins.TypeError" {
					t.Errorf("%s raised %v", name, e)
				}
			}
		})
		t.Run("message id", func(t *testing.T) {
			p := s.connect(t, zrpc.Pickle)
			p.writeFrame([]byte(msg(evilCall, "\x89", "ping", ")")))
			// It may be echoed only as the description that it is; a client
			// would refuse that, and no client asks for it.
			p.begin("launch_missiles")
			for {
				if _, err := p.tryReadFrame(); err != nil {
					break
				}
			}
			p.waitGone()
		})
		t.Run("undoInfo specification", func(t *testing.T) {
			p := s.connect(t, zrpc.Pickle)
			p.lastID++
			p.writeFrame([]byte(msg("K"+string(rune(p.lastID)), "\x89", "undoInfo",
				"K\x00Jf\xff\xff\xff}"+short("user_name")+evilCall+"s\x87")))
			if got := tupleOf(t, p.result(p.lastID)); len(got) != 0 {
				t.Errorf("undoInfo: %v, want nothing", got)
			}
			p.lastID++
			p.writeFrame([]byte(msg("K"+string(rune(p.lastID)), "\x89", "undoInfo", "K\x00Jf\xff\xff\xff"+evilCall+"\x87")))
			if e := p.exception(p.lastID); e.Class != "builtins.TypeError" {
				t.Errorf("undoInfo raised %v", e)
			}
		})
		extension := func(ext string) func(t *testing.T) {
			return func(t *testing.T) {
				p := s.connect(t, zrpc.Pickle)
				id := newTxnID()
				num := string(binary.LittleEndian.AppendUint64([]byte("\x8a\x08"), uint64(id)))
				p.writeFrame([]byte(msg("K\x00", "\x88", "tpc_begin", "("+num+"C\x01uC\x01d"+ext+"t")))
				oid := p.newOID()
				p.store(id, oid, 0, record("x"))
				m := p.waitReply(p.begin("vote", id))
				if m.isException() {
					b.assertFine()
					return
				}
				tid := p.finish(id)
				// What is told of the transaction can be read by any client.
				for _, enc := range encodings {
					q := s.connect(t, enc)
					q.call("history", oid, 3)
					q.call("undoLog", 0, -20)
					iid := q.call("iterator_start", tid, nil)
					q.call("iterator_next", iid)
				}
				b.assertFine()
			}
		}
		bytesOf := func(p string) string {
			return "B" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(p)))) + p
		}
		t.Run("extension dict", extension("}"+short("k")+evilCall+"s"))
		t.Run("extension dict key", extension("}"+evilCall+"K\x01s"))
		t.Run("extension is a call", extension(evilCall))
		t.Run("extension is a class", extension("cbuiltins\ndict\n"))
		t.Run("extension bytes", extension(bytesOf("\x80\x03}"+short("k")+evilCall+"s.")))
		t.Run("extension bytes is a call", extension(bytesOf("\x80\x03"+evilCall+".")))
		t.Run("extension bytes is garbage", extension(bytesOf("not a pickle")))
		t.Run("extension with a persistent id", extension("}"+short("k")+"C\x08aaaaaaaaQs"))
	})
}
