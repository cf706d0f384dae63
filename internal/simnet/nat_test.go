package simnet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// behaviors are the three that RFC 4787 knows.
var behaviors = []Behavior{EndpointIndependent, AddressDependent, AddressAndPortDependent}

// A natWorld is one host behind a NAT and two servers with two sockets each.
type natWorld struct {
	router *Router
	inside *socket
	a1, a2 *socket // of one server
	b1     *socket // of the other
}

func newNATWorld(t *testing.T, n *Internet, c NAT) natWorld {
	router := n.AddRouter("home", RouterConfig{NAT: c, Link: Conditions{Delay: 5 * time.Millisecond}})
	a, b := n.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{})
	return natWorld{router, listen(t, router.AddHost("inside", HostConfig{}), "udp4", 5000), listen4(t, a), listen4(t, a), listen4(t, b)}
}

// TestMapping: how outer addresses towards others are related (RFC 4787
// section 4.1).
func TestMapping(t *testing.T) {
	for _, b := range behaviors {
		for _, random := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/random=%v", b, random), func(t *testing.T) {
				inBubble(t, func(t *testing.T, n *Internet) {
					w := newNATWorld(t, n, NAT{Mapping: b, RandomPorts: random})
					var seen [3]netip.AddrPort
					for i, s := range []*socket{w.a1, w.a2, w.b1} {
						w.inside.send(s.addr(), "hello")
						seen[i] = s.expect("hello")
						if seen[i].Addr() != w.router.Outer() {
							t.Errorf("seen as %v, want %v", seen[i], w.router.Outer())
						}
					}
					samePort := b != AddressAndPortDependent // of one server
					sameServer := b == EndpointIndependent
					if (seen[0] == seen[1]) != samePort || (seen[0] == seen[2]) != sameServer {
						t.Errorf("seen as %v", seen)
					}
					if preserved := seen[0].Port() == 5000; preserved == random {
						t.Errorf("outer port %d for 5000", seen[0].Port())
					}
					// the same receiver always sees the same
					w.inside.send(w.a1.addr(), "again")
					if again := w.a1.expect("again"); again != seen[0] {
						t.Errorf("seen as %v, then as %v", seen[0], again)
					}
				})
			})
		}
	}
}

// TestFiltering: who may answer (RFC 4787 section 5).
func TestFiltering(t *testing.T) {
	for _, b := range append(behaviors, Default) {
		t.Run(fmt.Sprint(b), func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *Internet) {
				w := newNATWorld(t, n, NAT{Filtering: b})
				w.inside.send(w.a1.addr(), "hello")
				outer := w.a1.expect("hello")
				for _, tt := range []struct {
					name string
					from *socket
					pass bool
				}{
					{"the one sent to", w.a1, true},
					{"another port", w.a2, b == EndpointIndependent || b == AddressDependent},
					{"another host", w.b1, b == EndpointIndependent},
				} {
					tt.from.send(outer, tt.name)
					if tt.pass {
						if from := w.inside.expect(tt.name); from != tt.from.addr() {
							t.Errorf("from %v, want %v", from, tt.from.addr())
						}
					} else {
						w.inside.expectNothing()
					}
				}
				w.a1.send(netip.AddrPortFrom(w.router.Outer(), 9), "never mapped")
				w.inside.expectNothing()
				expectFate(t, w.router, NoMapping, 1)
			})
		})
	}
}

// TestMappingTimeout: what goes out keeps a mapping alive, what comes in does
// not, and one that has ended is not found again (RFC 4787 section 4.3).
func TestMappingTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newNATWorld(t, n, NAT{Filtering: EndpointIndependent, Timeout: 30 * time.Second, RandomPorts: true})
		w.inside.send(w.a1.addr(), "1")
		outer := w.a1.expect("1")
		for range 3 {
			time.Sleep(25 * time.Second)
			w.inside.send(w.a1.addr(), "refresh")
			if from := w.a1.expect("refresh"); from != outer {
				t.Fatalf("mapping %v became %v", outer, from)
			}
		}
		time.Sleep(20 * time.Second)
		w.b1.send(outer, "late")
		w.inside.expect("late")
		time.Sleep(15 * time.Second)
		w.b1.send(outer, "too late")
		w.inside.expectNothing()
		if k := w.router.Mappings(); k != 0 {
			t.Errorf("%d mappings, want none", k)
		}
		w.inside.send(w.a1.addr(), "anew")
		if from := w.a1.expect("anew"); from == outer {
			t.Errorf("a random port came twice: %v", from)
		}
	})
}

// TestFilterTimeout: each peer's leave to answer ends by itself.
func TestFilterTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newNATWorld(t, n, NAT{Timeout: 30 * time.Second})
		w.inside.send(w.a1.addr(), "1")
		outer := w.a1.expect("1")
		time.Sleep(20 * time.Second)
		w.inside.send(w.b1.addr(), "2")
		w.b1.expect("2")
		time.Sleep(15 * time.Second)
		w.a1.send(outer, "over")
		w.inside.expectNothing()
		w.b1.send(outer, "still")
		w.inside.expect("still")
		expectFate(t, w.router, Filtered, 1)
	})
}

