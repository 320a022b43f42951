// Filestorage measures zeolite's FileStorage beside Python's, on the same
// generated Data.fs: opening it without an index, iterating over all of it, and
// packing it.
//
//	go run ./tests/bench/filestorage            1 GiB
//	go run ./tests/bench/filestorage -quick     128 MiB
//
// Each measurement is a process of its own, so that its peak memory is known,
// and the two sides take turns, so that both meet the same machine. Seconds are
// those of the work itself, without the start of the process.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
)

type options struct {
	size   int64
	runs   int
	python string
	dir    string
}

func main() {
	var o options
	mebibytes := flag.Int64("size", 1024, "size of Data.fs in `MiB`")
	quick := flag.Bool("quick", false, "128 MiB")
	flag.IntVar(&o.runs, "runs", 3, "runs of each side")
	flag.StringVar(&o.python, "python", "tests/.venv/bin/python", "a Python that has ZODB")
	flag.StringVar(&o.dir, "dir", "", "make the files in `DIR` (default: a temporary directory); three times their size is needed")
	do := flag.String("do", "", "only do `WHAT` to the file given: generate, open, iterate or pack")
	profile := flag.String("cpuprofile", "", "with -do: write a CPU profile to `FILE`")
	flag.Parse()
	if *do == "generate" {
		stats, err := generate(flag.Arg(0), *mebibytes<<20)
		fmt.Println(stats)
		exit(err)
		return
	}
	if *do != "" {
		exit(profiled(*profile, func() error { return work(*do, flag.Arg(0)) }))
		return
	}
	if *quick {
		*mebibytes = 128
	}
	o.size = *mebibytes << 20
	exit(o.run())
}

// profiled runs f, with a profile of it in a file if one is named.
func profiled(name string, f func() error) error {
	if name == "" {
		return f()
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "filestorage:", err)
		os.Exit(1)
	}
}

func (o *options) run() error {
	if abs, err := filepath.Abs(o.python); err == nil && filepath.Base(o.python) != o.python {
		o.python = abs
	}
	dir, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "Data.fs")
	// In a process of its own: the peak memory of a process counts what its
	// parent had when it began.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-size", fmt.Sprint(o.size>>20), "-do", "generate", path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%v: %w", cmd.Args, err)
	}
	stats := strings.TrimSpace(string(out))
	fmt.Printf("%s, %d CPUs. Data.fs: %s\n\n", runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), stats)
	fmt.Printf("%-8s %22s %22s %8s %16s\n", "", "zeolite", "Python", "faster", "memory")
	for _, what := range []string{"open", "iterate", "pack"} {
		if err := o.compare(what, path); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// result is what one run took.
type result struct {
	seconds float64
	memory  int64 // peak, in KiB
	answer  int64 // what must be the same on both sides
}

// compare runs both sides in turns and prints the medians.
func (o *options) compare(what, path string) error {
	script, err := o.script()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var results [2][]result
	for range o.runs {
		for side := range results {
			at, err := prepare(what, path)
			if err != nil {
				return err
			}
			args := []string{self, "-do", what, at}
			if side == 1 {
				args = []string{o.python, script, what, at}
			}
			r, err := measure(args)
			if err != nil {
				return err
			}
			results[side] = append(results[side], r)
		}
	}
	ours, theirs := median(results[0]), median(results[1])
	fmt.Printf("%-8s %9.3f s %7.0f MiB %9.3f s %7.0f MiB %7.1fx %11.0f%%\n", what, ours.seconds, mib(ours.memory), theirs.seconds,
		mib(theirs.memory), theirs.seconds/ours.seconds, 100*float64(ours.memory)/float64(theirs.memory))
	for side, name := range []string{"zeolite", "Python"} {
		fmt.Printf("         %s: ", name)
		for _, r := range results[side] {
			fmt.Printf(" %.3f s", r.seconds)
		}
		fmt.Println()
	}
	if ours.answer != theirs.answer {
		return fmt.Errorf("zeolite finds %d, Python %d", ours.answer, theirs.answer)
	}
	return nil
}

func mib(kib int64) float64 { return float64(kib) / 1024 }

func median(rs []result) result {
	slices.SortFunc(rs, func(a, b result) int { return int((a.seconds - b.seconds) * 1e9) })
	return rs[len(rs)/2]
}

func (o *options) script() (string, error) {
	name, err := filepath.Abs("tests/bench/filestorage/bench.py")
	if err == nil {
		_, err = os.Stat(name)
	}
	if err != nil {
		return "", fmt.Errorf("run it at the top of the repository: %w", err)
	}
	return name, nil
}

// prepare makes the files ready for a run, and returns the path to use.
func prepare(what, path string) (string, error) {
	switch what {
	case "open":
		return path, remove(path + ".index")
	case "pack":
		at := filepath.Join(filepath.Dir(path), "pack")
		if err := os.RemoveAll(at); err != nil {
			return "", err
		}
		if err := os.Mkdir(at, 0o777); err != nil {
			return "", err
		}
		at = filepath.Join(at, "Data.fs")
		if err := copyFile(at, path); err != nil {
			return "", err
		}
		return at, copyFile(at+".index", path+".saved")
	}
	return path, copyFile(path+".index", path+".saved")
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Sync() // not to be paid for by who is measured
	}
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

// measure runs one process.
func measure(args []string) (result, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return result{}, fmt.Errorf("%v: %w", args, err)
	}
	r := result{memory: int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)}
	_, err = fmt.Sscan(string(out), &r.seconds, &r.answer)
	return r, err
}
