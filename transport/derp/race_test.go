//go:build race

package derp_test

// maxAllocs is more under the race detector, where sync.Pool forgets at random.
const maxAllocs = 2.0
