//go:build race

package tun

// raceEnabled says that the race detector is on: it empties pools and makes
// memory larger.
const raceEnabled = true
