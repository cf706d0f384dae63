package node

import (
	"flag"
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
)

var (
	lifeNodes = flag.Int("life.nodes", defaultLifeNodes, "nodes of TestTailnetLife")
	lifeFor   = flag.Duration("life.for", time.Hour, "simulated time of TestTailnetLife")
)

// Habits of the nodes of a tailnet's life.
const (
	lifePeers = 10 // that each node talks to
	lifeMoves = 5  // one in so many nodes moves
	lifeEvery = 500 * time.Millisecond
	lifeTalk  = 20 * time.Second // of one conversation
	lifePause = time.Hour        // at most, between two
)

// TestTailnetLife lets a tailnet live on a simulated internet: each node talks
// to ten others every now and then, and a fifth of them move to another network
// at random times. No pair may be stuck in the end. -life.nodes and -life.for
// make it larger or longer.
func TestTailnetLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t, devnet.Config{Relays: 3, Gather: 10 * time.Second})
		defer g.close()
		g.net.SetGrid(5 * time.Millisecond)
		l := &tailnetLife{ground: g, random: rand.New(rand.NewPCG(1, 2)), end: time.Now().Add(*lifeFor)}
		before := heap()
		l.settle(*lifeNodes)
		settled := heap()
		began := time.Now()
		for time.Now().Before(l.end) {
			l.step()
			time.Sleep(time.Second)
		}
		grown := heap()
		l.check(t)
		t.Logf("%d nodes for %v: %d conversations, %d moves; %d packets sent, %d lost; memory per node %d kB when settled, %d kB in the end; goroutines %d",
			*lifeNodes, time.Since(began), l.talks, l.moves, l.sent, l.lost,
			(settled-before)/uint64(*lifeNodes)>>10, (grown-before)/uint64(*lifeNodes)>>10, goruntime.NumGoroutine())
	})
}

// heap is the live heap in bytes.
func heap() uint64 {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A tailnetLife is a tailnet whose members talk and move.
type tailnetLife struct {
	*ground
	random  *rand.Rand
	end     time.Time
	routers []*simnet.Router
	movers  []*member
	friends [][]*member
	next    map[[2]int]time.Time
	talking map[[2]int]*testFlow
	stops   map[[2]int]time.Time

	talks, moves, sent, lost int
}

// settle makes the networks and the nodes, each with its friends.
func (l *tailnetLife) settle(nodes int) {
	kinds := []simnet.RouterConfig{easy, symmetric, easy, {NAT: simnet.FullCone, Link: wide}, mapping, blocked}
	for i := range max(nodes/4, 6) {
		c := kinds[i%len(kinds)]
		c.Link.Loss = 0.001
		l.routers = append(l.routers, l.net.AddRouter(fmt.Sprintf("r%d", i), c))
	}
	for i := range nodes {
		at := l.routers[l.random.IntN(len(l.routers))]
		m := l.start(at.AddHost(fmt.Sprintf("h%d", i), simnet.HostConfig{}))
		if err := m.Start(); err != nil {
			l.t.Fatal(err)
		}
		if i%lifeMoves == 0 {
			l.movers = append(l.movers, m)
		}
		time.Sleep(50 * time.Millisecond)
	}
	l.friends = make([][]*member, nodes)
	l.next, l.talking, l.stops = make(map[[2]int]time.Time), make(map[[2]int]*testFlow), make(map[[2]int]time.Time)
	for i, m := range l.members {
		m.up()
		for len(l.friends[i]) < min(lifePeers, nodes-1) {
			j := l.random.IntN(nodes)
			if _, known := l.next[[2]int{i, j}]; j == i || known {
				continue
			}
			l.friends[i] = append(l.friends[i], l.members[j])
			l.next[[2]int{i, j}] = time.Now().Add(l.within(lifePause))
		}
	}
}

// within returns a random time.
func (l *tailnetLife) within(d time.Duration) time.Duration {
	return time.Duration(l.random.Int64N(int64(d)))
}

// step begins and ends conversations, and moves a node now and then.
func (l *tailnetLife) step() {
	now := time.Now()
	for pair, at := range l.next {
		switch flow := l.talking[pair]; {
		case flow != nil && now.After(l.stops[pair]):
			l.hangUp(pair, flow)
			l.next[pair] = now.Add(lifePause/2 + l.within(lifePause/2))
		case flow == nil && now.After(at) && now.Before(l.end.Add(-time.Minute)):
			l.talking[pair] = l.members[pair[0]].send(l.members[pair[1]], lifePort(pair), lifeEvery)
			l.stops[pair] = now.Add(lifeTalk)
			l.talks++
		}
	}
	// Each mover moves about three times.
	if l.random.Float64() < 3*float64(len(l.movers))/lifeFor.Seconds() && now.Before(l.end.Add(-2*time.Minute)) {
		m := l.movers[l.random.IntN(len(l.movers))]
		m.host.Move(l.routers[l.random.IntN(len(l.routers))])
		l.moves++
	}
}

// hangUp ends a conversation.
func (l *tailnetLife) hangUp(pair [2]int, flow *testFlow) {
	flow.stop()
	flow.at.mu.Lock()
	l.sent, l.lost = l.sent+flow.sent, l.lost+flow.lost()
	delete(flow.at.flows, lifePort(pair))
	flow.at.mu.Unlock()
	delete(l.talking, pair)
}

// lifePort is the port of the flow between two nodes, of those that one node
// hears.
func lifePort(pair [2]int) uint16 { return uint16(1 + pair[0]) }

// check lets every pair talk once more: each must be heard.
func (l *tailnetLife) check(t *testing.T) {
	for pair, flow := range l.talking {
		l.hangUp(pair, flow)
	}
	flows := make(map[[2]int]*testFlow)
	for pair := range l.next {
		flows[pair] = l.members[pair[0]].send(l.members[pair[1]], lifePort(pair), time.Second)
	}
	time.Sleep(20 * time.Second)
	stuck := 0
	for pair, f := range flows {
		f.stop()
		if f.received() < 10 {
			stuck++
			best, also := l.members[pair[0]].path(l.members[pair[1]])
			t.Errorf("n%d to n%d: %d of %d arrived; path %+v and %+v", pair[0], pair[1], f.received(), f.sent, best, also)
		}
	}
	t.Logf("%d pairs, %d stuck", len(flows), stuck)
}
