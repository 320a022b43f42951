package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// bench is what is measured on: a database, and a server on it.
type bench struct {
	dir, self, script string
	version           string // of PostgreSQL
	dsn, addr, http   string
	warm              string // the address of a server that keeps records in memory
	oids              string // the file of all oids
	blobOID, loid     string
	cluster           *pgtest.Cluster
	program           string // the built zeolite
	servers           []*exec.Cmd
}

func start(o *options) (b *bench, err error) {
	b = &bench{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.script, err = filepath.Abs("tests/bench/postgres/bench.py"); err == nil {
		_, err = os.Stat(b.script)
	}
	if err != nil {
		return b, fmt.Errorf("run it at the top of the repository: %w", err)
	}
	if b.self, err = os.Executable(); err != nil {
		return b, err
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return b, err
	}
	if b.cluster, err = pgtest.New(pgtest.Options{Sync: true}); err != nil {
		return b, err
	}
	if _, err = b.cluster.SQL("postgres", "CREATE DATABASE bench"); err != nil {
		return b, err
	}
	b.dsn = b.cluster.DSN("bench")
	if b.version, err = b.cluster.SQL("bench", "SELECT 'PostgreSQL ' || current_setting('server_version')"); err != nil {
		return b, err
	}
	b.program = filepath.Join(b.dir, "zeolite")
	if out, err := exec.Command("go", "build", "-o", b.program, "./cmd/zeolite").CombinedOutput(); err != nil {
		return b, fmt.Errorf("go build: %w\n%s", err, out)
	}
	// One asks PostgreSQL for every record, the other has them in memory.
	if b.addr, b.http, err = b.serve("--postgres-cache", "1"); err != nil {
		return b, err
	}
	if b.warm, _, err = b.serve(); err != nil {
		return b, err
	}
	b.oids = filepath.Join(b.dir, "oids")
	if _, err = output([]string{o.python, b.script, "fill", "zeo", b.addr, b.oids, fmt.Sprint(o.objects)}); err != nil {
		return b, err
	}
	if b.blobOID, err = output([]string{b.self, "-do", "upload", b.addr, fmt.Sprint(o.blob << 20)}); err != nil {
		return b, err
	}
	b.blobOID = strings.TrimSpace(b.blobOID)
	b.loid, err = b.cluster.SQL("bench", "SELECT chunk FROM blob_chunk")
	if err == nil {
		// So that no side pays for what was done before.
		_, err = b.cluster.SQL("bench", "VACUUM ANALYZE; CHECKPOINT")
	}
	return b, err
}

var ready = regexp.MustCompile(`msg="?(listening|serving HTTP)"? (?:address|http)=(\S+)`)

// serve starts a server and returns its addresses.
func (b *bench) serve(flags ...string) (addr, http string, err error) {
	cmd := exec.Command(b.program, append([]string{"serve", "-a", "127.0.0.1:0", "--postgres", b.dsn, "--http", "127.0.0.1:0"}, flags...)...)
	r, w, err := os.Pipe()
	if err != nil {
		return "", "", err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return "", "", err
	}
	b.servers = append(b.servers, cmd)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		m := ready.FindStringSubmatch(lines.Text())
		switch {
		case m == nil:
		case m[1] == "listening":
			addr = m[2]
		default:
			http = m[2]
		}
		if addr != "" && http != "" {
			go func() {
				for lines.Scan() { // or the server would wait
				}
			}()
			return addr, http, nil
		}
	}
	return "", "", errors.New("the server did not start")
}

func (b *bench) close() {
	for _, cmd := range b.servers {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was told to end
	}
	if b.cluster != nil {
		if err := b.cluster.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	_ = os.RemoveAll(b.dir)
}

// output runs a program and returns what it printed.
func output(args []string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}
