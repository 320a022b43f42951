package main

import (
	"time"

	"github.com/zeolite-go/zeolite/server"
	"github.com/zeolite-go/zeolite/server/gateway"
	"github.com/zeolite-go/zeolite/server/postgres"
)

// adder gives numbers the form that they have at /metrics.
type adder func(gateway.Metric)

func (add adder) gauge(name, help string, value float64, labels ...string) {
	add(gateway.Metric{Name: "zeolite_" + name, Help: help, Value: value, Labels: labels})
}

func (add adder) counter(name, help string, value float64, labels ...string) {
	add(gateway.Metric{Name: "zeolite_" + name, Help: help, Kind: gateway.Counter, Value: value, Labels: labels})
}

// collectPostgres is collect for what a storage in PostgreSQL has of its own.
func collectPostgres(storage string, st postgres.Stats, add adder) {
	name := []string{"storage", storage}
	for _, p := range st.Pools {
		pool := append(name[:2:2], "pool", p.Name)
		add.gauge("postgres_connections", "Connections to PostgreSQL.", float64(p.Open), pool...)
		add.gauge("postgres_connections_busy", "Connections to PostgreSQL that are in use.", float64(p.Busy), pool...)
		add.gauge("postgres_connections_max", "How many connections to PostgreSQL there can be.", float64(p.Max), pool...)
		add.counter("postgres_acquired_total", "How often a connection of a pool was had.", float64(p.Acquired), pool...)
		add.counter("postgres_waited_total", "How often there was no free connection in a pool.", float64(p.Waited), pool...)
		add.counter("postgres_wait_seconds_total", "How long all waited for a free connection.", p.Wait.Seconds(), pool...)
		add.counter("postgres_given_up_total", "How often somebody waited for a connection in vain.", float64(p.GivenUp), pool...)
	}
	add.gauge("postgres_voted", "Transactions that have voted and not ended; each keeps a connection.", float64(st.Voted), name...)
	add.gauge("postgres_voted_oldest_seconds", "How long ago the first of them voted.", st.OldestVote.Seconds(), name...)
	add.counter("postgres_renumbered_total", "Commits that others overtook after the vote.", float64(st.Renumbered), name...)
	add.counter("postgres_doubts_total", "Commits whose connection broke before the answer.", float64(st.Doubts), name...)
	add.counter("postgres_listened_total", "How often the connection that listens for commits of others was made.", float64(st.Listened), name...)
	add.counter("postgres_cache_hits_total", "Loads that were answered from memory.", float64(st.CacheHits), name...)
	add.counter("postgres_cache_misses_total", "Loads that PostgreSQL was asked for.", float64(st.CacheMisses), name...)
	add.gauge("postgres_spooled_bytes", "Bytes of blobs that wait on disk for slow readers.", float64(st.Spooled), name...)
	add.gauge("postgres_spool_limit_bytes", "How many there can be.", float64(st.SpoolLimit), name...)
}

