package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/zeolite-go/zeolite/server/postgres"
	"github.com/zeolite-go/zeolite/tests/ordering"
	"github.com/zeolite-go/zeolite/tests/pgtest"
	"github.com/zeolite-go/zeolite/tests/serving"
)

// TestOrderingOverTwoServers runs the checker of the ordering rules with clients
// that change between two servers on one database; then again, while somebody
// ends the servers' connections to it, of whatever kind, at random moments. The
// seed of a failure is printed; ZEOLITE_SEED runs it again, and ZEOLITE_ROUNDS
// runs more.
func TestOrderingOverTwoServers(t *testing.T) {
	for _, seed := range ordering.Seeds(t, 1) {
		t.Run(fmt.Sprintf("peace/%d", seed), func(t *testing.T) { runOrdering(t, seed, false) })
		t.Run(fmt.Sprintf("harm/%d", seed), func(t *testing.T) { runOrdering(t, seed, true) })
	}
}

func runOrdering(t *testing.T, seed uint64, harm bool) {
	dsn := pgtest.Database(t)
	// Without the notification, one server would hear of the other's commits
	// late; so what comes in time came by it, or by a look after a gap.
	opts := postgres.Options{DSN: dsn, PollInterval: 500 * time.Millisecond, DoubtTimeout: time.Minute}
	one, two := opened(t, opts), opened(t, opts)
	run := ordering.Options{Seed: seed, Harm: harm, Steps: 240}
	for _, s := range []*postgres.Storage{one, two} {
		_, addr := serving.Start(t, s)
		run.Servers = append(run.Servers, addr)
	}
	var killer sync.WaitGroup
	done, killed := make(chan struct{}), 0
	if harm {
		conn := connected(t, dsn)
		killer.Go(func() { killed = killAtRandom(t, conn, seed, done) })
	}
	w := ordering.Run(t, run)
	close(done)
	killer.Wait()
	t.Logf("%d commits, %d calls or connections failed, %d database connections ended", w.Commits(), w.Failed(), killed)
	if w.Commits() < 50 || w.Loads() < 50 || (harm && killed == 0) {
		t.Error("hardly anything happened")
	}
	for _, s := range []*postgres.Storage{one, two} {
		if err := s.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.CheckAtomic(s)
	}
	// No commit was doubled: what was acknowledged and what is there differ at
	// most by those whose answer was lost.
	var there int
	if err := connected(t, dsn).QueryRow(t.Context(), "SELECT count(*) FROM transaction WHERE tid > 0").Scan(&there); err != nil {
		t.Fatal(err)
	}
	if there < w.Commits() || there > w.Commits()+w.Failed() {
		t.Errorf("there are %d transactions; %d were acknowledged, and %d calls failed", there, w.Commits(), w.Failed())
	}
}

// killAtRandom ends connections of the servers until done is closed. It returns
// how many.
func killAtRandom(t *testing.T, conn *pgx.Conn, seed uint64, done <-chan struct{}) (killed int) {
	random := rand.New(rand.NewPCG(seed, 99))
	kinds := []string{"loads", "commits", "listen"}
	for {
		select {
		case <-done:
			return killed
		case <-time.After(time.Duration(random.IntN(40)) * time.Millisecond):
		}
		var n int
		err := conn.QueryRow(context.Background(), `SELECT count(pg_terminate_backend(pid)) FROM (
			SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1
			ORDER BY random() LIMIT $2) victims`, "zeolite: "+kinds[random.IntN(len(kinds))], 1+random.IntN(3)).Scan(&n)
		if err != nil {
			t.Error(err)
			return killed
		}
		killed += n
	}
}
