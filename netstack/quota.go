package netstack

import "sync/atomic"

// A quota bounds the memory of the datagrams that wait in all sockets of a stack
// together, each counted as in its socket. A nil quota bounds nothing.
type quota struct {
	limit int64 // bytes
	used  atomic.Int64
}

// newQuota returns a quota of limit bytes, nil for 0.
func newQuota(limit int64) *quota {
	if limit == 0 {
		return nil
	}
	return &quota{limit: limit}
}

// take reports whether n bytes more fit, and counts them if so.
func (q *quota) take(n int) bool {
	if q == nil {
		return true
	}
	if q.used.Add(int64(n)) > q.limit {
		q.used.Add(int64(-n))
		return false
	}
	return true
}

// give takes n bytes off what is counted.
func (q *quota) give(n int) {
	if q != nil {
		q.used.Add(int64(-n))
	}
}

// memory returns how many bytes wait.
func (q *quota) memory() int64 {
	if q == nil {
		return 0
	}
	return q.used.Load()
}
