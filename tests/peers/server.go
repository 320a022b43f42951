package peers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Limits of patience. They decide when a test fails, never how fast it is.
const (
	startLimit = 60 * time.Second
	stopLimit  = 60 * time.Second
	// stopAgain is when runzeo is asked again: it ends by an exception in its
	// signal handler, and Python ignores that where it runs a callback of a
	// weak reference.
	stopAgain = 5 * time.Second
)

// Options say how to start a server. The zero value serves new files in a
// directory of their own.
type Options struct {
	// Dir is where the server runs and relative paths start; default is a
	// new temporary directory.
	Dir string `json:"dir"`
	// Path is the Data.fs file, default Data.fs.
	Path string `json:"path"`
	// BlobDir is the blob directory, default blobs; "-" is none.
	BlobDir string `json:"blob_dir"`
	// Address is host:port or the path of a Unix socket; default is a free
	// port of 127.0.0.1.
	Address string `json:"address"`
	// Config is a zeo.conf that says everything, the address as in Address
	// too; all else here does not count. It logs to the standard error output.
	Config string `json:"-"`
	// ReadOnly serves without allowing writes, as read-only in zeo.conf does.
	ReadOnly bool `json:"read_only"`
	// TransactionTimeout in seconds is how long a client may hold the
	// commit lock; zero is for ever.
	TransactionTimeout int `json:"transaction_timeout"`

	// The rest is for runzeo alone. Our server always lets clients resolve
	// conflicts, and answers invalidations from what is stored.
	ClientConflictResolution bool `json:"client_conflict_resolution"`
	InvalidationQueueSize    int  `json:"invalidation_queue_size"`

	// Postgres is the DSN of a database that zeolite serves instead of files,
	// and Flags are more arguments for it.
	Postgres string   `json:"-"`
	Flags    []string `json:"-"`

	// Msgpack makes the server announce M5. RunScript sets it.
	Msgpack bool `json:"-"`
}

func (o *Options) setDefaults(newDir func() string) {
	if o.Dir == "" {
		o.Dir = newDir()
	}
	if o.Path == "" {
		o.Path = "Data.fs"
	}
	if !filepath.IsAbs(o.Path) {
		o.Path = filepath.Join(o.Dir, o.Path)
	}
	switch {
	case o.BlobDir == "-":
		o.BlobDir = ""
	case o.BlobDir == "":
		o.BlobDir = filepath.Join(o.Dir, "blobs")
	case !filepath.IsAbs(o.BlobDir):
		o.BlobDir = filepath.Join(o.Dir, o.BlobDir)
	}
}

// Server is a running server process. One goroutine may use it at a time.
type Server struct {
	kind    Kind
	options Options
	tools   tools

	log     *logBuffer
	cmd     *exec.Cmd
	running bool          // started, and neither stopped nor killed since
	exited  chan struct{} // closed when the process is gone
	err     error         // how it ended; valid after exited
}

// tools are the programs that servers are made of.
type tools struct {
	python  string
	zeolite string
}

// findTools returns what kind needs, or skips the test.
func findTools(t testing.TB, kind Kind) tools {
	t.Helper()
	if kind == RunZEO {
		return tools{python: Python(t)}
	}
	return tools{zeolite: Binary(t)}
}

// Start starts a server that lives no longer than the test. It is ready when
// Start returns.
func Start(t testing.TB, kind Kind, o Options) *Server {
	t.Helper()
	s, err := launch(kind, o, findTools(t, kind), t.TempDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of %s at %s:\n%s", kind, s.Address(), tail(s.Log(), 200))
		}
	})
	return s
}

// launch makes a server and starts it.
func launch(kind Kind, o Options, tools tools, newDir func() string) (*Server, error) {
	o.setDefaults(newDir)
	if kind == RunZEO && o.Address == "" {
		// It does not say which port it got for port 0, so choose one.
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		o.Address = port
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	s := &Server{kind: kind, options: o, tools: tools, log: &logBuffer{}}
	return s, s.Start()
}

// Start starts a stopped server again, on the same address and files.
func (s *Server) Start() error {
	ready := make(chan string, 1)
	address := s.options.Address // what is logged later is read by another goroutine
	sign := map[Kind]func(line string) (addr string, ok bool){
		RunZEO:  func(line string) (string, bool) { return address, strings.Contains(line, "listening on") },
		Zeolite: listeningAddress,
	}[s.kind]
	s.log.mu.Lock()
	s.log.watch = func(line string) {
		if addr, ok := sign(line); ok {
			select {
			case ready <- addr:
			default:
			}
		}
	}
	s.log.mu.Unlock()

	var err error
	if s.cmd, err = s.command(); err != nil {
		return err
	}
	s.cmd.Dir = s.options.Dir
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.running = true
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		s.err = cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)

	select {
	case s.options.Address = <-ready:
		return nil
	case <-s.exited:
		s.running = false
		return fmt.Errorf("%s did not start: %v\n%s", s.kind, s.err, tail(s.Log(), 50))
	case <-time.After(startLimit):
		_ = s.Kill()
		return fmt.Errorf("%s is not ready after %v\n%s", s.kind, startLimit, tail(s.Log(), 50))
	}
}

