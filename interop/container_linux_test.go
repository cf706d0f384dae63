package interop

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/interop/container"
	"github.com/seed94491740/tsnode/interop/ground"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

const (
	readyLimit = 5 * time.Second // from the start to /readyz, once control answers; item 6 of node-services.md section 23
	endLimit   = 5 * time.Second // from SIGTERM to the end, and to the logout of an ephemeral node; the same

	caFile    = "etc/ssl/certs/ca-certificates.crt"
	podHealth = "127.0.0.1:9002" // where the image's health is asked
)

// A podControl is a control server in the core of a ground that speaks HTTPS.
type podControl struct {
	url         string
	certificate []byte // PEM of the CA that has signed the server's
	environ     []string

	// left returns nil once all but so many of the nodes that joined have logged out.
	left func(joined, left int) error
}

// devnetControl is our own tailnet for development.
func devnetControl(t *testing.T, g *ground.Ground) *podControl {
	t.Helper()
	tailnet := startDevnet(t, devnet.Config{
		Listen: ground.ServerAddr.String() + ":0", Network: g.Internet.Network(), TLS: true,
		EphemeralTimeout: time.Hour, // longer than the test: only a logout removes a node
	})
	return &podControl{
		url: tailnet.URL(), certificate: rootOf(t, g, tailnet),
		environ: []string{"TS_AUTHKEY=" + tailnet.AuthKey(devnet.KeyOptions{Reusable: true})},
		left: func(_, left int) error {
			if all := tailnet.Nodes(); len(all) != left {
				return fmt.Errorf("nodes are left: %+v", all)
			}
			return nil
		},
	}
}

// rootOf returns the certificate that a tailnet's server is trusted by.
func rootOf(t *testing.T, g *ground.Ground, tailnet *devnet.Net) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), upTimeout)
	defer cancel()
	c, err := g.Internet.Network().Dial(ctx, "tcp", strings.TrimPrefix(tailnet.URL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tc := tls.Client(c, &tls.Config{RootCAs: tailnet.Roots(), ServerName: ground.ServerAddr.String()})
	if err := tc.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	chain := tc.ConnectionState().VerifiedChains[0]
	return pemOf(chain[len(chain)-1].Raw)
}

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }

