// Package peers runs real ZEO peers for tests: Python's runzeo and our own
// zeolite as servers, and Python programs as clients.
//
// A test says what it wants ([Start], [RunScript]) and gets processes that are
// ready to be used, that end with the test, and whose logs are printed if it
// fails. Nothing here waits by sleeping: a server is ready when it says so.
//
// # Settings
//
// All of them are environment variables, because go test hands flags to every
// package alike:
//
//	ZEOLITE_TEST_PYTHON       a Python that has the packages of tests/requirements.txt
//	ZEOLITE_TEST_REQUIRE_ALL  1: what would be skipped fails
//	ZEOLITE_TEST_SERVERS      servers to test, default "zeolite"; "runzeo,zeolite"
//	                          also asks the oracle, which proves the tests
//	ZEOLITE_TEST_RACE         1: build zeolite with the race detector
//	ZEOLITE_TEST_LONG         1: also what takes minutes or gigabytes, and larger blobs
//	ZEOLITE_TEST_KILLS        rounds of the crash test, default 5
//	ZEOLITE_TEST_SEEDS        histories of the differential test, default 60
//	ZEOLITE_TEST_FIRST_SEED   the seed of the first of them, to repeat a failure
//
// tests/run sets the first two.
package peers
