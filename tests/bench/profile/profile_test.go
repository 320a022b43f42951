package profile

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestParse reads what pprof prints, with labels, times of all sizes, and names
// that were inlined.
func TestParse(t *testing.T) {
	const printed = `File: zeolite
Type: cpu
Duration: 2s, Total samples = 830ms (41.51%)
-----------+-------------------------------------------------------
     1.40s   syscall.pwrite
             syscall.Pwrite (inline)
             os.(*File).WriteAt
-----------+-------------------------------------------------------
   storage:  1
     2.56us   runtime.futex
-----------+-------------------------------------------------------
  1.50mins   <unknown>
`
	got, err := parse([]byte(printed))
	if err != nil {
		t.Fatal(err)
	}
	want := []Stack{
		{[]string{"syscall.pwrite", "syscall.Pwrite", "os.(*File).WriteAt"}, 1400 * time.Millisecond},
		{[]string{"runtime.futex"}, 2560 * time.Nanosecond},
		{[]string{"<unknown>"}, 90 * time.Second},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, err := parse([]byte("---\n   many   f\n")); err == nil {
		t.Error("no error for a time that is none")
	}
}

// stack splits functions, of which Z/ begins those of zeolite.
func stack(s string) []string {
	return strings.Split(strings.ReplaceAll(s, "Z/", module+"/"), " < ")
}

func TestPart(t *testing.T) {
	const system = "internal/runtime/syscall/linux.Syscall6 < syscall.RawSyscall6 < "
	for functions, want := range map[string]string{
		system + "syscall.Syscall6 < syscall.pwrite < internal/poll.(*FD).Pwrite < os.(*File).WriteAt < Z/server/filestorage.(*wal).append": Files,
		system + "golang.org/x/sys/unix.Preadv2 < Z/server/filestorage.osFile.ReadNow":                                                      Files,
		system + "syscall.write < Z/zrpc.newDirectWriter.func1 < internal/poll.(*FD).RawWrite < net.(*rawConn).Write":                       Sockets,
		system + "syscall.read < internal/poll.(*FD).Read < net.(*netFD).Read < Z/zrpc.(*arrivals).Read":                                    Sockets,
		system + "Z/zrpc.yield < Z/zrpc.(*writer).step":                                                                                     Scheduling,
		"internal/runtime/syscall/linux.EpollWait < runtime.netpoll < runtime.findRunnable":                                                 Scheduling,
		"runtime.memmove < Z/zrpc.(*outbox).add < Z/server.(*session).loadNow":                                                              ZRPC,
		"runtime.nextFreeFast < runtime.mallocgc < Z/server.(*session).vote":                                                                Memory,
		"Z/stubs/spool.(*Spool).Append < Z/stubs.dispatchStorea":                                                                            Stubs,
		"Z/server/filestorage.(*index).get < Z/server.quickSession.RespondLoadBefore":                                                       Storage,
		"Z/server.(*commitLock).try < Z/zrpc.(*Conn).read":                                                                                  Serving,
		"time.now": Other,
	} {
		if got := Part(stack(functions)); got != want {
			t.Errorf("%s: %q, want %q", functions, got, want)
		}
	}
}

func TestWait(t *testing.T) {
	for _, c := range []struct{ kind, functions, want string }{
		{Syscall, "syscall.pwrite < os.(*File).WriteAt < Z/server/filestorage.(*wal).append < Z/server.(*session).dispatch", Log},
		{Syscall, "syscall.Fdatasync < Z/server/filestorage.osFile.Sync < Z/server/filestorage.(*dataSync).follow", Behind},
		{Syscall, "syscall.Fdatasync < Z/server/filestorage.(*blobWriter).sync < Z/server/filestorage.(*upload).Complete", Blobs},
		{Syscall, "syscall.pwrite < os.(*File).WriteAt < Z/server/filestorage.(*Storage).writeLogged", Data},
		{Syscall, "syscall.write < Z/zrpc.newDirectWriter.func1 < net.(*rawConn).Write", Transfer},
		{Syscall, "syscall.write < net.(*conn).Write < net/http.checkConnErrorWriter.Write", unobserved},
		{Network, "internal/poll.(*FD).Read < net.(*netFD).Read < net.(*conn).Read < Z/zrpc.(*arrivals).Read", Request},
		{Network, "internal/poll.(*FD).RawWrite < net.(*rawConn).Write < Z/zrpc.(*fileSender).write", Reading},
		{Scheduler, "runtime.Gosched < Z/zrpc.(*writer).rest", Processor},
		{Scheduler, "runtime.gcMarkDone < runtime.gcBgMarkWorker", unobserved},
	} {
		if got := Wait(c.kind, stack(c.functions)); got != c.want {
			t.Errorf("%s, %s: %q, want %q", c.kind, c.functions, got, c.want)
		}
	}
}

// TestReal reads profiles of this process, by the programs that come with Go.
func TestReal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "profile")
	write(t, name, func(w io.Writer) error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile, func() {
		x := uint64(1)
		for start := time.Now(); time.Since(start) < 200*time.Millisecond; x = x*x + 1 { // samples come every 10 ms
		}
	})
	stacks, err := CPU(name)
	if err != nil {
		t.Fatal(err)
	}
	total := time.Duration(0)
	for _, d := range Sum(stacks, Part) {
		total += d
	}
	if total == 0 {
		t.Errorf("no time in %v", stacks)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	write(t, name, trace.Start, trace.Stop, func() {
		echoed := make(chan error, 1)
		go func() { _, err := io.CopyN(server, server, 100); echoed <- err }()
		for range 100 {
			if _, err := client.Write(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
				t.Error(err)
			}
		}
		if err := <-echoed; err != nil {
			t.Error(err)
		}
		var many sync.WaitGroup // more than there are processors
		for range 4 * runtime.GOMAXPROCS(0) {
			many.Go(func() {
				for range 100 {
					runtime.Gosched()
				}
			})
		}
		many.Wait()
	})
	for kind, want := range map[string]string{Syscall: Transfer, Network: Request, Scheduler: Processor} {
		stacks, err := Waiting(name, kind)
		if err != nil {
			t.Fatal(err)
		}
		if sums := Sum(stacks, func(f []string) string { return Wait(kind, f) }); sums[want] == 0 {
			t.Errorf("%s: %v of %v", kind, sums, stacks)
		}
	}
	if _, err := Waiting(os.DevNull, Syscall); err == nil {
		t.Error("no error for a trace that is none")
	}
}

// write writes a profile of what is done.
func write(t *testing.T, name string, start func(io.Writer) error, stop, do func()) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := start(f); err != nil {
		t.Fatal(err)
	}
	do()
	stop()
}
