package interop

import (
	"context"
	"flag"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"tailscale.com/envknob"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/tstest/integration"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/interop/container"
	"github.com/seed94491740/tsnode/interop/peer"
)

// upTimeout bounds the start of one node, ours or the reference's.
const upTimeout = 60 * time.Second

// parallelTests is how many tests run at once: nearly all their time they wait.
const parallelTests = 4

func TestMain(m *testing.M) {
	peer.Main() // in a process that is to be a node
	container.Main()
	envknob.Setenv("TS_NO_LOGS_NO_SUPPORT", "true")
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		f.Value.Set(strconv.Itoa(parallelTests)) // the default is meant for tests that compute
	}
	os.Exit(runIn(m))
}

// buildDir is where tests build programs.
var buildDir string

// runIn runs all tests with a buildDir.
func runIn(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "tsnode-interop"); err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(buildDir)
	return m.Run()
}

// referenceControl starts the reference's control server with its own relay.
func referenceControl(t *testing.T) (url string, c *testcontrol.Server) {
	t.Helper()
	return referenceControlOf(t, integration.RunDERPAndSTUN(t, logger.Discard, "127.0.0.1"))
}

// referenceControlOf starts the reference's control server with relays that there
// are.
func referenceControlOf(t *testing.T, derp *tailcfg.DERPMap) (url string, c *testcontrol.Server) {
	t.Helper()
	c = newReferenceControl(derp)
	c.HTTPTestServer = httptest.NewUnstartedServer(c)
	c.HTTPTestServer.Start()
	t.Cleanup(c.HTTPTestServer.Close)
	return c.HTTPTestServer.URL, c
}

// newReferenceControl returns the reference's control server without a listener.
func newReferenceControl(derp *tailcfg.DERPMap) *testcontrol.Server {
	return &testcontrol.Server{
		DERPMap:        derp,
		DNSConfig:      &tailcfg.DNSConfig{Proxied: true},
		MagicDNSDomain: "tail-scale.ts.net",
	}
}

// tsnetNode starts a reference node and waits for it.
func tsnetNode(t *testing.T, control, name, authKey string) *tsnet.Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &tsnet.Server{Dir: dir, ControlURL: control, Hostname: name, AuthKey: authKey, Ephemeral: true, Logf: logger.Discard}
	t.Cleanup(func() { s.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	if _, err := s.Up(ctx); err != nil {
		t.Fatalf("tsnet node %s: %v", name, err)
	}
	return s
}
