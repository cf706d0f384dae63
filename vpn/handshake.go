package vpn

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// Times of the handshake.
const (
	mirrorWait       = 250 * time.Millisecond // for the peer's header, to answer in its order; VPN-03
	handshakeTimeout = 5 * time.Second        // VPN-08
)

// A handshake exchanges headers.
type handshake struct {
	role  role
	order HeaderOrder
	in    *bufio.Reader // the stream's; frames follow on it
	out   io.Writer

	peer chan header // holds the peer's header once it has come
}

// shake exchanges headers on a stream and returns the version in common. What
// follows the peer's header stays in in. When it fails the stream is closed
// (VPN-09).
func shake(ctx context.Context, s Stream, in *bufio.Reader, r role, order HeaderOrder) (Version, error) {
	if err := order.check(); err != nil {
		s.Close()
		return Version{}, fmt.Errorf("vpn: %w", err)
	}
	h := &handshake{role: r, order: cmp.Or(order, HeaderAuto), in: in, out: s, peer: make(chan header, 1)}
	v, err := h.within(ctx, s)
	if err != nil {
		s.Close()
		return Version{}, fmt.Errorf("vpn: handshake: %w", err)
	}
	return v, nil
}

// errSlowPeer says that the peer's header has not come.
var errSlowPeer = fmt.Errorf("the peer has not sent its header, or not read ours, within %v", handshakeTimeout)

// within runs the handshake, and closes the stream when its time is over, which
// wakes whoever reads or writes.
func (h *handshake) within(ctx context.Context, s Stream) (v Version, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errSlowPeer)
	defer cancel()
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) (err error) {
		stop := context.AfterFunc(ctx, func() { s.Close() })
		defer stop()
		g.Go(h.read)
		v, err = h.exchange(ctx)
		if err != nil {
			s.Close() // wakes read
		}
		return err
	})
	if err != nil && ctx.Err() != nil {
		return v, context.Cause(ctx)
	}
	return v, err
}

// read reads the peer's header.
func (h *handshake) read(context.Context) error {
	line, err := readLine(h.in)
	if err != nil {
		return err
	}
	peer, err := parseHeader(line, h.role.peer())
	if err != nil {
		return err
	}
	h.peer <- peer
	return nil
}

// exchange sends our header, in auto after a look at the peer's (VPN-03), and
// returns the version in common.
func (h *handshake) exchange(ctx context.Context) (v Version, err error) {
	var peer header
	order := h.order
	if order == HeaderAuto {
		if peer, err = h.first(ctx); err != nil {
			return v, err
		}
		order = cmp.Or(peer.order, HeaderShipped)
	}
	own := newHeader(h.role, order)
	if _, err := io.WriteString(h.out, own.String()+"\n"); err != nil {
		return v, fmt.Errorf("send header: %w", err)
	}
	if peer.order == "" {
		if peer, err = h.await(ctx); err != nil {
			return v, err
		}
	}
	return common(own.versions, peer.versions)
}

// first returns the peer's header if it comes soon, else none.
func (h *handshake) first(ctx context.Context) (header, error) {
	soon, cancel := context.WithTimeout(ctx, mirrorWait)
	defer cancel()
	peer, err := h.await(soon)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return header{}, nil
	}
	return peer, err
}

// await returns the peer's header.
func (h *handshake) await(ctx context.Context) (header, error) {
	select {
	case peer := <-h.peer:
		return peer, nil
	case <-ctx.Done():
		return header{}, ctx.Err()
	}
}
