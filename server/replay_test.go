package server

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/tests/vectors"
	"github.com/zeolite-go/zeolite/zrpc"
)

// replayed are the recorded sessions whose clients' frames are played to this
// server, and with which back end.
var replayed = map[string]func(testing.TB) zeolite.Storage{
	"commit":                   newFileStorage,
	"connect_load":             newFileStorage,
	"conflict_client":          newFileStorage,
	"blob":                     newFileStorage,
	"undo":                     newFileStorage,
	"history":                  newFileStorage,
	"iterator":                 newFileStorage,
	"invalidation":             newFileStorage,
	"locks":                    newFileStorage,
	"restore_copyTransactions": newFileStorage,
	"mappingstorage":           func(t testing.TB) zeolite.Storage { return withoutUndo{newMemory(t)} },
}

// difference is a place where this server means to answer otherwise than the
// recorded one did.
type difference struct {
	session string // "" for all
	about   string // the method answered, or called
	text    string // part of the description of the mismatch
	reason  string
}

// TestReplay plays what real clients sent and compares what they got, value by
// value. Tids, which differ from run to run, are replaced.
func TestReplay(t *testing.T) {
	for name, open := range replayed {
		for _, enc := range vectors.Encodings {
			t.Run(name+"."+enc, func(t *testing.T) {
				r := &replayer{t: t, session: name, server: startServer(t, open(t), Options{}),
					frames: vectors.Load(t, name+"."+enc), enc: zrpc.Pickle,
					peers: map[int]*peer{}, ours: map[string][]byte{}, methods: map[string]string{}, gone: map[int]bool{}}
				if enc == "m5" {
					r.enc = zrpc.Msgpack
				}
				r.play()
			})
		}
	}
}

// replayer plays one session.
type replayer struct {
	t       testing.TB
	session string
	server  *testServer
	frames  []vectors.Frame
	enc     zrpc.Encoding
	peers   map[int]*peer
	gone    map[int]bool      // connections that have ended
	ours    map[string][]byte // recorded tid to ours
	methods map[string]string // connection and message id to method
	about   string            // what is being compared
	line    int
	blob    []byte // of the recorded chunks
}

func (r *replayer) play() {
	for _, f := range r.frames {
		r.line = f.Line
		p := r.peers[f.Conn]
		switch {
		case f.Kind == vectors.Handshake && p == nil:
			p = r.server.dialRaw(r.t, r.enc)
			p.readFrame()
			p.writeFrame([]byte{byte(r.enc), '5'})
			r.peers[f.Conn] = p
		case f.Kind == vectors.EOF && !r.gone[f.Conn]:
			r.gone[f.Conn] = true
			if f.Dir == vectors.ClientToServer {
				p.close()
			}
			p.waitGone()
		case f.Kind != vectors.Message || r.gone[f.Conn]:
		case f.Dir == vectors.ClientToServer:
			r.send(f.Conn, r.decode(f.Payload))
		default:
			r.expect(f.Conn, r.decode(f.Payload))
		}
	}
}

func (r *replayer) decode(payload []byte) zrpc.Tuple {
	var v zrpc.Value
	var err error
	if r.enc == zrpc.Pickle {
		v, _, err = zrpc.ParsePickle(payload, zrpc.Limits{})
	} else {
		v, _, err = zrpc.ParseMsgpack(payload, zrpc.Limits{})
	}
	four, ok := v.(zrpc.Tuple)
	if err != nil || !ok || len(four) != 4 {
		r.t.Fatalf("line %d: not a message: %v, %v", r.line, v, err)
	}
	return four
}

// substitute replaces recorded tids by ours.
func (r *replayer) substitute(v zrpc.Value) zrpc.Value {
	switch v := v.(type) {
	case []byte:
		if our, ok := r.ours[string(v)]; ok {
			return our
		}
		if raw, err := base64.StdEncoding.DecodeString(string(v)); err == nil && len(raw) == 8 {
			if our, ok := r.ours[string(raw)]; ok {
				return []byte(base64.StdEncoding.EncodeToString(our))
			}
		}
	case zrpc.Tuple:
		out := make(zrpc.Tuple, len(v))
		for i, item := range v {
			out[i] = r.substitute(item)
		}
		return out
	case zrpc.List:
		return zrpc.List(r.substitute(zrpc.Tuple(v)).(zrpc.Tuple))
	}
	return v
}

func (r *replayer) send(conn int, four zrpc.Tuple) {
	p := r.peers[conn]
	four = r.substitute(four).(zrpc.Tuple)
	r.methods[fmt.Sprint(conn, four[0])] = four[2].(string)
	p.writeFrame(p.encode(four))
}

