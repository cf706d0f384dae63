package disco

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

var rewriteScripts = flag.Bool("rewrite", false, "write what the scripts in testdata/scripts do back to them")

// TestScripts runs the tables of doc/protocol/paths.md section 5 as scripts for
// the state machine: what happens and when, a line "---", and what is then done.
// What happens is
//
//	0s map b disco=b home=1 at=192.0.2.2:1   the server's word on peer b; also
//	                                         offline, expired, plain, seen=5, gone
//	0s ours 198.51.100.1:1                   our endpoints are found out
//	0s data b; 0s data b every 500ms until 9s
//	0s alive 192.0.2.2:1 20ms                pings to it are answered from now on
//	0s dead 192.0.2.2:1                      and now not any more
//	0s ping b 192.0.2.2:1 [by=c]             a ping of b comes from there, or derp:1
//	0s pong b #1 192.0.2.2:1                 an answer to our ping 1 comes from there
//	0s call b derp:1 192.0.2.2:1 ...         a CallMeMaybe
//	0s relay b derp:1                        a message of peer relays
//	0s heard b 192.0.2.2:1 [quietly]         a tunnel packet comes from there
//	0s unsent 192.0.2.2:1                    sending to it fails from now on
//	0s unreachable b 192.0.2.2:1             sending data has failed
//	0s learned b b2                          b tells its disco key
//	0s options silent|tcp443|mtu|nobeat ...; 0s rebound; 0s ask b [1000]
//	0s echo b 192.0.2.2:1 5ms; 0s status b; 0s end
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			commands, want, _ := strings.Cut(string(text), "---\n")
			got := runScript(t, commands)
			if *rewriteScripts {
				if err := os.WriteFile(name, []byte(commands+"---\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("done:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func runScript(t *testing.T, commands string) string {
	w := newScriptWorld(t)
	for line := range strings.Lines(commands) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if len(words) < 2 {
			t.Fatalf("script: %q: too short", line)
		}
		at := w.duration(words[0])
		w.later(at, func() { w.command(words[1:]) })
		if words[1] == "end" {
			w.runUntil(at)
		}
	}
	return w.log.String()
}

// A scriptWorld is a state machine, its time and what is around it.
type scriptWorld struct {
	t      *testing.T
	st     *paths
	start  time.Time
	now    time.Time
	todo   []scriptEvent
	log    strings.Builder
	pings  int
	count  counters
	book   addrBook
	status statusBook
	heard  map[key.NodePublic]heard
	alive  map[netip.AddrPort]time.Duration
	unsent map[netip.AddrPort]bool
	nodes  map[string]*netmap.Peer
	names  map[key.NodePublic]string
	discos map[string]key.DiscoPublic
}

type scriptEvent struct {
	at time.Time
	do func()
}

func newScriptWorld(t *testing.T) *scriptWorld {
	w := &scriptWorld{
		t: t, start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		book: addrBook{shard: shardOfAddr}, status: statusBook{shard: shardOfKey},
		heard: make(map[key.NodePublic]heard), alive: make(map[netip.AddrPort]time.Duration),
		unsent: make(map[netip.AddrPort]bool), nodes: make(map[string]*netmap.Peer),
		names: make(map[key.NodePublic]string), discos: make(map[string]key.DiscoPublic),
	}
	w.now = w.start
	w.st = newPaths(surroundings{
		node: nodeKey("self"), newTx: w.newTx, pick: func(n int) int { return n - 1 },
		count: &w.count, book: &w.book, status: &w.status,
		heard: func(k key.NodePublic) (time.Time, transport.Endpoint) { return w.heard[k].at, w.heard[k].from },
	})
	return w
}

// heard is when and from where a tunnel packet last came.
type heard struct {
	at   time.Time
	from transport.Endpoint
}

// say logs what a script asked to see.
func (w *scriptWorld) say(format string, args ...any) {
	fmt.Fprintf(&w.log, "%v "+format+"\n", append([]any{w.now.Sub(w.start)}, args...)...)
}

func (w *scriptWorld) newTx() TxID {
	w.pings++
	return scriptTx(w.pings)
}

func scriptTx(n int) (id TxID) {
	copy(id[:], fmt.Sprintf("%012d", n))
	return id
}

func nodeKey(name string) key.NodePublic { return key.NodePublicFromRaw(namedKey("node", name)) }

func namedKey(kind, name string) (b [key.Size]byte) {
	copy(b[:], name+"/"+kind+strings.Repeat(name, key.Size))
	return b
}

func (w *scriptWorld) disco(name string) key.DiscoPublic {
	k := key.DiscoPublicFromRaw(namedKey("disco", name))
	w.discos[name] = k
	return k
}

func (w *scriptWorld) later(at time.Duration, do func()) {
	e := scriptEvent{w.start.Add(at), do}
	i, _ := slices.BinarySearchFunc(w.todo, e, func(a, b scriptEvent) int {
		if a.at.After(b.at) {
			return 1
		}
		return -1 // after those of the same time
	})
	w.todo = slices.Insert(w.todo, i, e)
}

// runUntil does all that happens until then, timers included.
func (w *scriptWorld) runUntil(end time.Duration) {
	for {
		next := w.start.Add(end)
		timer := w.now.Add(w.st.wait(w.now))
		event := len(w.todo) > 0 && !w.todo[0].at.After(next)
		switch {
		case event && !w.todo[0].at.After(timer):
			e := w.todo[0]
			w.todo = w.todo[1:]
			w.now = e.at
			e.do()
		case !timer.After(next):
			w.now = timer
			w.st.advance(w.now)
		default:
			return
		}
		w.flush()
	}
}

func (w *scriptWorld) flush() {
	w.st.settle(w.now)
	for actions := w.st.take(); len(actions) > 0; actions = w.st.take() {
		for _, a := range actions {
			w.act(a)
		}
		w.st.settle(w.now)
	}
}

// act logs an action and does what the script says follows from it.
func (w *scriptWorld) act(a action) {
	at := w.now.Sub(w.start)
	switch a := a.(type) {
	case sending:
		fmt.Fprintf(&w.log, "%v send %s to %s: %s\n", at, w.nameOf(a), place(a.to), w.describe(a.msg))
		w.deliver(a)
	case routing:
		fmt.Fprintf(&w.log, "%v path of %s: %s\n", at, w.names[a.peer], describePath(a.path))
	case expiry:
		fmt.Fprintf(&w.log, "%v expire %s\n", at, w.names[a.peer])
	case gathering:
		fmt.Fprintf(&w.log, "%v want endpoints\n", at)
	case echo:
		fmt.Fprintf(&w.log, "%v echo to %v\n", at, a.to)
	case reply:
		fmt.Fprintf(&w.log, "%v answer: %v over %s, %v\n", at, a.result.Latency, place(a.result.Endpoint), a.err)
	}
}

func (w *scriptWorld) deliver(a sending) {
	m, isPing := a.msg.(*Ping)
	if w.unsent[a.to.Addr] {
		w.st.onUnsent(a, transport.ErrUnreachable)
		return
	}
	if delay, ok := w.alive[a.to.Addr]; ok && isPing {
		at := w.now.Sub(w.start) + delay
		w.later(at, func() { w.st.onMessage(a.to, a.disco, &Pong{TxID: m.TxID}, w.now) })
	}
}

func (w *scriptWorld) nameOf(a sending) string {
	for name, k := range w.discos {
		if k == a.disco {
			return name
		}
	}
	return "nobody"
}

func (w *scriptWorld) describe(m Message) string {
	switch m := m.(type) {
	case *Ping:
		n, _ := strconv.Atoi(string(m.TxID[:]))
		if m.Padding > 0 {
			return fmt.Sprintf("ping #%d of %d bytes", n, PingFrame+m.Padding)
		}
		return fmt.Sprintf("ping #%d", n)
	case *Pong:
		n, _ := strconv.Atoi(string(m.TxID[:]))
		return fmt.Sprintf("pong #%d seen from %v", n, m.Src)
	case *CallMeMaybe:
		return fmt.Sprintf("call me maybe at %v", m.Endpoints)
	}
	return fmt.Sprintf("%T", m)
}

func describePath(p *Path) string {
	switch {
	case p == nil:
		return "by the map"
	case p.Also.IsZero():
		return place(p.Best)
	}
	return place(p.Best) + " and " + place(p.Also)
}

func place(e transport.Endpoint) string {
	switch {
	case e.IsDERP():
		return fmt.Sprintf("derp:%d", e.Region)
	case e.IsZero():
		return "nothing"
	}
	return e.Addr.String()
}
