// Package actor holds what every supervised goroutine of a node shares: cells
// that carry the latest value of a piece of state, groups that keep an actor's
// children inside it, the supervisor's settings and the retry delay.
//
// It owns no state of the node. The pattern an actor follows is in
// ARCHITECTURE.md, "Actors".
package actor

import "sync/atomic"

// A Cell holds the latest value of T for any number of readers. A reader that
// starts late, or starts again, sees the current value; values in between may
// be missed. The zero Cell holds the zero T and is ready for use.
type Cell[T any] struct{ cur atomic.Pointer[entry[T]] }

type entry[T any] struct {
	v    T
	next chan struct{} // closed when v is replaced
}

// NewCell returns a Cell holding v.
func NewCell[T any](v T) *Cell[T] {
	c := new(Cell[T])
	c.cur.Store(&entry[T]{v, make(chan struct{})})
	return c
}

// Load returns the current value and a channel closed when it is replaced.
func (c *Cell[T]) Load() (v T, changed <-chan struct{}) {
	e := c.entry()
	return e.v, e.next
}

// Get returns the current value.
func (c *Cell[T]) Get() T { return c.entry().v }

// Store replaces the value and wakes all readers. What v points to must not be
// modified afterwards.
func (c *Cell[T]) Store(v T) {
	old := c.cur.Swap(&entry[T]{v, make(chan struct{})})
	if old != nil {
		close(old.next)
	}
}

// entry returns the current entry, making that of the zero value on first use.
func (c *Cell[T]) entry() *entry[T] {
	if e := c.cur.Load(); e != nil {
		return e
	}
	c.cur.CompareAndSwap(nil, &entry[T]{next: make(chan struct{})})
	return c.cur.Load()
}
