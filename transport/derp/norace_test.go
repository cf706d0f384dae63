//go:build !race

package derp_test

// maxAllocs is how much of an allocation one datagram may cost three parties.
const maxAllocs = 0.5
