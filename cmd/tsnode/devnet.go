package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/devnet"
)

// noProxy is the proxy choice of nodes on an embedded tailnet, which lives on
// this machine.
func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

func newDevnet() *cobra.Command {
	var listen, stateDir, policyFile, domain string
	var headscale, verbose bool
	cmd := &cobra.Command{
		Use:   "devnet",
		Short: "Run a local tailnet for development",
		Long: `Run a control server and a relay on this machine until interrupted. Nodes of
tsnode, tsnet and tailscaled join it with the URL and the auth key it prints.
With --state-dir nodes survive a restart of it.`,
		Example: `  tsnode devnet --listen 127.0.0.1:8899 --policy policy.hujson
  TS_AUTHKEY=… tsnode run --login-server http://127.0.0.1:8899 --hostname web -R 80:localhost:3000`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := devnet.Config{Listen: listen, StateDir: stateDir, Domain: domain, Headscale: headscale, Logger: newLogger(cmd.ErrOrStderr(), verbose)}
			if policyFile != "" {
				policy, err := os.ReadFile(policyFile)
				if err != nil {
					return fmt.Errorf("policy: %w", err)
				}
				c.Policy = policy
			}
			return runDevnet(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:0", "address of the control server")
	f.StringVar(&stateDir, "state-dir", "", "folder that keeps nodes and keys; empty: in memory")
	f.StringVar(&policyFile, "policy", "", "policy file (HuJSON); default: all may reach all")
	f.StringVar(&domain, "domain", "", "DNS suffix of the tailnet (default tailnet.test)")
	f.BoolVar(&headscale, "headscale", false, "behave as Headscale where it differs")
	f.BoolVarP(&verbose, "verbose", "v", false, "log more")
	return cmd
}

func runDevnet(ctx context.Context, c devnet.Config, out io.Writer) error {
	tailnet, err := devnet.Start(ctx, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "login server  %s\nauth key      %s\n", tailnet.URL(), tailnet.AuthKey(devnet.KeyOptions{Reusable: true}))
	<-ctx.Done()
	return tailnet.Close()
}