// referencePodControl is the reference's control server with its own relay. It takes
// no notice of a logout, which is one more request to register.
func referencePodControl(t *testing.T, g *ground.Ground) *podControl {
	t.Helper()
	cert, err := relay.SelfSigned(ground.ServerAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	var derp *tailcfg.DERPMap
	var ln net.Listener
	err = g.Internet.Do(func() (err error) {
		derp = integration.RunDERPAndSTUN(t, logger.Discard, ground.ServerAddr.String())
		ln, err = net.Listen("tcp", ground.ServerAddr.String()+":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c := newReferenceControl(derp)
	var registered atomic.Int64
	c.MaybeRateLimitRegister = func() (bool, string, string) {
		registered.Add(1)
		return false, "", ""
	}
	c.HTTPTestServer = httptest.NewUnstartedServer(c)
	c.HTTPTestServer.Listener.Close()
	c.HTTPTestServer.Listener = ln
	c.HTTPTestServer.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	c.HTTPTestServer.StartTLS()
	t.Cleanup(c.HTTPTestServer.Close)
	return &podControl{
		url: c.HTTPTestServer.URL, certificate: pemOf(cert.Certificate[0]),
		left: func(joined, left int) error {
			if n, polls := int(registered.Load()), c.InServeMap(); n != 2*joined-left || polls != left {
				return fmt.Errorf("%d nodes have registered %d times, and %d map polls are open", joined, n, polls)
			}
			return nil
		},
	}
}

// A pod is a container of the image on a host whose only interfaces are loopback and
// one veth.
type pod struct {
	*testing.T
	host  *ground.Host
	spec  container.Spec
	cmd   *exec.Cmd
	began time.Time
	log   *programLog
	ended chan error // closed after its end
}

// newPod makes a pod, which does not run yet. Of certificates its file system has the
// image's and these.
func newPod(t *testing.T, g *ground.Ground, name string, certificates []byte) *pod {
	t.Helper()
	img, err := readImage()
	if err != nil {
		t.Fatal(err)
	}
	site, err := g.Site(ground.Public)
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{T: t, log: new(programLog), ended: make(chan error, 1)}
	if p.host, err = site.Host(name); err != nil {
		t.Fatal(err)
	}
	root := img.unpack(t)
	image, err := os.ReadFile(filepath.Join(root, caFile))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, caFile), append(image, certificates...))
	p.spec = container.Spec{Root: root, User: img.user, Args: img.entrypoint, Environ: append(img.environ, "TS_HOSTNAME="+name)}
	return p
}

// start runs the pod until the test ends.
func (p *pod) start(environ ...string) {
	p.Helper()
	p.spec.Environ = append(p.spec.Environ, environ...)
	var err error
	if p.cmd, err = p.spec.Command(); err != nil {
		p.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.began = time.Now()
	if err := p.host.Start(p.cmd); err != nil {
		p.Fatal(err)
	}
	go func() {
		p.ended <- p.cmd.Wait()
		close(p.ended)
	}()
	p.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if p.Failed() {
			p.Logf("log of %s:\n%s", p.host, p.log)
		}
	})
}

// run runs another command of the program in a container as the pod's, on its network.
func (p *pod) run(args ...string) {
	p.Helper()
	spec := p.spec
	spec.Args = append([]string{p.spec.Args[0]}, args...)
	cmd, err := spec.Command()
	if err != nil {
		p.Fatal(err)
	}
	out := new(programLog)
	cmd.Stdout, cmd.Stderr = out, out
	if err := p.host.Start(cmd); err != nil {
		p.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		p.Errorf("%q: %v\n%s", args, err, out)
	}
}

// get asks for a page on the pod's network.
func (p *pod) get(ctx context.Context, url string) (body string, err error) {
	c := &http.Client{Transport: &http.Transport{DialContext: p.host.Network().Dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, b)
	}
	return string(b), err
}

// awaitReady waits until the node says that it is ready, which must be soon.
func (p *pod) awaitReady() {
	p.Helper()
	eventually(p.T, readyLimit, func(ctx context.Context) error {
		_, err := p.get(ctx, "http://"+podHealth+"/readyz")
		return err
	})
	p.Logf("%s was ready %v after its start", p.host, time.Since(p.began).Round(time.Millisecond))
}

// stop ends the node as orchestrators do: it must be gone from the tailnet soon, and
// end soon and well.
func (p *pod) stop(gone func() error) {
	p.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		p.Fatal(err)
	}
	eventually(p.T, endLimit, func(context.Context) error { return gone() })
	p.Logf("%s had left %v after SIGTERM", p.host, time.Since(began).Round(time.Millisecond))
	select {
	case err := <-p.ended:
		if err != nil {
			p.Errorf("the end after SIGTERM: %v", err)
		}
	case <-time.After(time.Until(began.Add(endLimit))):
		p.Errorf("it has not ended %v after SIGTERM", endLimit)
	}
}

// serve answers HTTP requests on the pod's network, as the container beside it would.
func (p *pod) serve(addr, answer string) {
	p.Helper()
	ln, err := p.host.Network().Listen(p.Context(), "tcp", addr)
	if err != nil {
		p.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })}
	p.Cleanup(func() { s.Close() })
	go s.Serve(ln)
}

// checkConfined checks what the kernel knows of the process.
func (p *pod) checkConfined() {
	p.Helper()
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		p.Fatal(err)
	}
	const none = "0000000000000000"
	for name, want := range map[string]string{
		"Uid": "65532 65532 65532 65532", "Gid": "65532 65532 65532 65532", "Groups": "",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1",
	} {
		m := regexp.MustCompile(`(?m)^` + name + `:(.*)$`).FindSubmatch(status)
		if m == nil || strings.Join(strings.Fields(string(m[1])), " ") != want {
			p.Errorf("%s is %q, not %q", name, m, want)
		}
	}
	if interfaces, err := p.host.Network().Interfaces(); err != nil || len(interfaces) != 2 {
		p.Errorf("interfaces %+v, %v", interfaces, err)
	}
	var files []string
	err = fs.WalkDir(os.DirFS(proc+"root"), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Type() != fs.ModeSocket {
			files = append(files, path)
		}
		return err
	})
	if want := []string{caFile, strings.TrimPrefix(p.spec.Args[0], "/")}; err != nil || !slices.Equal(files, want) {
		p.Errorf("it sees the files %q, %v, not %q", files, err, want)
	}
	var mounted unix.Statfs_t
	if err := unix.Statfs(proc+"root", &mounted); err != nil || mounted.Flags&unix.ST_RDONLY == 0 {
		p.Errorf("its root file system is not read-only: %v", err)
	}
}

