package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"

	"github.com/seed94491740/tsnode/interop/ground"
)

const (
	deviceName = "tst0"
	deviceWait = 30 * time.Second // for a node, and for a tool
)

// A managed is a tunnel whose manager is in a network namespace of its own, with
// the device, and whose process is in ours, as a user without privileges (VPN-56).
type managed struct {
	*testing.T
	cmd   *exec.Cmd
	log   *programLog
	ended chan error
	held  int // process that holds the manager's namespace
}

// ownNetwork returns a file that is the namespace of this test, for other processes,
// too. That of the main thread may be another: of a test that has been on a ground.
func ownNetwork(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// startManaged starts a manager and waits until its tunnel is up.
func startManaged(t *testing.T, control string) *managed {
	t.Helper()
	program, err := ourProgram()
	if err == nil {
		err = os.Chmod(buildDir, 0o755) // the tunnel's user starts the program, too
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &managed{T: t, log: new(programLog), ended: make(chan error, 1)}
	m.cmd = exec.Command(program, "tunnel", "--manager", "--json", "--tun", deviceName, "--resolver", "none",
		"--tunnel-netns", ownNetwork(t), "--tunnel-user", "nobody",
		"--login-server", control, "--hostname", "machine", "--ephemeral")
	m.cmd.Env = append(os.Environ(), "TS_AUTHKEY=tskey-test")
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { m.ended <- m.cmd.Wait() }()
	t.Cleanup(func() {
		m.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("log of the manager:\n%s", m.log)
		}
	})
	m.hold()
	eventually(t, upTimeout, func(context.Context) error {
		if !strings.Contains(m.log.String(), `{"Started":`) {
			return errors.New("the tunnel is not up")
		}
		return nil
	})
	return m
}

// hold has the manager's namespace outlive it.
func (m *managed) hold() {
	sleep := exec.Command("nsenter", "-t", strconv.Itoa(m.cmd.Process.Pid), "-n", "sleep", "600")
	sleep.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := sleep.Start(); err != nil {
		m.Fatal(err)
	}
	m.held = sleep.Process.Pid
	m.Cleanup(func() { sleep.Process.Kill(); sleep.Wait() })
}

// inside runs a tool in the manager's namespace.
func (m *managed) inside(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.Context(), deviceWait)
	defer cancel()
	args = append([]string{"-t", strconv.Itoa(m.held), "-n", name}, args...)
	out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(args[3:], " "), err, out)
	}
	return string(out), nil
}

// run is inside with a tool that must succeed.
func (m *managed) run(name string, args ...string) string {
	m.Helper()
	out, err := m.inside(name, args...)
	if err != nil {
		m.Fatal(err)
	}
	return out
}

// tunnel returns the process of the tunnel.
func (m *managed) tunnel() int {
	m.Helper()
	pid := m.cmd.Process.Pid
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		m.Fatal(err)
	}
	for _, path := range children {
		text, _ := os.ReadFile(path)
		if child, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return child
		}
	}
	m.Fatal("the manager has no tunnel process")
	return 0
}

// wait returns how the manager has ended.
func (m *managed) wait() error {
	m.Helper()
	select {
	case err := <-m.ended:
		return err
	case <-time.After(deviceWait):
		m.Fatal("the manager goes on")
		return nil
	}
}

