package limits

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite"
	"github.com/zeolite-go/zeolite/server/storagetest"
	"github.com/zeolite-go/zeolite/stubs"
	"github.com/zeolite-go/zeolite/tests/peers"
	"github.com/zeolite-go/zeolite/tests/pgtest"
)

// startOnPostgres serves a new database.
func startOnPostgres(t *testing.T, flags ...string) (s *peers.Server, dsn string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		peers.Missing(t, "the memory of a process is read from /proc, which is Linux")
	}
	dsn = pgtest.Database(t)
	return peers.Start(t, peers.Zeolite, peers.Options{Postgres: dsn, Flags: flags}), dsn
}

// watchDatabase looks at the server's connections until stop is closed, and
// returns how long a transaction of a blob was open at most, in seconds, and how
// many connections there were at most.
func watchDatabase(t *testing.T, dsn string, stop <-chan struct{}) (oldest float64, conns int) {
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Error(err)
		return 0, 0
	}
	defer conn.Close(context.Background())
	for {
		var age float64
		var n int
		err := conn.QueryRow(context.Background(), `SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8, count(*)
			FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'zeolite: blobs'`).Scan(&age, &n)
		if err != nil {
			t.Error(err)
			return oldest, conns
		}
		oldest, conns = max(oldest, age), max(conns, n)
		select {
		case <-stop:
			return oldest, conns
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestStalledReadersOnPostgres has 50 clients stop reading in the middle of a
// blob. No transaction of the database stays open for them, memory and spool
// keep to their limits, others load and commit, and in the end each gets all.
func TestStalledReadersOnPostgres(t *testing.T) {
	const readers, conns, spoolLimit = 50, 8, 64 * mib
	size := pattern(12 * mib)
	if peers.Long() {
		size = 100 * mib
	}
	spool := t.TempDir()
	s, dsn := startOnPostgres(t, "--postgres-spool", spool, "--postgres-spool-limit", fmt.Sprint(spoolLimit),
		"--postgres-patience", "0.2", "--postgres-blobs", fmt.Sprint(conns), "--http", "127.0.0.1:0", "--metrics")
	other := connect(t, s.Address(), nil)
	tid := other.storeBlob(1, size)

	stop := make(chan struct{})
	var watching sync.WaitGroup
	var oldest float64
	var most int
	watching.Go(func() { oldest, most = watchDatabase(t, dsn, stop) })

	before := resident(t, s)
	resetPeak(t, s)
	goOn := make(chan struct{})
	var stalled, done sync.WaitGroup
	all := make([]*wireClient, readers)
	for i := range all {
		c := connect(t, s.Address(), smallReadBuffer)
		all[i] = c
		stalled.Add(1)
		arrived := sync.OnceFunc(stalled.Done)
		c.chunk = func([]byte) {
			if _, n := c.received(); n >= mib {
				arrived()
				<-goOn
			}
		}
		done.Go(func() {
			if err := c.server.SendBlob(context.Background(), 1, tid); err != nil {
				t.Errorf("sendBlob: %v", err)
			}
		})
	}
	stalled.Wait()

	// Others commit and load, as if there were nobody.
	ctx := context.Background()
	serial := zeolite.ZeroTID
	var slowest time.Duration
	for i := range 30 {
		began := time.Now()
		serial = other.storeRecord(2, serial, fmt.Sprint(i))
		rev, err := other.server.LoadBefore(ctx, 2, zeolite.MaxTID)
		if err != nil || rev.TID != serial {
			t.Fatalf("loaded %v, %v; committed %v", rev.TID, err, serial)
		}
		slowest = max(slowest, time.Since(began))
	}
	// No reader keeps a transaction, or one of the few connections.
	eventually(t, "all connections for blobs are free", func() bool { return number(t, s, "zeolite_postgres_connections_busy", "blobs") == 0 })
	spooled := number(t, s, "zeolite_postgres_spooled_bytes", "")
	if spooled == 0 || spooled > spoolLimit {
		t.Errorf("%.0f bytes are spooled, the limit is %d", spooled, spoolLimit)
	}
	if files, err := os.ReadDir(spool); err != nil || len(files) != 0 {
		t.Errorf("the spool has files with names: %v, %v", files, err)
	}
	// What a stream keeps in memory is 1.25 MiB; twice that, with what is
	// not collected yet.
	after := peak(t, s)
	if limit := int64(readers * 5 / 2 * mib); after-before > limit+growth {
		t.Errorf("resident memory grew by %d MiB, want %d at the most", (after-before)/mib, (limit+growth)/mib)
	}
	close(goOn)
	done.Wait()
	close(stop)
	watching.Wait()
	t.Logf("resident: %d MiB before, %d MiB at most; spooled %.0f MiB; a transaction was open for %.1f s at most; slowest commit and load of others %v",
		before/mib, after/mib, spooled/mib, oldest, slowest)
	if oldest > 10 {
		t.Errorf("a transaction was open for %.1f s", oldest)
	}
	if most > conns {
		t.Errorf("there were %d connections for blobs, %d are allowed", most, conns)
	}
	want := size.digest()
	for i, c := range all {
		if got := [32]byte(c.sum.Sum(nil)); got != want {
			_, n := c.received()
			t.Errorf("client %d received %d bytes that are not the blob", i, n)
		}
	}
	if left := number(t, s, "zeolite_postgres_spooled_bytes", ""); left != 0 {
		t.Errorf("%.0f bytes are still spooled", left)
	}
}

// storeRecord commits an object and returns its tid.
func (c *wireClient) storeRecord(oid zeolite.OID, serial zeolite.TID, text string) zeolite.TID {
	c.t.Helper()
	ctx, id := context.Background(), stubs.TxnID(1000+oid)
	_ = c.server.TpcBegin(ctx, id, nil, nil, nil, stubs.OptionalTID{}, " ")
	_ = c.server.Storea(ctx, oid, serial, storagetest.Record(text), id)
	if _, err := c.server.Vote(ctx, id); err != nil {
		c.t.Fatalf("vote: %v", err)
	}
	tid, err := c.server.TpcFinish(ctx, id)
	if err != nil {
		c.t.Fatalf("tpc_finish: %v", err)
	}
	return tid.TID
}

// number reads a number of storage 1 from /metrics, of one pool if it has them.
func number(t *testing.T, s *peers.Server, name, pool string) (value float64) {
	t.Helper()
	resp, err := http.Get("http://" + s.HTTP(t) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	labels := `{storage="1"} `
	if pool != "" {
		labels = fmt.Sprintf(`{pool=%q,storage="1"} `, pool)
	}
	_, line, ok := bytes.Cut(page, []byte("\n"+name+labels))
	if !ok {
		t.Fatalf("/metrics has no %s%s", name, labels)
	}
	if _, err := fmt.Sscan(string(line[:bytes.IndexByte(line, '\n')]), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// TestMemoryOfHTTPOnPostgres downloads a large blob from PostgreSQL over HTTP,
// with Go's client and with curl, which is stopped in the middle and resumes.
// The server's memory does not grow with the blob.
func TestMemoryOfHTTPOnPostgres(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		peers.Missing(t, "there is no curl: %v", err)
	}
	size := pattern(96 * mib)
	if peers.Long() {
		size = 1024 * mib
	}
	s, _ := startOnPostgres(t, "--http", "127.0.0.1:0")
	c := connect(t, s.Address(), nil)
	before := resident(t, s)
	resetPeak(t, s)
	c.storeBlob(1, size)
	uploaded := peak(t, s)
	url := "http://" + s.HTTP(t) + "/blobs/1/1"
	want := size.digest()

	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, resp.Body)
	resp.Body.Close()
	if err != nil || n != int64(size) || resp.ContentLength != n || [32]byte(sum.Sum(nil)) != want {
		t.Errorf("Go's client got %d bytes, %v", n, err)
	}

	// curl is told to stop by a signal when it has some of it.
	name := filepath.Join(t.TempDir(), "blob")
	cmd := exec.Command(curl, "-sS", "--limit-rate", "24M", "-o", name, url)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "curl has a part of it", func() bool {
		st, err := os.Stat(name)
		return err == nil && st.Size() > 8*mib
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if st, err := os.Stat(name); err != nil || st.Size() >= int64(size) {
		t.Fatalf("curl was not stopped in the middle: %v, %v", st, err)
	}
	if out, err := exec.Command(curl, "-sS", "-f", "-C", "-", "-o", name, url).CombinedOutput(); err != nil {
		t.Fatalf("curl: %v\n%s", err, out)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum.Reset()
	if n, err := io.Copy(sum, f); err != nil || n != int64(size) || [32]byte(sum.Sum(nil)) != want {
		t.Errorf("curl resumed to %d bytes, or others: %v", n, err)
	}
	part, err := exec.Command(curl, "-sS", "-f", "-r", fmt.Sprintf("%d-%d", size/2, size/2+99_999), url).Output()
	exact := make([]byte, 100_000)
	if _, err := size.ReadAt(exact, int64(size/2)); err != nil {
		t.Fatal(err)
	}
	if err != nil || !bytes.Equal(part, exact) {
		t.Errorf("a range has %d bytes, or others: %v", len(part), err)
	}
	after := peak(t, s)
	t.Logf("resident: %d KiB before, %d KiB at most for an upload and downloads of %d MiB", before>>10, after>>10, size/mib)
	if after-before >= growth {
		t.Errorf("resident memory grew by %d MiB (%d with the upload), want less than %d", (after-before)/mib, (uploaded-before)/mib, growth/mib)
	}
}
