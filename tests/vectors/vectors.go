// Package vectors loads recorded sessions of real Python ZEO peers for tests.
// README.md says what each session holds and how a line is laid out.
package vectors

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

//go:embed *.jsonl
var files embed.FS

// Direction says who sent a frame.
type Direction string

// The two directions.
const (
	ClientToServer Direction = "c2s"
	ServerToClient Direction = "s2c"
)

// Kind says what a frame is.
type Kind string

// The kinds of frames. EOF is the end of a direction and has no payload.
const (
	Handshake Kind = "handshake"
	Message   Kind = "message"
	JSON      Kind = "json"
	EOF       Kind = "eof"
)

// Frame is one recorded frame. It is plain data: share it, but do not change
// it.
type Frame struct {
	// Conn numbers the connections of a session from 1.
	Conn int
	Dir  Direction
	Kind Kind
	// Payload is the frame without its length, nil for EOF.
	Payload []byte
	// Decoded is the readable form that README.md describes, nil for EOF.
	Decoded json.RawMessage
	// Line is the line of the file, from 1, for failure messages.
	Line int
}

// Encodings are the suffixes of session names: pickle and msgpack.
var Encodings = []string{"z5", "m5"}

// Names returns the sessions, without encoding, sorted.
func Names() []string {
	paths, err := fs.Glob(files, "*."+Encodings[0]+".jsonl")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i], _, _ = strings.Cut(p, ".")
	}
	return names
}

// Load returns the frames of one session in the order they were seen. name is
// that of a file without .jsonl: "commit.z5". An unknown name or a malformed
// line fails the test.
func Load(t testing.TB, name string) []Frame {
	t.Helper()
	frames, err := load(name)
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// LoadMessages returns the payloads of all messages of one session that were
// sent in direction dir.
func LoadMessages(t testing.TB, name string, dir Direction) [][]byte {
	t.Helper()
	var payloads [][]byte
	for _, f := range Load(t, name) {
		if f.Kind == Message && f.Dir == dir {
			payloads = append(payloads, f.Payload)
		}
	}
	return payloads
}

func load(name string) ([]Frame, error) {
	data, err := files.ReadFile(name + ".jsonl")
	if err != nil {
		return nil, fmt.Errorf("no recorded session %q: %w", name, err)
	}
	return parse(name, data)
}

func parse(name string, data []byte) ([]Frame, error) {
	var frames []Frame
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 8<<20)
	for n := 1; lines.Scan(); n++ {
		f, err := parseLine(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("%s.jsonl:%d: %w", name, n, err)
		}
		f.Line = n
		frames = append(frames, f)
	}
	return frames, lines.Err()
}

func parseLine(line []byte) (Frame, error) {
	var raw struct {
		Conn    int
		Dir     Direction
		Kind    Kind
		Event   Kind
		Hex     *string
		Decoded json.RawMessage
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return Frame{}, err
	}
	f := Frame{Conn: raw.Conn, Dir: raw.Dir, Kind: raw.Kind, Decoded: bytes.Clone(raw.Decoded)}
	switch {
	case f.Conn < 1:
		return Frame{}, fmt.Errorf("conn is %d", f.Conn)
	case f.Dir != ClientToServer && f.Dir != ServerToClient:
		return Frame{}, fmt.Errorf("unknown direction %q", f.Dir)
	case raw.Event == EOF:
		f.Kind = EOF
		return f, nil
	case f.Kind != Handshake && f.Kind != Message && f.Kind != JSON:
		return Frame{}, fmt.Errorf("unknown kind %q", f.Kind)
	case raw.Hex == nil:
		return Frame{}, fmt.Errorf("no hex")
	}
	payload, err := hex.DecodeString(*raw.Hex)
	f.Payload = payload
	return f, err
}
