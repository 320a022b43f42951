package floor

import (
	"net"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
)

func TestFloor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	served := make(chan error, 1)
	go func() { served <- Serve(l, dir) }()
	defer func() {
		l.Close()
		<-served
	}()
	o := load.Options{Target: load.Target{Address: l.Addr().String()}, Conns: 2, Size: 3 << 20, Count: 2, Time: time.Minute}
	for name, do := range map[string]func() (*load.Result, error){
		"echo":    func() (*load.Result, error) { return Echo(o, 60, 1100) },
		"send":    func() (*load.Result, error) { return Send(o) },
		"receive": func() (*load.Result, error) { return Receive(o) },
	} {
		if r, err := do(); err != nil || r.Ops != 4 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if r, err := Append(o, dir); err != nil || r.Ops != 2 || r.Bytes != 2*o.Size {
		t.Errorf("append: %+v, %v", r, err)
	}
}
