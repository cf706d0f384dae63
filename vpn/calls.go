package vpn

import (
	"context"
	"io"
	"sync"
)

// calls are our requests that wait for replies (VPN-14).
type calls struct {
	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan message // each takes one reply without a wait

	ended chan struct{} // closed when no reply comes any more
}

func newCalls() *calls {
	return &calls{waiting: make(map[uint64]chan message), ended: make(chan struct{})}
}

// begin returns the id of a new request and where its reply will be.
func (c *calls) begin() (id uint64, reply <-chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	slot := make(chan message, 1)
	c.waiting[c.lastID] = slot
	return c.lastID, slot
}

// forget gives a request up; its reply is dropped.
func (c *calls) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// deliver hands a reply to who waits for it. It reports false for one that
// nobody waits for: late, or a second one.
func (c *calls) deliver(m message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := m.GetRpc().GetResponseTo()
	slot, ok := c.waiting[id]
	if ok {
		delete(c.waiting, id)
		slot <- m
	}
	return ok
}

// end says that no reply comes any more. It is called once.
func (c *calls) end() { close(c.ended) }

// await waits for a reply. One that came before the end wins over it.
func (c *calls) await(ctx context.Context, reply <-chan message) (message, error) {
	select {
	case m := <-reply:
		return m, nil
	case <-c.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case m := <-reply:
		return m, nil
	default:
		return nil, io.ErrUnexpectedEOF
	}
}
