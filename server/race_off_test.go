//go:build !race

package server

// allowedAllocs is how many allocations a load may cost.
const allowedAllocs = 0.05