// Pods of the image, confined as the manifests say, with no volume and no other file
// than the program and the CA bundle: they are ready in time, carry traffic from one
// to the other, and at SIGTERM end in time, with 0, logged out (SVC-154, SVC-175,
// SVC-176).
func TestContainer(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *ground.Ground) *podControl{
		"devnet": devnetControl, "testcontrol": referencePodControl,
	} {
		t.Run(name, func(t *testing.T) {
			g := ground.New(t)
			c := start(t, g)
			environ := append(c.environ, "TSNODE_LOGIN_SERVER="+c.url)
			web, laptop := newPod(t, g, "web", c.certificate), newPod(t, g, "laptop", c.certificate)
			web.serve("127.0.0.1:8080", "served beside a pod")
			for p, forward := range map[*pod]string{web: "TSNODE_REMOTE=80:127.0.0.1:8080", laptop: "TSNODE_LOCAL=8080:web:80"} {
				p.start(append(environ, forward)...)
				p.awaitReady()
				p.checkConfined()
				p.run("healthcheck", "--ready")
			}
			eventually(t, upTimeout, func(ctx context.Context) error {
				body, err := laptop.get(ctx, "http://127.0.0.1:8080/")
				if err == nil && body != "served beside a pod" {
					err = fmt.Errorf("got %q", body)
				}
				return err
			})
			for i, p := range []*pod{web, laptop} {
				p.stop(func() error { return c.left(2, 1-i) })
			}
		})
	}
}

// ask runs a command that asks the pod's node by its socket, as 'docker exec' would.
func (p *pod) ask(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(p.spec.Root, p.spec.Args[0]), args...)
	cmd.Env = []string{fmt.Sprintf("TS_SOCKET=/proc/%d/root/tmp/tailscaled.sock", p.cmd.Process.Pid)}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%q: %w\n%s", args, err, out)
	}
	return string(out), err
}

// A pod with volumes for socket and state is asked by its socket, and stays on the
// tailnet when it ends (SVC-154, SVC-176).
func TestContainerWithVolumes(t *testing.T) {
	g := ground.New(t)
	c := devnetControl(t, g)
	p := newPod(t, g, "web", c.certificate)
	p.spec.Tmpfs = []string{"/tmp", "/var/lib/tsnode"}
	p.start(append(c.environ, "TSNODE_LOGIN_SERVER="+c.url, "TS_STATE_DIR=/var/lib/tsnode")...)
	p.awaitReady()
	for command, want := range map[string]string{"status": "web", "ip": "100.64.0.1", "bugreport --file -": "==== status"} {
		if out, err := p.ask(strings.Fields(command)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %q, %v", command, out, err)
		}
	}
	state, err := os.Stat(fmt.Sprintf("/proc/%d/root/var/lib/tsnode/tailscaled.state", p.cmd.Process.Pid))
	if err != nil || state.Mode() != 0o600 {
		t.Errorf("state: %v, %v", state, err)
	}
	p.stop(func() error { return c.left(1, 1) })
}

// Without the CA bundle the first request fails, and the node says what is missing.
func TestContainerNeedsCertificates(t *testing.T) {
	g := ground.New(t)
	c := devnetControl(t, g)
	p := newPod(t, g, "web", nil)
	if err := os.Remove(filepath.Join(p.spec.Root, caFile)); err != nil {
		t.Fatal(err)
	}
	p.start(append(c.environ, "TSNODE_LOGIN_SERVER="+c.url)...)
	eventually(t, upTimeout, func(context.Context) error {
		if said := p.log.String(); !strings.Contains(said, "certificate is not trusted") || !strings.Contains(said, "/"+caFile) {
			return errors.New("it does not say what is missing")
		}
		return nil
	})
	if _, err := p.get(t.Context(), "http://"+podHealth+"/readyz"); err == nil {
		t.Error("it is ready")
	}
	p.stop(func() error { return nil }) // it never joined
}
