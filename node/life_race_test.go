//go:build race

package node

// defaultLifeNodes is how many nodes TestTailnetLife has: the race detector
// makes them ten times as slow.
const defaultLifeNodes = 12
