// Package profile says where the time of a running zeolite goes, from the profiles
// that it serves: how much of the processor each part of it takes, and what its
// goroutines wait for.
package profile
