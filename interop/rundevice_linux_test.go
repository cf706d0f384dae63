package interop

import (
	"context"
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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/interop/ground"
)

// hostProgram runs our program on a host, as root or as a user without privileges.
func (a *arena) hostProgram(h *ground.Host, unprivileged bool, args ...string) (*exec.Cmd, *programLog) {
	a.Helper()
	program, err := ourProgram()
	if err == nil {
		err = os.Chmod(buildDir, 0o755)
	}
	if err != nil {
		a.Fatal(err)
	}
	log := new(programLog)
	words := append([]string{program, "run", "--login-server", a.tailnet.URL(), "--ephemeral"}, args...)
	if unprivileged {
		words = append(a.unprivileged(), words...)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "TS_AUTHKEY="+a.authKey)
	cmd.Stdout, cmd.Stderr = log, log
	if err := h.Start(cmd); err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if a.Failed() {
			a.Logf("log of %v:\n%s", args, log)
		}
	})
	return cmd, log
}

// unprivileged is the beginning of a command that runs as nobody, who may open
// /dev/net/tun, as everybody may on most machines, though not on each.
func (a *arena) unprivileged() []string {
	a.Helper()
	device := filepath.Join(a.TempDir(), "tun")
	if err := syscall.Mknod(device, syscall.S_IFCHR, 10<<8|200); err != nil { // Linux, Documentation/networking/tuntap.rst
		a.Fatal(err)
	}
	if err := os.Chmod(device, 0o666); err != nil {
		a.Fatal(err)
	}
	script := `mount --bind "$0" /dev/net/tun && exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"`
	return []string{"unshare", "--mount", "sh", "-c", script, device}
}

// on runs a tool on a host.
func (a *arena) on(h *ground.Host, name string, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(a.Context(), deviceWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var text []byte
	doErr := h.Do(func() error { text, err = cmd.CombinedOutput(); return nil })
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, text)
	}
	return string(text), errors.Join(doErr, err)
}

// says waits until a program has printed something.
func (a *arena) says(log *programLog, what string) {
	a.Helper()
	eventually(a.T, upTimeout, func(context.Context) error {
		if !strings.Contains(log.String(), what) {
			return fmt.Errorf("it does not say %q", what)
		}
		return nil
	})
}

// mirror has a web server of the core tell who asks it.
func (a *arena) mirror() (url string) {
	a.Helper()
	ln, err := a.ground.Internet.Network().Listen(a.Context(), "tcp", netip.AddrPortFrom(ground.ServerAddr, 0).String())
	if err != nil {
		a.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		io.WriteString(w, host)
	})}
	go server.Serve(ln)
	a.Cleanup(func() { server.Close() })
	return "http://" + ln.Addr().String() + "/"
}

// VT-11, VPN-51: tsnode run with a TUN device serves the programs of its machine.
// With an exit node everything of theirs goes through that, and nothing of the
// node's own: control, relays and peers stay in reach, past the device. At the end
// the machine is as it was.
func TestRunOnDevice(t *testing.T) {
	needDevices(t, "ping", "curl")
	a := newArena(t)
	home, away := a.site(ground.Easy, time.Millisecond), a.site(ground.FullCone, time.Millisecond)
	machine, gateway := a.host(home, "machine"), a.host(away, "gateway")
	_, log := a.hostProgram(gateway, false, "--hostname", "gateway", "--advertise-exit-node")
	a.says(log, "running as")
	if err := a.tailnet.ApproveRoutes("gateway", everywhere...); err != nil {
		t.Fatal(err)
	}
	info, err := a.tailnet.Node("gateway")
	if err != nil {
		t.Fatal(err)
	}
	gatewayAddr := info.Addresses[slices.IndexFunc(info.Addresses, netip.Addr.Is4)]
	url := a.mirror()
	before, err := a.on(machine, "ip", "rule", "show")
	if err != nil {
		t.Fatal(err)
	}

	cmd, log := a.hostProgram(machine, false, "--hostname", "machine", "--tun", deviceName)
	a.says(log, "running as")
	a.reaches(machine, gatewayAddr)
	a.asks(machine, url, home.Outside())
	a.ends(cmd)

	cmd, log = a.hostProgram(machine, false, "--hostname", "machine", "--tun", deviceName, "--exit-node", "gateway")
	a.says(log, "running as")
	for range 3 {
		a.asks(machine, url, away.Outside())
		a.reaches(machine, gatewayAddr)
	}
	if direct, err := a.on(machine, "ip", "route", "get", ground.ServerAddr.String(), "mark", "0x740000"); err != nil || !strings.Contains(direct, "dev eth0") {
		t.Errorf("the node's own way to control and relays: %s, %v", direct, err)
	}
	a.ends(cmd)
	if after, err := a.on(machine, "ip", "rule", "show"); err != nil || after != before {
		t.Errorf("rules at the end:\n%s%v\nbefore:\n%s", after, err, before)
	}
	a.asks(machine, url, home.Outside())
}

