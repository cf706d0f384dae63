// Package admit decides which clients a relay takes: those that the tailnet
// node on the relay's host knows, those that an admission URL allows, or those
// that pass both.
//
// It owns the questions and what an answer means. When they are asked, and that
// the relays of a mesh are not asked about, is the relay's.
//
// Source: doc/protocol/derp.md section 8.9.
package admit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/transport/derp/relay"
)

const (
	askTimeout = 5 * time.Second // for a question and its answer; DERP-73, DERP-74
	maxAnswer  = 4 << 10         // bytes of an answer that are read; DERP-74
	maxStatus  = 1 << 20         // the same of a node's status, which lists capabilities
)

// A Check returns why a client is refused, nil if it is admitted. It is what
// relay.Options takes as Verify.
type Check = func(context.Context, relay.Candidate) error

// All returns the check that a client passes if it passes all the given ones,
// asked in their order. Those that are nil are left out; it returns nil if none
// is left.
func All(checks ...Check) Check {
	var all []Check
	for _, c := range checks {
		if c != nil {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return func(ctx context.Context, c relay.Candidate) error {
		for _, check := range all {
			if err := check(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
}

// ask sends a request and reads at most limit bytes of the answer. The status is
// 0 if there was none.
func ask(client *http.Client, r *http.Request, limit int64) (status int, body []byte, err error) {
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		err = fmt.Errorf("read answer: %w", err)
	}
	return resp.StatusCode, body, err
}

// A dialer connects as net.Dialer.DialContext does.
type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// inTime bounds a dialer: net/http lets a dial go on whose request has ended, and
// each login would leave one behind.
func inTime(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return dial(ctx, network, address)
	}
}

// explain names what a bound of ours, which net/http only calls a deadline, was.
func explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer in %v: %w", askTimeout, err)
	}
	return err
}

// warnings tell an operator that a check cannot ask anybody. A login storm must
// not become a log storm.
type warnings struct {
	log   *slog.Logger
	some  rate.Sometimes
	count atomic.Uint64 // clients, those whose line was left out included
}

func newWarnings(log *slog.Logger) *warnings {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &warnings{log: log, some: rate.Sometimes{First: 10, Interval: time.Second}}
}

// warn logs what has become of a client that nobody could be asked about.
func (w *warnings) warn(what string, c relay.Candidate, err error) {
	n := w.count.Add(1)
	w.some.Do(func() { w.log.Warn(what, "client", c.Key, "err", err, "clients", n) })
}
