package interop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/tailcfg"

	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

const (
	// programPort is where relay programs listen, each on a loopback address of
	// its own, so that one that comes back finds its port free.
	programPort = 8443

	programWait = 30 * time.Second // for a program to serve
	programLook = 20 * time.Millisecond
)

// The relay programs: ours, and the reference's derper as go.mod has it.
var (
	ourProgram = sync.OnceValues(func() (string, error) {
		path := filepath.Join(buildDir, "tsnode")
		return path, run("go", "build", "-C", "..", "-o", path, "./cmd/tsnode")
	})
	theirProgram = sync.OnceValues(func() (string, error) {
		out, err := exec.Command("go", "tool", "-n", "tailscale.com/cmd/derper").Output()
		return strings.TrimSpace(string(out)), err
	})
)

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// A relayRegion is the relay programs of one region, which mesh with each other.
type relayRegion struct {
	dir    string
	certs  string            // PEM file of all relays' certificates
	pins   map[string]string // CertName of each relay by host
	roots  *x509.CertPool
	relays []*relayProgram
}

// A relayProgram is a relay in a process of its own. It may be killed and started
// again, and has the same key then.
type relayProgram struct {
	kind   peer.Kind
	host   string // a loopback address
	region *relayRegion
	cmd    *exec.Cmd
	ended  chan error // closed after the program's end
	log    *programLog
}

// startRegion starts relays of these kinds.
func startRegion(t *testing.T, kinds ...peer.Kind) *relayRegion {
	t.Helper()
	r := &relayRegion{dir: t.TempDir(), pins: make(map[string]string), roots: x509.NewCertPool()}
	r.certs = filepath.Join(r.dir, "certs.pem")
	for _, kind := range kinds {
		host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(255), 1+rand.N(254))
		r.relays = append(r.relays, &relayProgram{kind: kind, host: host, region: r})
		r.certify(t, host)
	}
	writeFile(t, filepath.Join(r.dir, "mesh.key"), []byte(meshKeyText+"\n"))
	for _, p := range r.relays {
		p.start(t)
	}
	return r
}

// certify makes the certificate of a relay, as both programs look for it.
func (r *relayRegion) certify(t *testing.T, host string) {
	t.Helper()
	cert, err := relay.SelfSigned(host)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	writeFile(t, filepath.Join(r.dir, host+".crt"), certificate)
	writeFile(t, filepath.Join(r.dir, host+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	before, err := os.ReadFile(r.certs)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	writeFile(t, r.certs, append(before, certificate...))
	r.roots.AppendCertsFromPEM(certificate)
	r.pins[host] = derp.PinCertName(cert.Certificate[0])
}

// derpMap is the region as nodes know it.
func (r *relayRegion) derpMap() *tailcfg.DERPMap {
	region := &tailcfg.DERPRegion{RegionID: 1, RegionCode: "test"}
	for i, p := range r.relays {
		region.Nodes = append(region.Nodes, &tailcfg.DERPNode{
			Name: fmt.Sprint("1", string(rune('a'+i))), RegionID: 1, HostName: p.host, IPv4: p.host, IPv6: "none",
			CertName: r.pins[p.host], DERPPort: programPort, STUNPort: -1,
		})
	}
	return &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: region}}
}

func writeFile(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// meshWith is all relays of the region, as both programs want them.
func (r *relayRegion) meshWith() string {
	var all []string
	for _, p := range r.relays {
		all = append(all, p.address())
	}
	return strings.Join(all, ",")
}

func (p *relayProgram) address() string { return net.JoinHostPort(p.host, strconv.Itoa(programPort)) }

// endpoint is the relay for newRelayClient.
func (p *relayProgram) endpoint() *testRelay {
	return &testRelay{kind: p.kind, way: fastStart, address: p.address(), roots: p.region.roots}
}

// command is how the program is run.
func (p *relayProgram) command() (*exec.Cmd, error) {
	build, args := ourProgram, []string{"relay", "--addr", p.address(), "--debug-addr", "", "--mesh-ca", p.region.certs, "--verbose"}
	if p.kind == peer.Reference {
		build, args = theirProgram, []string{"-a", p.address()}
	}
	path, err := build()
	if err != nil {
		return nil, err
	}
	args = append(args, // which both programs take
		"-c", filepath.Join(p.region.dir, p.host+".json"),
		"--hostname="+p.host, "--certmode=manual", "--certdir="+p.region.dir, "--http-port=-1", "--stun=false",
		"--mesh-psk-file="+filepath.Join(p.region.dir, "mesh.key"), "--mesh-with="+p.region.meshWith())
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+p.region.certs)
	return cmd, nil
}

// start runs the program until the test ends or kill, and waits until it serves.
func (p *relayProgram) start(t *testing.T) {
	t.Helper()
	var err error
	if p.cmd, err = p.command(); err != nil {
		t.Fatal(err)
	}
	p.log = new(programLog)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	started := make(chan error, 1)
	p.ended = make(chan error, 1)
	go runTied(p.cmd, started, p.ended)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of the %s relay %s:\n%s", p.kind, p.host, p.log)
		}
	})
	deadline := time.Now().Add(programWait)
	for {
		c, err := tls.Dial("tcp", p.address(), &tls.Config{RootCAs: p.region.roots})
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the %s relay does not serve: %v", p.kind, err)
		}
		time.Sleep(programLook) // a program cannot run in a bubble
	}
}

// runTied runs a program to its end. If this process dies, the kernel kills it: it
// does so when the thread dies that has started it.
func runTied(cmd *exec.Cmd, started, ended chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Start()
	started <- err
	if err == nil {
		ended <- cmd.Wait()
		close(ended)
	}
}

// kill ends the program as a crash does. It may be called more than once.
func (p *relayProgram) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// stop ends the program in good order.
func (p *relayProgram) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-p.ended; err != nil && p.kind == peer.Ours {
		t.Errorf("our relay's end after SIGTERM: %v", err)
	}
}

// A programLog keeps the end of what a program prints.
type programLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

var _ io.Writer = (*programLog)(nil)

// maxProgramLog bounds what is kept, in bytes.
const maxProgramLog = 64 << 10

func (l *programLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(b)
	if over := l.buf.Len() - maxProgramLog; over > 0 {
		l.buf.Next(over)
	}
	return len(b), nil
}

func (l *programLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
