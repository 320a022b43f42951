package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite/server/filestorage"
)

const checkHelp = `Check a Data.fs: every transaction, record, pointer and reference, the saved
index, and with -b every blob. Nothing is changed, and a server may have the file
open meanwhile.

  zeolite check var/Data.fs -b var/blobs

Each finding says where it is (the byte in the file), what is wrong, whether data
is lost, and what to do. There are three kinds:

  note      normal: what a crash leaves at the end of the file
  warning   odd, but nothing that was committed is affected
  damage    something that readers of the database will meet: bytes that are not
            what they should be, an object that others refer to but that does not
            exist, a blob without its file

FileStorage has no checksums: a byte that changed inside an object's pickle is
noticed only if the pickle is no longer well-formed. To find such changes, compare
with a backup: zeolite copy compares everything.

If there is damage: copy Data.fs, its index and the blobs away before anything
else, and do not pack. The newest backup, and what was committed since then, are
the way back; "zeolite log" and "zeolite load" show what is still there.

It reads the file twice. Memory is about 20 bytes for each object.

The exit code is 0 if there is no damage, 1 if there is, or if the file cannot be
read, and 2 for a wrong command line.
`

func check(args []string) error {
	fs := newFlags("check", checkHelp)
	blobs := fs.String("b", "", "check the blobs in `DIR` too")
	most := fs.Int("max", 100, "print at most `N` findings; all are counted")
	quiet := fs.Bool("q", false, "print nothing but findings")
	rest, err := fs.parseMixed(args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return &usageError{"give the path of a Data.fs"}
	}
	if *most < 1 {
		return &usageError{"--max must be positive"}
	}
	ctx, stop := interruptible()
	defer stop()
	bar, printed, start := newProgress(), 0, time.Now()
	report, err := filestorage.Check(ctx, rest[0], filestorage.CheckOptions{
		BlobDir:     *blobs,
		MaxFindings: 1,
		Progress: func(phase string, done, total int64) {
			unit := byteCount
			if phase == "blobs" {
				unit = plainCount
			}
			bar.bar(phase, done, total, unit)
		},
		Found: func(f filestorage.Finding) {
			if printed++; printed <= *most {
				bar.clear()
				fmt.Printf("%v\n    %s\n", f, wrapped(f.Advice, 76))
			}
		},
	})
	bar.clear()
	if printed > *most {
		fmt.Printf("... and %d more\n", printed-*most)
	}
	if err != nil {
		return err
	}
	if !*quiet {
		describeReport(report, *blobs != "", time.Since(start))
	}
	if report.Damages > 0 {
		return errDamage
	}
	return nil
}

var errDamage = errors.New("the database is damaged")

func describeReport(r *filestorage.Report, blobs bool, took time.Duration) {
	fmt.Printf("%d transactions, %d records, %d objects, %s", r.Transactions, r.Records, r.Objects, byteCount(r.Bytes))
	switch {
	case blobs:
		fmt.Printf(", %d of %d blobs", r.BlobFiles, r.Blobs)
	case r.Blobs > 0:
		fmt.Printf("; %d blobs, whose files were not checked: -b says where they are", r.Blobs)
	}
	if r.LastTID != 0 {
		fmt.Printf("\nlast transaction %v, %s UTC", r.LastTID, r.LastTID.Time().Format(time.DateTime))
	}
	fmt.Printf("\n%d damages, %d warnings, %d notes, in %v\n", r.Damages, r.Warnings, r.Notes, took.Round(time.Millisecond))
	if r.Damages == 0 {
		fmt.Fprintln(os.Stdout, "The database is good.")
	}
}

// wrapped breaks a text into lines, those after the first indented.
func wrapped(text string, width int) string {
	var b strings.Builder
	n := 0
	for word := range strings.FieldsSeq(text) {
		if n > 0 && n+1+len(word) > width {
			b.WriteString("\n    ")
			n = 0
		} else if n > 0 {
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += len(word)
	}
	return b.String()
}
