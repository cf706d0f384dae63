package relay

import (
	"context"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

const (
	// writeSize is the size in bytes of a write buffer: what one TLS record
	// takes (DERP-164, RFC 8446 section 5.1). Buffers are borrowed for a burst;
	// an idle client holds none (DERP-57).
	writeSize = 16 << 10

	// restTime is how long a sender waits for more before its goroutine ends.
	restTime = time.Second

	// meshWriteTimeout is how long a mesh peer may take to accept a write: the
	// mesh key is also with monitors far away (DERP-61).
	meshWriteTimeout = 30 * time.Second
)

var writePool = sync.Pool{New: func() any { b := make([]byte, 0, writeSize); return &b }}

// A sender writes what waits for one client. There is one while there is
// something to write: an idle client has no goroutine but its reader (DERP-161).
type sender struct {
	c    *client
	load load

	// of the write that is being put together
	buf    []byte
	frames int // of any kind in buf
	done   int // load.frames[:done] were written
	added  int // load.frames[done:added] are in buf
	writes int // of this load
}

// startSender is called with the outbox locked.
func (c *client) startSender() { c.server.group.Go(c.send) }

// send runs a sender. Its failure ends the client and nobody else.
func (c *client) send(ctx context.Context) error {
	w := &sender{c: c}
	if err := actor.Guard(ctx, w.run); err != nil {
		c.end(err)
		w.giveUp()
		c.queue.abort()
	}
	return nil
}

func (w *sender) run(context.Context) error {
	q := &w.c.queue
	rest := time.NewTimer(restTime)
	defer rest.Stop()
	for {
		switch q.take(&w.load, time.Now()) {
		case senderBusy:
			if err := w.write(); err != nil {
				return err
			}
		case senderResting:
			rest.Reset(restTime)
			select {
			case <-q.wake:
			case <-rest.C:
				if q.leaveOff() {
					return nil
				}
				<-q.wake // sent as the time ran out
			}
		default:
			return nil
		}
	}
}

// write writes the load through a borrowed buffer, in as few writes as it fits
// (DERP-56).
func (w *sender) write() error {
	p := writePool.Get().(*[]byte)
	defer writePool.Put(p)
	w.buf, w.frames, w.done, w.added, w.writes = (*p)[:0], 0, 0, 0, 0
	if err := w.addOwn(); err != nil {
		return err
	}
	w.c.server.stats.noteQueued(w.load.frames)
	for _, f := range w.load.frames {
		if err := w.makeRoom(len(f.b)); err != nil {
			return err
		}
		w.buf = append(w.buf, f.b...)
		w.frames++
		w.added++
		w.subscribe(f)
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.noteWritten()
	return nil
}

// addOwn adds the frames of the server's own.
func (w *sender) addOwn() error {
	for _, g := range w.load.gone {
		if err := w.makeRoom(derp.HeaderSize + key.Size + 1); err != nil {
			return err
		}
		w.buf = w.appendGone(w.buf, g)
		w.frames++
	}
	if err := w.makeRoom(len(w.load.own)); err != nil {
		return err
	}
	w.buf = append(w.buf, w.load.own...)
	w.frames += w.load.signals.count()
	for _, u := range w.load.updates {
		if err := w.makeRoom(updateSize); err != nil {
			return err
		}
		w.buf = u.append(w.buf)
		w.frames++
	}
	return nil
}

// makeRoom flushes when n more bytes do not fit.
func (w *sender) makeRoom(n int) error {
	if len(w.buf) == 0 || len(w.buf)+n <= writeSize {
		return nil
	}
	return w.flush()
}

// flush writes the buffer before the write deadline. A client that cannot take
// it in time is disconnected, never waited for (DERP-63).
func (w *sender) flush() error {
	if err := w.c.write(w.buf); err != nil {
		return err
	}
	w.c.server.stats.writeFrames.observe(w.frames)
	w.writes++
	for _, f := range w.load.frames[w.done:w.added] {
		w.c.counters.sent(f)
		f.release()
	}
	w.buf, w.frames, w.done = w.buf[:0], 0, w.added
	return nil
}

// noteWritten counts what was written beside packets, and lets large scratch
// memory go (DERP-88).
func (w *sender) noteWritten() {
	st := &w.c.server.stats
	if w.load.signals.pong {
		st.pongs.Add(1)
	}
	if n := len(w.load.updates); n > 0 {
		st.updateBatch.observe(n)
		st.updateWrites.observe(w.writes)
	}
	w.load.updates = nil
	w.load.signals.done()
}

// giveUp counts the packets of a load that could not be written.
func (w *sender) giveUp() {
	for i, f := range w.load.frames[w.done:] {
		why := DropGone
		if w.done+i < w.added {
			why = DropWrite
		}
		w.c.server.drop(why, w.c.key, f)
	}
	w.load.frames = nil
	w.load.signals.done()
}

// appendGone appends a notice and forgets the peer, so that its next departure
// is told as well (DERP-70).
func (w *sender) appendGone(b []byte, g gone) []byte {
	if g.why == derp.GoneDisconnected {
		delete(w.c.heardOf.sources, g.peer)
		if w.c.heardOf.last == g.peer {
			w.c.heardOf.last = key.NodePublic{}
		}
		w.c.server.stats.goneDisconnected.Add(1)
	} else {
		w.c.server.stats.goneNotHere.Add(1)
	}
	return derp.AppendPeerGone(b, g.peer, g.why)
}

// subscribe has the client told when the source of a packet leaves (DERP-69). A
// source that left while its packet waited is told of at once; one of another
// relay may not be known here yet.
func (w *sender) subscribe(f *frame) {
	c, src := w.c, f.src()
	if src == c.heardOf.last {
		return
	}
	if _, ok := c.heardOf.sources[src]; !ok {
		if !c.server.registry.subscribe(src, c, f.forwarded) {
			c.queue.pushGone(src, derp.GoneDisconnected)
			return
		}
		if c.heardOf.sources == nil {
			c.heardOf.sources = make(map[key.NodePublic]struct{})
		}
		c.heardOf.sources[src] = struct{}{}
	}
	c.heardOf.last = src
}
