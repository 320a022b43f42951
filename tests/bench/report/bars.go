package report

import (
	"fmt"

	"github.com/zeolite-go/zeolite/tests/bench/stats"
	"github.com/zeolite-go/zeolite/tests/bench/suite"
)

// A bar is something that must hold: a number of a case, or a ratio, that is at
// least or at most a limit. It is judged for each encoding.
type bar struct {
	work, what string
	// of returns the number, once for each round; ours is the contender that is
	// judged, and theirs the Python server it is compared with.
	of      func(r results, ours, theirs string) stats.Sample
	atLeast float64 // zero if atMost counts
	atMost  float64
	unit    string
}

type number = func(*suite.Measurement) float64

// ofPython compares a number with that of the Python server that speaks the same
// encoding, round by round.
func ofPython(name string, n number) func(results, string, string) stats.Sample {
	return func(r results, ours, theirs string) stats.Sample { return r.ratios(name, ours, theirs, n) }
}

// against compares a number with another peer's, round by round.
func against(name, peer string, n number) func(results, string, string) stats.Sample {
	return func(r results, ours, _ string) stats.Sample { return r.ratios(name, ours, peer, n) }
}

// itself looks at a number of our own.
func itself(name string, n number) func(results, string, string) stats.Sample {
	return func(r results, ours, _ string) stats.Sample { return r.of(name, ours, n) }
}

// bars is what zeolite sets out to do, row by row.
var bars = []bar{
	{work: "loads 1 KiB, 4 connections, depth 16", what: "rate, of Python's", of: ofPython("loads-1k-c4-d16", suite.Rate), atLeast: 4},
	{what: "rate, of Python's with uvloop", of: against("loads-1k-c4-d16", "uvloop M5", suite.Rate), atLeast: 2},
	{what: "CPU for a load, of Python's", of: ofPython("loads-1k-c4-d16", suite.CPUPerOp), atMost: .2},
	{work: "pings, 4 connections, depth 16", what: "rate, of gRPC-go's", of: against("pings-c4-d16", "grpc", suite.Rate), atLeast: 4},
	{what: "rate, of net/rpc's", of: against("pings-c4-d16", "netrpc", suite.Rate), atLeast: 2},
	{work: "loads 1 KiB, 4 connections, depth 1", what: "rate, of Python's", of: ofPython("loads-1k-c4-d1", suite.Rate), atLeast: 1.5},
	{what: "rate, of raw TCP ping-pong's", of: against("loads-1k-c4-d1", "floor", suite.Rate), atLeast: .5},
	{work: "commits 1×1 KiB, durable, 1 connection", what: "rate, of Python's", of: ofPython("commits-1x1k-c1-disjoint", suite.Rate), atLeast: 2},
	{what: "rate, of append and fdatasync", of: against("commits-1x1k-c1-disjoint", "floor", suite.Rate), atLeast: .7},
	{work: "the same, 8 connections, disjoint objects", what: "rate, of Python's", of: ofPython("commits-1x1k-c8-disjoint", suite.Rate), atLeast: 8},
	{what: "rate, of append and fdatasync", of: against("commits-1x1k-c8-disjoint", "floor", suite.Rate), atLeast: 1},
	{work: "the same, 64 connections", what: "rate, of Python's", of: ofPython("commits-1x1k-c64-disjoint", suite.Rate), atLeast: 8},
	{what: "rate, of append and fdatasync", of: against("commits-1x1k-c64-disjoint", "floor", suite.Rate), atLeast: 1},
	{work: "a client that voted stalls 1 s", what: "rate of others, of the rate without", of: itself("stalls-c4", suite.Extra("share")), atLeast: .9},
	{work: "blob get 64 MiB", what: "rate, of the raw file-to-socket rate", of: against("blobs-get-65536-c1-TCP", "floor", suite.Throughput), atLeast: .9},
	{what: "CPU, of the raw one's", of: against("blobs-get-65536-c1-TCP", "floor", suite.CPUPerByte), atMost: 1.2},
	{what: "four clients' rate, of one client's", of: fourToOne, atLeast: 1},
	{work: "blob put 64 MiB", what: "rate, of Python's", of: ofPython("blobs-put-65536-c1-TCP", suite.Throughput), atLeast: 2},
	{what: "rate, of raw socket-to-file", of: against("blobs-put-65536-c1-TCP", "floor", suite.Throughput), atLeast: .8},
	{work: "loads while a blob streams", what: "p99 on the same connection, of the quiet p99", of: itself("streams-loads", suite.Extra("p99 ratio same connection")), atMost: 3},
	{what: "p99 on another connection, of the quiet p99", of: itself("streams-loads", suite.Extra("p99 ratio another connection")), atMost: 3},
	{what: "blob rate with loads on the same connection, of that without", of: itself("streams-loads", suite.Extra("rate ratio same connection")), atLeast: .9},
	{what: "blob rate with loads on another connection, of that without", of: itself("streams-loads", suite.Extra("rate ratio another connection")), atLeast: .9},
	{work: "8 readers ask for 50,000 loads, read at 1 MiB/s", what: "growth of the memory", of: itself("slow-loads", suite.Extra("growth MiB")), atMost: 32, unit: " MiB"},
	{what: "p99 of others, of the quiet p99", of: itself("slow-loads", suite.Extra("p99 ratio")), atMost: 1.5},
	{work: "10,000 idle connections", what: "memory", of: itself("idle-c10000", suite.Extra("resident MiB")), atMost: 200, unit: " MiB"},
	{work: "index, 10 million objects", what: "memory for an object", of: oneOurs("opening-10m", suite.Extra("bytes for each")), atMost: 24, unit: " B"},
	{what: "time to open, of Python's", of: func(r results, _, _ string) stats.Sample {
		return r.ratios("opening-10m", "zeolite", "python", suite.Extra("seconds"))
	}, atMost: .1},
	{work: "invalidations, 64 listeners", what: "p50 of a commit of one object, of Python's", of: ofPython("invalidations-c64", suite.P50), atMost: .5},
	{what: "p50 of a commit of 64 objects, of Python's", of: ofPython("invalidations-64-objects-c64", suite.P50), atMost: .5},
	{work: "allocations for a load", what: "on the server, the record itself included", of: itself("allocations-load", suite.Extra("objects for each")), atMost: 1.05},
}

