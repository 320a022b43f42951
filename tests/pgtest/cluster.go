package pgtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say how a cluster differs from the default one.
type Options struct {
	// Sync lets the server flush to disk as in production. By default it
	// does not: the cluster survives a crash of the server process, but not
	// one of the machine.
	Sync bool
	// Settings are further configuration parameters, "name=value".
	Settings []string
}

// Cluster is a PostgreSQL server of our own. Its methods may be called from any
// goroutine, but Start, Stop and Remove by one at a time.
type Cluster struct {
	bin, dir string
	cred     *syscall.Credential
	opts     Options

	server *exec.Cmd
	ended  chan struct{} // closed when the server process is gone

	mu  sync.Mutex
	log strings.Builder // what the server said
}

// superuser is the role that owns everything; the cluster trusts whoever may
// open its socket.
const superuser = "zeolite"

// patience is how long the server may take to start or stop.
const patience = time.Minute

// New makes a cluster and starts it. It is the caller's, who removes it.
func New(opts Options) (*Cluster, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	cred, err := servant()
	if err != nil {
		return nil, err
	}
	// Short, because the path of a socket has a limit of about 100 bytes.
	dir, err := os.MkdirTemp("", "zpg")
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, dir: dir, cred: cred, opts: opts}
	if err := c.create(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	if err := c.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return c, nil
}

func (c *Cluster) create() error {
	if c.cred != nil {
		if err := os.Chown(c.dir, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			return err
		}
	}
	cmd := c.command("initdb", "-D", c.data(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// command runs one of PostgreSQL's programs as its user, without the settings
// of ours that would reach another server.
func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	if c.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	}
	return cmd
}

// Start starts the server and waits until it takes connections.
func (c *Cluster) Start() error {
	args := []string{"-D", c.data(), "-k", c.dir, "-c", "listen_addresses=", "-c", "log_min_messages=warning",
		"-c", "shared_buffers=64MB", "-c", "max_connections=200"}
	if !c.opts.Sync {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	for _, s := range c.opts.Settings {
		args = append(args, "-c", s)
	}
	cmd := c.command("postgres", args...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The server must not outlive a test process that is killed.
	endWithParent(cmd.SysProcAttr)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	started, ended := make(chan error, 1), make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(ended)
		// What ends a child with its parent counts threads as parents.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.listen(stderr, ready)
		_ = cmd.Wait() // how it ended stands in its log
	}()
	if err := <-started; err != nil {
		return err
	}
	c.server, c.ended = cmd, ended
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-ready:
		return nil
	case <-ended:
		return fmt.Errorf("PostgreSQL did not start:\n%s", c.Log())
	case <-timeout.C:
		_ = cmd.Process.Kill()
		<-ended
		return fmt.Errorf("PostgreSQL did not start within %v:\n%s", patience, c.Log())
	}
}

// listen keeps what the server says, and closes ready when it is.
func (c *Cluster) listen(stderr io.Reader, ready chan struct{}) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		c.mu.Lock()
		c.log.WriteString(lines.Text() + "\n")
		c.mu.Unlock()
		if ready != nil && strings.Contains(lines.Text(), "database system is ready to accept connections") {
			close(ready)
			ready = nil
		}
	}
}

// Log returns what the server has said since it was created.
func (c *Cluster) Log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

// Stop ends the server at once, disconnecting its clients; what was committed
// stays.
func (c *Cluster) Stop() error { return c.signal(syscall.SIGINT) }

// Crash kills the server; Start recovers from its log.
func (c *Cluster) Crash() error { return c.signal(syscall.SIGQUIT) }

func (c *Cluster) signal(sig syscall.Signal) error {
	if c.server == nil {
		return nil
	}
	err := c.server.Process.Signal(sig)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-c.ended:
	case <-timeout.C:
		_ = c.server.Process.Kill()
		<-c.ended
		return fmt.Errorf("PostgreSQL did not stop within %v:\n%s", patience, c.Log())
	}
	c.server = nil
	return nil
}

// Remove stops the server and removes the cluster.
func (c *Cluster) Remove() error {
	return errors.Join(c.Stop(), os.RemoveAll(c.dir))
}

// DSN is what connects to a database of the cluster, for libpq and pgx alike.
func (c *Cluster) DSN(database string) string {
	return fmt.Sprintf("host=%s user=%s dbname=%s", c.dir, superuser, database)
}

// SQL runs a script with psql and returns the rows that it selects, unaligned,
// with | between columns.
func (c *Cluster) SQL(database, script string) (string, error) {
	cmd := c.command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", c.DSN(database), "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var errText strings.Builder
	cmd.Stderr = &errText
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %w\n%s", err, errText.String())
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
