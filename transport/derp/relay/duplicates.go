package relay

import "slices"

// A DuplicatePolicy says what becomes of several live connections with one key
// (DERP-45).
type DuplicatePolicy int

const (
	// LastWriterIsActive sends to the connection that was heard from last.
	LastWriterIsActive DuplicatePolicy = iota
	// DisableFighters sends to the newest connection, and to none when an older
	// one speaks again after another did: then two machines hold the key.
	DisableFighters
)

// duplicates are the connections of a key that has more than one. C names a
// connection; its zero value means none.
type duplicates[C comparable] struct {
	policy  DuplicatePolicy
	members map[C]bool // true = disabled
	last    C          // the one to be active
	spoke   []C        // by when each was last heard from, newest at the end; each member at most once
}

// newDuplicates is the state when young joins old (DERP-44).
func newDuplicates[C comparable](policy DuplicatePolicy, old, young C) *duplicates[C] {
	return &duplicates[C]{
		policy:  policy,
		members: map[C]bool{old: false, young: false},
		last:    young,
		spoke:   []C{old},
	}
}

// join adds a connection, which becomes active, even when all others are
// disabled.
func (d *duplicates[C]) join(c C) {
	d.members[c] = false
	d.last = c
	d.note(c)
}

// note makes c the one heard from last.
func (d *duplicates[C]) note(c C) {
	d.forget(c)
	d.spoke = append(d.spoke, c)
}

func (d *duplicates[C]) forget(c C) {
	d.spoke = slices.DeleteFunc(d.spoke, func(o C) bool { return o == c })
}

// heard notes a frame of c (DERP-45).
func (d *duplicates[C]) heard(c C) {
	if d.members[c] {
		return
	}
	var none C
	if d.policy == LastWriterIsActive || d.last == none {
		d.last = c
	}
	if d.policy == DisableFighters && d.newest() != c && slices.Contains(d.spoke, c) {
		for m := range d.members {
			d.members[m] = true
		}
	}
	d.note(c)
}

// newest returns the connection heard from last.
func (d *duplicates[C]) newest() C {
	var none C
	if len(d.spoke) == 0 {
		return none
	}
	return d.spoke[len(d.spoke)-1]
}

// leave takes c out (DERP-46). When a single connection remains it is returned:
// there are no duplicates any more.
func (d *duplicates[C]) leave(c C) (single C, one bool) {
	delete(d.members, c)
	d.forget(c)
	if d.last == c {
		d.last = d.newest()
	}
	if len(d.members) == 1 {
		for single = range d.members {
		}
		return single, true
	}
	return single, false
}

// active returns the connection that is to get packets, the zero value when
// they fight (DERP-47).
func (d *duplicates[C]) active() C {
	if d.members[d.last] {
		var none C
		return none
	}
	return d.last
}
