package report

import (
	"fmt"

	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

func perSecond(x float64) string { return short(x) }
func megabytes(x float64) string { return figure(x/1e6) + " MB/s" }
func mebibytes(x float64) string { return short(x) + " MiB" }
func seconds(x float64) string   { return micros(x * 1e6) }

// cpu is microseconds of the server for an operation.
func cpu(m *suite.Measurement) float64 { return 1e6 * suite.CPUPerOp(m) }

// sections writes a section for each scenario.
func (w *writer) sections() {
	w.reads()
	w.commits()
	w.blobs()
	w.fairness()
	w.crowd()
	w.index()
}

func (w *writer) reads() {
	w.printf("## Pings and loads\n\nThe floor is a server that answers a request of the same size with an answer of the same size.\n\n")
	for _, c := range []struct{ name, pattern, title string }{
		{"pings-d1", "pings-c*-d1", "Pings, depth 1"},
		{"pings-d16", "pings-c*-d16", "Pings, depth 16"},
		{"loads-1k-d1", "loads-1k-c*-d1", "Loads of 1 KiB, depth 1"},
		{"loads-1k-d16", "loads-1k-c*-d16", "Loads of 1 KiB, depth 16"},
		{"loads-16k-d16", "loads-16k-c*-d16", "Loads of 16 KiB, depth 16"},
	} {
		w.chart(c.name, chart{c.title, "connections", "calls a second", perSecond, w.growth(c.pattern, "conns", suite.Rate)}.svg())
	}
	w.chart("loads-cpu", barChart{title: "CPU of the server for a call, 4 connections", format: micros, groups: []barGroup{
		w.group("pings-c4-d16", "ping, depth 16", cpu),
		w.group("loads-1k-c4-d16", "load of 1 KiB, depth 16", cpu),
		w.group("loads-1k-c4-d1", "load of 1 KiB, depth 1", cpu),
	}}.svg())
	w.table("pings")
	w.table("loads")
}

func (w *writer) commits() {
	w.printf("## Commits\n\nThe floor is one program that appends as many bytes as the transaction takes in Data.fs, and calls fdatasync; it is\nalone, so it does not depend on the number of connections.\n\n")
	for _, shape := range []struct{ name, title string }{{"1x1k", "1×1 KiB"}, {"10x1k", "10×1 KiB"}, {"100x4k", "100×4 KiB"}} {
		w.chart("commits-"+shape.name, chart{"Commits of " + shape.title + ", disjoint objects", "connections", "transactions a second", perSecond,
			w.growth("commits-"+shape.name+"-c*-disjoint", "conns", suite.Rate)}.svg())
	}
	w.chart("commits-overlapping", chart{"Commits of 1×1 KiB, all to the same object: those that succeed", "connections", "transactions a second", perSecond,
		w.growth("commits-1x1k-c*-overlapping", "conns", suite.Rate)}.svg())
	w.disorder("commits")
	w.table("commits")
	w.printf("### A client that voted and stalls\n\n")
	w.extras("stalls-c4", "quiet rate", "share")
	w.printf("The share is the rate of the others while one client waits for a second between vote and finish, of their rate without\nit.\n\n")
}

// disorder tells of servers that broke the order of invalidations.
func (w *writer) disorder(scenario string) {
	counts := map[string]uint64{}
	for _, c := range w.cases {
		for _, r := range c.Runs {
			if c.Scenario == scenario {
				counts[r.Contender] += r.Disordered
			}
		}
	}
	for _, contender := range order {
		if n := counts[contender]; n > 0 {
			w.printf("%s sent %s invalidations after ones, or after ends of the client's own commits, with larger tids; a client's\nview could go back in time.\n\n", label(contender), thousands(int64(n)))
		}
	}
}

func (w *writer) blobs() {
	w.printf("## Blobs\n\nThe floor sends a file by sendfile, or receives one, writes it and syncs it. Everything is in the page cache.\n\n")
	for _, size := range []struct {
		kib   int
		title string
	}{{100, "100 KiB"}, {64 << 10, "64 MiB"}, {1 << 20, "1 GiB"}} {
		for _, way := range []string{"get", "put"} {
			var groups []barGroup
			for _, transport := range []string{"TCP", "Unix", "TLS"} {
				for _, conns := range []int{1, 4} {
					name := fmt.Sprintf("blobs-%s-%d-c%d-%s", way, size.kib, conns, transport)
					if g := w.group(name, transport+map[int]string{1: ", 1 connection", 4: ", 4 connections"}[conns], suite.Throughput); len(g.bars) > 0 {
						groups = append(groups, g)
					}
				}
			}
			w.chart(fmt.Sprintf("blob-%s-%d", way, size.kib), barChart{title: "Blob " + way + " of " + size.title, format: megabytes, groups: groups}.svg())
		}
	}
	w.table("blobs")
}

func (w *writer) fairness() {
	w.printf("## Loads beside streams and slow readers\n\n")
	var groups []barGroup
	for _, where := range []string{"quiet", "same connection", "another connection"} {
		groups = append(groups, w.group("streams-loads", where+": p50", suite.Extra("p50 "+where)), w.group("streams-loads", where+": p99", suite.Extra("p99 "+where)))
	}
	w.chart("streams", barChart{title: "Latency of loads while a blob is downloaded", log: true, format: micros, groups: groups}.svg())
	w.extras("streams-loads", "MB/s alone", "rate ratio same connection", "rate ratio another connection", "p99 ratio same connection", "p99 ratio another connection")
	w.extras("slow-loads", "growth MiB", "p99 quiet", "p99 ratio")
	w.extras("slow-blobs", "growth MiB", "p99 quiet", "p99 ratio")
	w.printf("Latencies are in microseconds.\n\n")
}

func (w *writer) crowd() {
	w.printf("## Many clients\n\n")
	w.chart("invalidations", chart{"From the call of tpc_finish to the invalidation at a listener, median", "listeners", "latency", micros,
		w.growth("invalidations-c*", "conns", suite.P50)}.svg())
	w.disorder("invalidations")
	w.printf("The time is that of arrival at the listener, as the kernel notes it. The generator reads what has arrived when it gets a\nprocessor: Python's server leaves one to it, while zeolite sends with both.\n\n")
	w.extras("invalidations-c64", "p50 read")
	w.table("invalidations")
	w.chart("idle", chart{"Resident memory of the server with idle connections", "connections", "memory", mebibytes,
		w.growth("idle-c*", "conns", suite.Extra("resident MiB"))}.svg())
	w.extras("idle-c10000", "resident MiB", "KiB for each", "seconds to connect")
}

func (w *writer) index() {
	w.printf("## Opening, and the index\n\nA Data.fs of small objects with oids in a row is opened with its index file, which is in the page cache.\n" +
		"The memory is that after objects all over the index were looked up.\n\n")
	w.chart("opening-time", chart{"Time to open", "objects", "seconds", seconds, w.growth("opening-*", "objects", suite.Extra("seconds"))}.svg())
	w.chart("opening-memory", chart{"Memory of the index", "objects", "memory", mebibytes, w.growth("opening-*", "objects", suite.Extra("MiB"))}.svg())
	for _, name := range []string{"opening-1m", "opening-10m", "opening-50m"} {
		w.extras(name, "seconds", "MiB", "bytes for each")
	}
	w.printf("## Allocations\n\n")
	w.extras("allocations-ping", "objects for each", "bytes for each")
	w.extras("allocations-load", "objects for each", "bytes for each")
	w.printf("Counted in a process that is server and generator at once; the generator allocates nothing.\n")
}
