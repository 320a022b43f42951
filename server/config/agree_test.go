package config

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestAgreesWithRunzeo has runzeo and this package read the same files, some
// good and many bad, and compares what they accept and the values they find.
// It needs a Python that has ZEO.
func TestAgreesWithRunzeo(t *testing.T) {
	python := needPython(t)
	t.Setenv("ZCFG_PORT", "8123")
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	writeTestCertificate(t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))

	var paths []string
	write := func(text string) {
		path := filepath.Join(dir, fmt.Sprintf("%04d.conf", len(paths)))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	for _, text := range handWritten(dir) {
		write(text)
	}
	for seed := range uint64(1000) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), dir: dir}
		write(g.file())
	}

	accepted := 0
	compared := 0
	for i, answer := range askRunzeo(t, python, paths) {
		if answer.Accepted {
			accepted++
		}
		if compare(t, paths[i], answer) {
			compared++
		}
	}
	t.Logf("%d files, runzeo accepts %d, values compared of %d", len(paths), accepted, compared)
	if accepted < 100 || len(paths)-accepted < 100 || compared < 100 {
		t.Error("the generated files are too much alike to say anything")
	}
}

// needPython returns a Python that has ZEO, for a test whose environment says
// nothing to either.
func needPython(t *testing.T) string {
	t.Helper()
	python := peers.Python(t)
	t.Setenv("ZEO_MSGPACK", "")
	t.Setenv("INSTANCE_HOME", "")
	return python
}

