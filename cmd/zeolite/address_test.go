package main

import "testing"

func TestSplitAddress(t *testing.T) {
	for s, want := range map[string]string{
		"8100": "tcp 127.0.0.1:8100", "0": "tcp 127.0.0.1:0", ":8100": "tcp :8100", "host": "tcp host:8080", "host:0": "tcp host:0",
		"10.0.0.1:9": "tcp 10.0.0.1:9", "[::1]": "tcp [::1]:8080", "[::1]:9": "tcp [::1]:9", "::1": "tcp [::1]:8080",
		"./sock": "unix ./sock", "/run/x:9": "unix /run/x:9",
		"": "", "host:x": "", "host:65536": "", "70000": "",
	} {
		network, address, err := splitAddress(s, "127.0.0.1", 8080)
		if got := network + " " + address; (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q: %q, %v, want %q", s, got, err, want)
		}
	}
}
