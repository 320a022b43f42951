package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// generator writes random configurations, about half of them with mistakes.
type generator struct {
	*mathrand.Rand
	dir   string // exists
	names int
}

func (g *generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// value is a value for a type of ZConfig, now and then a bad one.
func (g *generator) value(kind string) string {
	if g.chance(2) {
		return g.pick("", "x y", "-", "$nowhere", "$", "${a", "$$", "$(NO_SUCH_VARIABLE)", "\u00e9", "0", "1_0", "--1", "(a)")
	}
	switch kind {
	case "bool":
		return g.pick("yes", "no", "true", "false", "on", "off", "Yes", "FALSE")
	case "badbool":
		return g.pick("1", "0", "y", "none", "t")
	case "int":
		return g.pick("1", "20", "300", "+7", "1_000", "007")
	case "float":
		return g.pick("1", "0.5", "1e3", ".5", "5.", "1_0.5", "+3")
	case "size":
		return g.pick("1", "10KB", "20mb", "3 GB", "1_0Mb", "4096")
	case "path":
		if g.chance(4) {
			return g.pick("$dir/missing/x", "${DIR}/0000.conf/x")
		}
		return fmt.Sprintf(g.pick("$dir/f%d", "${dir}/f%d", "~/f%d", "$Dir//f%d", "f%d"), g.next())
	case "bind":
		return g.pick("8100", "localhost:8100", ":8100", "LOCALHOST:0", "[::1]:8100", "::1", "host", "127.0.0.1:$(ZCFG_PORT)",
			"$dir/sock", "h:70000", "99999", "h:", "a b", "h:x", "-1", "*:80")
	case "connect":
		return g.pick("8100", "localhost:8100", ":8100", "[::1]:8100", "host", "$dir/sock", "h:70000", "a b:1")
	case "level":
		return g.pick("info", "WARN", "blather", "notset", "0", "50", "51", "loud", "-1", "debug")
	case "format":
		return g.pick("%(message)s", `%(asctime)s\n%(levelname)-8s %(message)s`, "%(levelno)05d 100%%", "%(created).3f",
			"%(nothing)s", "%(message)d", "%(message", "%", "%z", "%(levelno)x %(name)r", "%(created)x")
	case "when":
		return g.pick("midnight", "D", "h", "w0", "")
	default:
		return g.pick("some text", "x", "a $$ b", "1")
	}
}

func (g *generator) next() int {
	g.names++
	return g.names
}

// keys writes some of the keys of a section, each given as name:type, with ! in
// front if it is required.
func (g *generator) keys(b *strings.Builder, list ...string) {
	g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, k := range list {
		name, kind, _ := strings.Cut(k, ":")
		name, required := strings.CutPrefix(name, "!")
		if required && g.chance(2) || !required && g.chance(70) {
			continue
		}
		repeat := 1
		if g.chance(2) || name == "server" && g.chance(30) {
			repeat = 2
		}
		for range repeat {
			written := name
			if g.chance(10) {
				written = strings.ToUpper(name)
			}
			if g.chance(1) {
				written = g.pick(name+"x", strings.ReplaceAll(name, "-", "_"), "nonsense", "1"+name)
			}
			v := g.value(kind)
			if kind == "bool" && g.chance(2) {
				v = g.value("badbool")
			}
			fmt.Fprintf(b, "%s%s%s%s%s\n", g.pick("", "  ", "\t"), written, g.pick(" ", "  ", "\t"), v, g.pick("", " ", "\r"))
		}
	}
	if g.chance(5) {
		b.WriteString(g.pick("# a comment\n", "\n", "#\n", "  # path x\n", "foo(bar)\n", "(x)\n", "<\n", "%define b\n", "%define A b\n",
			"%define a b\n", "%DEFINE x y\n", "%define 1x y\n", "%foo\n", "%\n", "%include\n", "% define c d\n",
			"</\n", "<a b c>\n", "<>\n", "</>\n", "< zeo>\n", "%define dir /\n", "%define q(r) s\n"))
	}
}

func (g *generator) section(b *strings.Builder, kind string, body func()) {
	name := ""
	if g.chance(60) {
		name = fmt.Sprintf(" %s%d", g.pick("s", "S", ""), g.IntN(12)+1)
	}
	if g.chance(1) {
		name = g.pick(" *", " +", " 1", " (a)", " a b")
	}
	g.named(b, kind, name, body)
}

func (g *generator) named(b *strings.Builder, kind, name string, body func()) {
	if g.chance(5) {
		kind = strings.ToUpper(kind)
	}
	fmt.Fprintf(b, "<%s%s>\n", kind, name)
	body()
	end := kind
	if g.chance(1) {
		end = g.pick("zeo", "", " "+kind, kind+" ", "filestorage")
	}
	if !g.chance(1) {
		fmt.Fprintf(b, "</%s>\n", end)
	}
}

func (g *generator) storage(b *strings.Builder, depth int) {
	kinds := []string{"filestorage", "filestorage", "mappingstorage", "zeoclient", "demostorage", "blobstorage"}
	if depth == 0 {
		kinds = kinds[:4]
	}
	if g.chance(1) {
		kinds = []string{"filestorge", "logger", "eventlog", "zodb"}
	}
	kind := g.pick(kinds...)
	g.section(b, kind, func() {
		switch kind {
		case "filestorage":
			g.keys(b, "!path:path", "blob-dir:path", "create:bool", "read-only:bool", "quota:size", "pack-gc:bool", "pack-keep-old:bool")
		case "mappingstorage":
			g.keys(b, "name:text")
		case "zeoclient":
			g.keys(b, "!server:connect", "blob-dir:path2", "shared-blob-dir:bool", "blob-cache-size:size",
				"blob-cache-size-check:int", "storage:text", "cache-size:size", "name:text", "client:text", "var:text",
				"min-disconnect-poll:int", "max-disconnect-poll:int", "wait:bool", "read-only:bool", "read-only-fallback:bool",
				"username:text", "drop-cache-rather-verify:bool", "client-label:text")
		case "blobstorage":
			g.keys(b, "!blob-dir:text")
			g.storage(b, depth-1)
			if g.chance(5) {
				g.storage(b, depth-1)
			}
		case "demostorage":
			g.keys(b, "name:text")
			if g.chance(70) {
				g.storage(b, depth-1)
			}
			if g.chance(30) {
				g.named(b, "mappingstorage", " changes", func() {})
			}
			if g.chance(5) {
				g.storage(b, depth-1)
			}
		}
	})
}

func (g *generator) file() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%%define dir %s\n%%define a b\n", g.dir)
	parts := []func(){
		func() {
			g.named(&b, "zeo", g.pick("", "", "", " 1", " zeo"), func() {
				g.keys(&b, "!address:bind", "read-only:bool", "invalidation-queue-size:int", "invalidation-age:float",
					"transaction-timeout:int", "pid-filename:path", "client-conflict-resolution:bool", "msgpack:bool")
				if g.chance(5) {
					g.named(&b, "ssl", "", func() {
						b.WriteString(g.pick("certificate $dir/cert.pem\n", "certificate $dir/key.pem\n", "",
							"certificate $dir/cert.pem\n"))
						b.WriteString(g.pick("key $dir/key.pem\n", "key $dir/key.pem\n", "", "key $dir/none.pem\n"))
						b.WriteString(g.pick("authenticate $dir/cert.pem\n", "authenticate DYNAMIC\n", "", "authenticate $dir/none\n"))
					})
				}
			})
		},
		func() { g.storage(&b, 2) },
	}
	if g.chance(1) {
		parts = parts[g.IntN(2):][:1]
	}
	for range g.IntN(3) {
		if g.chance(50) {
			parts = append(parts, func() { g.storage(&b, 2) })
		}
	}
	if g.chance(30) {
		parts = append(parts, func() { g.eventLog(&b) })
	}
	if g.chance(10) {
		parts = append(parts, func() { b.WriteString("<runner>\nprogram a b\n</runner>\n") })
	}
	if g.chance(1) {
		parts = append(parts, parts[0])
	}
	g.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	for _, p := range parts {
		p()
	}
	return b.String()
}

