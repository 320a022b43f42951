package zrpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestFrameLimits(t *testing.T) {
	for _, enc := range []Encoding{Pickle, Msgpack} {
		registered := atomic.Bool{}
		opt := Options{
			MaxFrame: 100,
			FrameLimit: func(name []byte) int {
				if string(name) == "store" && registered.Load() {
					return 2000
				}
				return 0
			},
		}
		for _, tc := range []struct {
			name       string
			registered bool
			method     string
			bytes      int
			ok         bool
			limit      int
		}{
			{"small, before", false, "ping", 30, true, 0},
			{"above the first limit, before", false, "ping", 150, false, 100},
			{"bulk, before", false, "store", 150, false, 100},
			{"above the first limit, after", true, "ping", 150, true, 0},
			{"above the second limit, after", true, "ping", 600, false, 500},
			{"bulk, after", true, "store", 1800, true, 0},
			{"too much bulk, after", true, "store", 2500, false, 2000},
		} {
			t.Run(fmt.Sprintf("%v/%s", enc, tc.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, w := onPipe(t, enc, opt, handlerFunc(func(call *Call) {
						if string(call.Name) == "register" {
							call.Conn().SetMaxFrame(500, 0)
							registered.Store(true)
						}
						echo(call)
					}))
					registered.Store(false)
					if tc.registered {
						w.write(w.call(int64(1), "register"))
						w.next()
					}
					go func() { // the pipe may end in the middle
						b := w.call(int64(2), tc.method, make([]byte, tc.bytes))
						_, _ = w.nc.Write(append(AppendFrameHeader(nil, len(b)), b...))
					}()
					if tc.ok {
						w.next()
						return
					}
					<-c.Done()
					var tooLarge *FrameTooLargeError
					if !errors.As(c.Err(), &tooLarge) || tooLarge.Limit != tc.limit || !strings.Contains(c.Err().Error(), tc.method) {
						t.Errorf("ended for %v, want limit %d of %s", c.Err(), tc.limit, tc.method)
					}
					w.expectEnd()
				})
			})
		}
	}
}

// TestFrameLimitAnywhere sends a frame that only its name allows behind a small
// one, in one write, so that its header is anywhere in what has been received.
func TestFrameLimitAnywhere(t *testing.T) {
	opt := Options{MaxFrame: 2 * readBuffer, FrameLimit: func([]byte) int { return 4 * readBuffer }}
	for _, enc := range []Encoding{Pickle, Msgpack} {
		for before := range readBuffer + 10 {
			c, w := onPipe(t, enc, opt, handlerFunc(echo))
			go func() {
				var b []byte
				for _, payload := range [][]byte{w.call(int64(1), "ping", make([]byte, before)), w.call(int64(2), "store", bytes.Repeat([]byte{'a'}, 3*readBuffer))} {
					b = append(AppendFrameHeader(b, len(payload)), payload...)
				}
				_, _ = w.nc.Write(b)
			}()
			for id := int64(1); id <= 2; id++ {
				if got, err := w.read(); err != nil || got.ID != Value(id) {
					t.Fatalf("%v, %d bytes before it: reply %d is %v, %v; ended for %v", enc, before, id, got.ID, err, c.Err())
				}
			}
			c.Close()
		}
	}
}

// TestFrameLimitSmallerThanTheLook announces a frame that is too large, and
// sends no more than that frame.
func TestFrameLimitSmallerThanTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{MaxFrame: 10, FrameLimit: func([]byte) int { return 0 }}, noCalls(t))
		w.write(w.call(int64(1), "ping"))
		<-c.Done()
		if !errors.As(c.Err(), new(*FrameTooLargeError)) {
			t.Errorf("ended for %v", c.Err())
		}
	})
}

// allocated measures the heap bytes that f costs, whichever goroutine asks.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAnnouncedFramesCostNothing(t *testing.T) {
	noLeaks(t)
	for _, tc := range []struct {
		name  string
		limit int
		size  uint32
		want  error
		bytes uint64
	}{
		{"beyond the limit", 1 << 20, 0xffffffff, new(FrameTooLargeError), 64 << 10},
		{"by its name too", 1 << 20, 0xfffffff0, new(FrameTooLargeError), 64 << 10},
		// What is within the limit is not allocated before it arrives.
		{"within the limit", 1 << 30, 1 << 29, io.ErrUnexpectedEOF, 3 << 20},
	} {
		a, b := net.Pipe()
		c := NewConn(a, Msgpack, Options{MaxFrame: tc.limit, FrameLimit: func([]byte) int { return tc.limit }})
		cost := allocated(func() {
			c.Start(noCalls(t))
			w := &wire{t, b, Msgpack}
			frame := []byte{byte(tc.size >> 24), byte(tc.size >> 16), byte(tc.size >> 8), byte(tc.size)}
			frame = append(frame, w.call(int64(1), "store", make([]byte, 300))...)
			_, _ = b.Write(frame)
			b.Close()
			<-c.Done()
		})
		c.Close()
		if want := new(FrameTooLargeError); errors.As(tc.want, &want) != errors.As(c.Err(), &want) ||
			tc.want == io.ErrUnexpectedEOF && !errors.Is(c.Err(), io.ErrUnexpectedEOF) {
			t.Errorf("%s: ended for %v", tc.name, c.Err())
		}
		if cost > tc.bytes {
			t.Errorf("%s: %d bytes allocated", tc.name, cost)
		}
	}
}
