package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestErrors holds the exact text of what people are told. Each text starts
// with "zeo.conf:" and the line unless it names another file; zeo stands for a
// good <zeo> section in lines 1 to 3.
func TestErrors(t *testing.T) {
	const zeo, fs = zeoSection, "<filestorage>\n path x\n"
	files := map[string]string{
		"loop":  "%include loop2\n",
		"loop2": "%include loop\n",
		"open":  "<filestorage>\n",
		"bad":   "\npath x\nnonsense y\n",
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "",
			"zeo.conf: section <zeo> is missing\n" +
				"zeo.conf: no storage; accepted: <filestorage>, <blobstorage>, <mappingstorage>, <demostorage>, <zeoclient>, <clientstorage>, <serverzlibstorage>"},
		{"all at once, in order", "<filestorage>\n pth x\n quota 10M\n</filestorage>\n<zeo>\n adress 1\n read_only yes\n</zeo>\n",
			"zeo.conf:1: <filestorage>: path is missing\n" +
				`zeo.conf:2: <filestorage>: unknown key "pth" (did you mean "path"?); accepted: blob-dir, create, pack-gc, pack-keep-old, packer, path, quota, read-only` + "\n" +
				`zeo.conf:3: <filestorage>: quota "10M": want a whole number of bytes, or one followed by KB, MB or GB` + "\n" +
				"zeo.conf:5: <zeo>: address is missing\n" +
				`zeo.conf:6: <zeo>: unknown key "adress" (did you mean "address"?); accepted: ` + zeoKeys + "\n" +
				`zeo.conf:7: <zeo>: unknown key "read_only" (did you mean "read-only"?); accepted: ` + zeoKeys},

		// Sections.
		{"section misspelt", zeo + "<filestorge>\n</filestorge>\n",
			`zeo.conf:4: unknown section <filestorge> (did you mean "filestorage"?); accepted: <blobstorage>, <clientstorage>, <demostorage>, <eventlog>, <filestorage>, <mappingstorage>, <runner>, <serverzlibstorage>, <zeo>, <zeoclient>`},
		{"section within another", zeo + fs + " <eventlog/>\n</filestorage>\n",
			"zeo.conf:6: section <eventlog>: <filestorage> has no sections"},
		{"section in the wrong place", "<zeo>\n address 1\n <mappingstorage/>\n</zeo>\n<mappingstorage/>\n",
			"zeo.conf:3: unknown section <mappingstorage> in <zeo>; accepted in <zeo>: <ssl>"},
		{"section not supported", zeo + "<zlibstorage>\n<mappingstorage/>\n</zlibstorage>\n",
			"zeo.conf:4: section <zlibstorage> is not supported: with it the server compresses and inflates records; let clients do that, by <zlibstorage> around their storage, and write <serverzlibstorage> here"},
		{"serverzlibstorage of nothing", zeo + "<serverzlibstorage/>\n",
			"zeo.conf:4: <serverzlibstorage>: the storage within it is missing"},
		{"serverzlibstorage of two", zeo + "<serverzlibstorage>\n compress maybe\n<mappingstorage a/>\n<mappingstorage b/>\n</serverzlibstorage>\n",
			`zeo.conf:5: <serverzlibstorage>: compress "maybe": want yes, true, on, no, false or off` + "\n" +
				"zeo.conf:7: <mappingstorage b>: there can be one storage within <serverzlibstorage> only"},
		{"two servers", zeo + good,
			"zeo.conf:4: <zeo>: there can be one <zeo> only, and <zeo> is in line 1"},
		{"same name", good + "<mappingstorage a/>\n<mappingstorage A/>\n",
			"zeo.conf:6: <mappingstorage a>: <mappingstorage a> of line 5 has the same name"},
		{"two without name", good + "<demostorage/>\n",
			"zeo.conf:5: <demostorage>: one storage at most may have no name, and the one in line 4 has none (write <demostorage 2>)"},
		{"without name and 1", good + "<mappingstorage 1/>\n",
			"zeo.conf:4: <mappingstorage>: a storage without name is called 1, and so is <mappingstorage 1> of line 5"},
		{"same files", zeo + "<filestorage 1>\n path a/x\n blob-dir b\n</filestorage>\n<demostorage 2>\n <filestorage>\n path a//x\n blob-dir ./b\n </filestorage>\n</demostorage>\n",
			"zeo.conf:9: path \"a//x\" is used by the storage in zeo.conf:4 already\n" +
				"zeo.conf:9: blob-dir \"./b\" is used by the storage in zeo.conf:4 already"},
		{"bases", zeo + "<demostorage>\n<mappingstorage/>\n<mappingstorage b/>\n</demostorage>\n",
			"zeo.conf:6: <mappingstorage b>: <demostorage> has a base in line 5 already (the storage for changes is the one named changes)"},
		{"blobstorage of nothing", zeo + "<blobstorage>\n blob-dir x\n</blobstorage>\n",
			"zeo.conf:4: <blobstorage>: the storage within it is missing"},
		{"blobstorage of two", zeo + "<blobstorage>\n blob-dir x\n<mappingstorage a/>\n<mappingstorage b/>\n</blobstorage>\n",
			"zeo.conf:7: <mappingstorage b>: there can be one storage within <blobstorage> only"},
		{"blobstorage of others", zeo + "<blobstorage 1>\n blob-dir x\n<demostorage/>\n</blobstorage>\n<blobstorage 2>\n blob-dir y\n<zeoclient>\n server h:1\n</zeoclient>\n</blobstorage>\n",
			"zeo.conf:6: <demostorage>: <blobstorage 1> goes around <filestorage> or <mappingstorage> only\n" +
				"zeo.conf:10: <zeoclient>: <blobstorage 2> goes around <filestorage> or <mappingstorage> only"},
		{"two places for blobs", zeo + "<blobstorage>\n blob-dir x\n" + fs + " blob-dir y\n</filestorage>\n</blobstorage>\n",
			"zeo.conf:6: <filestorage>: it and the <blobstorage> around it both have a blob-dir"},
		{"changes at another server", zeo + "<demostorage>\n<mappingstorage/>\n<clientstorage changes>\n server h:1\n</clientstorage>\n</demostorage>\n",
			"zeo.conf:6: <clientstorage changes>: the changes of <demostorage> cannot be kept by another server"},
		{"no server trusted", zeo + "<clientstorage>\n server h:1\n <ssl>\n certificate c\n authenticate DYNAMIC\n </ssl>\n</clientstorage>\n",
			"zeo.conf:8: <ssl>: authenticate \"DYNAMIC\": it trusts no server at all, unless a Python program adds certificates; " +
				"name a file or a directory with the certificates of servers, or of their issuers"},

		// Keys.
		{"key outside", good + "address 5\nfoo bar\n",
			"zeo.conf:5: key \"address\" outside of any section (address is a key of <zeo>)\n" +
				"zeo.conf:6: key \"foo\" outside of any section"},
		{"key of another section", zeo + fs + " transaction-timeout 5\n</filestorage>\n",
			`zeo.conf:6: <filestorage>: unknown key "transaction-timeout" (it is a key of <zeo>); accepted: blob-dir, create, pack-gc, pack-keep-old, packer, path, quota, read-only`},
		{"key given twice", zeo + fs + " PATH y\n</filestorage>\n",
			"zeo.conf:6: <filestorage>: path is given twice, first in line 5"},
		{"no value", zeo + "<filestorage>\n path\n</filestorage>\n",
			`zeo.conf:5: <filestorage>: path "": a value is missing`},
		{"packer", zeo + fs + " packer zc.FileStorage.PACKER\n</filestorage>\n",
			"zeo.conf:6: <filestorage>: packer is not supported: it names Python code; leave it out, and set pack-gc no if that packer collected no garbage"},
		{"password-function", "<zeo>\n address 1\n <ssl>\n certificate c\n password-function a.b\n authenticate DYNAMIC\n </ssl>\n</zeo>\n<mappingstorage/>\n",
			"zeo.conf:5: <ssl>: password-function is not supported: it names a Python function; use a key file without a password\n" +
				"zeo.conf:6: <ssl>: authenticate \"DYNAMIC\": it trusts no client at all, unless a Python program adds certificates; " +
				"name a file or a directory with the certificates of clients, or of their issuers"},
		{"contradictions", zeo + fs + " create yes\n read-only yes\n</filestorage>\n<zeoclient 2>\n server h:1\n read-only yes\n read-only-fallback yes\n</zeoclient>\n",
			"zeo.conf:4: <filestorage>: create and read-only contradict each other\n" +
				"zeo.conf:9: <zeoclient 2>: read-only and read-only-fallback contradict each other"},

		// Values.
		{"boolean", zeo + fs + " create 1\n</filestorage>\n",
			`zeo.conf:6: <filestorage>: create "1": want yes, true, on, no, false or off`},
		{"address", "<zeo>\n address localhost:ssh\n</zeo>\n<mappingstorage/>\n",
			`zeo.conf:2: <zeo>: address "localhost:ssh": want port, host:port, [IPv6]:port, or the path of a Unix socket with a / in it (ports are 0 to 65535)`},
		{"large port", "<zeo>\n address 81000\n</zeo>\n<mappingstorage/>\n",
			`zeo.conf:2: <zeo>: address "81000": neither a port, 0 to 65535, nor a host name`},
		{"server without port", zeo + "<zeoclient>\n server localhost\n</zeoclient>\n",
			`zeo.conf:5: <zeoclient>: server "localhost": the port is missing`},
		{"numbers", "<zeo>\n address 1\n transaction-timeout 0\n invalidation-age nan\n invalidation-queue-size 1.5\n</zeo>\n<mappingstorage/>\n",
			"zeo.conf:3: <zeo>: transaction-timeout \"0\": want at least 1\n" +
				"zeo.conf:4: <zeo>: invalidation-age \"nan\": want 0 to 2147483647 seconds\n" +
				"zeo.conf:5: <zeo>: invalidation-queue-size \"1.5\": want a whole number"},
		{"level", good + "<eventlog>\n level verbose\n</eventlog>\n",
			`zeo.conf:6: <eventlog>: level "verbose": want critical, error, warning, info, blather, debug, trace, all, notset, or 0 to 50`},
		{"log format", good + "<eventlog>\n<logfile>\n path x\n format %(mesage)s\n</logfile>\n</eventlog>\n",
			`zeo.conf:8: <logfile>: format: unknown field "mesage" (did you mean "message"?); accepted: asctime, created, filename, funcName, levelname, levelno, lineno, message, module, msecs, name, pathname, process, processName, relativeCreated, thread, threadName`},
		{"log conversion", good + "<eventlog>\n<logfile>\n path x\n format %(message)d\n</logfile>\n</eventlog>\n",
			`zeo.conf:8: <logfile>: format: field message cannot be shown as "%(message)…d"`},
		{"rotation", good + "<eventlog>\n<logfile>\n path x\n max-size 1MB\n</logfile>\n<logfile>\n path STDOUT\n old-files 2\n</logfile>\n</eventlog>\n",
			"zeo.conf:6: <logfile>: max-size, when and interval need old-files, the number of old files to keep\n" +
				"zeo.conf:10: <logfile>: old-files, max-size, when, delay and encoding do not go with path STDOUT"},

		// Syntax.
		{"never closed", "<zeo>\n address 1\n<mappingstorage/>\n",
			"zeo.conf:1: <zeo> is never closed: </zeo> is missing"},
		{"closed wrongly", "<zeo>\n address 1\n</zoe>\n<mappingstorage/>\n",
			"zeo.conf:3: </zoe> cannot close <zeo> of line 1"},
		{"outer closed", "<demostorage>\n<filestorage>\n</demostorage>\n<zeo>\n</zeo>\n",
			"zeo.conf:3: </demostorage> cannot close <filestorage> of line 2"},
		{"closes nothing", good + "</zeo>\n",
			"zeo.conf:5: </zeo> closes nothing: no section is open here"},
		{"malformed", "<zeo\n<a b c>\n</a\n",
			"zeo.conf:1: a section start ends with \">\": \"<zeo\"\n" +
				"zeo.conf:2: a section starts with <type> or <type name>, not \"<a b c>\"\n" +
				"zeo.conf:3: a section end ends with \">\": \"</a\"\n" +
				"zeo.conf:3: </a> closes nothing: no section is open here"},
		{"not a key", good + "(what)\n", `zeo.conf:5: not a key and a value: "(what)"`},
		{"not UTF-8", good + "# \xff\n", "zeo.conf:5: not UTF-8"},
		{"directive", good + "%inclde x\n%include\n",
			"zeo.conf:5: unknown directive \"%inclde\" (did you mean \"include\"?); accepted: %define, %import, %include\n" +
				"zeo.conf:6: %include lacks its argument"},
		{"define", good + "%define a b\n%define A c\n%define b-c d\n",
			"zeo.conf:6: %define a: already defined as \"b\"\n" +
				"zeo.conf:7: %define \"b-c\": a name has letters, digits and _ only, and no digit first"},
		{"substitution", "%define home /x\n" + zeo + "<filestorage>\n path $hom/y\n blob-dir ${home\n quota $(NOTHING)\n packer $\n</filestorage>\n",
			"zeo.conf:6: $hom: hom is not defined (did you mean \"home\"?)\n" +
				"zeo.conf:7: \"${home\" is neither $name, ${name}, $(NAME) nor $$ (write $$ for a dollar sign)\n" +
				"zeo.conf:8: $(NOTHING): the environment has no NOTHING\n" +
				"zeo.conf:9: \"$\" is neither $name, ${name}, $(NAME) nor $$ (write $$ for a dollar sign)"},

		// Includes.
		{"include missing", good + "%include none\n", "zeo.conf:5: %include: open none: file does not exist"},
		{"include remote", good + "%include https://example.com/x\n",
			`zeo.conf:5: %include "https://example.com/x": only local files can be included`},
		{"include unclosed", good + "%include open\n", "open:1: <filestorage> is never closed: </filestorage> is missing"},
		{"error in included file", zeo + "<filestorage>\n%include bad\n quota -1\n</filestorage>\n",
			"zeo.conf:6: <filestorage>: quota \"-1\": want at least 1\n" +
				`bad:3: <filestorage>: unknown key "nonsense"; accepted: blob-dir, create, pack-gc, pack-keep-old, packer, path, quota, read-only`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := filesLoader(files).Parse("zeo.conf", strings.NewReader(tt.text))
			if err == nil {
				t.Fatal("accepted")
			}
			if c != nil {
				t.Error("a configuration beside the error")
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

const zeoKeys = "address, client-conflict-resolution, invalidation-age, invalidation-queue-size, msgpack, pid-filename, read-only, transaction-timeout"

func TestErrorsAs(t *testing.T) {
	_, err := Parse("x.conf", strings.NewReader("<zeo>\n"))
	var one *Error
	var all Errors
	if !errors.As(err, &one) || one.Pos.File != "x.conf" || one.Pos.Line != 1 {
		t.Errorf("no *Error with a position in %#v", err)
	}
	if !errors.As(err, &all) || len(all) != 1 {
		t.Errorf("no Errors in %#v", err)
	}
}

// TestLimits has each limit reached, and just not reached.
func TestLimits(t *testing.T) {
	files := map[string]string{"empty": "", "a": "%include b\n", "b": "%include c\n", "c": ""}
	nested := "<demostorage>\n<demostorage>\n<mappingstorage/>\n</demostorage>\n</demostorage>\n"
	double := zeoSection + "%define a 0123456789\n%define b $a$a\n%define c $b$b\n<mappingstorage/>\n"
	faulty := strings.Repeat("x y\n", 5)
	for _, tt := range []struct {
		name, text string
		limits     Limits
		want       string // "" for none
	}{
		{"bytes reached", good, Limits{FileBytes: int64(len(good))}, ""},
		{"bytes", good + "#", Limits{FileBytes: int64(len(good))}, fmt.Sprintf("zeo.conf: larger than %d bytes", len(good))},
		{"files reached", good + "%include empty\n%include empty\n", Limits{Files: 3}, ""},
		{"files", good + "%include empty\n%include empty\n", Limits{Files: 2}, `zeo.conf:6: %include "empty": more than 2 files`},
		{"includes reached", good + "%include a\n", Limits{IncludeDepth: 3}, ""},
		{"includes", good + "%include a\n", Limits{IncludeDepth: 2}, `b:1: %include "c": files include each other deeper than 2`},
		{"sections reached", zeoSection + nested, Limits{SectionDepth: 3}, ""},
		{"sections", zeoSection + nested, Limits{SectionDepth: 2}, "zeo.conf:6: <mappingstorage>: sections are nested deeper than 2"},
		// 1 for the address, 10, 20 and 40.
		{"values reached", double, Limits{ExpandedBytes: 71}, ""},
		{"values", double, Limits{ExpandedBytes: 70}, "zeo.conf:6: the values of the configuration exceed 70 bytes"},
		{"errors", good + faulty, Limits{Errors: 2}, "zeo.conf:5: key \"x\" outside of any section\n" +
			"zeo.conf:6: key \"x\" outside of any section\nzeo.conf:6: and 3 more errors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := filesLoader(files)
			l.Limits = tt.limits
			_, err := l.Parse("zeo.conf", strings.NewReader(tt.text))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestIncludeLoop(t *testing.T) {
	files := map[string]string{"zeo.conf": good + "%include sub/a\n", "sub/a": "%include ../zeo.conf\n"}
	_, err := filesLoader(files).Load("zeo.conf")
	if err == nil || !strings.HasPrefix(err.Error(), `sub/a:1: %include "../zeo.conf": includes itself: `) {
		t.Errorf("got %v", err)
	}
}

func TestSuggest(t *testing.T) {
	words := []string{"address", "read-only", "transaction-timeout", "path"}
	for _, tt := range []struct{ word, want string }{
		{"addres", "address"}, {"adderss", "address"}, {"readonly", "read-only"}, {"timeout", "transaction-timeout"},
		{"paht", "path"}, {"pat", "path"}, {"port", ""}, {"x", ""}, {strings.Repeat("path", 20), ""},
	} {
		want := ""
		if tt.want != "" {
			want = fmt.Sprintf(" (did you mean %q?)", tt.want)
		}
		if got := suggest(tt.word, words); got != want {
			t.Errorf("%s: got %q, want %q", tt.word, got, want)
		}
	}
}

// TestLargeFaultyFiles reads files of about the largest size with the same
// mistake in each line. The effort for a line must not grow with the file: where
// it did, this took minutes instead of about a second.
func TestLargeFaultyFiles(t *testing.T) {
	var defines, uses strings.Builder
	for i := range 15000 {
		fmt.Fprintf(&defines, "%%define a%d b\n", i)
	}
	for i := range 40000 {
		fmt.Fprintf(&uses, "x $zz%d\n", i)
	}
	for name, text := range map[string]string{
		"undefined names": defines.String() + uses.String(),
		"large values":    "%define a " + strings.Repeat("x", 500000) + "\n" + strings.Repeat("x $a$a$a$a\n", 40000),
		"unknown keys":    "<zeo>\n" + strings.Repeat("adress x\n", 90000) + "</zeo>",
		"sections":        strings.Repeat("<mappingstorage/>\n", 50000),
		"never closed":    strings.Repeat("<a>\n", 200000),
		"closed wrongly":  strings.Repeat("<a>\n<b>\n", 8) + strings.Repeat("</a>\n", 100000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("zeo.conf", strings.NewReader(text))
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatal(err)
			}
			last := errs[len(errs)-1].Message
			if len(errs) != 101 || !strings.HasPrefix(last, "and ") {
				t.Errorf("%d errors, the last: %s", len(errs), last)
			}
		})
	}
}
