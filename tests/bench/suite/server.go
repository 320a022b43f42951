package suite

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/zeolite-go/zeolite/tests/bench/load"
	"github.com/zeolite-go/zeolite/tests/bench/process"
)

// A transport is how to reach a server.
type transport string

const (
	tcp  transport = "TCP"
	unix transport = "Unix"
	ssl  transport = "TLS"
)

// A Server is a process under test.
type Server struct {
	Kind    string
	Address string
	PID     int
	size    int64
	tls     *tls.Config
	cmd     *exec.Cmd
	exited  chan error
	dir     string
	log     *os.File
	http    string // where profiles are, of a server that has them
}

// profiled is the kind of a zeolite that serves profiles of itself.
const profiled = "profiled"

func (server *Server) ours() bool { return server.Kind == "zeolite" || server.Kind == profiled }

const (
	startLimit = time.Minute
	stopLimit  = time.Minute
	peerLimit  = 3 * time.Second // before a peer is killed
)

// start starts a server with an empty database, unless one of the kind and
// transport is running. A server of another protocol returns records of size
// bytes.
func (s *Suite) start(kind string, t transport, size int64) (*Server, error) {
	key := fmt.Sprint(kind, t, size)
	if server := s.servers[key]; server != nil {
		return server, nil
	}
	s.number++
	dir := filepath.Join(s.dir, fmt.Sprint(kind, s.number))
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	server, err := s.launch(kind, t, size, dir)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", kind, err)
	}
	s.servers[key] = server
	return server, nil
}

// launch starts a server on what is in a directory.
func (s *Suite) launch(kind string, t transport, size int64, dir string) (*Server, error) {
	server := &Server{Kind: kind, size: size, dir: dir, Address: filepath.Join(dir, "socket"), exited: make(chan error, 1)}
	if t != unix {
		var err error
		if server.Address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if kind == profiled {
		var err error
		if server.http, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if t == ssl {
		server.tls = s.tls.client
	}
	var err error
	if server.cmd, err = s.command(server); err != nil {
		return nil, err
	}
	if server.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	server.cmd.Dir, server.cmd.Stdout, server.cmd.Stderr = dir, server.log, server.log
	if err := server.cmd.Start(); err != nil {
		return nil, err
	}
	server.PID = server.cmd.Process.Pid
	go func() { server.exited <- server.cmd.Wait() }()
	if err := server.ready(); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	return server, nil
}

// command returns how to run a server.
func (s *Suite) command(server *Server) (*exec.Cmd, error) {
	switch server.Kind {
	case "zeolite", profiled, "python", "uvloop":
		conf := filepath.Join(server.dir, "zeo.conf")
		if err := os.WriteFile(conf, []byte(s.config(server)), 0o666); err != nil {
			return nil, err
		}
		if server.ours() {
			cmd := exec.Command(s.Zeolite, "serve", "-C", conf)
			if server.http != "" {
				cmd.Args = append(cmd.Args, "--http", server.http, "--pprof")
			}
			return cmd, nil
		}
		cmd := exec.Command(s.Python, "-m", "ZEO.runzeo", "-C", conf)
		if server.Kind == "uvloop" {
			cmd.Env = append(os.Environ(), "PYTHONPATH="+s.UVLoop)
		}
		return cmd, nil
	case "floor":
		self, err := os.Executable()
		return exec.Command(self, "floor", "-a", server.Address, "-dir", server.dir), err
	}
	return exec.Command(s.Peers, "serve", "-kind", server.Kind, "-a", server.Address, "-size", fmt.Sprint(server.size)), nil
}

// config is the zeo.conf of a server, the same for Python's and ours.
func (s *Suite) config(server *Server) string {
	var secure string
	if server.tls != nil {
		secure = fmt.Sprintf("  <ssl>\n    certificate %s\n    authenticate %[1]s\n  </ssl>\n", s.tls.path)
	}
	return fmt.Sprintf(`<zeo>
  address %s
  msgpack true
%s</zeo>
<filestorage 1>
  path %s
  blob-dir %s
</filestorage>
`, server.Address, secure, filepath.Join(server.dir, "Data.fs"), filepath.Join(server.dir, "blobs"))
}

// ready waits until a server answers.
func (server *Server) ready() error {
	var err error
	for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-server.exited:
			server.exited <- err
			return fmt.Errorf("it ended: %v\n%s", err, server.tail())
		default:
		}
		if err = server.try(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w\n%s", err, server.tail())
}

// try connects once.
func (server *Server) try() error {
	switch server.Kind {
	case "zeolite", profiled, "python", "uvloop":
		c, err := load.Dial(server.target(""))
		if err != nil {
			return err
		}
		return c.Close()
	}
	c, err := net.Dial(load.Network(server.Address), server.Address)
	if err != nil {
		return err
	}
	return c.Close()
}

// tail is the end of the log.
func (server *Server) tail() string {
	b, _ := os.ReadFile(server.log.Name()) // nothing to add then
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// target says how the generator reaches the server. The encoding is M5 or Z5.
func (server *Server) target(encoding string) load.Target {
	t := load.Target{Address: server.Address, TLS: server.tls}
	if encoding != "" {
		t.Encoding = encoding[0]
	}
	return t
}

// measure runs work against the server, and takes down what the server used.
func (server *Server) measure(o load.Options, work func(load.Options) (*load.Result, error)) (Measurement, error) {
	usage := process.NewUsage(server.PID)
	o.Probe = usage.Probe
	r, err := work(o)
	if err != nil {
		return Measurement{}, err
	}
	if r.Ops == 0 && r.Bytes == 0 {
		return Measurement{Used: usage.Used()}, errNothing
	}
	return Measurement{Summary: r.Summary(), Used: usage.Used()}, nil
}

// stop ends a server and removes its files.
func (server *Server) stop() error {
	defer os.RemoveAll(server.dir)
	defer server.log.Close()
	if err := server.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	limit := stopLimit
	if !server.ours() {
		limit = peerLimit
	}
	select {
	case err := <-server.exited:
		if err != nil && server.ours() {
			return fmt.Errorf("zeolite ended with %w\n%s", err, server.tail())
		}
		return nil // peers end by the signal
	case <-time.After(limit):
		err := server.cmd.Process.Kill()
		<-server.exited
		if server.ours() {
			return errors.Join(errors.New("zeolite does not end"), err)
		}
		return err
	}
}

// stopAll ends all servers.
func (s *Suite) stopAll() error {
	var errs []error
	for key, server := range s.servers {
		errs = append(errs, server.stop())
		delete(s.servers, key)
	}
	return errors.Join(errs...)
}

// freeAddress returns an address nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
