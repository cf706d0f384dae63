package main

import (
	"context"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/bench/load"
)

// starting measures a process from its start until its node runs, has got a byte
// back from another node, and sends to it directly.
func (f *field) starting(ctx context.Context, k kind, r *rounds.Round) (rounds.Sample, error) {
	p := &pair{field: f}
	defer p.stop()
	if err := p.start(ctx, k, direct); err != nil {
		return nil, err
	}
	p.left.stop() // the process under test is another one
	if err := r.Begin(p.right.pid(), p.control.pid()); err != nil {
		return nil, err
	}
	s, began := rounds.Sample{}, time.Now()
	var err error
	if p.left, err = f.startAgent(ctx, k, f.ground.left, p.control); err != nil {
		return nil, err
	}
	r.Add(p.left.pid())
	if err := p.left.up(1); err != nil {
		return nil, err
	}
	s["running"] = time.Since(began).Seconds()
	for _, step := range []struct {
		name, path string
	}{{"first byte", ""}, {"direct path", direct.path}} {
		w := load.Await{To: p.right.ip, Path: step.path, Limit: pathWait}
		if err := p.left.ask("await", w, &load.Path{}); err != nil {
			return nil, err
		}
		s[step.name] = time.Since(began).Seconds()
	}
	return s, r.End()
}

// startingAtHome is starting with each node at home, behind a router that
// translates addresses.
func (f *field) startingAtHome(ctx context.Context, k kind, r *rounds.Round) (rounds.Sample, error) {
	g, err := f.ground.homes()
	if err != nil {
		return nil, err
	}
	defer g.close()
	home := *f
	home.ground = g
	s, err := home.starting(ctx, k, r)
	if err != nil {
		return nil, err
	}
	f.started = home.started
	s["after first byte"] = s["direct path"] - s["first byte"]
	return s, nil
}

// alone does a work with one process on a tailnet with peers that exist on the
// map only.
func (f *field) alone(ctx context.Context, k kind, synthetic int, r *rounds.Round, do func(*agent) (rounds.Sample, error)) (rounds.Sample, error) {
	c, err := f.startControl(ctx, controlOptions{})
	if err != nil {
		return nil, err
	}
	defer c.stop()
	if synthetic > 0 {
		if err := c.addSynthetic(synthetic); err != nil {
			return nil, err
		}
	}
	a, err := f.startAgent(ctx, k, f.ground.left, c)
	if err != nil {
		return nil, err
	}
	defer a.stop()
	if err := r.Begin(c.pid(), a.pid()); err != nil {
		return nil, err
	}
	s, err := do(a)
	if err != nil {
		return nil, err
	}
	return s, r.End()
}

// idling measures a node that nobody talks to.
func (f *field) idling(ctx context.Context, k kind, r *rounds.Round) (rounds.Sample, error) {
	return f.alone(ctx, k, 0, r, func(a *agent) (rounds.Sample, error) {
		if err := a.up(1); err != nil {
			return nil, err
		}
		if err := sleep(ctx, f.settle); err != nil {
			return nil, err
		}
		before, err := a.usage()
		if err != nil {
			return nil, err
		}
		if err := sleep(ctx, f.idle); err != nil {
			return nil, err
		}
		after, err := a.usage()
		return rounds.Sample{
			"RSS": float64(after.Resident) / 1e6, "goroutines": float64(after.Goroutines),
			"CPU": 1e3 * (after.CPU - before.CPU) / f.idle.Minutes(),
		}, err
	})
}

// knowing measures a node that knows so many peers.
func (f *field) knowing(peers int) func(context.Context, kind, *rounds.Round) (rounds.Sample, error) {
	return func(ctx context.Context, k kind, r *rounds.Round) (rounds.Sample, error) {
		return f.alone(ctx, k, peers, r, func(a *agent) (rounds.Sample, error) {
			began := time.Now()
			if err := a.up(1); err != nil {
				return nil, err
			}
			s := rounds.Sample{"running": time.Since(began).Seconds()}
			if err := sleep(ctx, f.settle); err != nil {
				return nil, err
			}
			u, err := a.usage()
			s["RSS"], s["peak RSS"] = float64(u.Resident)/1e6, float64(u.Peak)/1e6
			s["CPU"] = u.CPU
			return s, err
		})
	}
}

// crowding measures what each further node in a process costs.
func (f *field) crowding(nodes int) func(context.Context, kind, *rounds.Round) (rounds.Sample, error) {
	return func(ctx context.Context, k kind, r *rounds.Round) (rounds.Sample, error) {
		return f.alone(ctx, k, 0, r, func(a *agent) (rounds.Sample, error) {
			one, err := f.joined(ctx, a, 1)
			if err != nil {
				return nil, err
			}
			all, err := f.joined(ctx, a, nodes-1)
			n := float64(nodes - 1)
			return rounds.Sample{
				"RSS of a further node": float64(all.Resident-one.Resident) / 1e6 / n,
				"goroutines of it":      float64(all.Goroutines-one.Goroutines) / n,
				"RSS of all":            float64(all.Resident) / 1e6,
			}, err
		})
	}
}

// joined starts further nodes and returns what the process has used when they
// have settled.
func (f *field) joined(ctx context.Context, a *agent, count int) (u load.Usage, err error) {
	if err := a.up(count); err != nil {
		return u, err
	}
	if err := sleep(ctx, f.settle); err != nil {
		return u, err
	}
	return a.usage()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
