package load

import "time"

// A beat spaces operations: the next one begins a pace after the one before
// began, or when that has ended. It belongs to one goroutine.
type beat struct {
	pace time.Duration // zero: without pauses
	last time.Time
}

// wait returns when it is time for an operation.
func (b *beat) wait() {
	if b.pace == 0 {
		return
	}
	now := time.Now()
	if pause := b.pace - now.Sub(b.last); pause > 0 {
		sleep(pause)
	}
	b.last = time.Now()
}
