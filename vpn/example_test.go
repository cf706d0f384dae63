package vpn_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"

	"github.com/seed94491740/tsnode/vpn"
)

// A front end starts a tunnel process, has it join a tailnet and set up the
// network, shows which nodes there are, and stops it. `tsnode tunnel --manager`
// is such a front end.
func Example() {
	ctx := context.Background()
	cmd := exec.Command("tsnode", "tunnel", "--state-dir", "/var/lib/frontend")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		log.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		log.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	m, err := vpn.Dial(ctx, vpn.Pair(out, in), vpn.ManagerConfig{
		Apply: func(_ context.Context, s vpn.NetworkSettings) error {
			fmt.Println("set up", s.IPv4, s.IPv6, "with MTU", s.MTU) // with what the system has for it
			return nil
		},
		Events: func(e vpn.Event) {
			switch e := e.(type) {
			case vpn.LogLine:
				fmt.Println(e.Level, e.Message)
			case vpn.Update:
				fmt.Println(len(e.Agents), "nodes are new or have changed,", len(e.DeletedAgents), "are gone")
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	err = m.Start(ctx, vpn.StartOptions{ControlURL: "https://control.example.org", Token: os.Getenv("TS_AUTHKEY")})
	if err != nil {
		log.Fatal(err) // for a person: a login URL may be in it
	}
	for _, a := range m.Peers().Agents {
		fmt.Println(a.Name, a.Addrs)
	}
	if err := m.Stop(ctx); err != nil {
		cmd.Process.Kill()
	}
	cmd.Wait()
}
