package node

import (
	"context"
	"net/netip"
	"sync"

	"github.com/seed94491740/tsnode/packet"
)

// rejects tells dials that wait for an answer when the peer says that its
// policy refuses them (node-services.md section 4.3). The zero value is ready.
type rejects struct {
	mu      sync.Mutex
	waiting map[flow]map[*context.CancelCauseFunc]struct{}
}

// A flow is what a dial waits for; its source port is not known yet.
type flow struct {
	proto packet.Proto
	dst   netip.AddrPort
}

// A rejectError is the cause that ends a rejected dial.
type rejectError struct{ reason packet.RejectReason }

func (e *rejectError) Error() string { return "rejected by the peer: " + e.reason.String() }
func (e *rejectError) Unwrap() error { return ErrRejected }

// watch returns a context that ends with a *rejectError when the flow is
// rejected, and what ends the watch.
func (r *rejects) watch(ctx context.Context, proto packet.Proto, dst netip.AddrPort) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	f, id := flow{proto, dst}, &cancel
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = make(map[flow]map[*context.CancelCauseFunc]struct{})
	}
	if r.waiting[f] == nil {
		r.waiting[f] = make(map[*context.CancelCauseFunc]struct{})
	}
	r.waiting[f][id] = struct{}{}
	return ctx, func() { r.forget(f, id); cancel(nil) }
}

func (r *rejects) forget(f flow, id *context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting[f], id)
	if len(r.waiting[f]) == 0 {
		delete(r.waiting, f)
	}
}

// rejected ends the dials to the flow's destination. It takes a lock that is
// held for moments only.
func (r *rejects) rejected(m packet.Reject) {
	if m.MaybeBroken {
		return // advisory: the flow may work all the same
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for cancel := range r.waiting[flow{m.Proto, m.Dst}] {
		(*cancel)(&rejectError{m.Reason})
	}
}
