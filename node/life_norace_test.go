//go:build !race

package node

// defaultLifeNodes is how many nodes TestTailnetLife has; 100 take half a minute.
const defaultLifeNodes = 100
