package zrpc

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answer replies to a call with its own argument, behind a wait.
func answer(c *Call, wait func()) {
	c.Conn().MayBlock(func() {
		wait()
		echo(c)
	})
}

// TestMayBlock has calls that take some time, each with a load behind it: short
// ones hold it up, long ones do not for long.
func TestMayBlock(t *testing.T) {
	for _, c := range []struct {
		takes time.Duration
		late  time.Duration // of the load, at the most
		order string
	}{
		{0, 0, "write load"},
		{reliefPeriod - 1, reliefPeriod - 1, "write load"},
		{time.Second, 2 * reliefPeriod, "load write"},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, w := onPipe(t, Msgpack, Options{}, handlerFunc(func(call *Call) {
				if string(call.Name) == "load" {
					echo(call)
					return
				}
				answer(call, func() { time.Sleep(c.takes) })
			}))
			for i := range int64(5) {
				time.Sleep(time.Duration(i) * reliefPeriod / 2)
				began := time.Now()
				w.write(w.call(2*i, "write", "write"), w.call(2*i+1, "load", "load"))
				var order []string
				for range 2 {
					name := "write"
					if w.next().ID == Value(2*i+1) {
						name = "load"
						if late := time.Since(began); late > c.late {
							t.Errorf("%v: the load is answered after %v", c.takes, late)
						}
					}
					order = append(order, name)
				}
				if got := strings.Join(order, " "); got != c.order {
					t.Errorf("%v: answered are %s, want %s", c.takes, got, c.order)
				}
			}
		})
	}
}

// TestMayBlockAgain has readers that are relieved while the ones before them are
// still away.
func TestMayBlockAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := onPipe(t, Pickle, Options{}, handlerFunc(func(call *Call) {
			answer(call, func() { time.Sleep(time.Second) })
		}))
		const calls = 10
		began := time.Now()
		for i := range int64(calls) {
			w.write(w.call(i, "write", i))
		}
		for range calls {
			w.next()
		}
		if took := time.Since(began); took > time.Second+calls*2*reliefPeriod {
			t.Errorf("the calls took %v, one after the other", took)
		}
		// A look more, and nothing is left to be looked at.
		time.Sleep(2 * reliefPeriod)
		c.relief.mu.Lock()
		defer c.relief.mu.Unlock()
		if c.relief.armed {
			t.Error("the timer runs on")
		}
	})
}

// TestMayBlockAtTheEnd ends a connection whose reader is away, before and after
// it was relieved: Close waits for what goes on.
func TestMayBlockAtTheEnd(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			done := false
			c, w := onPipe(t, Msgpack, Options{}, handlerFunc(func(call *Call) {
				answer(call, func() {
					time.Sleep(time.Hour)
					done = true
				})
			}))
			w.write(w.call(int64(1), "write", nil))
			synctest.Wait()
			time.Sleep(after)
			c.Close()
			if !done {
				t.Error("Close did not wait")
			}
		})
	}
}

// TestMayBlockInOrder calls things that take long now and then, and what does not
// wait in between; each kind must be answered in order, once.
func TestMayBlockInOrder(t *testing.T) {
	const calls = 400
	everywhere(t, func(t *testing.T, enc Encoding, network string) {
		var mu sync.Mutex // as an ordered lane
		var written []int64
		_, c := connected(t, enc, network, handlerFunc(func(call *Call) {
			call.Conn().Hold()
			if string(call.Name) == "load" {
				echo(call)
				return
			}
			answer(call, func() {
				if rand.IntN(50) == 0 {
					time.Sleep(4 * reliefPeriod)
				}
				mu.Lock()
				defer mu.Unlock()
				written = append(written, call.ID.num)
			})
		}), noCalls(t))
		var loads sync.WaitGroup
		for i := range int64(calls) {
			loads.Go(func() {
				if v, err := call(c, "load", i); v != Value(i) {
					t.Errorf("load %d: %v, %v", i, v, err)
				}
			})
			if v, err := call(c, "write", i); v != Value(i) {
				t.Fatalf("write %d: %v, %v", i, v, err)
			}
		}
		loads.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(written) != calls {
			t.Fatalf("%d calls were run, want %d", len(written), calls)
		}
		for i := range written[1:] {
			if written[i] >= written[i+1] {
				t.Fatalf("call %d was run before %d", written[i], written[i+1])
			}
		}
	})
}
