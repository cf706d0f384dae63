package disco

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// command does what one line of a script says.
func (w *scriptWorld) command(words []string) {
	verb, args := words[0], words[1:]
	at := func(i int) string {
		if i >= len(args) {
			w.t.Fatalf("script: %q: too short", words)
		}
		return args[i]
	}
	switch verb {
	case "end":
	case "map":
		w.setMap(at(0), args[1:])
	case "ours":
		w.st.onEndpoints(w.addrs(args), w.now, w.now)
	case "data":
		w.data(at(0), args[1:])
	case "alive":
		w.alive[w.addr(at(0))] = w.duration(at(1))
	case "dead":
		delete(w.alive, w.addr(at(0)))
	case "unsent":
		w.unsent[w.addr(at(0))] = true
	case "unreachable":
		w.st.onUnreachable(nodeKey(at(0)), w.place(at(0), at(1)))
	case "learned":
		w.st.onLearned(nodeKey(at(0)), w.disco(at(1)), w.now)
	case "options":
		w.setOptions(args)
	case "rebound":
		w.st.onRebound(w.now)
	case "echo":
		w.st.onEcho(nodeKey(at(0)), w.addr(at(1)), w.duration(at(2)), w.now)
	case "ask":
		w.ask(at(0), args[1:])
	case "heard":
		w.hear(at(0), w.place(at(0), at(1)), len(args) == 2)
	case "status":
		w.showStatus(at(0))
	default:
		w.message(verb, at(0), at(1), args[2:])
	}
}

// message lets a message of a peer come in.
func (w *scriptWorld) message(verb, peer, from string, args []string) {
	var m Message
	sender := w.disco(peer)
	if n := w.nodes[peer]; n != nil {
		sender = w.st.roster.disco(n)
	}
	switch verb {
	case "ping":
		p := &Ping{TxID: w.newTx(), NodeKey: nodeKey(peer)}
		for _, a := range args {
			if by, ok := strings.CutPrefix(a, "by="); ok {
				p.NodeKey = nodeKey(by)
			} else {
				p.TxID = scriptTx(w.number(a))
			}
		}
		m = p
	case "pong":
		m = &Pong{TxID: scriptTx(w.number(from))}
		from = args[0]
	case "call":
		m = &CallMeMaybe{Endpoints: w.addrs(args)}
	case "relay":
		m = &CallMeMaybeVia{relayed}
	default:
		w.t.Fatalf("script: unknown command %q", verb)
	}
	w.st.onMessage(w.place(peer, from), sender, m, w.now)
}

func (w *scriptWorld) setMap(name string, args []string) {
	n := &netmap.Peer{ID: netmap.NodeID(name[0]), Name: name + ".example.", Key: nodeKey(name), Online: netmap.OnlineYes, HomeDERP: 1}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "disco":
			n.Disco = w.disco(v)
		case "home":
			n.HomeDERP = w.number(v)
		case "at":
			n.Endpoints = append(n.Endpoints, w.addr(v))
		case "own":
			n.Addresses = append(n.Addresses, netip.PrefixFrom(netip.MustParseAddr(v), 32))
		case "seen":
			n.LastSeen = netmap.Instant(w.number(v))
		case "offline":
			n.Online = netmap.OnlineNo
		case "expired":
			n.Expired = true
		case "plain":
			n.WireGuardOnly, n.HomeDERP = true, 0
		case "gone":
			n = nil
		default:
			w.t.Fatalf("script: map: %q", a)
		}
	}
	w.nodes[name] = n
	w.names[nodeKey(name)] = name
	nm := new(netmap.Netmap)
	for _, n := range w.nodes {
		if n != nil {
			nm.Peers = append(nm.Peers, n)
		}
	}
	slices.SortFunc(nm.Peers, func(a, b *netmap.Peer) int { return int(a.ID - b.ID) })
	w.st.onNetmap(nm, w.now)
}

// data has data sent to a peer: once, or again and again.
func (w *scriptWorld) data(name string, args []string) {
	w.st.onData(nodeKey(name), w.now)
	if len(args) == 4 && args[0] == "every" && args[2] == "until" {
		next := w.now.Sub(w.start) + w.duration(args[1])
		if next <= w.duration(args[3]) {
			w.later(next, func() { w.data(name, args) })
		}
	}
}

func (w *scriptWorld) setOptions(args []string) {
	var o Options
	for _, a := range args {
		switch a {
		case "silent":
			o.SilentDisco = true
		case "tcp443":
			o.OnlyTCP443 = true
		case "mtu":
			o.ProbeMTU = true
		case "nobeat":
			o.NoHeartbeat = true
		case "none":
		default:
			w.t.Fatalf("script: option %q", a)
		}
	}
	w.st.onOptions(o, w.now)
}

func (w *scriptWorld) ask(name string, args []string) {
	size := 0
	if len(args) > 0 {
		size = w.number(args[0])
	}
	w.st.onQuestion(nodeKey(name), size, &question{answer: make(chan userAnswer, 1)}, w.now)
}

func (w *scriptWorld) hear(name string, from transport.Endpoint, tell bool) {
	k := nodeKey(name)
	w.heard[k] = heard{w.now, from}
	if tell {
		w.st.onHeardFrom(k, from, w.now)
	}
}

func (w *scriptWorld) showStatus(name string) {
	live, ok := w.status.get(nodeKey(name))
	if !ok {
		w.say("status of %s: none", name)
		return
	}
	s := live.now.Load()
	w.say("status of %s: %s, direct %v, active %v, %v, %d bytes, %d candidates, %d addresses known", name, place(s.Best),
		s.Direct(w.now), s.Active(w.now), s.Latency, s.MTU, s.Candidates, w.book.len())
}

func (w *scriptWorld) addr(s string) netip.AddrPort {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		w.t.Fatalf("script: %v", err)
	}
	return a
}

func (w *scriptWorld) addrs(list []string) (out []netip.AddrPort) {
	for _, s := range list {
		out = append(out, w.addr(s))
	}
	return out
}

// place parses an address, or "derp:" and a region where the peer is.
func (w *scriptWorld) place(peer, s string) transport.Endpoint {
	if region, ok := strings.CutPrefix(s, "derp:"); ok {
		return transport.Endpoint{Region: uint16(w.number(region)), Key: nodeKey(peer)}
	}
	return direct(w.addr(s))
}

func (w *scriptWorld) number(s string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(s, "#"))
	if err != nil {
		w.t.Fatalf("script: %v", err)
	}
	return n
}

func (w *scriptWorld) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		w.t.Fatalf("script: %v", err)
	}
	return d
}
