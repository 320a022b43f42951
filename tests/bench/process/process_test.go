//go:build linux

package process

import (
	"os"
	"runtime"
	"testing"
	"time"
)

func TestCPU(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		now, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %v after a minute of work", now)
		}
	}
}

func TestMemory(t *testing.T) {
	const size = 64 << 20
	before, err := MemoryOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		big[i] = 1
	}
	after, err := MemoryOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(big)
	if after.Peak < before.Resident+size/2 || after.Peak < after.Resident {
		t.Errorf("from %+v to %+v after %d bytes more", before, after, size)
	}
}

func TestNoProcess(t *testing.T) {
	if _, err := CPU(-1); err == nil {
		t.Error("no error for the processor time of a process that is not there")
	}
	if _, err := MemoryOf(-1); err == nil {
		t.Error("no error for the memory of a process that is not there")
	}
}

func TestUsage(t *testing.T) {
	u := NewUsage(os.Getpid())
	u.Probe()
	u.Probe()
	if used := u.Used(); used.Resident == 0 || used.Peak < used.Resident || used.ServerCPU < 0 {
		t.Errorf("%+v", used)
	}
	if used := NewUsage(0).Used(); used != (Used{}) {
		t.Errorf("nothing was measured: %+v", used)
	}
}