func (g *generator) eventLog(b *strings.Builder) {
	g.section(b, "eventlog", func() {
		g.keys(b, "level:level")
		for range g.IntN(3) {
			g.section(b, "logfile", func() {
				fmt.Fprintf(b, "path %s\n", g.pick("STDOUT", "STDERR", "$dir/log", "$dir/log", "$dir/log"))
				list := []string{"level:level", "format:format", "dateformat:text", "delay:bool"}
				if g.chance(30) {
					list = append(list, "old-files:int", "max-size:size", "when:when", "interval:int")
				}
				g.keys(b, list...)
			})
		}
	})
}

// handWritten are files about one question each. They stand in dir.
func handWritten(dir string) []string {
	good := "<zeo>\naddress 1\n</zeo>\n<mappingstorage/>\n"
	include := filepath.Join(dir, "included")
	if err := os.WriteFile(include, []byte("%define inner 2\n<mappingstorage $x/>\nquota 5mb\n"), 0o644); err != nil {
		panic(err)
	}
	for name, text := range map[string]string{
		"keys": "quota 5mb\n%define later /tmp/y\n", "open": "<mappingstorage>\n", "close": "</filestorage>\n",
		"self": "%include self\n", "storage": "<mappingstorage 7/>\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			panic(err)
		}
	}
	inFile := func(line string) string {
		return "<zeo>\naddress 1\n</zeo>\n<filestorage>\npath " + dir + "/x\n" + line + "\n</filestorage>\n"
	}
	return []string{
		"", "# nothing\n", good, strings.TrimSuffix(good, "\n"), "<zeo/>\n<mappingstorage/>\n",
		good + "%include storage\n", good + "%include " + dir + "/storage\n", good + "%include file://" + dir + "/storage\n",
		good + "%include none\n", good + "%include open\n", good + "%include close\n", good + "%include self\n",
		inFile("%include keys"), inFile("%include keys\nblob-dir $later"), inFile("%include keys\nquota 1"),
		inFile("%include close"), inFile("path y"), inFile("PATH y"), inFile("read-only"), inFile("pack-gc"),
		inFile("quota 1 KB"), inFile("quota KB"), inFile("quota 1.5MB"), inFile("quota 10M"), inFile("quota 1_KB"),
		inFile("blob-dir"), inFile("packer"), inFile("packer a.b"), inFile("packer $$x"), inFile("blob-dir ~/b"),
		inFile("blob-dir ~nosuchuser/b"), inFile("blob-dir ~"), inFile("blob-dir b/"), inFile("blob-dir /"),
		good + "<mappingstorage 1/>\n", good + "<mappingstorage/>\n", good + "<mappingstorage A/>\n<mappingstorage a/>\n",
		good + "<mappingstorage a/ >\n", good + "<mappingstorage 2 />\n", good + "<mappingstorage\t2/>\n", good + "< />\n",
		good + "<//>\n", good + "</ zeo>\n", good + "%import nothing.such\n<nothing/>\n", good + "address 5\n",
		good + "%define x $x\n", good + "%define x\n%define x\n", good + "%define x $$\n%define x $$\n",
		good + "%define x a\n%define X a\n", good + "%define x.y a\n", good + "%define  x   a b  \n<mappingstorage 2>\nname $x\n</mappingstorage>\n",
		good + "<mappingstorage 2>\nname $(HOME)x\n</mappingstorage>\n", good + "<mappingstorage 2>\nname $home\n</mappingstorage>\n",
		good + "<mappingstorage 2>\nname $$a$$$$\n</mappingstorage>\n", good + "<mappingstorage 2>\nname a$\n</mappingstorage>\n",
		good + "<mappingstorage 2>\nname a # b\n</mappingstorage>\n", good + "<mappingstorage 2>\nname \"a\"\n</mappingstorage>\n",
		good + "<mappingstorage 2>\nname\u00a0a\n</mappingstorage>\n", good + "<mappingstorage 2>\nname\x1fa\x1c\n</mappingstorage>\n",
		good + "<mappingstorage 2>\nname(a)\n</mappingstorage>\n", good + "\xff\n", strings.ReplaceAll(good, "\n", "\r\n"),
		good + "<fullstorage 2>\nenvdir x\n</fullstorage>\n", good + "<eventlog/>\n", good + "<eventlog>\n<logfile/>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath STDOUT\nencoding utf-8\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath l\nencoding utf-8\nold-files 2\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath l\nwhen d\nold-files 2\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath l\ninterval 3\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath l\nstyle nice\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath l\nformat %(message)s %(foo)s\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath l\nformat %s\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n<logfile>\npath STDERR\n</logfile>\n<logfile>\npath STDERR\n</logfile>\n</eventlog>\n",
		good + "<eventlog>\n</eventlog>\n<eventlog>\n</eventlog>\n",
	}
}

// writeTestCertificate writes a certificate that is its own issuer, and its key.
func writeTestCertificate(t *testing.T, certFile, keyFile string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