// command is the command line, and writes the zeo.conf that it needs if Options have
// none.
func (s *Server) command() (*exec.Cmd, error) {
	o := s.options
	// The flag --read-only means more than the key in zeo.conf.
	byFlags := s.kind == Zeolite && (o.Postgres != "" || !o.ReadOnly)
	conf := o.Config
	if conf == "" && !byFlags {
		conf = filepath.Join(o.Dir, "runzeo.conf")
		if err := os.WriteFile(conf, []byte(runzeoConfig(o)), 0o666); err != nil {
			return nil, err
		}
	}
	switch {
	case s.kind == RunZEO:
		cmd := exec.Command(s.tools.python, "-m", "ZEO.runzeo", "-C", conf)
		cmd.Env = pythonEnv()
		return cmd, nil
	case o.Config != "":
		return exec.Command(s.tools.zeolite, "serve", "-C", conf), nil
	case byFlags:
		return exec.Command(s.tools.zeolite, zeoliteArgs(o)...), nil
	}
	return exec.Command(s.tools.zeolite, append([]string{"serve", "-C", conf}, o.Flags...)...), nil
}

// Address is host:port, or the path of a Unix socket.
func (s *Server) Address() string { return s.options.Address }

// Options returns the options with defaults filled in and paths absolute.
func (s *Server) Options() Options { return s.options }

// Log is what the server has printed since it was first started.
func (s *Server) Log() string { return s.log.String() }

// Stop asks the server to end (SIGTERM) and waits. Ending other than with
// status 0 is an error. Stopping a stopped server does nothing.
func (s *Server) Stop() error {
	if !s.running {
		return nil
	}
	s.running = false
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	again := time.NewTicker(stopAgain)
	defer again.Stop()
	limit := time.After(stopLimit)
	for gone := false; !gone; {
		select {
		case <-s.exited:
			gone = true
		case <-again.C:
			if s.kind == RunZEO {
				_ = s.cmd.Process.Signal(syscall.SIGTERM)
			}
		case <-limit:
			_ = s.cmd.Process.Kill()
			<-s.exited
			return fmt.Errorf("%s is still there %v after SIGTERM\n%s", s.kind, stopLimit, tail(s.Log(), 50))
		}
	}
	if err := s.race(); err != nil {
		return err
	}
	if s.err != nil {
		return fmt.Errorf("%s ended with %v\n%s", s.kind, s.err, tail(s.Log(), 100))
	}
	return nil
}

// race is an error if the server was built to find data races and found one.
// A server that is killed has no exit status that says so.
func (s *Server) race() error {
	if _, report, found := strings.Cut(s.Log(), "WARNING: DATA RACE\n"); found {
		return fmt.Errorf("%s has a data race\n%s", s.kind, report)
	}
	return nil
}

// Kill ends the server at once (SIGKILL) and waits until it is gone. That it had
// a data race is an error.
func (s *Server) Kill() error {
	if !s.running {
		return nil
	}
	s.running = false
	err := s.cmd.Process.Kill()
	<-s.exited
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return errors.Join(err, s.race())
}

var ports struct {
	sync.Mutex
	given map[string]bool
}

// Signal sends a signal to the server, and does not wait.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// FreeAddress returns a host:port nobody listens on, for configuration files.
func FreeAddress(t testing.TB) string {
	t.Helper()
	addr, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// freePort returns an address nobody listens on, each one once.
func freePort() (string, error) {
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[string]bool{}
	}
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		addr := l.Addr().String()
		l.Close()
		if !ports.given[addr] {
			ports.given[addr] = true
			return addr, nil
		}
	}
}
