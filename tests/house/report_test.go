package house

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite/tests/peers"
)

// reported is what tests/report.py makes of events of go test -json.
func reported(t *testing.T, events []map[string]any) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		peers.Missing(t, "there is no python3: %v", err)
	}
	var in strings.Builder
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(line, '\n'))
	}
	cmd := exec.Command(python, filepath.Join(top, "tests", "report.py"))
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("report.py: %v\n%s", err, out)
	}
	return string(out)
}

func event(action, pkg, test, output string) map[string]any {
	e := map[string]any{"Action": action, "Package": pkg}
	if test != "" {
		e["Test"] = test
	}
	if output != "" {
		e["Output"] = output
	}
	return e
}

// Of a test that hangs, go test says that its package has failed, and no more: it
// is the trace, among what the test has printed, that says where.
func TestReportShowsTheTraceOfAHang(t *testing.T) {
	events := []map[string]any{
		event("run", "p", "TestGood", ""),
		event("output", "p", "TestGood", "said by a test that passes\n"),
		event("pass", "p", "TestGood", ""),
		event("run", "p", "TestHangs", ""),
		event("output", "p", "TestHangs", "=== RUN   TestHangs\n"),
		event("run", "p", "TestHangs/part", ""),
		event("output", "p", "TestHangs/part", "=== RUN   TestHangs/part\n"),
		event("run", "q", "TestRuns", ""),
		event("output", "q", "TestRuns", "said by a test of another package\n"),
		event("output", "p", "TestHangs/part", "panic: test timed out after 1s\n"),
		event("output", "p", "TestHangs/part", "goroutine 7 [chan receive]:\n"),
		event("output", "p", "", "FAIL\tp\t1.010s\n"),
		event("fail", "p", "", ""),
		event("pass", "q", "TestRuns", ""),
		event("output", "q", "", "ok  \tq\t1s\n"),
		event("pass", "q", "", ""),
	}
	got := reported(t, events)
	for _, want := range []string{"panic: test timed out", "goroutine 7 [chan receive]:", "FAIL\tp", "ok  \tq"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("want %q once", want)
		}
	}
	for _, dull := range []string{"said by", "=== RUN"} {
		if strings.Contains(got, dull) {
			t.Errorf("%q is shown", dull)
		}
	}
	if t.Failed() {
		t.Logf("report.py says:\n%s", got)
	}
}
