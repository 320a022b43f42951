package profile

import (
	"regexp"
	"strings"
	"time"
)

// The parts of the processor's time, in the order of Parts.
const (
	Sockets    = "system calls: sockets"
	Files      = "system calls: files"
	Scheduling = "Go: goroutines, threads, poller"
	Memory     = "Go: memory"
	ZRPC       = "zrpc"
	Stubs      = "stubs"
	Serving    = "server"
	Storage    = "storage"
	Other      = "other"
)

// Parts are all of them, for a table.
var Parts = []string{Sockets, Files, Scheduling, Memory, ZRPC, Stubs, Serving, Storage, Other}

// What is waited for, in the order of Waits.
const (
	Log        = "disk: the log"
	Data       = "disk: Data.fs"
	Blobs      = "disk: blobs"
	Behind     = "disk: behind, nobody waits"
	Transfer   = "the kernel, at a socket"
	Request    = "the client to send"
	Reading    = "the client to read"
	Processor  = "a processor"
	unobserved = "" // the profile's own, and what has nothing to do with requests
)

// Waits are all of them, for a table.
var Waits = []string{Log, Data, Blobs, Behind, Transfer, Request, Reading, Processor}

const module = "github.com/zeolite-go/zeolite"

var (
	memory = regexp.MustCompile(`^runtime\.(mallocgc|gc[A-Z]|bgsweep|bgscavenge|growslice|makeslice|makechan|newobject|scanobject|scanblock|` +
		`greyobject|markroot|sweepone|wbBuf|\(\*(mcache|mcentral|mheap|mspan|gcWork|sweepLocked|pageAlloc)\))|^sync\.\(\*Pool\)`)
	scheduling = regexp.MustCompile(`^runtime\.(futex|netpoll|findRunnable|schedule|mcall|park_m|gopark|goready|ready|wakep|startm|stopm|` +
		`notewakeup|notesleep|notetsleep|entersyscall|exitsyscall|reentersyscall|sysmon|usleep|osyield|procyield|Gosched|gosched|goexit0|newproc|` +
		`lock2|unlock2|selectnb|selectgo|chansend|chanrecv|semacquire|semrelease|runq|stealWork|execute|casgstatus|resetspinning|injectglist|` +
		`mstart|retake|preempt|\(\*timer)|^internal/poll\.runtime_|^sync\.runtime_|zrpc\.yield$`)
	kernel = regexp.MustCompile(`^(internal/runtime/syscall/|syscall\.|golang\.org/x/sys/unix\.)`)
	files  = regexp.MustCompile(`^os\.|/server/filestorage\.|^golang\.org/x/sys/unix\.|^syscall\.(pread|pwrite|Fdatasync|Fsync|SyncFileRange)`)
)

// Part says where a sample of the processor's time belongs: the innermost function
// that says so decides.
func Part(functions []string) string {
	inKernel := kernel.MatchString(functions[0])
	for _, f := range functions {
		switch {
		case memory.MatchString(f):
			return Memory
		case scheduling.MatchString(f):
			return Scheduling
		case inKernel && files.MatchString(f):
			return Files
		case inKernel && (strings.HasPrefix(f, "net.") || strings.HasPrefix(f, module+"/zrpc.")):
			return Sockets
		case strings.HasPrefix(f, module+"/zrpc."):
			return ZRPC
		case strings.HasPrefix(f, module+"/stubs"):
			return Stubs
		case strings.HasPrefix(f, module+"/server/"):
			return Storage
		case strings.HasPrefix(f, module+"/server."):
			return Serving
		}
	}
	return Other
}

var (
	own    = regexp.MustCompile(`^(net/http|runtime/trace|runtime/pprof|os/signal|runtime\.(gc|bg|trace|\(\*trace))`)
	behind = regexp.MustCompile(`/filestorage\.\(\*(dataSync|syncs)\)\.`)
	wal    = regexp.MustCompile(`/filestorage\.\(\*wal\)\.`)
	blobs  = regexp.MustCompile(`/filestorage\.\(\*(blobWriter|blobDir|upload)\)\.|\.OpenFileBlob$|FileBlob\)\.`)
)

// Wait says what a goroutine waited for, of a profile of a kind; nothing if that
// does not count.
func Wait(kind string, functions []string) string {
	stack := func(r *regexp.Regexp) bool {
		for _, f := range functions {
			if r.MatchString(f) {
				return true
			}
		}
		return false
	}
	switch {
	case stack(own):
		return unobserved
	case kind == Scheduler:
		return Processor
	case kind == Network:
		if stack(reading) {
			return Request
		}
		return Reading
	case stack(behind):
		return Behind
	case stack(wal):
		return Log
	case stack(blobs):
		return Blobs
	case stack(files):
		return Data
	}
	return Transfer
}

var reading = regexp.MustCompile(`^net\.\(\*conn\)\.Read$`)

// Sum adds up the time of stacks by what they belong to.
func Sum(stacks []Stack, of func(functions []string) string) map[string]time.Duration {
	sums := map[string]time.Duration{}
	for _, s := range stacks {
		if what := of(s.Functions); what != unobserved {
			sums[what] += s.Time
		}
	}
	return sums
}
