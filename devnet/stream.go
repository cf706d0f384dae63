package devnet

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

const (
	// keepAliveEvery is how often a quiet stream shows a sign of life (control.md
	// section 8.3).
	keepAliveEvery = 55 * time.Second

	// writeTimeout is how long a node may take to accept a frame.
	writeTimeout = 30 * time.Second

	// maxStreams is how many streams of one node Headscale serves side by side.
	// The hosted service serves one.
	maxStreams = 4

	// maxForged is how many frames of tests wait for one stream.
	maxForged = 16
)

var (
	// errUnknownNode is the answer to a node key that belongs to nobody, or to
	// another machine (CTL-44).
	errUnknownNode = errors.New("node not found")

	// errReplaced ends a stream: a newer one of the same node has come, or the
	// node was removed.
	errReplaced = errors.New("stream is over")
)

// A stream is one map poll.
type stream struct {
	net     *Net
	machine key.MachinePublic // proven
	at      netip.Addr        // of this server, as the node knows it
	cancel  context.CancelFunc
	forged  chan []byte // frames of tests

	id   netmap.NodeID // of the node; set by beginMap
	view *view         // nil: nothing is to be told
}

// serveMap answers a map request: a lite update, a single map or the stream
// (control.md section 8). An error comes before anything was written.
func (n *Net) serveMap(w http.ResponseWriter, r *http.Request, req *control.MapRequest) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &stream{net: n, machine: connOf(r).Machine, at: localAddr(r), cancel: cancel, forged: make(chan []byte, maxForged)}
	fw, err := control.NewFrameWriter(w, req.Compress)
	if err != nil {
		return err
	}
	closed := n.do(func(t *tailnet, _ time.Time) {
		err = t.beginMap(s, req)
	})
	switch {
	case closed != nil || err != nil:
		return errors.Join(closed, err)
	case s.view == nil:
		w.WriteHeader(http.StatusOK)
		return nil
	case req.Stream:
		defer n.do(func(t *tailnet, now time.Time) { t.endMap(s, now) })
	}
	out := &frames{w: fw, control: http.NewResponseController(w)}
	err = s.serve(ctx, out, req.Stream)
	n.log.Debug("devnet: map stream has ended", "node", s.id, "err", err)
	return nil
}

// beginMap takes the report that a request is and makes the view of a stream.
func (t *tailnet) beginMap(s *stream, req *control.MapRequest) error {
	m := t.byKey(req.NodeKey)
	if m == nil || m.Machine != s.machine {
		return errUnknownNode
	}
	if m.blocked {
		return errBlocked
	}
	if !req.Stream || t.cfg.Headscale {
		t.report(m, req)
	}
	s.id = m.ID
	switch {
	case !req.Stream && (req.OmitPeers || t.cfg.Headscale):
		return nil
	case !req.Stream:
		s.view = newView(t, m.ID, s.at)
		s.view.handle = "" // there is nothing to resume
		return nil
	}
	t.attach(m, s, req)
	return nil
}

// attach makes s a stream of m. Older ones end (control.md section 8.1).
func (t *tailnet) attach(m *member, s *stream, req *control.MapRequest) {
	limit := 1
	if t.cfg.Headscale {
		limit = maxStreams
	}
	for len(m.streams) >= limit {
		m.streams[0].cancel()
		m.streams = slices.Delete(m.streams, 0, 1)
	}
	m.streams = append(m.streams, s)
	if m.session.resumes(req) {
		s.view = m.session
	} else {
		s.view = newView(t, m.ID, s.at)
	}
	s.view.greet = true
	m.session = s.view
	l := *m.live
	l.Online, l.LastSeen, l.Cap = true, time.Time{}, req.Version
	t.setPresence(m, l)
}

// endMap notes that a stream is over, and whether the node has gone with it.
func (t *tailnet) endMap(s *stream, now time.Time) {
	m := t.members[s.id]
	if m == nil {
		return
	}
	m.streams = slices.DeleteFunc(m.streams, func(o *stream) bool { return o == s })
	if len(m.streams) > 0 || !m.live.Online {
		return
	}
	l := *m.live
	l.Online, l.LastSeen = false, now.UTC()
	t.setPresence(m, l)
}

// setPresence is setLive for a member that comes or goes: others may take its
// routes over.
func (t *tailnet) setPresence(m *member, l live) {
	if m.live.Online != l.Online && len(m.offered()) > 0 {
		t.rights.stale = true
	}
	t.setLive(m, l)
}

// frames is where a stream writes to.
type frames struct {
	w       *control.FrameWriter
	control *http.ResponseController
}

// write sends a frame within writeTimeout. The deadline is for the frame alone:
// one that passes while the stream is quiet would end it.
func (f *frames) write(frame func(*control.FrameWriter) error) error {
	f.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // a writer without deadlines notices a dead node later
	defer f.control.SetWriteDeadline(time.Time{})
	if err := frame(f.w); err != nil {
		return err
	}
	return f.control.Flush()
}

// serve sends the map and, on a stream, what changes until ctx ends.
func (s *stream) serve(ctx context.Context, out *frames, forever bool) error {
	ticker := time.NewTicker(keepAliveEvery)
	defer ticker.Stop()
	for {
		_, changed := s.net.changes.Load()
		if err := s.update(ctx, out); err != nil || !forever {
			return err
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			err = actor.Sleep(ctx, s.net.cfg.Gather)
		case body := <-s.forged:
			err = out.write(func(w *control.FrameWriter) error { return w.WriteRaw(body) })
		case <-ticker.C:
			err = out.write(func(w *control.FrameWriter) error { return w.WriteMap(&control.MapResponse{KeepAlive: true}) })
		}
		if err != nil {
			return err
		}
	}
}

// update sends the frames that bring the node up to date.
func (s *stream) update(ctx context.Context, out *frames) error {
	for more := true; more; {
		var resp *control.MapResponse
		var delay time.Duration
		err := errReplaced
		closed := s.net.do(func(t *tailnet, now time.Time) {
			m := t.members[s.id]
			if m == nil || ctx.Err() != nil { // cancelled by the owner, who may have given the view away
				return
			}
			resp, more = s.view.next(t, m, now)
			err, delay = nil, t.faults.delay
		})
		if err := errors.Join(closed, err); err != nil || resp == nil {
			return err
		}
		if delay > 0 {
			if err := actor.Sleep(ctx, delay); err != nil {
				return err
			}
		}
		if err := out.write(func(w *control.FrameWriter) error { return w.WriteMap(resp) }); err != nil {
			return err
		}
	}
	return nil
}