// TestOverridesAgreeWithRunzeo does the same with values for -X.
func TestOverridesAgreeWithRunzeo(t *testing.T) {
	python := needPython(t)
	path := filepath.Join(t.TempDir(), "zeo.conf")
	const text = `<zeo>
  address 8100
  read-only yes
</zeo>
<filestorage Main>
  path /tmp/a.fs
</filestorage>
<filestorage Second>
  path /tmp/b.fs
  quota 5
</filestorage>
<demostorage third>
  <filestorage base>
    path /tmp/c.fs
  </filestorage>
  <mappingstorage changes/>
</demostorage>
<zeoclient fourth>
  server 1
  server localhost:2
</zeoclient>
<eventlog>
  <logfile>
    path STDOUT
  </logfile>
</eventlog>
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cases := [][]string{
		{}, {"zeo/address=8200"}, {"ZEO/Address=8200"}, {"zeo/address=localhost:8200", "zeo/read-only=no"}, {"zeo/msgpack=true"},
		{"zeo/address=1", "zeo/address=2"}, {"zeo/address="}, {"zeo/address"}, {"zeo/addres=1"}, {"zeo/address=x:y"}, {"/address=1"},
		{"zeo//address=1"}, {"=1"}, {"address=1"}, {"zeo=1"}, {"none/key=1"}, {"zeo/ssl/certificate=x"}, {"zeo/pid-filename=/tmp/a=b"},
		{"filestorage/path=/tmp/new.fs"}, {"main/path=/tmp/new.fs"}, {"MAIN/path=/tmp/new.fs"}, {"second/path=/tmp/new.fs"},
		{"second/quota=1MB", "filestorage/quota=2MB"}, {"filestorage/quota=1MB", "main/quota=2MB"}, {"filestorage/path=/tmp/1.fs", "filestorage/blob-dir=/tmp/1"},
		{"demostorage/base/path=/tmp/new.fs"}, {"third/base/path=/tmp/new.fs"}, {"third/filestorage/path=/tmp/new.fs"}, {"base/path=/tmp/new.fs"},
		{"third/other/path=/tmp/new.fs"}, {"fourth/server=5"}, {"zeoclient/server=5", "zeoclient/server=6"}, {"eventlog/level=debug"},
		{"eventlog/logfile/path=/tmp/log"}, {"eventlog/logfile/format=%(message)s", "eventlog/logfile/level=error"},
		{"eventlog/logfile/format=$x"}, {"zeo/address= 7 "}, {"second/path=$HOME"},
	}
	var lines []string
	for _, c := range cases {
		lines = append(lines, strings.Join(append([]string{path}, c...), "\t"))
	}
	accepted := 0
	for i, answer := range askRunzeo(t, python, lines) {
		if answer.Accepted {
			accepted++
		}
		t.Run(strings.ReplaceAll(strings.Join(cases[i], " "), "/", "|"), func(t *testing.T) { compare(t, path, answer, cases[i]...) })
	}
	if accepted < 15 || len(cases)-accepted < 10 {
		t.Errorf("runzeo accepts %d of %d: these are too much alike", accepted, len(cases))
	}
}

type runzeoAnswer struct {
	File     string
	Accepted bool
	Error    string
	Value    map[string]any
}

func askRunzeo(t *testing.T, python string, paths []string) []runzeoAnswer {
	cmd := exec.Command(python, "-W", "ignore", filepath.Join("testdata", "agree.py"))
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\n") + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	var answers []runzeoAnswer
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a runzeoAnswer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(paths) {
		t.Fatalf("%d answers to %d files", len(answers), len(paths))
	}
	return answers
}

// compare reports where this package reads a file differently, and returns
// whether the values could be compared.
func compare(t *testing.T, path string, want runzeoAnswer, overrides ...string) bool {
	content := func() string {
		b, _ := os.ReadFile(path)
		return "\n" + string(b)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := (&Loader{Overrides: overrides}).parse(path, f)
	if c != nil {
		// runzeo checks paths as it reads.
		err = errors.Join(err, c.Check())
	}
	errs := flatten(err)
	ours := 0 // errors that runzeo should find, too
	for _, e := range errs {
		if !e.strict {
			ours++
		}
	}
	switch {
	case want.Accepted && ours > 0:
		t.Errorf("runzeo accepts what we reject:\n%v%s", err, content())
	case !want.Accepted && ours == 0:
		t.Errorf("runzeo rejects what we accept (%v):\n%s%s", err, want.Error, content())
	case want.Accepted && err == nil:
		got := comparableForm(t, c)
		if want.Value["eventlog"] == nil {
			delete(want.Value, "eventlog")
			delete(got, "eventlog")
		}
		if !reflect.DeepEqual(got, want.Value) {
			t.Errorf("different values\ngot  %v\nwant %v%s", got, want.Value, content())
		}
		return true
	}
	return false
}

// flatten lists the errors of Parse and of Check.
func flatten(err error) []*Error {
	switch err := err.(type) {
	case nil:
		return nil
	case *Error:
		return []*Error{err}
	case interface{ Unwrap() []error }:
		var list []*Error
		for _, e := range err.Unwrap() {
			list = append(list, flatten(e)...)
		}
		return list
	}
	panic(err)
}

// comparableForm gives a configuration the form of agree.py.
func comparableForm(t *testing.T, c *Config) map[string]any {
	type m = map[string]any
	addr := func(a Address) string {
		if a.Path != "" {
			return a.Path
		}
		return fmt.Sprintf("%s|%d", a.Host, a.Port)
	}
	var storage func(st Storage) m
	storage = func(st Storage) m {
		out := m{"kind": st.Spec.Kind(), "name": st.Name}
		add := func(more m) {
			for k, v := range more {
				out[k] = v
			}
		}
		switch s := st.Spec.(type) {
		case *FileStorage:
			add(m{"path": s.Path, "blobdir": s.BlobDir, "create": s.Create, "readonly": s.ReadOnly,
				"quota": s.Quota, "gc": s.PackGC, "keep": s.PackKeepOld})
		case *MappingStorage:
			add(m{"title": s.StorageName})
		case *BlobStorage:
			add(m{"blobdir": s.BlobDir, "base": storage(s.Base)})
		case *DemoStorage:
			add(m{"title": s.StorageName})
			if s.Base != nil {
				add(m{"base": storage(*s.Base)})
			}
			if s.Changes != nil {
				add(m{"changes": storage(*s.Changes)})
			}
		case *ClientStorage:
			var servers []string
			for _, a := range s.Servers {
				servers = append(servers, addr(a))
			}
			add(m{"servers": servers, "storage": s.Storage, "title": s.StorageName, "label": s.ClientLabel,
				"readonly": s.ReadOnly, "fallback": s.ReadOnlyFallback, "cachesize": s.CacheSize,
				"cachepath": s.CachePath, "blobdir": s.BlobDir, "shared": s.SharedBlobDir,
				"blobcache": s.BlobCacheSize, "blobcheck": s.BlobCacheSizeCheck, "wait": s.Wait})
		}
		return out
	}
	var storages []any
	for _, st := range c.Storages {
		storages = append(storages, storage(st))
	}
	handlers := []any{}
	for _, l := range c.EventLog.Handlers {
		handlers = append(handlers, m{"path": l.Path, "level": l.Level, "format": l.Format, "dateformat": l.DateFormat,
			"oldfiles": l.OldFiles, "maxsize": l.MaxSize, "when": l.When, "interval": l.Interval, "delay": l.Delay})
	}
	z := c.ZEO
	text, err := json.Marshal(m{
		"address": addr(z.Address), "readonly": z.ReadOnly, "queue": z.InvalidationQueueSize,
		"age": z.InvalidationAge.Seconds(), "timeout": z.TransactionTimeout.Seconds(), "pid": z.PIDFilename,
		"resolve": z.ClientConflictResolution, "msgpack": z.Msgpack, "ssl": z.SSL != nil,
		"storages": storages, "eventlog": m{"level": c.EventLog.Level, "handlers": handlers},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
