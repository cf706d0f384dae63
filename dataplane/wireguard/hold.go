package wireguard

import (
	"slices"
	"time"
)

// lateGrace is how much longer the actor waits than a receive goroutine, which
// knows better what has come meanwhile (WG-102).
const lateGrace = 2 * time.Millisecond

// astray opens a datagram that is not the next of its keypair, or for which
// others wait. It reports whether the datagram was authentic and new.
func (o *Opener) astray(kp *keypair, d []byte, r *run) bool {
	q := &kp.recv.order
	counter := counterOf(d)
	if o.engine.config.Late != nil && q.behind(counter) {
		if mem, ok := q.room(len(d)-keepaliveSize, r.now, o.engine.moreHeld); ok {
			return o.hold(kp, d, mem, r)
		}
		o.engine.counters.holdFull.Add(1)
		q.giveUp()
		o.release(kp)
	}
	if !o.open(kp, d, r.rest()) {
		return false
	}
	if counter < q.next || q.waits() {
		o.engine.counters.late.Add(1)
	}
	q.passed(counter, r.now)
	o.release(kp)
	return true
}

// hold opens a datagram that comes too early in mem, to wait there. What does
// not mind its order is passed on.
func (o *Opener) hold(kp *keypair, d, mem []byte, r *run) bool {
	if !o.decrypt(kp, d, mem) {
		return false
	}
	n := 0
	if inOrder(mem) {
		n = len(mem)
		o.engine.counters.held.Add(1)
	} else {
		copy(o.space(len(mem)), mem)
		o.accept(kp.session.peer, o.loose[:len(mem)], false, r.rest())
	}
	kp.recv.order.put(counterOf(d), n, r.now)
	return true
}

// inOrder reports whether a plaintext is a TCP segment that disturbs its receiver
// when it comes before those that were sent before it: one with payload, or that
// ends the stream. A bare acknowledgment does not.
func inOrder(plain []byte) bool {
	pkt := plain[:innerLength(plain, len(plain))]
	tcp, headers := tcpHeaders(pkt)
	return headers > 0 && (len(pkt) > headers || pkt[tcp+tcpFlags]&endsStream != 0)
}

// release passes on what need not wait any more.
func (o *Opener) release(kp *keypair) {
	q, p, t := &kp.recv.order, kp.session.peer, &o.train
	for w, ok := q.take(); ok; w, ok = q.take() {
		if w.n == 0 {
			continue
		}
		joined := t.peer == p && t.fits(w.n)
		var dst []byte
		if joined {
			dst = t.overlay(w.n)
		} else {
			dst = o.space(w.n)
		}
		copy(dst, q.bytes(w))
		o.accept(p, dst[:w.n], joined, q.used-w.off-w.n)
	}
}

// watch makes the actor look at kp when nothing else may.
func (o *Opener) watch(kp *keypair) {
	q := &kp.recv.order
	if at := q.deadline(); at != 0 && (q.watch == 0 || at+Tick(lateGrace) < q.watch) {
		q.watch = at + Tick(lateGrace)
		kp.session.raise(eventHeld)
	}
}

// moreHeld takes so many bytes of what the engine has for packets that wait.
func (e *Engine) moreHeld(bytes int) bool {
	if e.counters.heldBytes.Add(int64(bytes)) <= e.config.Held {
		return true
	}
	e.counters.heldBytes.Add(-int64(bytes))
	return false
}

// shut drops what waits under a keypair that is forgotten.
func (e *Engine) shut(kp *keypair) {
	kp.recv.Lock()
	defer kp.recv.Unlock()
	e.counters.heldBytes.Add(-int64(kp.recv.order.close()))
}

// lateness is what the actor knows of packets that wait. It has an Opener of its
// own from the first time on that it needs one.
type lateness struct {
	engine   *Engine
	opener   *Opener
	keypairs []*keypair // with a watch
	due      Tick       // of the first; 0 = there is none
}

// add takes up the keypairs of s that want to be looked at.
func (l *lateness) add(s *session) {
	for _, kp := range [...]*keypair{s.current.Load(), s.next, s.previous[0], s.previous[1]} {
		if kp == nil {
			continue
		}
		kp.recv.Lock()
		watch := kp.recv.order.watched()
		kp.recv.Unlock()
		if watch == 0 {
			continue
		}
		l.due = sooner(l.due, watch)
		if !slices.Contains(l.keypairs, kp) {
			l.keypairs = append(l.keypairs, kp)
		}
	}
}

// first returns when there is something to do, 0 for never.
func (l *lateness) first() Tick { return l.due }

// look passes on what has waited for long enough.
func (l *lateness) look(now Tick) {
	if l.due == 0 || now < l.due {
		return
	}
	if l.opener == nil {
		l.opener = l.engine.NewOpener(l.engine.config.Late)
	}
	l.due = 0
	l.keypairs = slices.DeleteFunc(l.keypairs, func(kp *keypair) bool {
		watch := l.opener.expire(kp, now)
		l.due = sooner(l.due, watch)
		return watch == 0
	})
	l.opener.Flush()
}

// expire passes on what has waited for long enough, and returns when to look
// again.
func (o *Opener) expire(kp *keypair, now Tick) Tick {
	kp.recv.Lock()
	defer kp.recv.Unlock() // also when a Sink panics
	q := &kp.recv.order
	if q.expire(now) {
		o.release(kp)
	}
	if !q.waits() && now >= q.until {
		o.engine.counters.heldBytes.Add(-int64(q.clear()))
	}
	q.watch = 0
	if at := q.deadline(); at != 0 {
		q.watch = at + Tick(lateGrace)
	}
	return q.watch
}
