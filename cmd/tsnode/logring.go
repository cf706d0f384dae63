package main

import (
	"slices"
	"sync"
)

// Bounds of a logRing.
const (
	maxRingLines = 512
	maxRingLine  = 1 << 10 // bytes of a line; more are cut off
)

// A logRing keeps the last lines of a log, for a bug report.
type logRing struct {
	mu    sync.Mutex
	lines []string // at most maxRingLines
	next  int      // where the next line goes, once there are so many
}

// Write keeps p, which is one line, as package slog writes them.
func (r *logRing) Write(p []byte) (int, error) {
	line := string(p[:min(len(p), maxRingLine)])
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) < maxRingLines {
		r.lines = append(r.lines, line)
		return len(p), nil
	}
	r.lines[r.next] = line
	r.next = (r.next + 1) % maxRingLines
	return len(p), nil
}

// last returns the lines that are kept, the oldest first.
func (r *logRing) last() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.lines[r.next:], r.lines[:r.next])
}
