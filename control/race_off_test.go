//go:build !race

package control

// manyPeers is the size of a large tailnet.
const manyPeers = 100_000
