// Package link is a long and bad way between two networks: packets that come in
// at one end go out at the other after a delay, late, or never. Every packet on
// it counts by itself, and chance is the same in every run.
//
// A way decides what becomes of packets, given the time; a Link moves them
// between two TUN devices, all on one thread.
package link

import "time"

// Conditions are what a link does to packets, each way. The zero value passes
// them on at once.
type Conditions struct {
	Delay time.Duration // of every packet

	Loss float64 // share of packets lost at random

	Late    float64       // share of packets that are held back, so that others overtake them
	LateBy  time.Duration // for how long
	InOrder bool          // none overtakes: those behind wait too

	Burst      int           // packets lost in a row
	BurstFirst time.Duration // when the first of them is lost, from setting the conditions
	BurstEvery time.Duration // until the next ones are

	Rate  int           // bits a second; 0: no limit
	Queue time.Duration // longest wait for the rate's sake; a packet that would wait longer is lost
}

// Counts are what a link has done to packets that came in, one way.
type Counts struct {
	Packets  int // that came in
	Lost     int // at random
	Burst    int // lost in a row
	Late     int // held back
	Overflow int // lost because too many waited
}

// Lag is how late packets went out that were due, beyond what the conditions
// say.
type Lag struct {
	Mean, Most time.Duration
}