// judged returns the numbers of a bar in both encodings.
func (b bar) judged(r results) (msgpack, pickle stats.Sample) {
	msgpack, pickle = b.of(r, "zeolite M5", "python M5"), b.of(r, "zeolite Z5", "python Z5")
	if len(pickle) == 0 { // the quick mode measures Python in one encoding
		pickle = b.of(r, "zeolite Z5", "python M5")
	}
	return msgpack, pickle
}

// oneOurs looks at a number of a case that has no encodings.
func oneOurs(name string, n number) func(results, string, string) stats.Sample {
	return func(r results, _, _ string) stats.Sample { return r.of(name, "zeolite", n) }
}

// fourToOne compares the rate of four downloads at once with that of one.
func fourToOne(r results, ours, _ string) stats.Sample {
	four, one := r.of("blobs-get-65536-c4-TCP", ours, suite.Throughput), r.of("blobs-get-65536-c1-TCP", ours, suite.Throughput)
	if len(four) == 0 || len(one) == 0 || one.Median() == 0 {
		return nil
	}
	return stats.Sample{four.Median() / one.Median()}
}

// verdict says whether a bar is reached, and by how much it is missed.
func (b bar) verdict(s stats.Sample) string {
	switch {
	case len(s) == 0:
		return "not measured"
	case b.holds(s.Median()) && b.holds(s.Min()) && b.holds(s.Max()):
		return "reached"
	case b.holds(s.Median()):
		return "reached, not in every round"
	case b.atLeast > 0:
		return fmt.Sprintf("**missed**: %.3g %% of it", 100*s.Median()/b.atLeast)
	}
	return fmt.Sprintf("**missed**: %.3g times as much", s.Median()/b.atMost)
}

func (b bar) holds(x float64) bool {
	if b.atLeast > 0 {
		return x >= b.atLeast
	}
	return x <= b.atMost
}

// limit is the bar in words.
func (b bar) limit() string {
	if b.atLeast > 0 {
		return fmt.Sprintf("at least %g%s", b.atLeast, b.unit)
	}
	return fmt.Sprintf("at most %g%s", b.atMost, b.unit)
}

// value is a number with its range.
func (b bar) value(s stats.Sample) string {
	if len(s) == 0 {
		return ""
	}
	if len(s) == 1 {
		return figure(s[0]) + b.unit
	}
	return fmt.Sprintf("%s%s (%s to %s)", figure(s.Median()), b.unit, figure(s.Min()), figure(s.Max()))
}
