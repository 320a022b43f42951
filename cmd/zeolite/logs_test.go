package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/zeolite-go/zeolite/server/config"
	"github.com/zeolite-go/zeolite/tests/peers"
)

// TestLogFormats: every format that the configuration may have shows what it
// shows in Python.
func TestLogFormats(t *testing.T) {
	python := peers.Python(t)
	var formats []string
	for field, conversions := range map[string]string{"message": "s", "levelno": "srdiueEfFgGoxXc", "msecs": "srdiueEfFgG"} {
		for _, kind := range strings.Split(conversions, "") {
			for _, flags := range []string{"", "9", "-9", "+9", "09", "l", "5h", "3L"} {
				formats = append(formats, "[%("+field+")"+flags+kind+"] %(lineno)d 5%%")
			}
		}
		if field != "levelno" {
			formats = append(formats, "%("+field+").2s")
		}
	}
	formats = append(formats, "%(message)a", "%(levelno)a", "%(msecs).1f", "%(msecs)8.3e", "%(levelno).4d", "%(levelno)#x")
	formats = append(formats, "%(msecs)03u %(message)s %(levelno)ld")
	cmd := exec.Command(python, "-c", `
import sys
for line in sys.stdin:
    print(line[:-1] % dict(message="text", levelno=30, msecs=7.25, lineno=0))
`)
	cmd.Stdin = strings.NewReader(strings.Join(formats, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(out), "\n")
	at := time.Unix(1700000000, 7.25e6)
	for i, format := range formats {
		if err := config.CheckFormat(format); err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		got := formatEntry(config.LogFile{Format: format}, at, config.LevelWarning, "text")
		// The quotes of a text are not shown.
		if strings.TrimSuffix(got, "\n") != strings.ReplaceAll(want[i], "'", "") {
			t.Errorf("%s shows %q, in Python %q", format, got, want[i])
		}
	}
	if got := formatEntry(config.LogFile{Format: "%(created)s"}, at, config.LevelInfo, ""); !strings.HasPrefix(got, "1700000000.007") {
		t.Errorf("created is %s", got)
	}
}
