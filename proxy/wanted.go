package proxy

import (
	"errors"
	"fmt"
	"net"
	"slices"
)

// MaxForwards is how many forwards Add leaves a Set with at most: each is a
// listener.
const MaxForwards = 4096

// Errors of changes of a Set.
var (
	// ErrNoForward says that a set has no forward such as the one that is to go.
	ErrNoForward = errors.New("there is no such forward")

	// ErrDrained says that a set ends, and takes no forwards any more.
	ErrDrained = errors.New("forwards are ending: this process is about to stop")
)

// A wanted is what a Set is to forward. Its slices are never written to.
type wanted struct {
	applied, added []Spec
	drained        bool // nothing, and never again
}

// specs returns what is to run.
func (w *wanted) specs() []Spec { return merge(slices.Concat(w.applied, w.added)) }

// add notes what is added, and returns what of it there was not already.
func (w *wanted) add(add []Spec) (fresh []Spec, err error) {
	have := slices.Concat(w.applied, w.added)
	fresh = without(add, have, sameSpec)
	if n := len(have) + len(fresh); n > MaxForwards {
		return nil, fmt.Errorf("%d forwards are more than %d: remove some", n, MaxForwards)
	}
	all := slices.Concat(have, fresh)
	for _, p := range Clashes(all) {
		if p[1] >= len(have) {
			return nil, fmt.Errorf("%v: %v is for the same port: choose another one for one of them", all[p[1]], all[p[0]])
		}
	}
	w.added = slices.Concat(w.added, fresh)
	return fresh, nil
}

// remove takes away what is to go; all of it, or nothing.
func (w *wanted) remove(remove []Spec) error {
	have := slices.Concat(w.applied, w.added)
	for _, r := range remove {
		if !slices.ContainsFunc(have, func(s Spec) bool { return sameEnds(s, r) }) {
			return fmt.Errorf("%v: %w", r, ErrNoForward)
		}
	}
	w.applied = without(w.applied, remove, sameEnds)
	w.added = without(w.added, remove, sameEnds)
	return nil
}

// without returns what of all is the same as none of those that go.
func without(all, gone []Spec, same func(a, b Spec) bool) (left []Spec) {
	for _, s := range all {
		if !slices.ContainsFunc(gone, func(g Spec) bool { return same(s, g) }) {
			left = append(left, s)
		}
	}
	return left
}

func sameSpec(a, b Spec) bool { return a == b }

// sameEnds reports whether two forwards lead from the same to the same.
func sameEnds(a, b Spec) bool {
	a.Options, b.Options = Options{}, Options{}
	return a == b
}

// merge returns each forward once, and proxies of both kinds on one address as one.
func merge(want []Spec) (merged []Spec) {
	at := make(map[Spec]int) // where the forward is in merged
	for _, s := range want {
		if _, ok := at[s]; ok {
			continue
		}
		if i, ok := at[s.counterpart()]; ok && s.counterpart() != s {
			merged[i].Kind = Mixed
			at[s] = i
			continue
		}
		at[s] = len(merged)
		merged = append(merged, s)
	}
	return merged
}

// counterpart returns the proxy of the other kind that shares the port of s; what
// has none is its own.
func (s Spec) counterpart() Spec {
	_, port, _ := net.SplitHostPort(s.Listen)
	switch {
	case port == "0": // another port each time
	case s.Kind == SOCKS:
		s.Kind = HTTP
	case s.Kind == HTTP:
		s.Kind = SOCKS
	}
	return s
}
