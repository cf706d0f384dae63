package settings

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Variable is what the environment may say (SVC-153).
type Variable struct {
	Name string
	Does string // what becomes of it, for people

	take func(e *environment, text string) error // nil: nothing
}

// defaultLocalAddr is where the endpoints of TS_ENABLE_METRICS and
// TS_ENABLE_HEALTH_CHECK are when nothing else is said: on all addresses, of IPv4
// alone where the system has no IPv6.
const defaultLocalAddr = ":9002"

// Why the environment's variables that cannot be honoured are refused.
const (
	noServe     = "a serve configuration is not part of this version: use -R (TSNODE_REMOTE) for TCP"
	noKernel    = "it needs the kernel's forwarding, and this is a node in userspace"
	noOperator  = "it is for proxies of the Kubernetes operator, which this is not"
	noFederated = "identity federation is not supported: use TS_AUTHKEY, or TS_CLIENT_SECRET"
)

// special are the variables that are more than the text of one setting, in the
// order in which they are taken: later ones win.
var special = []Variable{
	{"TS_AUTH_KEY", "sets auth-key, when TS_AUTHKEY is not there", takeAuthKey},
	{"TS_CLIENT_ID", "names the OAuth client of TS_CLIENT_SECRET, which names it, too", takeClientID},
	{"TS_CLIENT_SECRET", "sets auth-key: an OAuth client secret, or file:PATH; needs tags", takeClientSecret},
	{"TS_ID_TOKEN", "refused: " + noFederated, refuse(noFederated)},
	{"TS_AUDIENCE", "refused: " + noFederated, refuse(noFederated)},
	{"TS_KUBE_SECRET", "sets state to kube:NAME; in Kubernetes it is `tailscale` by default, where neither state nor state-dir is set; empty: none", takeKubeSecret},
	{"KUBERNETES_SERVICE_HOST", "says that this is Kubernetes: see TS_KUBE_SECRET", takeKubernetes},
	{"TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV", "a fact for the Kubernetes client", nil},
	{"TS_ENABLE_HEALTH_CHECK", "true sets health to TS_LOCAL_ADDR_PORT", takeEnable("health")},
	{"TS_ENABLE_METRICS", "true sets metrics to TS_LOCAL_ADDR_PORT", takeEnable("metrics")},
	{"TS_LOCAL_ADDR_PORT", "where those two are; default " + defaultLocalAddr, nil},
	{"TS_HEALTHCHECK_ADDR_PORT", "sets health; the older way to say it", takeHealthAddr},
	{"TS_AUTH_ONCE", "nothing: an auth key is only ever shown when a login is needed (SVC-155)", nil},
	{"TS_USERSPACE", "true is how this node works; false is refused", takeUserspace},
	{"TS_SERVE_CONFIG", "refused: " + noServe, refuse(noServe)},
	{"TS_EXPERIMENTAL_CERT_SHARE", "true is refused: " + noServe, refuseTrue(noServe)},
	{"TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT", "nothing: there is no serve configuration to advertise", nil},
	{"TS_DEST_IP", "refused: " + noKernel + "; use -R (TSNODE_REMOTE)", refuse(noKernel + ": use -R PORT:HOST:PORT (TSNODE_REMOTE)")},
	{"TS_EXPERIMENTAL_DEST_DNS_NAME", "refused: as TS_DEST_IP", refuse(noKernel + ": use -R PORT:HOST:PORT (TSNODE_REMOTE)")},
	{"TS_TAILNET_TARGET_IP", "refused: " + noKernel + "; use -L (TSNODE_LOCAL)", refuse(noKernel + ": use -L PORT:HOST:PORT (TSNODE_LOCAL)")},
	{"TS_TAILNET_TARGET_FQDN", "refused: as TS_TAILNET_TARGET_IP", refuse(noKernel + ": use -L PORT:HOST:PORT (TSNODE_LOCAL)")},
	{"TS_DEBUG_ADDR_PORT", "refused: there is no debug server; metrics and the socket tell what it would", refuse("there is no debug server: use metrics (TSNODE_METRICS), and 'tsnode debug' by the socket")},
	{"TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", "refused: " + noOperator, refuse(noOperator + ": use --config (TSNODE_CONFIG)")},
	{"TS_INGRESS_PROXIES_CONFIG_PATH", "refused: " + noOperator, refuse(noOperator)},
	{"TS_EGRESS_PROXIES_CONFIG_PATH", "refused: " + noOperator, refuse(noOperator)},
	{"EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS", "true is refused: " + noOperator, refuseTrue(noOperator)},
	{"TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS", "true is refused: " + noKernel, refuseTrue(noKernel)},
	{"POD_IP", "a fact: an address of the pod, shown by /healthz", nil},
	{"POD_IPS", "a fact: the pod's addresses, two at most", takePodIPs},
	{"POD_NAME", "a fact, of no use without certificates", nil},
	{"POD_UID", "a fact, kept in the state Secret", nil},
	{"TS_NO_LOGS_NO_SUPPORT", "nothing: this node uploads no logs (SVC-181)", nil},
	{"TS_DEBUG_*", "nothing", nil},
	{"TS_EXTRA_ARGS", "flags of `tailscale up`, apart by spaces: they beat the other variables", takeExtraArgs},
	{"TS_TAILSCALED_EXTRA_ARGS", "flags of tailscaled, apart by spaces: they beat the other variables", takeDaemonArgs},
	{ConfigVariable, "names the configuration file, as --config does", nil},
}

