package zrpc

import "testing"

// BenchmarkParseFrame takes frames of loads out of a received buffer.
func BenchmarkParseFrame(b *testing.B) {
	payload := (&wire{enc: Msgpack}).call(int64(1), "loadBefore", make([]byte, 8), make([]byte, 8))
	var received []byte
	for range 100 {
		received = append(AppendFrameHeader(received, len(payload)), payload...)
	}
	rest := received
	b.ReportAllocs()
	for b.Loop() {
		if len(rest) == 0 {
			rest = received
		}
		var err error
		if _, rest, err = parseFrame(rest, 1<<30); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOutbox queues messages of some sizes and takes them, 16 at a time:
// small ones are copied into one buffer, large ones are sent from where they
// are.
func BenchmarkOutbox(b *testing.B) {
	const burst = 16
	for name, size := range map[string]int{"100 B": 100, "1 KiB": 1 << 10, "64 KiB": 64 << 10} {
		b.Run(name, func(b *testing.B) {
			var o outbox
			o.init(1 << 30)
			record := make([]byte, size)
			var parts []part
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m := newMessage(Msgpack)
				m.BytesBody(Body{Bytes: record})
				if _, err := o.put(m); err != nil {
					b.Fatal(err)
				}
				if i%burst < burst-1 {
					continue
				}
				parts, _, _ = o.take(parts)
				for _, p := range parts {
					p.free()
				}
				o.wrote(o.queued, o.unasked)
			}
		})
	}
}
