package control

import (
	"context"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// A leg is one way to reach the server.
type leg struct {
	after time.Duration // from the start of the race; earlier if all legs before have failed
	dial  func(context.Context) (*Conn, error)
}

// race starts the legs one after another and returns the first connection.
// Before it returns the other legs have ended and what they made is closed
// (CTL-07). The error is a raceError of those of all legs.
func race(ctx context.Context, legs []leg) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := racing{results: make(chan result, len(legs))}
	begin := time.Now()
	var won *Conn
	for next := 0; next < len(legs) || r.running > 0; {
		if won == nil && ctx.Err() == nil && next < len(legs) && (r.running == 0 || time.Since(begin) >= legs[next].after) {
			r.start(ctx, legs[next])
			next++
			continue
		}
		if won != nil || ctx.Err() != nil {
			next = len(legs)
			if r.running == 0 {
				break
			}
		}
		if c := r.wait(ctx, begin, legs[next:]); c != nil {
			won = keepFirst(won, c)
			cancel()
		}
	}
	if won != nil {
		return won, nil
	}
	if err := ctx.Err(); err != nil {
		r.errs = append(r.errs, err)
	}
	return nil, raceError(r.errs)
}

// A raceError is why each leg of a race has failed.
type raceError []error

func (e raceError) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e raceError) Unwrap() []error { return e }

type result struct {
	conn *Conn
	err  error
}

type racing struct {
	running int
	results chan result
	errs    []error
}

func (r *racing) start(ctx context.Context, l leg) {
	r.running++
	go r.run(ctx, l)
}

// run dials for one leg.
func (r *racing) run(ctx context.Context, l leg) {
	var res result
	res.err = actor.Guard(ctx, func(ctx context.Context) (err error) {
		res.conn, err = l.dial(ctx)
		return err
	})
	r.results <- res
}

// wait returns when a leg has ended or the next one is due; it returns the
// connection if that leg has made one.
func (r *racing) wait(ctx context.Context, begin time.Time, waiting []leg) *Conn {
	var due <-chan time.Time
	if len(waiting) > 0 {
		t := time.NewTimer(waiting[0].after - time.Since(begin))
		defer t.Stop()
		due = t.C
	}
	select {
	case res := <-r.results:
		r.running--
		if res.err != nil {
			r.errs = append(r.errs, res.err)
		}
		return res.conn
	case <-due:
		return nil
	}
}

// keepFirst closes the later of two connections.
func keepFirst(first, later *Conn) *Conn {
	if first == nil {
		return later
	}
	later.Close()
	return first
}