func TestHairpin(t *testing.T) {
	for _, on := range []bool{false, true} {
		inBubble(t, func(t *testing.T, n *Internet) {
			w := newNATWorld(t, n, NAT{Hairpin: on, Filtering: EndpointIndependent})
			other := listen4(t, w.router.AddHost("other", HostConfig{}))
			w.inside.send(w.a1.addr(), "hello")
			outer := w.a1.expect("hello")
			other.send(outer, "round the corner")
			if !on {
				w.inside.expectNothing()
				expectFate(t, w.router, NoHairpin, 1)
				return
			}
			// RFC 4787 REQ-9: "External source IP address and port"
			from := w.inside.expect("round the corner")
			if from.Addr() != w.router.Outer() {
				t.Errorf("from %v, want an address of %v", from, w.router.Outer())
			}
			w.inside.send(from, "back")
			if from := other.expect("back"); from != outer {
				t.Errorf("answer from %v, want %v", from, outer)
			}
		})
	}
}

// TestMappingLimit: a full table lets nothing new out until something expires.
func TestMappingLimit(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newNATWorld(t, n, NAT{Mapping: AddressAndPortDependent, MaxMappings: 2})
		w.inside.send(w.a1.addr(), "1")
		w.inside.send(w.a2.addr(), "2")
		w.inside.send(w.b1.addr(), "3")
		w.b1.expectNothing()
		expectFate(t, w.router, MappingsFull, 1)
		time.Sleep(DefaultTimeout)
		w.inside.send(w.b1.addr(), "4")
		w.b1.expect("4")
	})
}

// TestTwoHostsOnePort: the second host with the same port gets another one.
func TestTwoHostsOnePort(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newNATWorld(t, n, Easy)
		twin := listen(t, w.router.AddHost("twin", HostConfig{}), "udp4", 5000)
		w.inside.send(w.a1.addr(), "first")
		twin.send(w.a1.addr(), "second")
		first, second := w.a1.expect("first"), w.a1.expect("second")
		if first.Port() != 5000 || second.Port() == 5000 {
			t.Errorf("outer addresses %v and %v", first, second)
		}
		w.a1.send(second, "for the twin")
		twin.expect("for the twin")
	})
}

func TestRebootAndChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		w := newNATWorld(t, n, NAT{RandomPorts: true})
		w.inside.send(w.a1.addr(), "1")
		outer := w.a1.expect("1")
		w.router.Reboot()
		w.a1.send(outer, "lost")
		w.inside.expectNothing()
		w.inside.send(w.a1.addr(), "2")
		if again := w.a1.expect("2"); again == outer {
			t.Errorf("the mapping %v has survived the reboot", again)
		}
		w.router.SetNAT(Symmetric)
		w.inside.send(w.a1.addr(), "3")
		w.inside.send(w.b1.addr(), "3")
		if a, b := w.a1.expect("3"), w.b1.expect("3"); a == b {
			t.Errorf("a symmetric NAT has one mapping: %v", a)
		}
		next := netip.MustParseAddr("198.18.7.7")
		w.router.SetOuter(next)
		w.inside.send(w.a1.addr(), "4")
		if from := w.a1.expect("4"); from.Addr() != next || w.router.Outer() != next {
			t.Errorf("seen as %v, want %v", from, next)
		}
	})
}

// TestCarrierNAT: two homes behind one carrier reach each other only by its
// hairpin, and the Internet through both NATs.
func TestCarrierNAT(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		carrier := n.AddRouter("carrier", RouterConfig{NAT: NAT{Hairpin: true, Filtering: EndpointIndependent}, LAN: netip.MustParsePrefix("100.64.0.0/16")})
		one := carrier.AddRouter("one", RouterConfig{NAT: FullCone})
		two := carrier.AddRouter("two", RouterConfig{NAT: FullCone})
		server := listen4(t, n.AddHost("server", HostConfig{}))
		a, b := listen4(t, one.AddHost("a", HostConfig{})), listen4(t, two.AddHost("b", HostConfig{}))
		if a.addr().Addr() != b.addr().Addr() {
			t.Fatalf("%v and %v: want the same private address", a.addr(), b.addr())
		}
		a.send(server.addr(), "a")
		b.send(server.addr(), "b")
		atA, atB := server.expect("a"), server.expect("b")
		if atA.Addr() != carrier.Outer() || atB.Addr() != carrier.Outer() {
			t.Errorf("seen as %v and %v, want %v", atA, atB, carrier.Outer())
		}
		if !netip.MustParsePrefix("100.64.0.0/16").Contains(one.Outer()) {
			t.Errorf("outer address %v of a home", one.Outer())
		}
		a.send(atB, "neighbour")
		if from := b.expect("neighbour"); from != atA {
			t.Errorf("from %v, want %v", from, atA)
		}
		a.send(netip.AddrPortFrom(two.Outer(), atB.Port()), "past the carrier")
		b.expect("past the carrier")
	})
}

func TestOneNetwork(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		home := n.AddRouter("home", RouterConfig{})
		a, b := listen4(t, home.AddHost("a", HostConfig{})), listen4(t, home.AddHost("b", HostConfig{}))
		a.send(b.addr(), "hello")
		if from := b.expect("hello"); from != a.addr() {
			t.Errorf("from %v, want %v", from, a.addr())
		}
		if k := home.Mappings(); k != 0 {
			t.Errorf("%d mappings of a NAT that has not been passed", k)
		}
		a.send(netip.MustParseAddrPort("192.168.1.99:1"), "nobody")
		expectFate(t, &home.node, Sent, 0)
		expectFate(t, n, NoHost, 1)
	})
}