// needDevices skips a test where no network can be made or a tool is missing, and
// fails it where root runs it as a check.
func needDevices(t *testing.T, tools ...string) {
	t.Helper()
	err := ground.Supported()
	for _, tool := range append(tools, "nsenter", "ip") {
		if _, look := exec.LookPath(tool); look != nil {
			err = errors.Join(err, fmt.Errorf("%w: run .ci/tools", look))
		}
	}
	switch {
	case err != nil && os.Getenv("CI") != "" && os.Geteuid() == 0:
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
}

// VT-11: a manager in one network namespace makes a TUN device, starts a tunnel in
// another as a user without privileges, and applies what it asks for: ping, curl,
// iperf3 and dig then reach a reference node and the service addresses by the
// kernel's own stack, and that node reaches ours. Stop leaves nothing.
func TestTunnelDevice(t *testing.T) {
	needDevices(t, "ping", "curl", "iperf3", "dig")
	control, _ := referenceControl(t)
	theirs := tsnetNode(t, control, "theirs", "")
	serveDeviceTools(t, theirs)
	m := startManaged(t, control)
	m.checkPrivileges()
	v4, v6 := theirs.TailscaleIPs()
	own := m.ownAddress()
	for _, a := range []netip.Addr{v4, v6} {
		t.Run(map[bool]string{true: "IPv4", false: "IPv6"}[a.Is4()], func(t *testing.T) {
			m := &managed{T: t, cmd: m.cmd, log: m.log, held: m.held}
			m.testPing(a)
			m.testCurl(a)
			m.testIperf(a)
		})
	}
	t.Run("DNS", func(t *testing.T) { (&managed{T: t, held: m.held}).testDNS(v4) })
	t.Run("peerAPI", func(t *testing.T) {
		lc, err := theirs.LocalClient()
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []tailcfg.PingType{tailcfg.PingPeerAPI, tailcfg.PingICMP, tailcfg.PingTSMP} {
			eventually(t, deviceWait, func(ctx context.Context) error {
				pong, err := lc.Ping(ctx, own, kind)
				if err == nil && pong.Err != "" {
					err = errors.New(pong.Err)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", kind, err)
				}
				return nil
			})
		}
	})
	eventually(t, deviceWait, func(context.Context) error {
		if !regexp.MustCompile(`"LastHandshake":"20`).MatchString(m.log.String()) {
			return errors.New("the manager was told of no handshake")
		}
		return nil
	})
	t.Run("the stack beside it", func(t *testing.T) { testWithoutDevice(t, control, v4) })
	m.testStop()
}

// checkPrivileges makes sure that the tunnel has none, and is elsewhere than the
// device.
func (m *managed) checkPrivileges() {
	m.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.tunnel()))
	if err != nil {
		m.Fatal(err)
	}
	if !strings.Contains(string(status), "CapEff:\t0000000000000000") || strings.Contains(string(status), "Uid:\t0") {
		m.Errorf("the tunnel has privileges:\n%s", status)
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", m.tunnel()))
	if ours, _ := os.Readlink(ownNetwork(m.T)); err != nil || ns != ours {
		m.Errorf("the tunnel is in network %s, %v; want %s", ns, err, ours)
	}
	if _, err := net.InterfaceByName(deviceName); err == nil {
		m.Errorf("%s is in our own network", deviceName)
	}
}

