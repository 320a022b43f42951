package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden reads the files in testdata/golden. What it makes of them stands
// beside them: the description, the warnings, and all values.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			env := map[string]string{}
			if strings.HasSuffix(path, "instance.conf") {
				env = map[string]string{"INSTANCE_HOME": "/srv/instance", "ZEO_MSGPACK": "1"}
			}
			l := &Loader{LookupEnv: lookupIn(env)}
			c, err := l.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			b.WriteString(c.Describe())
			for _, w := range c.Warnings {
				fmt.Fprintf(&b, "%v\n", w)
			}
			values := *c
			values.Warnings = nil
			text, err := json.MarshalIndent(values, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s\n", text)

			golden := strings.TrimSuffix(path, ".conf") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", b.String(), want)
			}
		})
	}
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
}

// filesLoader reads from memory only.
func filesLoader(files map[string]string) *Loader {
	return &Loader{
		LookupEnv: lookupIn(map[string]string{"HOME": "/home/zeo", "PORT": "8100"}),
		Open: func(path string) (io.ReadCloser, error) {
			if text, ok := files[path]; ok {
				return io.NopCloser(strings.NewReader(text)), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
	}
}

const (
	zeoSection = "<zeo>\n address 1\n</zeo>\n" // three lines
	good       = zeoSection + "<mappingstorage/>\n"
)

func TestLoadMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "zeo.conf"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestTrap35_SectionNamesAreLowercase, as ZConfig makes them: clients of a
// storage "Main" ask for "main".
func TestTrap35_SectionNamesAreLowercase(t *testing.T) {
	c, err := filesLoader(nil).Parse("zeo.conf", strings.NewReader(zeoSection+"<filestorage Main>\n path /x/Y\n</filestorage>\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Storages[0]; s.Name != "main" || s.Spec.(*FileStorage).Path != "/x/Y" {
		t.Errorf("the storage is named %q", s.Name)
	}
}

func TestSubstitution(t *testing.T) {
	const text = zeoSection + `
%define Name some value
%define empty
%define other <$name>
<filestorage a>
 path /x/$NAME/${other}$empty/$$name/$(PORT)
 blob-dir ~/b
</filestorage>
`
	c, err := filesLoader(nil).Parse("zeo.conf", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Storages[0].Spec.(*FileStorage)
	if s.Path != "/x/some value/<some value>/$name/8100" || s.BlobDir != "/home/zeo/b" {
		t.Errorf("got %q, %q", s.Path, s.BlobDir)
	}
}

func TestInclude(t *testing.T) {
	files := map[string]string{
		"/etc/zeo/zeo.conf":        zeoSection + "%define root /srv\n%include storages/a.conf\n%include file:///etc/b.conf\n",
		"/etc/zeo/storages/a.conf": "<filestorage a>\n%include ../common.conf\npath $root/a.fs\n</filestorage>\n",
		"/etc/zeo/common.conf":     "quota 1KB\n%define later /var\n",
		"/etc/b.conf":              "<filestorage b>\npath $later/b.fs\n%include zeo/common.conf\n</filestorage>\n",
	}
	c, err := filesLoader(files).Load("/etc/zeo/zeo.conf")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, st := range c.Storages {
		s := st.Spec.(*FileStorage)
		got = append(got, fmt.Sprint(st.Name, " ", s.Path, " ", s.Quota, " ", st.Pos))
	}
	want := "[a /srv/a.fs 1024 /etc/zeo/storages/a.conf:1 b /var/b.fs 1024 /etc/b.conf:1]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeTestCertificate(t, cert, key)
	l := &Loader{LookupEnv: lookupIn(map[string]string{"DIR": dir})}

	fine := `<zeo>
 address $(DIR)/sock
 pid-filename $(DIR)/pid
 <ssl>
  certificate $(DIR)/cert.pem
  key $(DIR)/key.pem
  authenticate $(DIR)
 </ssl>
</zeo>
<filestorage>
 path $(DIR)/Data.fs
 blob-dir relative
</filestorage>
`
	c, err := l.Parse("zeo.conf", strings.NewReader(fine))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}

	bad := `<zeo>
 address $(DIR)/no/sock
 pid-filename $(DIR)/no/pid
 <ssl>
  certificate $(DIR)/cert.pem
  key $(DIR)/file
  authenticate $(DIR)/no
 </ssl>
</zeo>
<filestorage 1>
 path $(DIR)/file/Data.fs
</filestorage>
<filestorage 2>
 path $(DIR)/Data.fs
 read-only yes
</filestorage>
<eventlog>
 <logfile>
  path $(DIR)/no/log
 </logfile>
</eventlog>
`
	c, err = l.Parse("zeo.conf", strings.NewReader(bad))
	if err != nil {
		t.Fatal(err)
	}
	want := `zeo.conf:2: <zeo>: address: directory "DIR/no" does not exist
zeo.conf:3: <zeo>: pid-filename: directory "DIR/no" does not exist
zeo.conf:4: <ssl>: cannot load certificate "DIR/cert.pem" and key "DIR/file": tls: failed to find any PEM data in key input
zeo.conf:7: <ssl>: authenticate: "DIR/no" does not exist
zeo.conf:11: <filestorage 1>: path: "DIR/file" is not a directory
zeo.conf:13: <filestorage 2>: read-only: "DIR/Data.fs" does not exist
zeo.conf:18: <logfile>: path: directory "DIR/no" does not exist`
	got := strings.ReplaceAll(fmt.Sprint(c.Check()), dir, "DIR")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	// A flag takes the place of the address.
	c.ZEO.Address = Address{Port: 8100}
	if err := c.Check(); err == nil || strings.Contains(err.Error(), "address") {
		t.Errorf("with another address: %v", err)
	}
}

func TestFromFlags(t *testing.T) {
	l := &Loader{LookupEnv: lookupIn(map[string]string{"HOME": "/h"})}
	c, err := l.FromFlags("localhost:8100", "/a/Data.fs", "~/b.fs")
	if err != nil {
		t.Fatal(err)
	}
	want := `command line: listen at port 8100 of localhost
  storage 1: filestorage /a/Data.fs
  storage 2: filestorage /h/b.fs
  log: STDERR, level info
`
	if got := c.Describe(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if fs := c.Storages[0].Spec.(*FileStorage); !fs.PackGC || !fs.PackKeepOld {
		t.Error("without the defaults of a file")
	}

	_, err = l.FromFlags("localhost:x")
	const wantErr = `command line: <zeo>: address "localhost:x": want port, host:port, [IPv6]:port, or the path of a Unix socket with a / in it (ports are 0 to 65535)
command line: no storage; accepted: <filestorage>, <blobstorage>, <mappingstorage>, <demostorage>, <zeoclient>, <clientstorage>, <serverzlibstorage>`
	if fmt.Sprint(err) != wantErr {
		t.Errorf("got\n%v\nwant\n%s", err, wantErr)
	}
}

func TestParseAddress(t *testing.T) {
	if a, err := ParseAddress("[::1]:80"); err != nil || a != (Address{Host: "::1", Port: 80}) {
		t.Errorf("got %v, %v", a, err)
	}
	if a, err := ParseServer("80"); err != nil || a != (Address{Host: "127.0.0.1", Port: 80}) {
		t.Errorf("got %v, %v", a, err)
	}
	if _, err := ParseAddress(""); err == nil || !strings.HasPrefix(err.Error(), `address "": want port`) {
		t.Errorf("got %v", err)
	}
	if _, err := ParseServer("host"); err == nil || err.Error() != `server "host": the port is missing` {
		t.Errorf("got %v", err)
	}
}

// Around a storage, <serverzlibstorage> changes nothing but its name.
func TestServerZlibStorage(t *testing.T) {
	c, err := Parse("zeo.conf", strings.NewReader(`%import zc.zlibstorage
<zeo>
  address 1
</zeo>
<serverzlibstorage main>
  compress no
  <blobstorage inner>
    blob-dir b
    <serverzlibstorage>
      <filestorage x>
        path p
      </filestorage>
    </serverzlibstorage>
  </blobstorage>
</serverzlibstorage>
<demostorage>
  <serverzlibstorage changes>
    <mappingstorage/>
  </serverzlibstorage>
</demostorage>
`))
	if err != nil {
		t.Fatal(err)
	}
	bs, ok := c.Storages[0].Spec.(*BlobStorage)
	if !ok || c.Storages[0].Name != "main" {
		t.Fatalf("got %+v", c.Storages[0])
	}
	if fs, ok := bs.Base.Spec.(*FileStorage); !ok || fs.Path != "p" {
		t.Errorf("within it: %+v", bs.Base)
	}
	demo := c.Storages[1].Spec.(*DemoStorage)
	if demo.Changes == nil || demo.Base != nil || demo.Changes.Spec.Kind() != "mappingstorage" {
		t.Errorf("the demostorage: %+v", demo)
	}
}