// expect waits for the message that answers to a recorded one.
func (r *replayer) expect(conn int, four zrpc.Tuple) {
	p := r.peers[conn]
	id, name := r.substitute(four[0]), four[2].(string)
	if name == "receiveBlobChunk" {
		r.blob = append(r.blob, four[3].(zrpc.Tuple)[2].([]byte)...)
		return
	}
	r.about = name
	if name == ".reply" {
		r.about = r.methods[fmt.Sprint(conn, id)]
	}
	match := func(m message) bool {
		return m.name == name && bytes.Equal(p.encode(m.id), p.encode(id))
	}
	var m message
	if i := slices.IndexFunc(p.early, match); i >= 0 {
		m = p.early[i]
		p.early = slices.Delete(p.early, i, i+1)
	} else {
		for m = p.receive(); !match(m); m = p.receive() {
			p.early = append(p.early, m)
		}
	}
	if name == "receiveBlobStop" {
		r.compareBlob(p)
	}
	r.compare("flag", four[1], m.flag)
	r.compare("", four[3], m.value)
}

// compareBlob compares all chunks that have arrived, which may be cut elsewhere.
func (r *replayer) compareBlob(p *peer) {
	var blob []byte
	p.early = slices.DeleteFunc(p.early, func(m message) bool {
		if m.name != "receiveBlobChunk" {
			return false
		}
		blob = append(blob, tupleOf(r.t, m.value)[2].([]byte)...)
		return true
	})
	if !bytes.Equal(blob, r.blob) {
		r.t.Errorf("line %d: a blob of %d bytes, recorded %d", r.line, len(blob), len(r.blob))
	}
	r.blob = nil
}

// varies are keys of dicts whose values differ from run to run.
var varies = []string{"name", "start", "lock_time", "time", "last-transaction"}

func (r *replayer) compare(path string, want, got zrpc.Value) {
	r.t.Helper()
	switch want := want.(type) {
	case []byte:
		got, ok := got.([]byte)
		if !ok {
			break
		}
		if bytes.Equal(r.substitute(want).([]byte), got) {
			return
		}
		// A tid of that day, seen for the first time.
		if len(want) == 8 && len(got) == 8 && bytes.HasPrefix(want, []byte{0x04, 0x0d}) && bytes.HasPrefix(got, []byte{0x04, 0x0d}) {
			r.ours[string(want)] = got
			return
		}
		if len(want) == 12 && len(got) == 12 {
			w, err1 := base64.StdEncoding.DecodeString(string(want))
			g, err2 := base64.StdEncoding.DecodeString(string(got))
			if err1 == nil && err2 == nil {
				r.compare(path, w, g)
				return
			}
		}
		r.differ("%s: %x, recorded %x", path, got, want)
		return
	case zrpc.Tuple:
		r.compareItems(path, "tuple", want, got)
		return
	case zrpc.List:
		r.compareItems(path, "list", zrpc.Tuple(want), got)
		return
	case *zrpc.Dict:
		d, ok := got.(*zrpc.Dict)
		if !ok {
			break
		}
		var extra []string
		for _, p := range d.Pairs {
			if _, ok := want.Get(fmt.Sprint(p.Key)); !ok {
				extra = append(extra, fmt.Sprint(p.Key))
			}
		}
		if len(extra) > 0 {
			r.differ("%s: keys %v are new", path, extra)
		}
		for _, p := range want.Pairs {
			key := fmt.Sprint(p.Key)
			if v, ok := d.Get(key); !ok {
				r.differ("%s: no key %s", path, key)
			} else if !slices.Contains(varies, key) {
				r.compare(path+"."+key, p.Val, v)
			}
		}
		return
	default:
		if want == got {
			return
		}
	}
	r.differ("%s: %v (%T), recorded %v (%T)", path, got, got, want, want)
}

func (r *replayer) compareItems(path, kind string, want zrpc.Tuple, got zrpc.Value) {
	var items zrpc.Tuple
	switch got := got.(type) {
	case zrpc.Tuple:
		items = got
		if r.enc == zrpc.Pickle && kind != "tuple" {
			r.differ("%s: a tuple, recorded a list", path)
		}
	case zrpc.List:
		items = zrpc.Tuple(got)
		if kind != "list" {
			r.differ("%s: a list, recorded a tuple", path)
		}
	default:
		r.differ("%s: %v (%T), recorded a %s", path, got, got, kind)
		return
	}
	if len(items) != len(want) {
		r.differ("%s: %d items, recorded %d", path, len(items), len(want))
		return
	}
	for i := range want {
		r.compare(fmt.Sprintf("%s[%d]", path, i), want[i], items[i])
	}
}

// differ fails the test unless the difference is intended.
func (r *replayer) differ(format string, args ...any) {
	r.t.Helper()
	text := fmt.Sprintf(format, args...)
	for _, d := range intended {
		if (d.session == "" || d.session == r.session) && d.about == r.about && strings.Contains(text, d.text) {
			return
		}
	}
	r.t.Errorf("line %d, %s: %s", r.line, r.about, text)
}