// ConfigVariable names the configuration file where the flag --config does not.
const ConfigVariable = envPrefix + "CONFIG"

// Variables returns all variables that are understood, those of the settings first.
func Variables() (all []Variable) {
	for _, s := range Table() {
		if s.flagOnly {
			continue
		}
		all = append(all, Variable{s.Env, "sets " + s.Name, takeSetting(s)})
	}
	return append(all, special...)
}

// An environment is what the environment of a process says about the node.
type environment struct {
	says map[string]string
	into *target
}

// readEnvironment sets what the variables say. Unknown ones with our prefixes
// become warnings, those that cannot be honoured errors.
func readEnvironment(environ []string, into *target) error {
	e := &environment{says: make(map[string]string), into: into}
	for _, line := range environ {
		name, text, _ := strings.Cut(line, "=")
		e.says[name] = text
	}
	var errs []error
	var names []string
	for _, v := range Variables() {
		names = append(names, v.Name)
		text, there := e.says[v.Name]
		if v.take == nil || !there || text == "" && v.Name != "TS_ROUTES" {
			continue
		}
		if err := v.take(e, strings.TrimSpace(text)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.Name, err))
		}
	}
	e.warnUnknown(names)
	return errors.Join(errs...)
}

// warnUnknown warns of variables that are ours by their names but mean nothing
// (SVC-153).
func (e *environment) warnUnknown(known []string) {
	var unknown []string
	for name := range e.says {
		ours := strings.HasPrefix(name, "TS_") || strings.HasPrefix(name, envPrefix)
		if ours && !strings.HasPrefix(name, "TS_DEBUG_") && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		text := "unknown variable " + name
		if near := nearest(name, known); near != "" {
			text += ": did you mean " + near + "?"
		}
		e.warn("%s", text)
	}
}

func (e *environment) warn(format string, args ...any) {
	e.into.settings.Warnings = append(e.into.settings.Warnings, fmt.Sprintf(format, args...))
}

// takeSetting sets a setting to the text of its variable. Switches that cannot be
// understood keep what they have, as in the container image of the reference.
func takeSetting(s Setting) func(*environment, string) error {
	return func(e *environment, text string) error {
		v, ok := e.into.values[s.Name]
		if ok && v.Type() == kindSwitch {
			if _, err := parseSwitch(text); err != nil {
				e.warn("%s=%q is neither true nor false: it changes nothing", s.Env, text)
				return nil
			}
		}
		return e.set(s.Name, text, s.Env)
	}
}

// set sets a setting of ours to what a name of the reference's says.
func (e *environment) set(name, text, from string) error {
	if name == "socks5" || name == "http-proxy" {
		addresses := strings.Fields(text)
		for i, a := range addresses {
			addresses[i] = e.loopback(from, a)
		}
		text = strings.Join(addresses, " ")
	}
	return e.into.set(name, text, from)
}

// loopback keeps a proxy that is to listen on a port of all addresses to programs of
// the same machine or pod, which is who such a setting mostly is for (SVC-168).
func (e *environment) loopback(from, text string) string {
	if !strings.HasPrefix(text, ":") {
		return text
	}
	e.warn("%s=%s listens on loopback only: for all addresses say 0.0.0.0%s, with a password (TSNODE_PROXY_AUTH) or TSNODE_PROXY_OPEN=true", from, text, text)
	return "localhost" + text
}

// isTrue reads a switch; what cannot be understood is false, with a warning.
func (e *environment) isTrue(name, text string) bool {
	on, err := strconv.ParseBool(text)
	if err != nil {
		e.warn("%s=%q is neither true nor false: it changes nothing", name, text)
	}
	return on
}

// refuse returns what says why a variable cannot be honoured.
func refuse(reason string) func(*environment, string) error {
	return func(*environment, string) error { return errors.New(reason) }
}
