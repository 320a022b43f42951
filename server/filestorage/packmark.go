package filestorage

import (
	"runtime"
	"slices"

	"github.com/zeolite-go/zeolite"
)

const (
	// markBatch is how many records are read by one worker at a time.
	markBatch = 512
	// markWorkers is how many there are at most.
	markWorkers = 4
)

// markJob is a batch of records whose references are wanted: a worker fills it
// in, and then it is the packer's again.
type markJob struct {
	level []int64 // positions, in order
	near  bool
	done  chan struct{}

	refs  []reference // in order
	bytes int64       // of the records, as they will be in the new file
	err   error
}

// follow marks what can be reached from the records of a level, level by level,
// in the order of file positions: so the file is read mostly forward. With strict
// it takes note of references that lead nowhere. Records are read by several
// goroutines, and marked by this one.
func (p *packer) follow(level []int64, strict bool) error {
	workers := min(runtime.GOMAXPROCS(0), markWorkers)
	todo := make(chan *markJob, 2*workers)
	idle := make(chan *markJob, cap(todo))
	for range cap(idle) {
		idle <- &markJob{done: make(chan struct{}, 1)}
	}
	defer close(todo)
	for range workers {
		go func() {
			m := marker{g: p.g, w: newWindow(p.g.file)}
			for job := range todo {
				m.read(job)
				job.done <- struct{}{}
			}
		}()
	}

	var next []int64
	var under []*markJob // what is being read, in order
	take := func() error {
		job := under[0]
		under = under[1:]
		<-job.done
		p.kept += job.bytes
		next = p.reachAll(next, job.refs, strict)
		p.marked += int64(len(job.level))
		err := job.err
		idle <- job
		if err != nil {
			return err
		}
		return p.report("mark", p.marked, int64(p.current.len()))
	}
	for len(level) > 0 {
		slices.Sort(level)
		next = next[:0]
		// Where records are close to each other, reading what is between
		// them costs less than a call for each.
		near := (level[len(level)-1]-level[0])/int64(len(level)) < windowSize/8
		var err error
		for batch := range slices.Chunk(level, markBatch) {
			if len(under) == cap(idle) {
				if err = take(); err != nil {
					break
				}
			}
			job := <-idle
			job.level, job.near = batch, near
			under = append(under, job)
			todo <- job
		}
		for len(under) > 0 {
			if e := take(); err == nil {
				err = e
			}
		}
		if err != nil {
			return err
		}
		level, next = next, level
	}
	return nil
}

// marker reads records for follow. It is used by one goroutine.
type marker struct {
	g    *generation
	w    *window
	buf  [readGuess]byte
	oids []zeolite.OID
}

func (m *marker) read(job *markJob) {
	job.refs, job.bytes, job.err = job.refs[:0], 0, nil
	for _, pos := range job.level {
		h, data, err := m.record(pos, job.near)
		if err == nil {
			m.oids, err = findReferences(m.oids[:0], h.oid, data)
		}
		if err != nil {
			job.err = err
			return
		}
		job.bytes += recHdrLen + int64(len(data))
		for _, oid := range m.oids {
			job.refs = append(job.refs, reference{h.oid, oid})
		}
	}
}

// record is generation.recordAt, through a window if more records near pos will
// be read. The data is valid until the next call.
func (m *marker) record(pos int64, near bool) (recHeader, []byte, error) {
	if !near {
		return m.g.recordAt(pos, m.buf[:])
	}
	b, err := m.w.need(pos, recHdrLen+backLen)
	if err != nil {
		return recHeader{}, nil, err
	}
	h := parseRecHeader(b, pos)
	if h.dataLen == 0 || h.dataLen > windowSize/2 {
		return m.g.recordAt(pos, m.buf[:])
	}
	if err := h.check(h.oid, m.g.bound.Load()); err != nil {
		return h, nil, err
	}
	data, err := m.w.need(pos+recHdrLen, int(h.dataLen))
	return h, data, err
}
