//go:build race

package control

// manyPeers is the size of a tailnet that the race detector, which makes JSON
// thirty times slower, gets through in seconds.
const manyPeers = 5_000
