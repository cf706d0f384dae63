package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

// A report tells the server where this node can be reached and what it offers,
// by lite updates (control.md section 10.4).
type report struct{ *Client }

const (
	// reportGather lets changes that come together travel together (CTL-57).
	reportGather = 2 * time.Millisecond

	// reportEvery is the time between reports in the long run; reportBurst of them
	// may go before it counts. A login is such a burst: the node says that it is
	// there, then its home region, then its endpoints, and until then no peer can
	// answer it.
	reportEvery = 100 * time.Millisecond
	reportBurst = 3

	// reportTimeout bounds one lite update: a server that is slower is asked
	// again.
	reportTimeout = 30 * time.Second
)

// Serve sends one update after each login, and one when anything but the
// measured latencies has changed since the last one that arrived. One is under
// way at most; the newest state wins.
func (r *report) Serve(ctx context.Context) error {
	var sent string
	var pace pacer
	var backoff actor.Backoff
	for {
		changed := r.changed()
		l := r.login.Get()
		if now := r.fingerprint(l); l.key.IsZero() || now == sent {
			if err := changed.wait(ctx); err != nil {
				return err
			}
			continue
		}
		if err := actor.Sleep(ctx, pace.wait(time.Now())); err != nil {
			return err
		}
		l = r.login.Get()
		if l.key.IsZero() {
			continue
		}
		pace.note(time.Now())
		now := r.fingerprint(l)
		if err := r.update(ctx, l); err != nil {
			r.log.Debug("report to the control server has failed", "err", err)
			if err := actor.Sleep(ctx, max(backoff.Next(), retryDelay(err))); err != nil {
				return err
			}
			continue
		}
		sent = now
		backoff.Reset()
	}
}

// A pacer spaces reports: a burst goes at once, more wait.
type pacer struct {
	due time.Time // when the next would go if there were no bursts
}

// wait returns how long a report that is wanted now gathers changes.
func (p *pacer) wait(now time.Time) time.Duration {
	return max(reportGather, p.due.Add(-(reportBurst-1)*reportEvery).Sub(now))
}

// note counts a report that goes now.
func (p *pacer) note(now time.Time) {
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(reportEvery)
}

// update sends one lite update; its answer carries nothing.
func (r *report) update(ctx context.Context, l login) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	req := r.mapRequest(l.key.Public())
	req.OmitPeers = true
	resp, err := r.send(ctx, http.MethodPost, PathMap, req, l.key.Public())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxRegisterBody))
	return err
}

// fingerprint tells two states apart by what is worth an update: latencies and
// the order of endpoints are not.
func (r *report) fingerprint(l login) string {
	if l.key.IsZero() {
		return ""
	}
	req := r.mapRequest(key.NodePublic{}) // each key has a generation of its own
	sort.Slice(req.Endpoints, func(i, j int) bool { return req.Endpoints[i].Compare(req.Endpoints[j]) < 0 })
	req.EndpointTypes = nil
	req.Hostinfo.NetInfo.DERPLatency = nil
	b, err := json.Marshal(req)
	if err != nil {
		panic(fmt.Sprintf("control: encode a map request: %v", err)) // all its types encode
	}
	return fmt.Sprintf("%d %s", l.generation, b)
}

// changes are the channels that tell of a change of what is reported.
type changes [6]<-chan struct{}

// changed is taken before the state is looked at, so that no change is missed.
func (r *report) changed() (c changes) {
	_, c[0] = r.login.Load()
	_, c[1] = r.cfg.Hostinfo.Load()
	_, c[2] = r.cfg.Endpoints.Load()
	_, c[3] = r.cfg.NetInfo.Load()
	_, c[4] = r.cfg.Home.Load()
	_, c[5] = r.lockHead.Load()
	return c
}

func (c changes) wait(ctx context.Context) error {
	select {
	case <-c[0]:
	case <-c[1]:
	case <-c[2]:
	case <-c[3]:
	case <-c[4]:
	case <-c[5]:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
