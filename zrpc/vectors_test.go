package zrpc

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// vector is one frame of a recorded session between Python peers.
type vector struct {
	Name    string
	Conn    int
	Dir     string
	Kind    string
	Hex     string
	Decoded json.RawMessage

	enc     Encoding
	payload []byte
}

// vectors returns the messages of all recorded sessions that their receiver
// could decode.
func vectors(t testing.TB) []vector {
	t.Helper()
	var files []string
	for _, dir := range []string{"../tests/vectors", "../../shared/vectors"} {
		if files, _ = filepath.Glob(filepath.Join(dir, "*.jsonl")); len(files) > 0 {
			break
		}
	}
	if len(files) == 0 {
		t.Skip("no recorded sessions in tests/vectors")
	}
	var all []vector
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 8<<20)
		letters := map[int]Encoding{} // the client's handshake decides
		for n := 1; lines.Scan(); n++ {
			var v vector
			if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
				t.Fatalf("%s:%d: %v", file, n, err)
			}
			v.Name = fmt.Sprintf("%s:%d", filepath.Base(file), n)
			if v.payload, err = hex.DecodeString(v.Hex); err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			if v.Kind == "handshake" && v.Dir == "c2s" {
				letters[v.Conn] = Encoding(v.payload[0])
			}
			v.enc = letters[v.Conn]
			if v.enc != Pickle && v.enc != Msgpack {
				continue // a peer that tried another letter
			}
			if v.Kind == "message" && !strings.HasPrefix(string(v.Decoded), `{"undecodable`) {
				all = append(all, v)
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	if len(all) < 2000 {
		t.Fatalf("only %d recorded messages found", len(all))
	}
	return all
}

func TestVectorsRoundTrip(t *testing.T) {
	refused := 0
	for _, v := range vectors(t) {
		val, rest, err := parse(v.enc, v.payload, Limits{})
		byHand := strings.HasPrefix(v.Name, "raw_") // not by a ZEO peer
		if err != nil || len(rest) > 0 && !byHand {
			t.Errorf("%s: %v, %d bytes left", v.Name, err, len(rest))
			continue
		}
		if want, got := asJSON(t, v.Decoded), readable(val); want != got {
			t.Errorf("%s: decoded as\n%s, want\n%s", v.Name, got, want)
		}
		var out []byte
		if v.enc == Pickle {
			out, err = AppendPickle(nil, val)
		} else {
			out, err = AppendMsgpack(nil, val)
			if err != nil && strings.Contains(err.Error(), "key of a dict") {
				// A Python server sent this, and its client never answered.
				refused++
				continue
			}
		}
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		} else if byHand && v.enc == Pickle {
			// It has a memo, so only the value can be compared.
			if again, _, err := ParsePickle(out, Limits{}); err != nil || readable(again) != readable(val) {
				t.Errorf("%s: written as\n%x (%v)", v.Name, out, err)
			}
		} else if !bytes.Equal(out, v.payload[:len(v.payload)-len(rest)]) {
			t.Errorf("%s: written as\n%x, want\n%x", v.Name, out, v.payload)
		}
		for _, enc := range []Encoding{Pickle, Msgpack} {
			e := NewEncoder(enc, nil)
			if e.Value(Plain(val)); e.Err() != nil {
				t.Errorf("%s: plain: %v", v.Name, e.Err())
			}
		}
	}
	if refused > 2 {
		t.Errorf("%d messages were not written for the keys of their dicts", refused)
	}
}

func TestVectorsPrefixes(t *testing.T) {
	for _, v := range vectors(t) {
		step := 1 + len(v.payload)/500 // long blobs: not every byte of the bulk
		for n := 0; n < len(v.payload); n += step {
			if _, _, err := parse(v.enc, v.payload[:n:n], Limits{}); err == nil {
				t.Fatalf("%s: the first %d of %d bytes were taken for a message", v.Name, n, len(v.payload))
			}
			d := NewDecoder(v.enc, v.payload[:n:n], Limits{})
			if readMessage(&d); d.Err() == nil {
				t.Fatalf("%s: the first %d of %d bytes were read as a message", v.Name, n, len(v.payload))
			}
		}
	}
}

// message is what a connection reads of a message.
type message struct {
	id   []byte
	flag bool
	name string
	args Value
}

