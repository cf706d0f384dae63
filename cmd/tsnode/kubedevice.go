package main

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/state"
)

// Values of a Secret beside the node's own state; the names are those of the
// reference's container image (SVC-157, node-services.md section 17).
const (
	secretAuthKey    = "authkey"          // set by who makes the Secret
	secretDeviceID   = "device_id"        // the rest is set by us, for who watches the pod
	secretDeviceFQDN = "device_fqdn"      // with a dot at its end
	secretDeviceIPs  = "device_ips"       // a JSON list
	secretPodUID     = "pod_uid"          // of POD_UID
	secretCapVersion = "tailscale_capver" // capability version
)

// storedAuthKey returns the auth key that the Secret of a pod has, "" for none
// and for other stores.
func storedAuthKey(store state.Store) string {
	k, ok := store.(*state.Kube)
	if !ok {
		return ""
	}
	b, err := k.Read(context.Background(), secretAuthKey)
	if err != nil {
		return "" // there is none: the Secret has been read already
	}
	return string(b)
}

// tellSecret says in the Secret of a pod who the node is, once it is on its
// tailnet. That this fails is no reason to stop.
func (f *foreground) tellSecret(ctx context.Context) error {
	status, err := f.node.Up(ctx)
	if err != nil {
		return nil // the node tells itself
	}
	if err := noteDevice(ctx, f.node.Store, deviceValues(status, os.Getenv("POD_UID"))); err != nil {
		f.log.Warn("cannot say in the Secret who this node is", "err", err)
	}
	return nil
}

// deviceValues are what a Secret says of its node.
func deviceValues(s *node.Status, podUID string) map[string]string {
	ips, _ := json.Marshal(s.TailscaleIPs) // addresses always encode
	values := map[string]string{
		secretDeviceIPs:  string(ips),
		secretCapVersion: strconv.Itoa(control.CapabilityVersion),
	}
	if s.Self != nil {
		values[secretDeviceID] = string(s.Self.ID)
		values[secretDeviceFQDN] = s.Self.Name + "."
	}
	if podUID != "" {
		values[secretPodUID] = podUID
	}
	return values
}

// noteDevice writes values to a store, in the order of their names.
func noteDevice(ctx context.Context, store state.Store, values map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := store.Write(ctx, name, []byte(values[name])); err != nil {
			return err
		}
	}
	return nil
}
