package zrpc

import "testing"

// The hot calls, written and read as generated code does.

func writeLoadBefore(e *Encoder, oid, tid uint64) {
	e.Start()
	e.Tuple(4)
	e.Int(42)
	e.Bool(false)
	e.Str("loadBefore")
	e.Tuple(2)
	e.ID(oid)
	e.ID(tid)
	e.EndTuple(2)
	e.EndTuple(4)
	e.Stop()
}

func readLoadBefore(d *Decoder) (oid, tid uint64) {
	d.Start()
	d.Tuple(4)
	if d.IsInt() {
		d.Int()
	} else {
		d.Raw()
	}
	d.Bool()
	if string(d.Str()) != "loadBefore" {
		return 0, 0
	}
	d.SetRetryPoint()
	d.OpenTuple()
	oid, tid = d.ID(), d.ID()
	d.CloseTuple()
	d.EndTuple(4)
	d.Stop()
	return oid, tid
}

func writeLoaded(e *Encoder, data []byte) {
	e.Start()
	e.Tuple(4)
	e.Int(42)
	e.Int(0)
	e.Str(".reply")
	e.Tuple(3)
	e.Bytes(data)
	e.ID(1)
	e.Nil()
	e.EndTuple(3)
	e.EndTuple(4)
	e.Stop()
}

func readLoaded(d *Decoder) (data []byte, serial uint64) {
	d.Start()
	d.Tuple(4)
	d.Int()
	d.Bool()
	d.Str()
	if !d.IsNil() {
		d.Tuple(3)
		data = d.Bytes()
		serial = d.ID()
		if !d.IsNil() {
			d.ID()
		}
		d.EndTuple(3)
	}
	d.EndTuple(4)
	d.Stop()
	return data, serial
}

func writeStore(e *Encoder, data []byte) {
	e.Start()
	e.Tuple(4)
	e.Int(0)
	e.Bool(true)
	e.Str("storea")
	e.Tuple(4)
	e.ID(1)
	e.ID(2)
	e.Bytes(data)
	e.Uint(140737488355328)
	e.EndTuple(4)
	e.EndTuple(4)
	e.Stop()
}

func readStorea(d *Decoder) (data []byte, txn uint64) {
	d.Start()
	d.Tuple(4)
	d.Int()
	d.Bool()
	d.Str()
	d.SetRetryPoint()
	d.OpenTuple()
	d.ID()
	d.ID()
	data = d.Bytes()
	txn = d.Uint()
	d.CloseTuple()
	d.EndTuple(4)
	d.Stop()
	return data, txn
}

func writeInvalidate(e *Encoder, oids []uint64) {
	e.Start()
	e.Tuple(4)
	e.Int(0)
	e.Bool(true)
	e.Str("invalidateTransaction")
	e.Tuple(2)
	e.ID(9)
	PutIDs(e, oids)
	e.EndTuple(2)
	e.EndTuple(4)
	e.Stop()
}

func readInvalidate(d *Decoder, oids []uint64) []uint64 {
	d.Start()
	d.Tuple(4)
	d.Int()
	d.Bool()
	d.Str()
	d.SetRetryPoint()
	d.OpenTuple()
	d.ID()
	oids = AppendIDs(d, oids)
	d.CloseTuple()
	d.EndTuple(4)
	d.Stop()
	return oids
}

type hotCall struct {
	name  string
	write func(e *Encoder)
	read  func(d *Decoder)
}

func hotCalls() []hotCall {
	data := make([]byte, 500)
	oids := make([]uint64, 10)
	into := make([]uint64, 0, 10)
	return []hotCall{
		{"loadBefore", func(e *Encoder) { writeLoadBefore(e, 1, 2) }, func(d *Decoder) { readLoadBefore(d) }},
		{"loaded", func(e *Encoder) { writeLoaded(e, data) }, func(d *Decoder) { readLoaded(d) }},
		{"storea", func(e *Encoder) { writeStore(e, data) }, func(d *Decoder) { readStorea(d) }},
		{"invalidate10", func(e *Encoder) { writeInvalidate(e, oids) }, func(d *Decoder) { readInvalidate(d, into) }},
	}
}

func TestHotCallsDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 4096)
	for _, enc := range []Encoding{Pickle, Msgpack} {
		calls := append(hotCalls(), hotCall{"loadBefore by Python", func(e *Encoder) {
			// Python names this call by its arguments.
			e.Start()
			e.Tuple(4)
			for i := range 2 {
				e.Tuple(2)
				e.ID(1)
				e.ID(2)
				e.EndTuple(2)
				if i == 0 {
					e.Bool(false)
					e.Str("loadBefore")
				}
			}
			e.EndTuple(4)
			e.Stop()
		}, func(d *Decoder) { readLoadBefore(d) }})
		for _, c := range calls {
			e := NewEncoder(enc, buf)
			c.write(&e)
			d := NewDecoder(enc, e.Buf, Limits{})
			if c.read(&d); d.Err() != nil || d.tree != nil {
				t.Fatalf("%v %s: %v", enc, c.name, d.Err())
			}
			if n := testing.AllocsPerRun(100, func() {
				e := Encoder{Buf: buf, enc: enc}
				c.write(&e)
				d := NewDecoder(enc, e.Buf, Limits{})
				c.read(&d)
			}); n > 2 { // the two that escape through the function values of this test
				t.Errorf("%v %s: %v allocations", enc, c.name, n)
			}
		}
		for name, f := range map[string]func(){
			"loadBefore": func() {
				e := NewEncoder(enc, buf)
				writeLoadBefore(&e, 1, 2)
				d := NewDecoder(enc, e.Buf, Limits{})
				readLoadBefore(&d)
			},
			"loaded": func() {
				e := NewEncoder(enc, buf)
				writeLoaded(&e, buf[:500])
				d := NewDecoder(enc, e.Buf, Limits{})
				readLoaded(&d)
			},
			"storea": func() {
				e := NewEncoder(enc, buf)
				writeStore(&e, buf[:500])
				d := NewDecoder(enc, e.Buf, Limits{})
				readStorea(&d)
			},
			"invalidateTransaction": func() {
				var oids [50]uint64
				e := NewEncoder(enc, buf)
				writeInvalidate(&e, oids[:])
				d := NewDecoder(enc, e.Buf, Limits{})
				readInvalidate(&d, oids[:0])
			},
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%v %s: %v allocations, want none", enc, name, n)
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for _, c := range hotCalls() {
			b.Run(c.name+"/"+enc.String(), func(b *testing.B) {
				e := NewEncoder(enc, make([]byte, 0, 4096))
				b.ReportAllocs()
				for b.Loop() {
					e.Buf = e.Buf[:0]
					c.write(&e)
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for _, c := range hotCalls() {
			b.Run(c.name+"/"+enc.String(), func(b *testing.B) {
				e := NewEncoder(enc, nil)
				c.write(&e)
				var d Decoder
				b.ReportAllocs()
				for b.Loop() {
					d = NewDecoder(enc, e.Buf, Limits{})
					c.read(&d)
				}
				if d.Err() != nil {
					b.Fatal(d.Err())
				}
			})
		}
	}
}

// BenchmarkValue reads and writes a dict as general values: what get_info
// costs.
func BenchmarkValue(b *testing.B) {
	info := NewDict("length", int64(1000), "size", int64(1<<20), "name", "Data.fs", "supportsUndo", true,
		"interfaces", Tuple{Tuple{"ZODB.interfaces", "IStorage"}, Tuple{"zope.interface", "Interface"}})
	for _, enc := range []Encoding{Pickle, Msgpack} {
		b.Run(enc.String(), func(b *testing.B) {
			e := NewEncoder(enc, nil)
			b.ReportAllocs()
			for b.Loop() {
				e.Buf = e.Buf[:0]
				e.Start()
				e.Value(info)
				e.Stop()
				d := NewDecoder(enc, e.Buf, Limits{})
				d.Start()
				d.Value()
				d.Stop()
				if d.Err() != nil {
					b.Fatal(d.Err())
				}
			}
		})
	}
}
