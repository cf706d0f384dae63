package main

import (
	"cmp"
	"context"
	"net"
	"os"
	"strings"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/state"
)

// openStore opens where the node's keys are kept, by the prefix of the setting
// state (SVC-139), which is one that there is. It is nil when that is not set: then the node opens a file in
// its folder, or keeps keys in memory. ctx is for the opening alone.
func openStore(ctx context.Context, s *settings.Settings) (state.Store, error) {
	name, isKube := strings.CutPrefix(s.State, settings.StateKube)
	switch {
	case s.State == "":
		return nil, nil
	case s.State == settings.StateMemory:
		return state.NewMemory(), nil
	case isKube:
		return state.OpenKube(ctx, state.KubeConfig{Secret: name, Address: kubeAddress(os.Getenv)})
	}
	return state.OpenFile(s.State)
}

// kubeAddress returns where the environment of a pod says that the API server
// is, or "" when it does not (Kubernetes documentation, "Accessing the Kubernetes
// API from a Pod"). It needs no DNS, unlike the name that the server also has.
func kubeAddress(getenv func(string) string) string {
	host := getenv("KUBERNETES_SERVICE_HOST")
	if host == "" {
		return ""
	}
	return net.JoinHostPort(host, cmp.Or(getenv("KUBERNETES_SERVICE_PORT_HTTPS"), getenv("KUBERNETES_SERVICE_PORT"), "443"))
}
