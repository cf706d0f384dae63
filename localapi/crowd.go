package localapi

import "sync"

// Bounds of the connections of users who may only look.
const (
	maxOthers  = 192 // at a time, of maxConns: there is room left for who may change the node
	maxOneUser = 64  // of one of them
)

// A crowd counts the connections of users who may only look.
type crowd struct {
	mu    sync.Mutex
	total int
	by    map[int]int // by number of the user
}

func newCrowd() *crowd { return &crowd{by: make(map[int]int)} }

// enter reports whether one connection more of a user may begin, and counts it if
// so.
func (c *crowd) enter(uid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= maxOthers || c.by[uid] >= maxOneUser {
		return false
	}
	c.total++
	c.by[uid]++
	return true
}

// leave takes back what enter has counted.
func (c *crowd) leave(uid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.by[uid]--; c.by[uid] == 0 {
		delete(c.by, uid)
	}
}
