package interop

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/interop/ground"
	"github.com/seed94491740/tsnode/interop/peer"
)

// A pair says whose nodes are on the two sides: the one that sends first, and
// the one that answers.
type pair struct{ from, to peer.Kind }

func (p pair) String() string { return fmt.Sprintf("%s-%s", p.from, p.to) }

// ours reports whether both nodes are.
func (p pair) ours() bool { return p.from == peer.Ours && p.to == peer.Ours }

var baseline = flag.Bool("baseline", false, "test pairs of reference nodes, too, to compare with; their times are only printed")

// pairs are those that tests are about.
func pairs() []pair {
	all := []pair{{peer.Ours, peer.Ours}, {peer.Ours, peer.Reference}, {peer.Reference, peer.Ours}}
	if *baseline {
		all = append(all, pair{peer.Reference, peer.Reference})
	}
	return all
}

// An arena is a ground with a tailnet: control server, two relays and their STUN
// servers in the core, and nodes in processes on hosts.
type arena struct {
	*testing.T
	ground  *ground.Ground
	tailnet *devnet.Net
	authKey string
	dir     string // of the nodes' state
}

func newArena(t *testing.T) *arena {
	t.Helper()
	a := &arena{T: t, ground: ground.New(t), dir: t.TempDir()}
	a.tailnet = startDevnet(t, devnet.Config{
		Listen: ground.ServerAddr.String() + ":0", Network: a.ground.Internet.Network(), Relays: 2,
		Logger: slog.New(slog.NewTextHandler(a.log("devnet"), nil)),
	})
	a.authKey = a.tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	return a
}

// site adds a site whose link to the core delays every packet.
func (a *arena) site(nat ground.NAT, delay time.Duration) *ground.Site {
	a.Helper()
	s, err := a.ground.Site(nat)
	if err != nil {
		a.Fatal(err)
	}
	s.Link.Set(ground.Conditions{Delay: delay})
	return s
}

// host adds a host to a site.
func (a *arena) host(s *ground.Site, name string) *ground.Host {
	a.Helper()
	h, err := s.Host(name)
	if err != nil {
		a.Fatal(err)
	}
	return h
}

// start starts a node on a host. One of the same name takes over the state of
// the one before.
func (a *arena) start(kind peer.Kind, name string, on peer.Host) *peer.Process {
	a.Helper()
	return a.startAll(newNode{kind, name, on})[0]
}

// startPair starts the nodes of a pair, named a and b.
func (a *arena) startPair(p pair, onA, onB peer.Host) (from, to *peer.Process) {
	a.Helper()
	both := a.startAll(newNode{p.from, "a", onA}, newNode{p.to, "b", onB})
	return both[0], both[1]
}

// A newNode is what startAll needs to know of one.
type newNode struct {
	kind peer.Kind
	name string
	on   peer.Host
}

// startAll starts nodes all at once.
func (a *arena) startAll(nodes ...newNode) []*peer.Process {
	a.Helper()
	started := make([]*peer.Process, len(nodes))
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		log := a.log(n.name)
		all.Go(func() {
			started[i], errs[i] = peer.Start(n.on, peer.Options{
				Kind: n.kind, Name: n.name, ControlURL: a.tailnet.URL(), AuthKey: a.authKey,
				Dir: filepath.Join(a.dir, n.name), Verbose: true,
			}, log)
		})
	}
	all.Wait()
	for _, p := range started {
		if p != nil {
			a.Cleanup(p.Kill)
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.Fatal(err)
	}
	return started
}

// shownLog is how much of a node's log a failed test shows, in bytes.
const shownLog = 20 << 10

// log returns a file for a node's log, the end of which is shown if the test
// fails.
func (a *arena) log(name string) *os.File {
	a.Helper()
	path := filepath.Join(a.dir, name+".log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() {
		f.Close()
		if !a.Failed() {
			return
		}
		b, err := os.ReadFile(path)
		a.Logf("log of %s (%v), the end of it:\n%s", name, err, b[max(0, len(b)-shownLog):])
	})
	return f
}
