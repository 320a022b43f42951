package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zeolite-go/zeolite/server/config"
)

// rotation says when a log file is moved aside, and where to: as the handlers of
// Python's logging do, so that old files of either are found and removed by the
// other. It is used with the lock of its logFile held.
type rotation interface {
	// due says whether an entry of n bytes at the time now belongs to another
	// file than this one.
	due(file fs.FileInfo, n int, now time.Time) bool
	// rotate moves the file at path aside, if there is one, and removes old
	// ones that are too many.
	rotate(path string, now time.Time) error
}

// newRotation returns what a <logfile> section says, nil if it is not rotated.
func newRotation(spec config.LogFile, now time.Time) rotation {
	switch {
	case spec.OldFiles == 0:
		return nil
	case spec.MaxSize > 0:
		return &rotateBySize{max: spec.MaxSize, keep: spec.OldFiles}
	case spec.When != "":
		r := &rotateByTime{when: spec.When, interval: max(1, spec.Interval), keep: spec.OldFiles}
		// A file that a process before us left goes on with its interval.
		if st, err := os.Stat(spec.Path); err == nil {
			now = st.ModTime()
		}
		r.at = r.next(now)
		return r
	}
	return nil
}

// rotateBySize begins a new file before one has max bytes, and keeps old ones
// as PATH.1, the latest, PATH.2 and so on.
type rotateBySize struct {
	max  int64
	keep int
}

func (r *rotateBySize) due(file fs.FileInfo, n int, _ time.Time) bool {
	return file.Size() > 0 && file.Size()+int64(n) >= r.max
}

func (r *rotateBySize) rotate(path string, _ time.Time) error {
	old := func(i int) string { return fmt.Sprintf("%s.%d", path, i) }
	for i := r.keep - 1; i > 0; i-- {
		if err := move(old(i), old(i+1)); err != nil {
			return err
		}
	}
	return move(path, old(1))
}

// move renames a file, if there is one.
func move(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// rotateByTime begins a new file whenever interval times when have passed, and
// keeps old ones as PATH.TIME with the time when they began.
type rotateByTime struct {
	when     string // as in config.LogFile
	interval int
	keep     int
	at       time.Time // when the file is full
}

// unit is the duration of seconds, minutes, hours and days since the file began,
// and 0 for those that end with the calendar day.
func (r *rotateByTime) unit() time.Duration {
	return map[string]time.Duration{"S": time.Second, "M": time.Minute, "H": time.Hour, "D": 24 * time.Hour}[r.when]
}

// days is how many calendar days a file is for, if it ends with one.
func (r *rotateByTime) days() int {
	if r.when == "MIDNIGHT" {
		return r.interval
	}
	return 7 * r.interval // W0 to W6
}

// next returns when a file is full that begins now.
func (r *rotateByTime) next(now time.Time) time.Time {
	now = now.Local()
	if unit := r.unit(); unit > 0 {
		return now.Add(time.Duration(r.interval) * unit)
	}
	days := r.days()
	if r.when != "MIDNIGHT" {
		// The first week ends with the day that is named: 0 is Monday.
		day := int(now.Weekday()+6) % 7
		days += (int(r.when[1]-'0')-day+7)%7 + 1 - 7
	}
	return time.Date(now.Year(), now.Month(), now.Day()+days, 0, 0, 0, 0, time.Local)
}

// began returns when the file began that is full at r.at.
func (r *rotateByTime) began() time.Time {
	if unit := r.unit(); unit > 0 {
		return r.at.Add(-time.Duration(r.interval) * unit)
	}
	return r.at.AddDate(0, 0, -r.days())
}

func (r *rotateByTime) due(_ fs.FileInfo, _ int, now time.Time) bool { return !now.Before(r.at) }

// layout is how the time in a name is written.
func (r *rotateByTime) layout() string {
	return cmp.Or(map[string]string{
		"S": "2006-01-02_15-04-05", "M": "2006-01-02_15-04", "H": "2006-01-02_15",
	}[r.when], "2006-01-02")
}

func (r *rotateByTime) rotate(path string, now time.Time) error {
	// Python overwrites a file of the same name, as after a SIGUSR2.
	name := path + "." + r.began().Format(r.layout())
	to := name
	for i := 1; exists(to); i++ {
		to = fmt.Sprintf("%s.%d", name, i)
	}
	if err := move(path, to); err != nil {
		return err
	}
	r.at = r.next(now)
	return r.removeOld(path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeOld removes the oldest files until no more than keep are left.
func (r *rotateByTime) removeOld(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok {
			continue
		}
		stamp, _, _ := strings.Cut(rest, ".")
		if _, err := time.Parse(r.layout(), stamp); err == nil {
			old = append(old, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(old)
	for _, name := range old[:max(0, len(old)-r.keep)] {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}
