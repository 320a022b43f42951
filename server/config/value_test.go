package config

import (
	"fmt"
	"testing"
	"time"
)

// set runs a setter and shows the result, or "error".
func set[T any](of func(*T) setter, text string) string {
	var v T
	if err := of(&v)(text); err != nil {
		return "error"
	}
	switch v := any(v).(type) {
	case Address:
		return showAddress(v)
	case []Address:
		return "[" + showAddress(v[0]) + "]"
	}
	return fmt.Sprint(v)
}

// showAddress tells a path from a host.
func showAddress(a Address) string {
	if a.Path != "" {
		return a.Path
	}
	return fmt.Sprintf("%d at %s", a.Port, a.Host)
}

func TestValues(t *testing.T) {
	anyInt := func(to *int) setter { return integer(to, -10, 1000) }
	anySize := func(to *int64) setter { return byteSize(to, 0) }
	anySeconds := func(to *time.Duration) setter { return seconds(to, 0) }
	for _, tt := range []struct {
		kind string
		set  func(text string) string
		want map[string]string
	}{
		{"boolean", func(s string) string { return set(boolean, s) }, map[string]string{
			"yes": "true", "ON": "true", "True": "true", "no": "false", "oFF": "false", "false": "false",
			"": "error", "1": "error", "y": "error",
		}},
		{"integer", func(s string) string { return set(anyInt, s) }, map[string]string{
			"0": "0", "+7": "7", "-7": "-7", "007": "7", "1_0": "10", "1000": "1000",
			"": "error", "1001": "error", "-11": "error", "1__0": "error", "_1": "error", "1_": "error", "1.0": "error",
			"0x1": "error", "1e2": "error", "99999999999999999999": "error", "+-1": "error", "+_1": "error",
		}},
		{"byte-size", func(s string) string { return set(anySize, s) }, map[string]string{
			"0": "0", "5": "5", "1KB": "1024", "2mb": "2097152", "1 Gb": "1073741824", "1_0kb": "10240",
			"": "error", "KB": "error", "1K": "error", "1.5KB": "error", "-1": "error", "-1KB": "error",
			"9000000000GB": "error", "1KBKB": "error", "8589934592GB": "error", "8589934591GB": "9223372035781033984",
		}},
		{"seconds", func(s string) string { return set(anySeconds, s) }, map[string]string{
			"30": "30s", "0": "0s", "1.5": "error", "-1": "error", "30s": "error", "2147483648": "error",
		}},
		{"float", func(s string) string { return set(floatSeconds, s) }, map[string]string{
			"1": "1s", "0.5": "500ms", ".5": "500ms", "5.": "5s", "1e3": "16m40s", "1E-3": "1ms", "1_0.5": "10.5s",
			"": "error", "nan": "error", "inf": "error", "-1": "error", "1e400": "error", "0x1p3": "error", "1s": "error",
			"1_.5": "error", "1e_3": "error",
		}},
		{"bind", func(s string) string { return set(bindAddress, s) }, map[string]string{
			"8100": "8100 at ", "localhost:8100": "8100 at localhost", "HOST": "0 at host", ":8100": "8100 at ", "h:": "0 at h",
			"[::1]:8100": "8100 at ::1", "::1": "0 at ::1", "[::1]": "0 at ::1", "1:2:3": "0 at 1:2:3", "/a/b": "/a/b", "a/b:80": "a/b:80",
			"": "error", "a b": "error", "h:x": "error", "h:65536": "error", "65536": "error", "-1": "error", "h:-1": "error", "a b:80": "error",
		}},
		{"connect", func(s string) string { return set(connectAddress, s) }, map[string]string{
			"8100": "[8100 at 127.0.0.1]", "h:8100": "[8100 at h]", ":80": "[80 at 127.0.0.1]", "./s": "[./s]",
			"h": "error", "h:": "error", "::1": "error",
		}},
		{"level", func(s string) string { return set(level, s) }, map[string]string{
			"Info": "info", "FATAL": "critical", "warn": "warning", "15": "blather", "7": "7", "0": "notset", "50": "critical",
			"51": "error", "-1": "error", "": "error", "loud": "error",
		}},
		{"when", func(s string) string { return set(rotationTime, s) }, map[string]string{
			"": "", "midnight": "MIDNIGHT", "w0": "W0", "W6": "W6", "h": "H", "W7": "error", "W": "error", "W00": "error", "Y": "error",
		}},
		{"dotted-name", func(s string) string { return set(dottedName, s) }, map[string]string{
			"a": "a", "a.b_c.D1": "a.b_c.D1", "": "error", "a.": "error", ".a": "error", "a.1": "error", "a b": "error",
		}},
		{"escaped", func(s string) string { return set(escaped, s) }, map[string]string{
			`a\nb\t`: "a\nb\t", `\\n`: "\\\n", `\x`: `\x`, `\`: `\`,
		}},
	} {
		for text, want := range tt.want {
			if got := tt.set(text); got != want {
				t.Errorf("%s %q: got %s, want %s", tt.kind, text, got, want)
			}
		}
	}
}

func TestAddressText(t *testing.T) {
	for _, tt := range []struct {
		a             Address
		network, text string
	}{
		{Address{Host: "::1", Port: 8100}, "tcp", "[::1]:8100"},
		{Address{Port: 8100}, "tcp", ":8100"},
		{Address{Host: "h"}, "tcp", "h:0"},
		{Address{Path: "/run/zeo"}, "unix", "/run/zeo"},
	} {
		if tt.a.Network() != tt.network || tt.a.String() != tt.text {
			t.Errorf("got %s %s, want %s %s", tt.a.Network(), tt.a.String(), tt.network, tt.text)
		}
	}
}

func TestPaths(t *testing.T) {
	env := lookupIn(map[string]string{"HOME": "/home/zeo/"})
	for path, want := range map[string]string{
		"~": "/home/zeo", "~/a": "/home/zeo/a", "~//a": "/home/zeo//a", "a/~": "a/~", "": "", "~no such user/x": "~no such user/x",
	} {
		if got := expandHome(path, env); got != want {
			t.Errorf("home of %q: got %q, want %q", path, got, want)
		}
	}
	if got := expandHome("~", lookupIn(map[string]string{"HOME": "/"})); got != "/" {
		t.Errorf("home of root: got %q", got)
	}
	for path, want := range map[string]string{
		"": "", "a": "", "a/": "a", "/a": "/", "//a": "//", "a/b/c": "a/b", "a//b": "a",
	} {
		if got := parentDir(path); got != want {
			t.Errorf("parent of %q: got %q, want %q", path, got, want)
		}
	}
}

func TestCheckFormat(t *testing.T) {
	for format, ok := range map[string]bool{
		"": true, "text": true, "100%%": true, "%(message)s": true, "%(levelname)-8.8s|%(lineno)05d": true, DefaultLogFormat: true,
		"%(created)+.3f": true, "%(levelno)x": true, "%(msecs)03d": true, "%%(x": true, "%(lineno)ld": true,
		"%": false, "%s": false, "%d": false, "%(": false, "%(message)": false, "%(message)z": false, "%(message)d": false,
		"%(created)x": false, "%(x)s": false, "%(message)*s": false, "%(message).": false, "%()s": false, "%message)s": false,
	} {
		if err := CheckFormat(format); (err == nil) != ok {
			t.Errorf("%q: %v", format, err)
		}
	}
}
