package interop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"tailscale.com/ipn"
	"tailscale.com/tailcfg"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/interop/ground"
	"github.com/seed94491740/tsnode/node"
)

// ownResolvConf is set in the process that has an /etc/resolv.conf of its own.
const ownResolvConf = "TSNODE_OWN_RESOLV_CONF"

// exitNameserver is what that file names.
const exitNameserver = "127.7.0.53"

// A node of ours asks a reference exit node for names, which asks the nameserver of
// its machine, and a reference node asks an exit node of ours, which does the same:
// any type, and a name that does not exist (SVC-69, SVC-78, SVC-88). The reference
// looks in no other place than /etc/resolv.conf, so that the test runs in a process
// with another one.
func TestDNSThroughExitNodes(t *testing.T) {
	if os.Getenv(ownResolvConf) == "" {
		runWithResolvConf(t, exitNameserver)
		return
	}
	if err := mountResolvConf(os.Getenv(ownResolvConf)); err != nil {
		t.Fatal(err)
	}
	serveExitNames(t)
	tailnet := startDevnet(t, devnet.Config{})
	theirs := tsnetNode(t, tailnet.URL(), "theirs", tailnet.AuthKey(devnet.KeyOptions{}))
	editPrefs(t, theirs, &ipn.MaskedPrefs{Prefs: ipn.Prefs{AdvertiseRoutes: everywhere}, AdvertiseRoutesSet: true})
	ours := ourRouted(t, tailnet, "ours", func(n *node.Node) { n.AdvertiseExitNode = true })
	for _, name := range []string{"theirs", "ours"} {
		if err := tailnet.ApproveRoutes(name, everywhere...); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("of the reference", func(t *testing.T) {
		client := ourRouted(t, tailnet, "our-client", func(n *node.Node) { n.ExitNode = "theirs" })
		asksExitNode(t, func(ctx context.Context, name, typ string) ([]byte, error) {
			a, err := client.QueryDNS(ctx, name, typ)
			if err != nil {
				return nil, err
			}
			return a.Message, nil
		})
		if got, err := client.Resolver().LookupTXT(t.Context(), "www.exit.example."); err != nil || !slices.Equal(got, []string{"of the exit node"}) {
			t.Errorf("by net.Resolver: %q, %v", got, err)
		}
	})
	t.Run("of ours", func(t *testing.T) {
		client := tsnetNode(t, tailnet.URL(), "their-client", tailnet.AuthKey(devnet.KeyOptions{}))
		editPrefs(t, client, &ipn.MaskedPrefs{Prefs: ipn.Prefs{ExitNodeID: tailcfg.StableNodeID(ours.Status().Self.ID)}, ExitNodeIDSet: true})
		lc, err := client.LocalClient()
		if err != nil {
			t.Fatal(err)
		}
		asksExitNode(t, func(ctx context.Context, name, typ string) ([]byte, error) {
			message, _, err := lc.QueryDNS(ctx, name, typ)
			return message, err
		})
	})
}

// asksExitNode wants the answers of serveExitNames.
func asksExitNode(t *testing.T, ask func(ctx context.Context, name, typ string) ([]byte, error)) {
	t.Helper()
	for _, tt := range []struct{ name, typ, want string }{
		{"www.exit.example.", "A", "RCodeSuccess 198.51.100.9"},
		{"www.exit.example.", "TXT", "RCodeSuccess of the exit node"},
		{"www.exit.example.", "MX", "RCodeSuccess mail.exit.example."},
		{"www.exit.example.", "AAAA", "RCodeSuccess"},
		{"missing.exit.example.", "TXT", "RCodeNameError"},
	} {
		eventually(t, routeTimeout, func(ctx context.Context) error { // once the exit node is in use
			b, err := ask(ctx, tt.name, tt.typ)
			if err != nil {
				return err
			}
			if got := firstAnswer(b); got != tt.want {
				return fmt.Errorf("%s of %s: %s, want %s", tt.typ, tt.name, got, tt.want)
			}
			return nil
		})
	}
}

// firstAnswer returns the code of a message and what its first record says.
func firstAnswer(b []byte) string {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		return err.Error()
	}
	text := m.RCode.String()
	if len(m.Answers) == 0 {
		return text
	}
	switch r := m.Answers[0].Body.(type) {
	case *dnsmessage.AResource:
		text += " " + netip.AddrFrom4(r.A).String()
	case *dnsmessage.TXTResource:
		text += " " + strings.Join(r.TXT, " ")
	case *dnsmessage.MXResource:
		text += " " + r.MX.String()
	}
	return text
}

// serveExitNames is the nameserver of the machine.
func serveExitNames(t *testing.T) {
	t.Helper()
	pc, err := net.ListenPacket("udp", exitNameserver+":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		for b := make([]byte, 4096); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := exitAnswer(b[:n]); answer != nil {
				pc.WriteTo(answer, from)
			}
		}
	}()
}

func exitAnswer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	answer := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}}
	switch {
	case !strings.HasPrefix(q.Name.String(), "www.exit.example."):
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		answer.Body = &dnsmessage.AResource{A: farHost.As4()}
	case q.Type == dnsmessage.TypeTXT:
		answer.Body = &dnsmessage.TXTResource{TXT: []string{"of the exit node"}}
	case q.Type == dnsmessage.TypeMX:
		answer.Body = &dnsmessage.MXResource{Pref: 1, MX: dnsmessage.MustNewName("mail.exit.example.")}
	}
	if answer.Body != nil {
		m.Answers = []dnsmessage.Resource{answer}
	}
	b, _ := m.Pack()
	return b
}

// runWithResolvConf runs the test in a process whose /etc/resolv.conf names a
// nameserver.
func runWithResolvConf(t *testing.T, nameserver string) {
	t.Helper()
	if err := ground.Supported(); err != nil {
		if os.Getenv("CI") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err) // a user without root; in CI it is a failure, above
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+nameserver+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), ownResolvConf+"="+file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// mountResolvConf puts a file in the place of /etc/resolv.conf, in a process with
// mounts of its own.
func mountResolvConf(file string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("own mounts: %w", err)
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("own /etc/resolv.conf: %w", err)
	}
	return nil
}
