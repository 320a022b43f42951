package filestorage

import (
	"context"
	"sync"
)

// gate lets many in or one close it: a lock for many holders or one, whose
// waits end with a context. Its methods may be called by several goroutines.
type gate struct {
	mu     sync.Mutex
	inside int
	closed bool
	change chan struct{} // closed and replaced when inside or closed change
}

// enter waits until the gate is open and goes inside.
func (g *gate) enter(ctx context.Context) error {
	return g.wait(ctx, func() bool {
		if g.closed {
			return false
		}
		g.inside++
		return true
	})
}

// leave undoes enter.
func (g *gate) leave() {
	g.mu.Lock()
	g.inside--
	g.wake()
	g.mu.Unlock()
}

// close keeps others from entering and waits until nobody is inside.
func (g *gate) close(ctx context.Context) error {
	if err := g.wait(ctx, func() bool {
		if g.closed {
			return false
		}
		g.closed = true
		return true
	}); err != nil {
		return err
	}
	err := g.wait(ctx, func() bool { return g.inside == 0 })
	if err != nil {
		g.open()
	}
	return err
}

// open undoes close.
func (g *gate) open() {
	g.mu.Lock()
	g.closed = false
	g.wake()
	g.mu.Unlock()
}

// wake is called with mu held.
func (g *gate) wake() {
	if g.change != nil {
		close(g.change)
		g.change = nil
	}
}

// wait calls try, with mu held, until it says true.
func (g *gate) wait(ctx context.Context, try func() bool) error {
	for {
		g.mu.Lock()
		if try() {
			g.mu.Unlock()
			return nil
		}
		if g.change == nil {
			g.change = make(chan struct{})
		}
		change := g.change
		g.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
