package process

import (
	"os"
	"time"
)

// A Usage measures what a process uses between two moments. Probe and Used may
// not be called at the same time.
type Usage struct {
	pid    int
	cpu    []time.Duration
	own    []time.Duration
	memory Memory
}

// NewUsage measures a process; with pid zero it measures nothing.
func NewUsage(pid int) *Usage { return &Usage{pid: pid} }

// Probe is called at both moments. The peak of the memory is reset at the
// first, where the kernel allows it.
func (u *Usage) Probe() {
	if u.pid == 0 {
		return
	}
	if len(u.cpu) == 0 {
		_ = ResetPeak(u.pid) // else the peak is that since its start
	}
	cpu, _ := CPU(u.pid) // a process that ended fails the work, too
	u.cpu = append(u.cpu, cpu)
	own, _ := CPU(os.Getpid())
	u.own = append(u.own, own)
	u.memory, _ = MemoryOf(u.pid)
}

// Used is what was used between the two moments.
type Used struct {
	// ServerCPU and OwnCPU are seconds of processor time, of the process
	// and of this one.
	ServerCPU, OwnCPU float64
	// Resident and Peak are bytes of the process, at the end.
	Resident, Peak int64
}

// Used returns what was used.
func (u *Usage) Used() Used {
	if len(u.cpu) < 2 {
		return Used{}
	}
	last := len(u.cpu) - 1
	return Used{(u.cpu[last] - u.cpu[0]).Seconds(), (u.own[last] - u.own[0]).Seconds(), u.memory.Resident, u.memory.Peak}
}