// reaches pings an address.
func (a *arena) reaches(h *ground.Host, to netip.Addr) {
	a.Helper()
	eventually(a.T, deviceWait, func(context.Context) error {
		_, err := a.on(h, "ping", "-c", "2", "-i", "0.2", "-w", "5", to.String())
		return err
	})
}

// asks has curl ask who it is, until the answer is an address.
func (a *arena) asks(h *ground.Host, url string, want netip.Addr) {
	a.Helper()
	eventually(a.T, deviceWait, func(context.Context) error {
		out, err := a.on(h, "curl", "--silent", "--show-error", "--max-time", "5", url)
		if err == nil && out != want.String() {
			err = fmt.Errorf("the server sees %s, want %v", out, want)
		}
		return err
	})
}

// ends has a program end.
func (a *arena) ends(cmd *exec.Cmd) {
	a.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		a.Errorf("%v: %v", cmd.Args, err)
	}
}

// A user without privileges runs a node on a device that an administrator has made
// for it, is told the commands that set it up, and gets no exit node, whose
// packets it could not tell from its own (VPN-51). Without such a device the error
// says what is missing.
func TestRunOnDeviceUnprivileged(t *testing.T) {
	needDevices(t, "ping", "unshare", "setpriv")
	a := newArena(t)
	site := a.site(ground.FullCone, time.Millisecond)
	machine := a.host(site, "machine")
	gateway := a.host(site, "gateway")
	_, log := a.hostProgram(gateway, false, "--hostname", "gateway")
	a.says(log, "running as")
	info, err := a.tailnet.Node("gateway")
	if err != nil {
		t.Fatal(err)
	}

	cmd, log := a.hostProgram(machine, true, "--tun", deviceName)
	if cmd.Wait(); cmd.ProcessState.Success() || !strings.Contains(log.String(), "CAP_NET_ADMIN") {
		t.Errorf("without a device: %v\n%s", cmd.ProcessState, log)
	}
	if _, err := a.on(machine, "ip", "tuntap", "add", "mode", "tun", "user", "nobody", "name", deviceName); err != nil {
		t.Fatal(err)
	}
	cmd, log = a.hostProgram(machine, true, "--tun", deviceName, "--exit-node", "gateway")
	if cmd.Wait(); cmd.ProcessState.Success() || !strings.Contains(log.String(), "packets would go into it with an exit node") {
		t.Errorf("with an exit node: %v\n%s", cmd.ProcessState, log)
	}
	cmd, log = a.hostProgram(machine, true, "--tun", deviceName)
	a.says(log, "as root, run")
	for _, line := range regexp.MustCompile(`(?m)^  (ip .*)$`).FindAllStringSubmatch(log.String(), -1) {
		if strings.HasPrefix(line[1], "ip -6 ") {
			continue // the ground has IPv4 only
		}
		words := strings.Fields(line[1])
		if _, err := a.on(machine, words[0], words[1:]...); err != nil {
			t.Error(err)
		}
	}
	a.reaches(machine, info.Addresses[slices.IndexFunc(info.Addresses, netip.Addr.Is4)])
	a.ends(cmd)
}
