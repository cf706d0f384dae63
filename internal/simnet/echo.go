package simnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// An echo is a request that waits for its answer.
type echo struct {
	host *Host
	id   uint16
	done chan bool // whether the answer has come; closed without a value by Close
}

// end tells the waiter, once.
func (e *echo) end(answered bool) {
	delete(e.host.echoes, e.id)
	e.done <- answered
}

// Echo implements host.Network.
func (h *Host) Echo(ctx context.Context, to netip.Addr, payload []byte) (time.Duration, error) {
	if h.cfg.NoEcho {
		return 0, fmt.Errorf("simnet: ICMP echo: %w", errors.ErrUnsupported)
	}
	start := time.Now()
	if err := h.roundTrip(ctx, to.Unmap(), payload); err != nil {
		return 0, fmt.Errorf("simnet: ICMP echo to %v: %w", to, err)
	}
	return time.Since(start), nil
}

var errNetClosed = errors.New("the internet is closed")

// roundTrip sends an echo request and waits for the answer.
func (h *Host) roundTrip(ctx context.Context, to netip.Addr, payload []byte) error {
	e, err := h.startEcho(to, payload)
	if err != nil {
		return err
	}
	select {
	case answered := <-e.done:
		if !answered {
			return errNetClosed
		}
		return nil
	case <-ctx.Done():
	}
	h.net.acquire()
	defer h.net.release()
	delete(h.echoes, e.id)
	return ctx.Err()
}

func (h *Host) startEcho(to netip.Addr, payload []byte) (*echo, error) {
	n := h.net
	n.acquire()
	defer n.release()
	if n.closed {
		return nil, errNetClosed
	}
	from, err := h.source(to)
	if err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	id := n.ephemeral(func(id uint16) bool { return h.echoes[id] == nil })
	if id == 0 {
		return nil, errors.New("too many wait for an answer")
	}
	e := &echo{host: h, id: id, done: make(chan bool, 1)}
	p := n.make(Echo, netip.AddrPortFrom(from, id), netip.AddrPortFrom(to, id), len(payload))
	copy(p.payload, payload)
	p.fragment = true
	if err := h.send(p); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	h.echoes[id] = e
	return e, nil
}

// receiveEcho answers a request, or tells who waits for a reply.
func (h *Host) receiveEcho(p *parcel) {
	n := h.net
	if p.reply {
		e := h.echoes[p.dst.Port()]
		if e == nil {
			n.drop(p, &h.node, NoSocket)
			return
		}
		n.note(p, &h.node, Delivered)
		n.recycle(p)
		e.end(true)
		return
	}
	n.note(p, &h.node, Delivered)
	a := n.make(Echo, p.dst, p.src, len(p.payload))
	copy(a.payload, p.payload)
	a.reply, a.fragment = true, true
	n.recycle(p)
	_ = h.send(a) // no way back is as good as a lost answer
}
