package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/link"
	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/bench/load"
)

// A kind says what an agent has in it.
type kind string

// The kinds of agents.
const (
	ours   kind = "ours"
	tsnet  kind = "tsnet"
	kernel kind = "kernel" // no node at all

	// The kernel with a congestion control of TCP.
	cubic kind = "cubic"
	reno  kind = "reno"
	bbr   kind = "bbr"
)

// isKernel reports whether an agent has no node.
func (k kind) isKernel() bool { return k != ours && k != tsnet }

// pathWait is how long two nodes may take to find the path that a row wants.
const pathWait = time.Minute

// An agent is a process with a node in it.
type agent struct {
	*process
	join load.Join
	ip   netip.Addr // on the tailnet, once it has joined
}

// startAgent starts a process; its node does not run yet.
func (f *field) startAgent(ctx context.Context, k kind, at site, c *controlProcess) (*agent, error) {
	path, err := f.file(ctx, agentProgram(k))
	if err != nil {
		return nil, err
	}
	f.started++
	name := fmt.Sprintf("%s-%s%d", k, at.name, f.started)
	var args []string
	if k.isKernel() {
		args = append(args, "-kernel", at.ip.String())
	}
	if k.isKernel() && k != kernel {
		args = append(args, "-congestion", string(k))
	}
	if f.profile != "" {
		args = append(args, "-cpuprofile", filepath.Join(f.profile, name+".pprof"))
	}
	a := &agent{join: load.Join{Name: name, Dir: filepath.Join(f.dir, name), Verbose: f.verbose}}
	if c != nil {
		a.join.Control, a.join.AuthKey = c.tailnet.URL, c.tailnet.AuthKey
	}
	a.process, err = f.start(ctx, at, nil, path, args...)
	return a, err
}

func agentProgram(k kind) program {
	if k == tsnet {
		return program{module: "tsnet", pkg: "agent"}
	}
	return program{module: ".", pkg: "nodes/agent"}
}

// up has the agent's node join, so many times.
func (a *agent) up(count int) error {
	a.join.Count = count
	var joined load.Joined
	err := a.ask("join", a.join, &joined)
	a.ip = joined.IP
	return err
}

func (a *agent) usage() (u load.Usage, err error) {
	err = a.ask("usage", load.Nothing{}, &u)
	return u, err
}

// A way is how packets get from one node to another.
type way struct {
	path string           // as the nodes call it
	link *link.Conditions // of what is between the far sites; nil: they are near
	hold bool             // the core's streams stand still now and then

	derper bool // the relay is the reference's
	cores  int  // that each node may use at once; 0: all
}

// The ways of near sites.
var (
	direct  = way{path: "direct"}
	relayed = way{path: "relay"}
)

// A pair is two nodes of a tailnet that have found their way to each other. The
// left one uses the right one's services.
type pair struct {
	*field
	left, right *agent
	others      []*agent        // further peers of the left one
	control     *controlProcess // nil for the kernel
	link        *linkProcess    // nil unless they are far from each other
	derper      *derperProcess  // nil unless it is the relay
}

// A work is what a pair does in a round, and what comes of it.
type work func(*pair) (rounds.Sample, error)

// withPair does a work with a fresh pair on a fresh tailnet.
func (f *field) withPair(ctx context.Context, k kind, w way, r *rounds.Round, do work) (s rounds.Sample, err error) {
	p := &pair{field: f}
	defer p.stop()
	if err := p.start(ctx, k, w); err != nil {
		return nil, err
	}
	if err := r.Begin(p.pids()...); err != nil {
		return nil, err
	}
	if s, err = do(p); err != nil {
		return nil, err
	}
	return s, r.End()
}

func (p *pair) start(ctx context.Context, k kind, w way) (err error) {
	left, right, err := p.joinSites(ctx, w)
	if err != nil {
		return err
	}
	if !k.isKernel() {
		if err := p.startCore(ctx, w); err != nil {
			return err
		}
	}
	if p.right, err = p.startAgent(ctx, k, right, p.control); err != nil {
		return err
	}
	if p.left, err = p.startAgent(ctx, k, left, p.control); err != nil {
		return err
	}
	p.left.join.Cores, p.right.join.Cores = w.cores, w.cores
	if err := errors.Join(p.introduce(p.right), p.introduce(p.left), p.right.up(1), p.left.up(1)); err != nil {
		return err
	}
	if err := p.right.ask("serve", load.Nothing{}, &load.Nothing{}); err != nil {
		return err
	}
	return p.left.ask("await", load.Await{To: p.right.ip, Path: w.path, Limit: pathWait}, &load.Path{})
}

// startCore starts what is at the core.
func (p *pair) startCore(ctx context.Context, w way) (err error) {
	if p.control, err = p.startControl(ctx, controlOptions{Hold: w.hold, NoRelay: w.derper}); err != nil || !w.derper {
		return err
	}
	p.derper, err = p.startDerper(ctx)
	return err
}

// introduce has an agent know the reference's relay, if that is there, once it
// joins.
func (p *pair) introduce(a *agent) error {
	if p.derper == nil {
		return nil
	}
	return p.control.ask("introduce", introduction{a.join.Name, p.derper.relay}, &load.Nothing{})
}

// joinSites joins two sites as a way wants, and returns them.
func (p *pair) joinSites(ctx context.Context, w way) (left, right site, err error) {
	if p.ground.cable != nil {
		if err := p.ground.cable(w.path == direct.path && w.link == nil); err != nil {
			return left, right, err
		}
	}
	if w.link == nil {
		return p.ground.left, p.ground.right, nil
	}
	p.link, err = p.startLink(ctx, *w.link)
	return p.ground.far.left, p.ground.far.right, err
}

// stop ends all processes; some may not have been started.
func (p *pair) stop() {
	for _, a := range append([]*agent{p.left, p.right}, p.others...) {
		if a != nil && a.process != nil {
			a.stop()
		}
	}
	if p.control != nil {
		p.control.stop()
	}
	if p.derper != nil {
		p.derper.stop()
	}
	if p.link != nil {
		p.link.stop()
	}
}

func (p *pair) pids() []int {
	pids := []int{p.left.pid(), p.right.pid()}
	if p.control != nil {
		pids = append(pids, p.control.pid())
	}
	if p.link != nil {
		pids = append(pids, p.link.pid())
	}
	if p.derper != nil {
		pids = append(pids, p.derper.pid())
	}
	return pids
}

// cpu returns the seconds that both nodes have used.
func (p *pair) cpu() (float64, error) {
	l, err1 := p.left.usage()
	r, err2 := p.right.usage()
	return l.CPU + r.CPU, errors.Join(err1, err2)
}

// spent returns the seconds that both nodes use during f.
func (p *pair) spent(f func() error) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	return after - before, err
}

// peaks returns the most memory that each of the two has had resident, in MB.
func (p *pair) peaks() (left, right float64, err error) {
	l, err1 := p.left.usage()
	r, err2 := p.right.usage()
	return float64(l.Peak) / 1e6, float64(r.Peak) / 1e6, errors.Join(err1, err2)
}
