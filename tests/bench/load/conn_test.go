package load

import (
	"bytes"
	"math/rand/v2"
	"net"
	"testing"
)

// TestPieces receives downloads cut into pieces anywhere, both encodings: all
// bytes come, and the reply behind them.
func TestPieces(t *testing.T) {
	const oid, tid = uint64(3), uint64(5)
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		for _, enc := range []encoding{msgpack{}, pickle{}} {
			var wire, want []byte
			wire = appendCall(wire, enc, 0, true, "receiveBlobStart", oid, tid)
			for range 4 {
				data := make([]byte, rnd.IntN(100_000))
				for i := range data {
					data[i] = byte(rnd.Uint32())
				}
				want = append(want, data...)
				wire = appendCall(wire, enc, 0, true, "receiveBlobChunk", oid, tid, data)
				wire = appendCall(wire, enc, 0, true, "info", emptyMap{})
			}
			wire = appendCall(wire, enc, 0, true, "receiveBlobStop", oid, tid)
			wire = appendCall(wire, enc, 7, false, ".reply", nil)
			here, there := net.Pipe()
			go func() {
				for len(wire) > 0 {
					n := min(len(wire), 1+rnd.IntN(1<<rnd.IntN(18)))
					if _, err := there.Write(wire[:n]); err != nil {
						return
					}
					wire = wire[n:]
				}
				there.Close()
			}()
			c := &Conn{net: here, enc: enc, in: make([]byte, 0, 4096)}
			d := &download{enc: enc, oid: oid, tid: tid}
			var got []byte
			c.onBlob = func(m message) error {
				if string(m.method) != "receiveBlobChunk" {
					return d.message(m)
				}
				if m.piece != nil {
					got = append(got, m.piece...)
					return nil
				}
				rest := m.args
				var err error
				var s scalar
				for range 3 {
					if s, rest, err = enc.next(rest); err != nil {
						return err
					}
				}
				got = append(got, s.b...)
				return nil
			}
			m, err := c.reply()
			here.Close()
			if err != nil || m.id != 7 || d.state != 2 || !bytes.Equal(got, want) {
				t.Fatalf("seed %d, %c: %v, reply %d, state %d, %d bytes of %d", seed, enc.letter(), err, m.id, d.state, len(got), len(want))
			}
		}
	}
}
