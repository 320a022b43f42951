package peers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/tests/faults"
)

// scriptLimit ends a script that hangs in spite of its own limits.
const scriptLimit = 30 * time.Minute

// Known says that a check fails and why that is so: a fault of a peer, or a
// difference we want.
type Known struct {
	// Check is the name of the check, or a pattern as of path.Match.
	Check  string
	Reason string
	// Sometimes is set if the check passes now and then, or if a pattern
	// covers some that pass. Otherwise a check that passes is an error: the entry
	// is out of date.
	Sometimes bool
}

// ScriptOptions say how to run a script.
type ScriptOptions struct {
	// Args are its command line.
	Args []string
	// Known lists the checks that are known to fail.
	Known []Known
}

// RunScript runs a Python program of checks against servers of one kind. The
// program is written with tests/interop/harness.py: it asks for the servers
// and proxies it wants and reports each check, which becomes a subtest.
func RunScript(t *testing.T, script string, target Target, o ScriptOptions) {
	t.Helper()
	python := Python(t)
	tools := findTools(t, target.Kind)
	absolute, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, append([]string{absolute}, o.Args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(pythonEnv(),
		"ZEOLITE_TARGET="+string(target.Kind), "ZEOLITE_ENCODING="+string(target.Encoding),
		"TMPDIR="+cmd.Dir)
	if Long() {
		cmd.Env = append(cmd.Env, "ZEOLITE_LONG=1")
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	cmd.Stderr = log
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(scriptLimit, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()

	r := &run{
		target: target, tools: tools, known: o.Known, log: log,
		lines: bufio.NewReader(stdout), replies: json.NewEncoder(stdin),
	}
	readErr := r.checks(t)
	stdin.Close()
	if readErr != nil {
		_ = cmd.Process.Kill()
	}
	waitErr := cmd.Wait()
	if readErr != nil || waitErr != nil {
		t.Errorf("%s: %v, %v\n%s", filepath.Base(script), readErr, waitErr, tail(log.String(), 100))
	}
	if r.count == 0 {
		t.Errorf("%s made no checks", filepath.Base(script))
	}
	for _, k := range o.Known {
		if !r.met[k.Check] && !k.Sometimes {
			t.Errorf("no check is named %q, which is listed as known to fail", k.Check)
		}
	}
}

// run is one script at work. It belongs to the goroutine of the test.
type run struct {
	target  Target
	tools   tools
	known   []Known
	log     *logBuffer
	lines   *bufio.Reader
	replies *json.Encoder

	count int
	met   map[string]bool // Known.Check entries that applied

	// What the check under way asked for, by number.
	servers []*Server
	proxies []*faults.Proxy
	dirs    []string // made for the servers
}

// request is one line from the script.
type request struct {
	Do      string  `json:"do"`
	Check   string  `json:"check"`
	Failure string  `json:"failure"`
	Options Options `json:"options"`
	Server  int     `json:"server"`
	Proxy   int     `json:"proxy"`
	Dir     string  `json:"dir"`
	Method  string  `json:"method"`
	When    string  `json:"when"`
}

func (r *run) next() (request, error) {
	var q request
	line, err := r.lines.ReadBytes('\n')
	if err != nil {
		return q, err
	}
	if err := json.Unmarshal(line, &q); err != nil {
		return q, fmt.Errorf("the script wrote %q: %w", line, err)
	}
	return q, nil
}

// checks runs until the script ends. Its error is nil at an orderly end.
func (r *run) checks(t *testing.T) error {
	r.met = map[string]bool{}
	for {
		q, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if q.Do != "begin" {
			return fmt.Errorf("the script asked for %q outside of a check", q.Do)
		}
		r.count++
		t.Run(q.Check, func(t *testing.T) { err = r.check(t, q.Check) })
		if err != nil {
			return err
		}
	}
}

// check serves the requests of one check until the script says how it ended.
func (r *run) check(t *testing.T, name string) error {
	start := len(r.log.String())
	defer r.cleanUp(t, start)
	for {
		q, err := r.next()
		if err != nil {
			t.Errorf("the script ended within this check: %v", err)
			return err
		}
		if q.Do == "end" {
			r.judge(t, name, q.Failure)
			return nil
		}
		reply, err := r.serve(q)
		if err != nil {
			reply = map[string]any{"error": err.Error()}
		}
		if err := r.replies.Encode(reply); err != nil {
			t.Errorf("the script no longer listens: %v", err)
			return err
		}
	}
}

// judge decides what the outcome of a check means.
func (r *run) judge(t *testing.T, name, failure string) {
	known := r.lookUp(name)
	switch {
	case failure == "" && known != nil && !known.Sometimes:
		t.Errorf("passes, but is listed as known to fail: %s", known.Reason)
	case failure != "" && known != nil:
		t.Logf("known to fail: %s\n%s", known.Reason, tail(failure, 3))
	case failure != "":
		t.Error(failure)
	}
}

func (r *run) lookUp(name string) *Known {
	for i, k := range r.known {
		if ok, err := path.Match(k.Check, name); err == nil && ok {
			r.met[k.Check] = true
			return &r.known[i]
		}
	}
	return nil
}

// cleanUp ends what the check started, and prints logs if it failed.
func (r *run) cleanUp(t *testing.T, logStart int) {
	for _, p := range r.proxies {
		p.Close()
	}
	for _, s := range r.servers {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		for i, s := range r.servers {
			t.Logf("log of server %d (%s):\n%s", i, r.target, tail(s.Log(), 60))
		}
		t.Logf("output of the script:\n%s", tail(r.log.String()[logStart:], 60))
	}
	for _, dir := range r.dirs {
		_ = os.RemoveAll(dir) // a leftover in the temporary directory at worst
	}
	r.servers, r.proxies, r.dirs = nil, nil, nil
}

// serve does what the script asks for.
func (r *run) serve(q request) (any, error) {
	switch q.Do {
	case "start":
		return r.start(q.Options)
	case "proxy":
		return r.proxy(q.Server)
	case "stop", "kill", "restart", "log":
		if q.Server < 0 || q.Server >= len(r.servers) {
			return nil, fmt.Errorf("no server %d", q.Server)
		}
		return r.serveServer(r.servers[q.Server], q.Do)
	case "counts", "reset", "drop", "cut":
		if q.Proxy < 0 || q.Proxy >= len(r.proxies) {
			return nil, fmt.Errorf("no proxy %d", q.Proxy)
		}
		return r.serveProxy(r.proxies[q.Proxy], q)
	}
	return nil, fmt.Errorf("unknown request %q", q.Do)
}

func (r *run) start(o Options) (any, error) {
	o.Msgpack = r.target.Encoding == Msgpack
	var dirErr error
	s, err := launch(r.target.Kind, o, r.tools, func() string {
		var dir string
		dir, dirErr = os.MkdirTemp("", "zeolite-server-")
		r.dirs = append(r.dirs, dir)
		return dir
	})
	if err = errors.Join(dirErr, err); err != nil {
		return nil, err
	}
	r.servers = append(r.servers, s)
	return map[string]any{
		"server": len(r.servers) - 1, "address": s.Address(),
		"path": s.options.Path, "blob_dir": s.options.BlobDir,
	}, nil
}

func (r *run) serveServer(s *Server, do string) (any, error) {
	switch do {
	case "stop":
		return struct{}{}, s.Stop()
	case "kill":
		return struct{}{}, s.Kill()
	case "restart":
		if err := s.Stop(); err != nil {
			return nil, err
		}
		return struct{}{}, s.Start()
	default:
		return map[string]string{"log": s.Log()}, nil
	}
}

func (r *run) proxy(server int) (any, error) {
	if server < 0 || server >= len(r.servers) {
		return nil, fmt.Errorf("no server %d", server)
	}
	p, err := faults.NewProxy(r.servers[server].Address())
	if err != nil {
		return nil, err
	}
	r.proxies = append(r.proxies, p)
	return map[string]any{"proxy": len(r.proxies) - 1, "address": p.Addr().String()}, nil
}

func (r *run) serveProxy(p *faults.Proxy, q request) (any, error) {
	switch q.Do {
	case "counts":
		return map[string]any{"c2s": p.Counts(faults.ClientToServer), "s2c": p.Counts(faults.ServerToClient)}, nil
	case "reset":
		p.Reset()
	case "drop":
		p.Drop()
	default:
		return struct{}{}, p.CutAt(faults.Cut{Dir: faults.Direction(q.Dir), Name: q.Method, When: faults.Moment(q.When)})
	}
	return struct{}{}, nil
}
