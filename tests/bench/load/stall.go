package load

import "time"

// StalledCommits measures Commits of disjoint objects while one more client
// commits and waits for stall, over and over: between vote and finish if it is
// to hold up others, and otherwise before it begins, for comparison.
func StalledCommits(o Options, stall time.Duration, voted bool) (*Result, error) {
	o.setDefaults()
	o.Objects = (o.Conns + 1) * o.Records
	serials, err := Prepare(o)
	if err != nil {
		return nil, err
	}
	workers := make([]worker, o.Conns+1)
	for i := range workers {
		set := i * o.Records
		w := &committer{options: o, first: o.FirstOID + uint64(set)}
		w.serials = append(w.serials, serials[set:set+o.Records]...)
		if workers[i] = w.work; i == o.Conns {
			workers[i] = func(c *Conn, m *meter) error { return w.stall(c, m, stall, voted) }
		}
	}
	return o.run(workers)
}

// stall commits slowly until the window is over.
func (w *committer) stall(c *Conn, m *meter, wait time.Duration, voted bool) error {
	for !m.window.over(time.Now()) {
		if !voted {
			time.Sleep(wait)
		}
		t, err := w.store(c)
		if err != nil {
			return err
		}
		if ok, err := t.vote(); err != nil {
			return err
		} else if !ok {
			return errConflict
		}
		if voted {
			time.Sleep(wait) // it is what is measured
		}
		tid, err := t.finish()
		if err != nil {
			return err
		}
		for i := range w.serials {
			w.serials[i] = tid
		}
	}
	return nil
}