func readMessage(d *Decoder) (m message) {
	d.Start()
	d.Tuple(4)
	m.id = d.Raw()
	m.flag = d.Bool()
	m.name = string(d.Str())
	d.SetRetryPoint()
	m.args = d.Value()
	d.EndTuple(4)
	d.Stop()
	return m
}

// TestVectorsTyped reads each message as a connection does, without Fallback,
// and writes it again.
func TestVectorsTyped(t *testing.T) {
	for _, v := range vectors(t) {
		if strings.HasPrefix(v.Name, "raw_") {
			continue // made by hand, some are no messages
		}
		d := NewDecoder(v.enc, v.payload, Limits{})
		m := readMessage(&d)
		if d.Err() != nil {
			t.Errorf("%s: %v", v.Name, d.Err())
			continue
		}
		var fields []json.RawMessage
		if err := json.Unmarshal(v.Decoded, &fields); err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if want := asJSON(t, fields[3]); readable(m.args) != want {
			t.Errorf("%s: arguments %s, want %s", v.Name, readable(m.args), want)
		}
		id, _, err := parse(v.enc, append(m.id, opStop), Limits{})
		if err != nil || readable(id) != asJSON(t, fields[0]) {
			t.Errorf("%s: id %x (%v)", v.Name, m.id, err)
		}
		if !bytes.Contains(v.payload, m.id) || `"`+m.name+`"` != string(fields[2]) {
			t.Errorf("%s: name %q", v.Name, m.name)
		}
	}
}

// readable writes a value as the recordings do, apart from spaces: see the
// README beside them.
func readable(v Value) string {
	var b strings.Builder
	writeReadable(&b, v)
	return b.String()
}

func writeReadable(b *strings.Builder, v Value) {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case []byte:
		if len(v) > 512 {
			fmt.Fprintf(b, "{%d bytes %x}", len(v), v[:32])
			return
		}
		fmt.Fprintf(b, "{%x}", v)
	case string:
		if !utf8.ValidString(v) {
			b.WriteString("?")
		}
		fmt.Fprintf(b, "%q", v)
	case Tuple:
		writeItems(b, v)
	case List:
		writeItems(b, v)
	case *Dict:
		b.WriteString("dict[")
		for _, p := range v.Pairs {
			writeItems(b, []Value{p.Key, p.Val})
		}
		b.WriteString("]")
	case Global:
		fmt.Fprintf(b, "global %s", v)
	case *Object:
		fmt.Fprintf(b, "object %s%s", readable(v.Class), readable(v.Args))
		if v.State != nil {
			b.WriteString(readable(v.State))
		}
	default:
		fmt.Fprint(b, v)
	}
}

func writeItems(b *strings.Builder, items []Value) {
	b.WriteString("[")
	for _, item := range items {
		writeReadable(b, item)
		b.WriteString(" ")
	}
	b.WriteString("]")
}

// asJSON brings the recorded readable form into that of readable.
func asJSON(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var x any
	if err := dec.Decode(&x); err != nil {
		t.Fatal(err)
	}
	return readable(fromJSON(x))
}

func fromJSON(x any) Value {
	switch x := x.(type) {
	case json.Number:
		if i, err := x.Int64(); err == nil {
			return i
		}
		if big, ok := new(big.Int).SetString(x.String(), 10); ok {
			return big
		}
		f, _ := x.Float64()
		return f
	case []any:
		items := make(Tuple, len(x))
		for i := range x {
			items[i] = fromJSON(x[i])
		}
		return items
	case map[string]any:
		switch {
		case x["b"] != nil:
			b, _ := hex.DecodeString(x["b"].(string))
			return b
		case x["b_len"] != nil:
			n, _ := x["b_len"].(json.Number).Int64()
			b := make([]byte, n)
			head, _ := hex.DecodeString(x["b_head"].(string))
			copy(b, head)
			return b
		case x["d"] != nil:
			d := &Dict{}
			for _, p := range x["d"].([]any) {
				d.Set(fromJSON(p.([]any)[0]), fromJSON(p.([]any)[1]))
			}
			return d
		case x["global"] != nil:
			module, name, _ := cutLast(x["global"].(string))
			return Global{module, name}
		case x["object"] != nil:
			module, name, _ := cutLast(x["object"].(string))
			return &Object{Class: Global{module, name}, Args: fromJSON(x["args"]), State: fromJSON(x["state"])}
		}
	}
	return x
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
