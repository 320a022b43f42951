//go:build race

package server

// allowedAllocs is how many allocations a load may cost. With the race detector
// the pools forget at random what they are given.
const allowedAllocs = 20
