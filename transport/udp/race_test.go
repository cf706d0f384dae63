//go:build race

package udp

// raceEnabled says that sync.Pool drops some of what it is given, on purpose.
const raceEnabled = true
