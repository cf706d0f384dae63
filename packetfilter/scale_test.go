package packetfilter

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// manyRules is how many rules a large policy has.
const manyRules = 100_000

// largePolicies are the shapes that a policy of many rules can have: as many
// sources, as many ports, or as many destinations behind a subnet router.
var largePolicies = map[string]func(i int) netmap.FilterRule{
	"sources":      func(i int) netmap.FilterRule { return ruleOf(host(10, i).String(), me, 80) },
	"ports":        func(i int) netmap.FilterRule { return ruleOf("*", me, uint16(i%60000+1000)) },
	"destinations": func(i int) netmap.FilterRule { return ruleOf("*", host(192, i).String(), 80) },
}

func host(net byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{net, byte(i >> 16), byte(i >> 8), byte(i)})
}

func ruleOf(src, dst string, port uint16) netmap.FilterRule {
	return netmap.FilterRule{SrcIPs: []string{src}, DstPorts: []netmap.NetPortRange{{IP: dst, Ports: netmap.PortRange{First: port, Last: port}}}}
}

// largeConfig returns a policy of n rules of one shape.
func largeConfig(shape string, n int) Config {
	c := Config{Local: Local{Own: ownAddrs, Routes: []netip.Prefix{netip.MustParsePrefix("192.0.0.0/8")}}}
	for i := range n {
		c.Rules = append(c.Rules, largePolicies[shape](i))
	}
	return c
}

// largePackets begin a flow by the last rule of a policy, by none, and by one of
// an unknown protocol.
func largePackets(shape string, n int) map[string]pkt {
	rule := largePolicies[shape](n - 1)
	src, to := "10.9.9.9", rule.DstPorts[0]
	if rule.SrcIPs[0] != "*" {
		src = rule.SrcIPs[0]
	}
	return map[string]pkt{
		"permitted": {packet.TCP, src + ":5", fmt.Sprintf("%s:%d", to.IP, to.Ports.First), nil},
		"refused":   {packet.UDP, src + ":5", fmt.Sprintf("%s:%d", to.IP, 999), nil},
		"elsewhere": {packet.TCP, "172.16.0.1:5", me + ":81", nil},
		"echo":      {packet.ICMPv4, src, to.IP, icmp(8)},
		"gre":       {packet.GRE, src, to.IP, make([]byte, 20)},
	}
}

// BenchmarkLargePolicy is the cost of a decision under 100,000 rules, and of
// compiling them.
func BenchmarkLargePolicy(b *testing.B) {
	for shape := range largePolicies {
		c := largeConfig(shape, manyRules)
		b.Run(shape+"/compile", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Compile(c)
			}
		})
		r, _ := Compile(c)
		f := New(0)
		f.Install(r)
		for name, p := range largePackets(shape, manyRules) {
			pk := p.bytes()
			var h packet.Header
			h.Parse(pk)
			b.Run(shape+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f.In(&h, pk, false, 2)
				}
			})
		}
	}
}

// TestLargePolicy: of 100,000 rules the right one is found, and no decision allocates.
func TestLargePolicy(t *testing.T) {
	for shape, rule := range largePolicies {
		r, problems := Compile(largeConfig(shape, manyRules))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		f := New(0)
		f.Install(r)
		for name, p := range largePackets(shape, manyRules) {
			pk := p.bytes()
			var h packet.Header
			h.Parse(pk)
			v, by := f.ExplainIn(&h, pk, false)
			switch name {
			case "permitted":
				if want := rule(manyRules - 1); v.Grounds != Rule || !reflect.DeepEqual(*by, want) {
					t.Errorf("%s, %s: %v by %+v, want %+v", shape, name, v, by, want)
				}
			case "echo":
				if v.Grounds != Rule {
					t.Errorf("%s, %s: %v", shape, name, v)
				}
			default:
				if v != dropped(NoRule) {
					t.Errorf("%s, %s: %v", shape, name, v)
				}
			}
			if a := testing.AllocsPerRun(100, func() { f.In(&h, pk, false, 1) }); a != 0 {
				t.Errorf("%s, %s: %v allocations", shape, name, a)
			}
		}
	}
}
