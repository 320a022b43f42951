package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// files returns what is in a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

type logEntry struct {
	at   time.Time
	text string
}

// writeLog writes entries as serve does, and returns the files.
func writeLog(t *testing.T, spec config.LogFile, entries []logEntry) map[string]string {
	t.Helper()
	f, err := openLogFile(spec, entries[0].at)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.text == "reopen" {
			err = f.reopen(e.at)
		} else {
			err = f.write(e.text+"\n", e.at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	return files(t, filepath.Dir(spec.Path))
}

// Log files are rotated when, and named how, Python does it.
func TestRotateAsPython(t *testing.T) {
	python := peers.Python(t)
	start := time.Date(2026, 3, 4, 21, 30, 17, 0, time.Local) // a Wednesday
	for _, c := range []struct {
		spec config.LogFile
		step time.Duration // between entries, about
	}{
		{config.LogFile{MaxSize: 300, OldFiles: 3}, time.Second},
		{config.LogFile{MaxSize: 60, OldFiles: 1}, time.Second},
		{config.LogFile{When: "S", Interval: 7, OldFiles: 4}, time.Second},
		{config.LogFile{When: "M", Interval: 1, OldFiles: 2}, 13 * time.Second},
		{config.LogFile{When: "H", Interval: 5, OldFiles: 3}, time.Hour},
		{config.LogFile{When: "D", Interval: 1, OldFiles: 3}, 5 * time.Hour},
		{config.LogFile{When: "MIDNIGHT", Interval: 1, OldFiles: 5}, 5 * time.Hour},
		{config.LogFile{When: "W0", Interval: 1, OldFiles: 3}, 20 * time.Hour},
		{config.LogFile{When: "W2", Interval: 1, OldFiles: 9}, 20 * time.Hour},
		{config.LogFile{When: "W6", Interval: 1, OldFiles: 3}, 20 * time.Hour},
	} {
		args := []string{c.spec.When, strconv.Itoa(c.spec.Interval)}
		if c.spec.MaxSize > 0 {
			args = []string{"size", fmt.Sprint(c.spec.MaxSize)}
		}
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			var entries []logEntry
			var input bytes.Buffer
			at := start
			for i := range 100 {
				e := logEntry{at, fmt.Sprintf("entry %d %s", i, strings.Repeat("x", rnd.IntN(60)))}
				if i == 60 && c.spec.MaxSize > 0 { // by time, Python may overwrite a file then
					e.text = "reopen"
				}
				entries = append(entries, e)
				fmt.Fprintf(&input, "%d %s\n", e.at.Unix(), e.text)
				at = at.Add(time.Second * time.Duration(1+rnd.Int64N(int64(2*c.step/time.Second))))
			}
			theirs := t.TempDir()
			cmd := exec.Command(python, append([]string{"testdata/rotate.py", filepath.Join(theirs, "zeo.log")}, append(args, strconv.Itoa(c.spec.OldFiles))...)...)
			cmd.Stdin = &input
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			c.spec.Path = filepath.Join(t.TempDir(), "zeo.log")
			ours, want := writeLog(t, c.spec, entries), files(t, theirs)
			if len(want) != c.spec.OldFiles+1 {
				t.Errorf("Python has %d files: this compares less than it should", len(want))
			}
			if !reflect.DeepEqual(ours, want) {
				t.Errorf("files are\n%.900s\nwant\n%.900s", fmt.Sprint(ours), fmt.Sprint(want))
			}
		})
	}
}

// Nothing of a log is lost when files are rotated by time and by a signal, and
// the files of a process before count.
func TestRotateLosesNothing(t *testing.T) {
	dir := t.TempDir()
	spec := config.LogFile{Path: filepath.Join(dir, "zeo.log"), When: "MIDNIGHT", Interval: 1, OldFiles: 3, Delay: true}
	at := time.Now()
	day := func(n int) string { return at.AddDate(0, 0, n).Format("2006-01-02") }
	if err := os.WriteFile(spec.Path+"."+day(-3), []byte("oldest\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "zeo.log.other"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	got := writeLog(t, spec, []logEntry{
		{at, "one"}, {at, "reopen"}, {at, "two"}, {at, "reopen"}, {at, "three"}, {at.AddDate(0, 0, 1), "four"},
	})
	want := map[string]string{
		"zeo.log": "four\n", "zeo.log." + day(0): "one\n", "zeo.log." + day(0) + ".1": "two\n", "zeo.log." + day(0) + ".2": "three\n",
		"zeo.log.other": "",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("files are %q, want %q", got, want)
	}

	// Another process goes on where this one ended.
	if err := os.Chtimes(spec.Path, at, at); err != nil {
		t.Fatal(err)
	}
	got = writeLog(t, spec, []logEntry{{at.AddDate(0, 0, 1), "five"}})
	if got["zeo.log"] != "five\n" || got["zeo.log."+day(0)+".3"] != "four\n" || len(got) != 5 {
		t.Errorf("files are %q", got)
	}
}

// A log that cannot be rotated goes on in the same file, and says so.
func TestRotateFails(t *testing.T) {
	dir := t.TempDir()
	spec := config.LogFile{Path: filepath.Join(dir, "zeo.log"), MaxSize: 10, OldFiles: 1}
	// A directory that is not empty cannot be replaced.
	if err := os.MkdirAll(filepath.Join(dir, "zeo.log.1", "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := openLogFile(spec, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for range 3 {
		if err := f.write("an entry\n", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(spec.Path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(b), "an entry\n") != 3 || strings.Count(string(b), "cannot rotate") != 1 {
		t.Errorf("the log has\n%s", b)
	}
}

// A file whose opening is delayed is there with the first entry.
func TestDelayedLogFile(t *testing.T) {
	spec := config.LogFile{Path: filepath.Join(t.TempDir(), "zeo.log"), Delay: true}
	f, err := openLogFile(spec, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if exists(spec.Path) {
		t.Error("the file was made before there was anything to write")
	}
	if err := f.write("an entry\n", time.Now()); err != nil || !exists(spec.Path) {
		t.Errorf("no file after an entry: %v", err)
	}
}
