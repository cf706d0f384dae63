package main

import (
	"context"
	"io"
	"sync"

	"github.com/seed94491740/tsnode/bench/internal/machine"
	"github.com/seed94491740/tsnode/bench/internal/rounds"
)

const (
	idleAhead = 512 // bytes that an idle client reads at once
	joiners   = 16  // how many log in at a time
)

// runIdle measures the memory of clients that only hear keep-alives.
func runIdle(ctx context.Context, f *field, k kind, r *rounds.Round) (rounds.Sample, error) {
	idlers := &idlers{}
	defer idlers.close() // after the relay, whose profile is to show them
	relay, err := f.startRelay(ctx, k)
	if err != nil {
		return nil, err
	}
	defer relay.stop()
	if err := sleep(ctx, f.warm); err != nil {
		return nil, err
	}
	before, err := machine.Resident(relay.pid())
	if err != nil {
		return nil, err
	}
	if err := r.Begin(relay.pid()); err != nil {
		return nil, err
	}
	if err := idlers.join(ctx, f, relay.addr); err != nil {
		return nil, err
	}
	cpu, err := machine.CPU(relay.pid())
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, f.settle); err != nil {
		return nil, err
	}
	spent, err := machine.CPU(relay.pid())
	if err != nil {
		return nil, err
	}
	after, err := machine.Resident(relay.pid())
	if err != nil {
		return nil, err
	}
	return rounds.Sample{
		"memory of a client": float64(after-before) / float64(f.clients) / 1e3,
		"memory before":      float64(before) / 1e6,
		"CPU while idle":     (spent - cpu).Seconds() / f.settle.Hours(),
	}, r.End()
}

// idlers are clients that read and never send.
type idlers struct {
	mu   sync.Mutex
	all  []*client
	done sync.WaitGroup
}

// join logs all in, several at a time.
func (s *idlers) join(ctx context.Context, f *field, addr string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan struct{}, f.clients)
	for range f.clients {
		todo <- struct{}{}
	}
	close(todo)
	var joining sync.WaitGroup
	for range joiners {
		joining.Go(func() {
			for range todo {
				if err := s.add(ctx, f, addr); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	joining.Wait()
	return context.Cause(ctx)
}

func (s *idlers) add(ctx context.Context, f *field, addr string) error {
	c, err := f.connect(ctx, addr, idleAhead)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.all = append(s.all, c)
	s.mu.Unlock()
	s.done.Go(func() { io.Copy(io.Discard, c.conn) })
	return nil
}

func (s *idlers) close() {
	for _, c := range s.all {
		c.close()
	}
	s.done.Wait()
}