// collect gives the numbers of a server the names that they have at /metrics.
func collect(st server.Stats, add adder) {
	gauge := add.gauge
	counter := func(name, help string, value int64, labels ...string) {
		add.counter(name, help, float64(value), labels...)
	}
	histogram := func(name, help string, h server.Histogram, labels ...string) {
		buckets := make(map[float64]uint64, len(h.Buckets))
		for _, b := range h.Buckets {
			buckets[b.UpTo.Seconds()] = uint64(b.Count)
		}
		add(gateway.Metric{Name: "zeolite_" + name, Help: help, Kind: gateway.Histogram, Labels: labels,
			Value: h.Sum.Seconds(), Count: uint64(h.Count), Buckets: buckets})
	}

	gauge("connections", "Clients that are connected.", float64(st.Connections))
	counter("connections_accepted_total", "Connections that were accepted.", st.Accepted)
	counter("connections_refused_total", "Connections that ended before the client had shaken hands.", st.Refused)
	counter("received_bytes_total", "Bytes of all calls.", st.Received)
	counter("sent_bytes_total", "Bytes of all replies, invalidations and blobs.", st.Sent)
	gauge("queued_bytes", "Bytes of replies and invalidations that wait to be sent.", float64(st.Queued))
	gauge("queued_bytes_longest", "The same, of the client that has most.", float64(st.LongestQueue))
	gauge("calls_waiting", "Calls that wait for an earlier one of the same client's transaction.", float64(st.Waiting))
	for _, c := range st.Calls {
		gauge("calls_running", "Calls that are being run.", float64(c.Running), "method", c.Method)
		counter("call_errors_total", "Calls that were answered with an exception.", c.Errors, "method", c.Method)
		histogram("call_seconds", "How long calls took to run.", c.Time, "method", c.Method)
	}
	for _, s := range st.Storages {
		name := []string{"storage", s.Name}
		of := func(more ...string) []string { return append(name[:2:2], more...) }
		gauge("clients", "Clients that have registered.", float64(s.Clients), name...)
		counter("slow_clients_total", "Clients that were disconnected because they did not read.", s.Slow, name...)
		readOnly := 0.0
		if s.ReadOnly {
			readOnly = 1
		}
		gauge("storage_read_only", "1 if no client can write: the storage is served so, or a write failed and it must be opened again.", readOnly, name...)
		gauge("objects", "Objects in the storage.", float64(s.Objects), name...)
		gauge("size_bytes", "Size of the storage.", float64(s.Size), name...)
		if s.LastTID != 0 {
			gauge("last_transaction_timestamp_seconds", "When the last transaction was committed.", s.LastTID.UnixSeconds(), name...)
		}
		counter("loads_total", "Loads.", s.Loads, name...)
		counter("loaded_bytes_total", "Bytes of records loaded.", s.LoadedBytes, name...)
		counter("stores_total", "Stores.", s.Stores, name...)
		counter("stored_bytes_total", "Bytes of records stored, also in transactions that were aborted.", s.StoredBytes, name...)
		gauge("transactions_open", "Transactions that were begun and did not end.", float64(s.Open), name...)
		const ended = "Transactions that have ended, by how."
		counter("transactions_total", ended, s.Commits, of("end", "commit")...)
		counter("transactions_total", ended, s.Aborts, of("end", "abort")...)
		counter("conflicts_total", "Votes that met conflicts.", s.Conflicts, name...)
		gauge("commit_locks_waiting", "Transactions that wait for commit locks.", float64(s.LocksWaiting), name...)
		gauge("commit_locks_held", "Transactions that hold commit locks.", float64(s.LocksHeld), name...)
		histogram("commit_lock_wait_seconds", "How long transactions waited for commit locks.", s.LockWaits, name...)
		counter("published_total", "Transactions that clients were told of.", s.Published, name...)
		counter("invalidations_sent_total", "Invalidation messages to clients.", s.Invalidations, name...)
		gauge("blob_downloads", "Blobs on their way to clients.", float64(s.Downloads.Active), name...)
		const downloads = "Blobs that were sent to clients, by whether to their end."
		counter("blob_downloads_total", downloads, s.Downloads.Whole, of("end", "whole")...)
		counter("blob_downloads_total", downloads, s.Downloads.Failed, of("end", "failed")...)
		counter("blob_downloaded_bytes_total", "Bytes of blobs sent to clients.", s.Downloads.Bytes, name...)
		counter("blob_uploads_total", "Blobs that clients sent.", s.Uploads, name...)
		counter("blob_uploaded_bytes_total", "Bytes of blobs that clients sent.", s.UploadedBytes, name...)
		const packs = "Packs that have ended, by how."
		counter("packs_total", packs, s.Pack.Succeeded, of("end", "success")...)
		counter("packs_total", packs, s.Pack.Failed, of("end", "failure")...)
		gauge("pack_last_seconds", "How long the last pack took.", s.Pack.Last.Seconds(), name...)
		gauge("pack_running_seconds", "How long the pack that runs has taken; 0 if none runs.", s.Pack.Running.Seconds(), name...)
		if p := s.Pack.Progress; p.Phase != "" {
			phase := of("phase", p.Phase)
			gauge("pack_done", "How much of the pack's phase is done.", float64(p.Done), phase...)
			gauge("pack_todo", "How much the pack's phase has to do in all.", float64(p.Total), phase...)
			gauge("pack_remaining_seconds", "How long the pack's phase may still take.", p.Remaining.Round(time.Second).Seconds(), phase...)
		}
	}
}
