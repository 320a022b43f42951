package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMsgpackOfConfiguration: what zeo.conf says counts more than the
// environment, and a flag more than either.
func TestMsgpackOfConfiguration(t *testing.T) {
	for _, c := range []struct {
		key, env, flag string
		want           bool
	}{
		{"", "", "", false},
		{"", "1", "", true},
		{"msgpack no", "1", "", false},
		{"msgpack yes", "", "", true},
		{"msgpack no", "", "--msgpack", true},
	} {
		path := filepath.Join(t.TempDir(), "zeo.conf")
		conf := "<zeo>\n address 8100\n " + c.key + "\n</zeo>\n<mappingstorage/>\n"
		if err := os.WriteFile(path, []byte(conf), 0o666); err != nil {
			t.Fatal(err)
		}
		args := []string{"serve", "-C", path, "--check"}
		if c.flag != "" {
			args = append(args, c.flag)
		}
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "ZEOLITE_TEST_AS_PROGRAM=1", "ZEO_MSGPACK="+c.env)
		out, err := cmd.CombinedOutput()
		if got := strings.Contains(string(out), "msgpack"); err != nil || got != c.want {
			t.Errorf("%+v: msgpack is %v (%v)\n%s", c, got, err, out)
		}
	}
}
