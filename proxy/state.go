package proxy

import (
	"context"

	"github.com/seed94491740/tsnode/internal/actor"
)

// A message changes which forwards run. Only Serve applies it.
type message interface{ apply(*state) }

// A state is what Serve knows.
type state struct {
	set   *Set
	group *actor.Group
	runs  map[Spec]*running
}

// Serve runs forwards until ctx ends.
func (s *Set) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		st := &state{set: s, group: g, runs: make(map[Spec]*running)}
		defer s.now.Store(nil)
		st.follow(s.want.Get())
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case m := <-s.inbox:
				m.apply(st)
			}
		}
	})
}

// follow ends what is not wanted, then starts what is new: that may need a port
// which only then is free.
func (st *state) follow(w wanted) (started []*running) {
	st.set.want.Store(w)
	want := w.specs()
	wanted := make(map[Spec]bool)
	for _, spec := range want {
		wanted[spec] = true
	}
	var ending []*running
	for spec, r := range st.runs {
		if !wanted[spec] {
			delete(st.runs, spec)
			r.drain() // closes the listener before it returns
			r.cancel()
			if r.service.Load() == nil { // or one that it is about to open
				ending = append(ending, r)
			}
		}
	}
	var now []*running
	for _, spec := range want {
		r, ok := st.runs[spec]
		if !ok {
			r = st.start(spec, ending)
			started = append(started, r)
		}
		now = append(now, r)
	}
	st.set.now.Store(now)
	return started
}

func (st *state) start(spec Spec, before []*running) *running {
	r := newRunning(st.group.Context(), st.set, spec)
	r.before = before
	st.runs[spec] = r
	st.group.Go(r.serve)
	return r
}

// A changeMessage is Apply, Add or Remove.
type changeMessage struct {
	edit func(*wanted) error // an error changes nothing
	done chan<- changed
}

// A changed tells how a change went.
type changed struct {
	started []*running
	err     error
}

func (m changeMessage) apply(st *state) {
	w := st.set.want.Get()
	err := ErrDrained
	if !w.drained {
		err = m.edit(&w)
	}
	if err != nil {
		m.done <- changed{err: err}
		return
	}
	m.done <- changed{started: st.follow(w)}
}

// A drainMessage is Drain.
type drainMessage struct{ left chan<- []*running }

func (m drainMessage) apply(st *state) {
	st.set.want.Store(wanted{drained: true})
	var left []*running
	for _, r := range st.runs {
		r.drain()
		left = append(left, r)
	}
	m.left <- left
}
