package node

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/udp"
)

// doc/memory.md says what the constants say (WG-81).
func TestMemoryDocument(t *testing.T) {
	text, err := os.ReadFile("../doc/memory.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		what  string
		bytes int
		count int // in the sum
	}{
		{"UDP read buffers", udp.ReadMemory, 2},
		{"opening what arrives", wireguard.OpenerMemory, 2 + countedRegions},
		{"a packet on its way in", netstack.DeliveryMemory, 2 + countedRegions},
		{"sealing", wireguard.SealerMemory, 1},
		{"link queue", netstack.LinkMemory, 1},
		{"relay queues and buffers", derp.RegionMemory, countedRegions},
		{"packets that wait for a handshake", wireguard.ParkedMemory, 1},
		{"handshakes that wait, and their limits", wireguard.HandshakeMemory, 1},
		{"flows", packetfilter.FlowMemory, 1},
		{"packets that wait for those they overtook", wireguard.HeldMemory, 1},
		{"passing on what has waited in vain", wireguard.OpenerMemory + netstack.DeliveryMemory, 1},
		{"TCP, received and not read", netstack.ReceiveMemory, 0},
		{"TCP, written and not acknowledged", netstack.SendMemory, 0},
		{"UDP, received and not read", netstack.DatagramsMemory, 0},
		{"TCP with a limit, at least", netstack.LeastMemory, 0},
	}
	sum := 0
	for _, r := range rows {
		if want := fmt.Sprintf("| %s | %s |", r.what, kib(r.bytes)); !strings.Contains(string(text), want) {
			t.Errorf("doc/memory.md lacks %q", want)
		}
		sum += r.bytes * r.count
	}
	if got := pipelineMemory(1, wireguard.HeldMemory); int64(sum) != got {
		t.Errorf("the sum of all is %d, of the pipeline %d", sum, got)
	}
	if want := fmt.Sprintf("| sum, one loop | %s |", kib(sum)); !strings.Contains(string(text), want) {
		t.Errorf("doc/memory.md lacks %q", want)
	}
	checkPackageComment(t)
	if want := fmt.Sprintf("The smallest limit is %d MiB", LeastMemoryLimit>>20); !strings.Contains(string(text), want) {
		t.Errorf("doc/memory.md lacks %q", want)
	}
}

// checkPackageComment compares the table there.
func checkPackageComment(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	one, two := int(pipelineMemory(1, wireguard.HeldMemory)), int(pipelineMemory(2, wireguard.HeldMemory))
	words := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		"packets on their way " + kib(one),
		kib(two-one) + " each further loop",
		"TCP, received, not read " + kib(netstack.ReceiveMemory),
		"TCP, sent, not acknowledged " + kib(netstack.SendMemory),
		"UDP, received, not read " + kib(netstack.DatagramsMemory),
	} {
		if !strings.Contains(words, want) {
			t.Errorf("doc.go lacks %q", want)
		}
	}
}

func kib(n int) string { return fmt.Sprintf("%.6g KiB", float64(n)/1024) }

// What a limit leaves for sockets, and which limits there are.
func TestMemoryLimitIsShared(t *testing.T) {
	for _, tt := range []struct {
		limit int64
		loops int
		want  int // loops; 0: refused
	}{
		{0, 4, 4},
		{-1, 1, 0},
		{LeastMemoryLimit - 1, 1, 0},
		{LeastMemoryLimit, 4, 1},
		{16 << 20, 4, 1},
		{64 << 20, 4, 4},
		{1 << 30, 4, 4},
	} {
		s := settings{loops: tt.loops}
		err := checkMemoryLimit(tt.limit)
		if tt.want == 0 {
			if err == nil || !strings.Contains(err.Error(), fmt.Sprint(LeastMemoryLimit)) {
				t.Errorf("limit %d: %v, want an error that names the least", tt.limit, err)
			}
			continue
		}
		if s.limitMemory(tt.limit); err != nil || s.loops != tt.want {
			t.Errorf("limit %d: %d loops, %v, want %d", tt.limit, s.loops, err, tt.want)
		}
		if s.held > tt.limit/16 || s.held > wireguard.HeldMemory || tt.limit > 0 && s.held == 0 {
			t.Errorf("limit %d: %d bytes for packets that wait", tt.limit, s.held)
		}
		if whole := pipelineMemory(s.loops, s.held) + 2*s.buffers; tt.limit > 0 && (s.buffers < 1<<20 || whole > tt.limit) {
			t.Errorf("limit %d: %d bytes for sockets, %d in all", tt.limit, s.buffers, whole)
		}
	}
}

// Every loop and queue is in the sum of a node with several.
func TestPipelineMemoryGrowsWithLoops(t *testing.T) {
	one, two := pipelineMemory(1, 0), pipelineMemory(2, 0)
	if least := int64(2*udp.ReadMemory + netstack.LinkMemory + wireguard.SealerMemory); two-one < least {
		t.Errorf("a loop takes %d bytes, want at least %d", two-one, least)
	}
}
