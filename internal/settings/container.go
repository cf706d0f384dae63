package settings

import (
	"errors"
	"fmt"
	"strings"
)

// defaultKubeSecret is the Secret that keeps the node's keys in Kubernetes.
const defaultKubeSecret = "tailscale"

// What becomes of the special variables of the reference's container image.

func takeAuthKey(e *environment, text string) error {
	if e.says["TS_AUTHKEY"] != "" {
		return nil
	}
	return e.into.set("auth-key", text, "TS_AUTH_KEY")
}

func takeClientID(e *environment, _ string) error {
	if e.says["TS_CLIENT_SECRET"] == "" {
		return errors.New("the secret of the OAuth client is missing: set TS_CLIENT_SECRET")
	}
	return nil
}

func takeClientSecret(e *environment, text string) error {
	for _, other := range []string{"TS_AUTHKEY", "TS_AUTH_KEY"} {
		if e.says[other] != "" {
			return fmt.Errorf("%s is set, too: keep one of them", other)
		}
	}
	return e.into.set("auth-key", text, fromClientSecret)
}

// fromClientSecret is what has set an auth key that needs tags.
const fromClientSecret = "TS_CLIENT_SECRET"

func takeKubeSecret(e *environment, text string) error {
	return e.into.set("state", StateKube+text, "TS_KUBE_SECRET")
}

func takeKubernetes(e *environment, _ string) error {
	_, said := e.says["TS_KUBE_SECRET"]
	e.into.kubernetes = !said
	return nil
}

// takeEnable has a switch of the environment set the address of an endpoint.
func takeEnable(setting string) func(*environment, string) error {
	name := map[string]string{"health": "TS_ENABLE_HEALTH_CHECK", "metrics": "TS_ENABLE_METRICS"}[setting]
	return func(e *environment, text string) error {
		if !e.isTrue(name, text) {
			return nil
		}
		addr, from := defaultLocalAddr, name
		if say := e.says["TS_LOCAL_ADDR_PORT"]; say != "" {
			addr, from = say, "TS_LOCAL_ADDR_PORT"
		}
		if err := e.into.set(setting, addr, from); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		return nil
	}
}

func takeHealthAddr(e *environment, text string) error {
	return e.into.set("health", text, "TS_HEALTHCHECK_ADDR_PORT")
}

func takeUserspace(e *environment, text string) error {
	// isTrue is not asked: what cannot be understood is the default, true.
	if on, err := parseSwitch(text); err == nil && !on {
		return errors.New("false asks for the kernel's network stack, and this is a node in userspace: remove it")
	}
	return nil
}

func takePodIPs(_ *environment, text string) error {
	if n := len(strings.FieldsFunc(text, isComma)); n > 2 {
		return fmt.Errorf("%d addresses: a pod has one of each family, two at most", n)
	}
	return nil
}

// refuseTrue returns what refuses a switch that is on.
func refuseTrue(reason string) func(*environment, string) error {
	return func(_ *environment, text string) error {
		if on, err := parseSwitch(text); err == nil && on {
			return errors.New(reason)
		}
		return nil
	}
}
