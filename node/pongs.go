package node

import (
	"sync"
	"time"
)

// pongs hands in-tunnel pongs to the pings that wait for them. The zero value is
// ready.
type pongs struct {
	mu      sync.Mutex
	waiting map[[8]byte]chan tsmpPong
}

// A tsmpPong is what an in-tunnel pong says.
type tsmpPong struct {
	at      time.Time
	peerAPI uint16 // port, 0 = none
}

// expect returns where the pong with data will come.
func (p *pongs) expect(data [8]byte) <-chan tsmpPong {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = make(map[[8]byte]chan tsmpPong)
	}
	c := make(chan tsmpPong, 1)
	p.waiting[data] = c
	return c
}

func (p *pongs) forget(data [8]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, data)
}

// answered is called by receive goroutines; it takes a lock that is held for
// moments only.
func (p *pongs) answered(data [8]byte, peerAPI uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.waiting[data]; c != nil {
		c <- tsmpPong{time.Now(), peerAPI}
		delete(p.waiting, data)
	}
}
