package ground

import (
	"math/rand/v2"
	"time"
)

// Conditions are what a link does to packets, each way. The zero value carries
// every packet at once.
type Conditions struct {
	Delay  time.Duration // of every packet
	Jitter time.Duration // up to this more, evenly spread; packets keep their order
	Loss   float64       // share of packets lost, 0 to 1

	// Reorder is the share of packets that ReorderBy holds back longer than the
	// others, so that those behind overtake them.
	Reorder   float64
	ReorderBy time.Duration

	NoUDP bool // every UDP datagram is lost
}

// immediate reports whether no packet waits.
func (c *Conditions) immediate() bool { return c.Delay == 0 && c.Jitter == 0 && c.Reorder == 0 }

// A judge decides the fate of packets in one direction of a link.
type judge struct {
	rand *rand.Rand
	last time.Time // when the latest packet in order is due
}

func newJudge(seed uint64) *judge { return &judge{rand: rand.New(rand.NewPCG(seed, 0))} }

// fate returns when an IP packet that has come now is due, or that it is lost.
func (j *judge) fate(c *Conditions, packet []byte, now time.Time) (due time.Time, lost bool) {
	if c.NoUDP && isUDP(packet) || c.Loss > 0 && j.rand.Float64() < c.Loss {
		return time.Time{}, true
	}
	due = now.Add(c.Delay)
	if c.Jitter > 0 {
		due = due.Add(time.Duration(j.rand.Int64N(int64(c.Jitter))))
	}
	if due.Before(j.last) {
		due = j.last
	}
	j.last = due
	if c.Reorder > 0 && j.rand.Float64() < c.Reorder {
		return due.Add(c.ReorderBy), false
	}
	return due, false
}

// protocolUDP is UDP's number in IP headers (RFC 768).
const protocolUDP = 17

// isUDP reports whether an IP packet without extension headers carries UDP.
func isUDP(p []byte) bool {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return p[9] == protocolUDP
	case len(p) >= 40 && p[0]>>4 == 6:
		return p[6] == protocolUDP
	}
	return false
}
