package netstack

import "net/netip"

// A forwardKind is a kind of flow that has limits of its own.
type forwardKind uint8

// Kinds of flows.
const (
	forwardTCP forwardKind = iota
	forwardUDP
	forwardEcho
	forwardKinds // how many
)

// forwardLimits bound what is under way of each kind. Of TCP it is the connections
// that are open and those being opened together (SVC-50); section 6.1 of
// doc/protocol/node-services.md has the reference's 8,192. The system's sockets
// are the bound of the others: each flow has one.
var forwardLimits = [forwardKinds]int{forwardTCP: 8192, forwardUDP: 4096, forwardEcho: 64}

// forwardMemory is what whoever serves a flow may take besides its sockets, in
// bytes: a copy of 32 KiB each way.
const forwardMemory = 64 << 10

// forwardLimits are those of a stack: with a limit of memory, flows take no more
// than its sockets may.
func (s *Stack) forwardLimits() [forwardKinds]int {
	limits := forwardLimits
	if s.budget == nil {
		return limits
	}
	const least = 16
	for kind := range limits {
		limits[kind] = min(limits[kind], max(int(s.budget.limit/forwardMemory), least))
	}
	return limits
}

// A tally counts what is under way, in all and for each source, of which none may
// have more than two thirds. Its user has a lock.
type tally struct {
	limit, total int
	by           map[netip.Addr]int
}

func newTally(limit int) tally { return tally{limit: limit, by: make(map[netip.Addr]int)} }

// room reports whether there may be one more.
func (t *tally) room(from netip.Addr) bool {
	return t.total < t.limit && t.by[from] < t.limit*2/3
}

// take counts one more, if there may be.
func (t *tally) take(from netip.Addr) bool {
	if !t.room(from) {
		return false
	}
	t.total++
	t.by[from]++
	return true
}

// give takes one back.
func (t *tally) give(from netip.Addr) {
	t.total--
	if t.by[from]--; t.by[from] == 0 {
		delete(t.by, from)
	}
}
