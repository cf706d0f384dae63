package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
)

// toolTimeout bounds one run of a tool; a browser's first start takes seconds.
const toolTimeout = 2 * time.Minute

// A page is shown by a browser only if it has run the script, and that has got data.
const (
	toolGreeting = "a page of the tailnet"
	toolPage     = `<!DOCTYPE html><title>web</title><p id="out">nothing yet</p>
<script>fetch("/greeting").then(r => r.text()).then(text => out.textContent = "got " + text)</script>
`
)

// A toolbench is what tools of everyday are tried on: a peer with services, and
// tsnode run in a process with ways to it.
type toolbench struct {
	*testing.T
	proxy string // SOCKS5 and HTTP

	dnsHost, dnsPort string // forwarded to the peer's port 53, by UDP
}

func newToolbench(t *testing.T) *toolbench {
	t.Helper()
	tailnet := startDevnet(t, devnet.Config{})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	web := ourNode(t, tailnet.URL(), "web", k)
	ln, err := web.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := web.ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(ln, toolPages())
	go answerDatagrams(pc, "192.0.2.7")
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(255), 1+rand.N(254)) // nobody else's
	b := &toolbench{T: t, proxy: host + ":1080", dnsHost: host, dnsPort: "5353"}
	log := runProgram(t, []string{"TS_AUTHKEY=" + k}, "run", "--login-server", tailnet.URL(), "--hostname", "laptop",
		"-D", b.proxy, "--http-proxy", b.proxy, "--proxy-tailnet-only", "-L", host+":"+b.dnsPort+":web:53/udp")
	eventually(t, upTimeout, func(context.Context) error {
		if !strings.Contains(log.String(), "running as") {
			return errors.New("tsnode run is not on its tailnet")
		}
		return nil
	})
	return b
}

func toolPages() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, toolPage) })
	m.HandleFunc("GET /greeting", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, toolGreeting) })
	return m
}

// runProgram runs our program until the test ends, and returns what it prints.
func runProgram(t *testing.T, environ []string, args ...string) *programLog {
	t.Helper()
	program, err := ourProgram()
	if err != nil {
		t.Fatal(err)
	}
	log := new(programLog)
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("log of tsnode:\n%s", log)
		}
	})
	return log
}

// tool runs a tool and returns what it prints. One that is not installed is an error
// where the environment has CI set, whose setup (.ci/tools) installs it.
func (b *toolbench) tool(debian, name string, args ...string) (out string) {
	b.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		b.Fatalf("%v: run .ci/tools, or install the package %s", err, debian)
	default:
		b.Skipf("%v: install the package %s", err, debian)
	}
	ctx, cancel := context.WithTimeout(b.Context(), toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.TempDir()}
	text, err := cmd.CombinedOutput()
	b.Logf("$ %s %s\n%s", name, strings.Join(args, " "), text)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return string(text)
}

// Tools of everyday reach the tailnet through tsnode run: names are resolved there.
func TestRealTools(t *testing.T) {
	b := newToolbench(t)
	for name, args := range map[string][]string{
		"curl by SOCKS5":       {"--socks5-hostname", b.proxy},
		"curl by HTTP":         {"--proxy", "http://" + b.proxy},
		"curl by HTTP CONNECT": {"--proxy", "http://" + b.proxy, "--proxytunnel"},
	} {
		b.run(name, func(b *toolbench) {
			out := b.tool("curl", "curl", append(args, "--silent", "--show-error", "--fail", "http://web/greeting")...)
			if out != toolGreeting {
				b.Errorf("got %q", out)
			}
		})
	}
	b.run("dig by a UDP forward", func(b *toolbench) {
		out := b.tool("bind9-dnsutils", "dig", "@"+b.dnsHost, "-p", b.dnsPort, "+notcp", "+short", "2.example.org", "A")
		if out != "192.0.2.7\n192.0.2.7\n" {
			b.Errorf("got %q", out)
		}
	})
	b.run("browser by HTTP", func(b *toolbench) {
		out := b.tool("chromium-headless-shell", "chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+filepath.Join(b.TempDir(), "profile"),
			"--proxy-server=http://"+b.proxy, "--virtual-time-budget=30000", "--dump-dom", "http://web/")
		if want := `<p id="out">got ` + toolGreeting + "</p>"; !strings.Contains(out, want) {
			b.Errorf("the page does not show %q", want)
		}
	})
}

// run runs a part of the test as one of its own.
func (b *toolbench) run(name string, part func(*toolbench)) {
	b.T.Run(name, func(t *testing.T) {
		own := *b
		own.T = t
		part(&own)
	})
}
