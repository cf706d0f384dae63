package vpn

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// Paces of updates.
const (
	refreshEvery = 5 * time.Second        // of handshakes and pings; VPN-32
	updateGap    = 250 * time.Millisecond // between two updates at least: a person reads them
	questions    = 1024                   // of the manager that wait
)

// An updater tells the manager of the peers. It alone sends PeerUpdates, so that
// each applies on top of the one before it (VPN-28, VPN-29).
type updater struct {
	link *link
	by   Grouping
	log  *slog.Logger

	view  actor.Cell[*view] // whose peers; nil: there are none
	asked chan question     // in the order of the manager

	told roster // what the writer has been handed; of serve
}

func newUpdater(l *link, by Grouping, log *slog.Logger) *updater {
	return &updater{link: l, by: by, log: log, asked: make(chan question, questions), told: newRoster()}
}

// A view is where an updater looks. The session alone changes it.
type view struct {
	run    *run
	quiet  bool // changes are not told yet
	frozen bool // the node ends: what was told last stays
}

// netmap is that of the node.
func (v *view) netmap() (*netmap.Netmap, <-chan struct{}) {
	if v == nil || v.frozen {
		return nil, nil
	}
	return v.run.netmap()
}

// freeze keeps what was told until the node is gone.
func (u *updater) freeze() {
	if u.view.Get() != nil {
		u.view.Store(&view{frozen: true})
	}
}

// A question is a GetPeerUpdate request, or asks when those before it are answered.
type question struct {
	id       uint64
	view     *view         // whose peers, when the manager has asked
	answered chan struct{} // closed when all before it are answered; nil for a request
}

// ask has a GetPeerUpdate request answered. It fails with errUnread when too many
// are not yet.
func (u *updater) ask(id uint64) error {
	select {
	case u.asked <- question{id: id, view: u.view.Get()}:
		return nil
	case <-u.link.written:
		return nil
	default:
		return errUnread
	}
}

// catchUp returns when the writer has the answers to all that was asked, or takes
// no more of them, or when ctx ends.
func (u *updater) catchUp(ctx context.Context) {
	q := question{answered: make(chan struct{})}
	select {
	case u.asked <- q:
	case <-u.link.written:
	case <-ctx.Done():
	}
	select {
	case <-q.answered:
	case <-u.link.written:
	case <-ctx.Done():
	}
}

// serve tells what changes until ctx ends.
func (u *updater) serve(ctx context.Context) error {
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	for {
		v, viewChanged := u.view.Load()
		nm, netmapChanged := v.netmap()
		told, err := u.tell(ctx, v, nm, viewChanged, netmapChanged)
		if err == nil && told {
			err = u.pause(ctx)
		}
		if err != nil {
			return err
		}
		select {
		case <-viewChanged:
		case <-netmapChanged:
		case <-refresh.C:
		case q := <-u.asked:
			err = u.answer(ctx, q)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// roster is what there is to tell.
func (u *updater) roster(v *view, nm *netmap.Netmap) roster {
	switch {
	case v != nil && v.frozen:
		return u.told
	case nm == nil:
		return newRoster()
	}
	return rosterOf(nm, knowledge{v.run.node.Traffic(), v.run.pings.Get(), time.Now()}, u.by)
}

// tell hands what has changed to the writer. It gives up, to look again, when
// there are news before the writer has taken the first of it. It reports whether
// there was something to tell.
func (u *updater) tell(ctx context.Context, v *view, nm *netmap.Netmap, news ...<-chan struct{}) (bool, error) {
	if v != nil && v.quiet {
		return false, nil
	}
	updates, after := changes(u.told, u.roster(v, nm))
	first := true
	for i := range updates {
		for _, part := range updates[i].split() {
			if !first {
				news = []<-chan struct{}{nil, nil} // the rest belongs to it
			}
			taken, err := u.offer(ctx, &wire.TunnelMessage{Msg: &wire.TunnelMessage_PeerUpdate{PeerUpdate: part}}, news[0], news[1])
			if err != nil || !taken {
				return true, err
			}
			first = false
		}
		u.told = after[i]
	}
	return len(updates) > 0, nil
}

// offer hands a message to the writer unless there are news before.
func (u *updater) offer(ctx context.Context, m message, viewChanged, netmapChanged <-chan struct{}) (taken bool, err error) {
	frame, err := encode(m)
	if err != nil {
		u.log.Error("vpn: peer update", "err", err)
		return true, nil // it cannot be told
	}
	select {
	case u.link.out <- frame:
		return true, nil
	case <-viewChanged:
	case <-netmapChanged:
	case <-u.link.written:
		<-ctx.Done() // nobody hears of it any more
		return false, ctx.Err()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return false, nil
}

// pause answers questions only, for a moment.
func (u *updater) pause(ctx context.Context) error {
	over := time.NewTimer(updateGap)
	defer over.Stop()
	for {
		select {
		case <-over.C:
			return nil
		case q := <-u.asked:
			if err := u.answer(ctx, q); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answer tells all peers there are (VPN-27). A request is answered in any case
// (VPN-18).
func (u *updater) answer(ctx context.Context, q question) error {
	if q.answered != nil {
		close(q.answered)
		return nil
	}
	nm, _ := q.view.netmap()
	next := u.roster(q.view, nm)
	all := next.update()
	m := &wire.TunnelMessage{Rpc: replyTo(q.id), Msg: &wire.TunnelMessage_PeerUpdate{PeerUpdate: all.toWire()}}
	err := u.link.post(ctx, m)
	switch {
	case err == nil:
		u.told = next
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errClosing):
		return nil
	}
	u.log.Error("vpn: answer with all peers", "err", err)
	m.Msg = nil
	return u.link.reply(m, m)
}
