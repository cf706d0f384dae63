//go:build race

package disco

// raceEnabled says that sync.Pool drops some of what it is given, on purpose.
const raceEnabled = true