// ownAddress is the IPv4 address of the device.
func (m *managed) ownAddress() netip.Addr {
	m.Helper()
	var links []struct {
		Info []struct{ Family, Local string } `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(m.run("ip", "-json", "addr", "show", "dev", deviceName)), &links); err != nil {
		m.Fatal(err)
	}
	for _, info := range links[0].Info {
		if info.Family == "inet" {
			return netip.MustParseAddr(info.Local)
		}
	}
	m.Fatalf("%s has no address: %+v", deviceName, links)
	return netip.Addr{}
}

const iperfPort = 5201 // of the reference node, where iperf3 serves

// serveDeviceTools has a reference node answer curl, and pass iperf3 on to its
// server.
func serveDeviceTools(t *testing.T, theirs *tsnet.Server) {
	t.Helper()
	web, err := theirs.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 1<<20)) // as many segments as make super-packets of them
		io.WriteString(w, toolGreeting)
	})}
	go server.Serve(web)
	t.Cleanup(func() { server.Close() })

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().(*net.TCPAddr)
	free.Close()
	iperf := exec.Command("iperf3", "--server", "--bind", "127.0.0.1", "--port", strconv.Itoa(at.Port))
	iperf.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := iperf.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { iperf.Process.Kill(); iperf.Wait() })
	ln, err := theirs.Listen("tcp", fmt.Sprint(":", iperfPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go passOn(ln, at.String())
}

// passOn joins each connection with one to an address.
func passOn(ln net.Listener, to string) {
	for {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer out.Close()
			go func() { io.Copy(out, in); out.(*net.TCPConn).CloseWrite() }()
			io.Copy(in, out)
		}()
	}
}

func (m *managed) testPing(a netip.Addr) {
	m.Helper()
	out := m.run("ping", "-c", "3", "-i", "0.2", "-w", "20", a.String())
	if !strings.Contains(out, " 3 received") {
		m.Errorf("ping:\n%s", out)
	}
	m.run("ping", "-c", "1", "-w", "20", "-s", "3000", a.String()) // in fragments
}

func (m *managed) testCurl(a netip.Addr) {
	m.Helper()
	out := m.run("curl", "--silent", "--show-error", "--globoff", "--max-time", "20", "http://"+netip.AddrPortFrom(a, 80).String()+"/")
	if len(out) != 1<<20+len(toolGreeting) || !strings.HasSuffix(out, toolGreeting) {
		m.Errorf("curl got %d bytes, want %d", len(out), 1<<20+len(toolGreeting))
	}
}

// testIperf runs one stream and several, both ways, and logs the figures.
func (m *managed) testIperf(a netip.Addr) {
	m.Helper()
	iperf(m.T, m.run, netip.AddrPortFrom(a, iperfPort))
}

// iperf does so with a server at an address, by what runs programs.
func iperf(t *testing.T, run func(name string, args ...string) string, server netip.AddrPort) {
	t.Helper()
	for _, args := range [][]string{{"-P", "1"}, {"-P", "4"}, {"-P", "1", "--reverse"}, {"-P", "4", "--reverse"}} {
		text := run("iperf3", append([]string{"--client", server.Addr().String(), "--port", fmt.Sprint(server.Port()), "--time", "1", "--connect-timeout", "10000", "--json"}, args...)...)
		var result struct {
			End struct {
				Received struct {
					Bytes float64
					Rate  float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(text), &result); err != nil {
			t.Fatalf("iperf3: %v\n%s", err, text)
		}
		if result.End.Received.Bytes == 0 {
			t.Errorf("iperf3 %v has carried nothing:\n%s", args, text)
		}
		t.Logf("iperf3 %v: %.0f Mbit/s", args, result.End.Received.Rate/1e6)
	}
}

// testWithoutDevice runs iperf3 by a node that has the stack in place of a device, to
// compare with: through a forward of tsnode run.
func testWithoutDevice(t *testing.T, control string, theirs netip.Addr) {
	t.Helper()
	program, err := ourProgram()
	if err != nil {
		t.Fatal(err)
	}
	port, web := freePort(t), freePort(t)
	f := forwarder{name: "tsnode", program: program, args: []string{"run", "--login-server", control, "--hostname", "stack"}, end: os.Interrupt}
	r := f.start(t, "-L", port+":"+netip.AddrPortFrom(theirs, iperfPort).String(), "-L", web+":"+netip.AddrPortFrom(theirs, 80).String())
	server := netip.MustParseAddrPort("127.0.0.1:" + port)
	r.await(t, "tcp", "127.0.0.1:"+web) // a connection to iperf3 would be a test to it
	iperf(t, func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}, server)
}

// testDNS asks the service addresses by UDP and by TCP.
func (m *managed) testDNS(want netip.Addr) {
	m.Helper()
	for _, server := range []string{"100.100.100.100", "fd7a:115c:a1e0::53"} {
		for _, way := range []string{"+notcp", "+tcp"} {
			out := m.run("dig", "@"+server, way, "+short", "+time=5", "+tries=3", "theirs."+dnsSuffix)
			if strings.TrimSpace(out) != want.String() {
				m.Errorf("dig @%s %s: %q, want %v", server, way, out, want)
			}
		}
	}
}

// testStop ends the manager, which leaves neither device nor rules nor process.
func (m *managed) testStop() {
	m.Helper()
	tunnel := m.tunnel()
	if err := m.cmd.Process.Signal(syscall.SIGINT); err != nil {
		m.Fatal(err)
	}
	if err := m.wait(); err != nil {
		m.Errorf("the manager has ended: %v", err)
	}
	m.checkClean(tunnel)
}

func (m *managed) checkClean(tunnel int) {
	m.Helper()
	eventually(m.T, deviceWait, func(context.Context) error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", tunnel)); err == nil {
			return errors.New("the tunnel's process goes on")
		}
		if out, err := m.inside("ip", "link", "show", "dev", deviceName); err == nil {
			return fmt.Errorf("the device is still there:\n%s", out)
		}
		return nil
	})
}

// VT-12, VPN-37, VPN-43: whichever of manager and tunnel is killed, the other ends
// by itself, and so they do when the device is removed; no process and no device
// remain.
func TestTunnelDeviceAbruptEnds(t *testing.T) {
	needDevices(t)
	control, _ := referenceControl(t)
	t.Run("tunnel killed", func(t *testing.T) {
		m := startManaged(t, control)
		tunnel := m.tunnel()
		syscall.Kill(tunnel, syscall.SIGKILL)
		if err := m.wait(); err == nil {
			t.Error("the manager says nothing of it")
		}
		m.checkClean(tunnel)
		if rules := m.run("ip", "rule", "show"); strings.Contains(rules, "0x740000") {
			t.Errorf("rules are left:\n%s", rules)
		}
	})
	t.Run("manager killed", func(t *testing.T) {
		m := startManaged(t, control)
		tunnel := m.tunnel()
		m.cmd.Process.Kill()
		m.wait()
		m.checkClean(tunnel)
	})
	t.Run("device removed", func(t *testing.T) {
		m := startManaged(t, control)
		tunnel := m.tunnel()
		m.run("ip", "link", "del", deviceName)
		if err := m.wait(); err == nil || !strings.Contains(m.log.String(), "device is gone") {
			t.Errorf("the manager has ended with %v, and nothing was said of the device", err)
		}
		m.checkClean(tunnel)
	})
}
