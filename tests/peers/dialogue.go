package peers

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// Dialogue is a Python script that a test talks to, in a process of its own: it
// reads a JSON array from each line of its standard input, and answers each with
// a line of JSON. It is used by one goroutine.
type Dialogue struct {
	t     testing.TB
	stdin io.WriteCloser
	lines *bufio.Reader
}

// StartDialogue runs a script, which must end well when its input does: at the
// end of the test.
func StartDialogue(t testing.TB, script string, args ...string) *Dialogue {
	t.Helper()
	cmd := exec.Command(Python(t), append([]string{script}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("%s: %v\n%s", script, err, stderr.String())
		}
	})
	return &Dialogue{t, stdin, bufio.NewReader(stdout)}
}

// Call has the script do something, and reads its answer into result, unless
// that is nil.
func (d *Dialogue) Call(result any, args ...any) {
	d.t.Helper()
	line, err := json.Marshal(args)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.stdin.Write(append(line, '\n')); err != nil {
		d.t.Fatal(err)
	}
	answer, err := d.lines.ReadBytes('\n')
	if err != nil {
		d.t.Fatalf("%s: %v", line, err)
	}
	if result != nil {
		if err := json.Unmarshal(answer, result); err != nil {
			d.t.Fatalf("%s answers %s", line, answer)
		}
	}
}
