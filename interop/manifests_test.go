package interop

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/seed94491740/tsnode/internal/settings"
)

// The parts of the Kubernetes API that the manifests use, in the words of its
// reference documentation. A field that is not here is an error.
type (
	kubeObject struct {
		APIVersion, Kind string
		Metadata         kubeMeta

		AutomountServiceAccountToken *bool         // ServiceAccount
		Rules                        []kubeRule    // Role
		RoleRef                      *kubeRef      // RoleBinding
		Subjects                     []kubeRef     // RoleBinding
		Spec                         *kubeWorkload // Deployment, Job
	}
	kubeMeta struct {
		Name   string
		Labels map[string]string
	}
	kubeRule struct {
		APIGroups, Resources, ResourceNames, Verbs []string
	}
	kubeRef struct{ APIGroup, Kind, Name string }

	kubeWorkload struct {
		Replicas                              *int
		Strategy                              *struct{ Type string }
		Selector                              *struct{ MatchLabels map[string]string }
		BackoffLimit, TTLSecondsAfterFinished *int
		Template                              struct {
			Metadata kubeMeta
			Spec     kubePod
		}
	}
	kubePod struct {
		ServiceAccountName            string
		AutomountServiceAccountToken  *bool
		RestartPolicy                 string
		TerminationGracePeriodSeconds *int
		SecurityContext               *kubeSecurity
		InitContainers, Containers    []kubeContainer
		Volumes                       []kubeVolume
	}
	kubeContainer struct {
		Name, Image, RestartPolicy                  string
		Args                                        []string
		Env                                         []kubeVariable
		Ports                                       []kubePort
		StartupProbe, ReadinessProbe, LivenessProbe *kubeProbe
		Resources                                   struct{ Requests, Limits map[string]string }
		SecurityContext                             *kubeSecurity
		VolumeMounts                                []kubeMount
	}
	kubeVariable struct {
		Name, Value string
		ValueFrom   *struct{ FieldRef struct{ FieldPath string } }
	}
	kubePort struct {
		Name          string
		ContainerPort int
	}
	kubeProbe struct {
		HTTPGet                                         struct{ Path, Port string }
		PeriodSeconds, TimeoutSeconds, FailureThreshold int
	}
	kubeSecurity struct {
		RunAsNonRoot, AllowPrivilegeEscalation, ReadOnlyRootFilesystem *bool
		RunAsUser, RunAsGroup, FSGroup                                 *int64
		Capabilities                                                   *struct{ Drop []string }
		SeccompProfile                                                 *struct{ Type string }
	}
	kubeMount struct {
		Name, MountPath string
		ReadOnly        bool
	}
	kubeVolume struct {
		Name     string
		Secret   *struct{ SecretName string }
		EmptyDir *struct{ Medium, SizeLimit string }
	}
)

// readManifests reads all objects of dist/kubernetes, by kind and file.
func readManifests(t *testing.T) map[string][]kubeObject {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(projectFolder, "dist", "kubernetes", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	all := make(map[string][]kubeObject)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range bytes.Split(b, []byte("\n---\n")) {
			var o kubeObject
			decodeStrictly(t, document, &o, kubeName)
			all[filepath.Base(file)] = append(all[filepath.Base(file)], o)
		}
	}
	return all
}

// decodeStrictly decodes YAML into a struct. Nothing may be there twice or by a name
// that no field has, which is spelt as spell says: upper and lower case count, too.
func decodeStrictly(t *testing.T, document []byte, into any, spell func(string) string) {
	t.Helper()
	var all any
	if err := errors.Join(yaml.UnmarshalStrict(document, into), yaml.Unmarshal(document, &all)); err != nil {
		t.Fatal(err)
	}
	if wrong := misspelt(all, reflect.TypeOf(into), spell); len(wrong) > 0 {
		t.Errorf("no such fields: %q", wrong)
	}
}

// misspelt returns the names in a value that the type has not.
func misspelt(v any, typ reflect.Type, spell func(string) string) (wrong []string) {
	switch typ.Kind() {
	case reflect.Pointer:
		return misspelt(v, typ.Elem(), spell)
	case reflect.Slice:
		list, _ := v.([]any)
		for _, e := range list {
			wrong = append(wrong, misspelt(e, typ.Elem(), spell)...)
		}
	case reflect.Map:
		named, _ := v.(map[string]any)
		for _, e := range named {
			wrong = append(wrong, misspelt(e, typ.Elem(), spell)...)
		}
	case reflect.Struct:
		fields := make(map[string]reflect.Type)
		for _, f := range reflect.VisibleFields(typ) {
			fields[spell(f.Name)] = f.Type
		}
		named, _ := v.(map[string]any)
		for name, e := range named {
			if fields[name] == nil {
				wrong = append(wrong, name)
				continue
			}
			wrong = append(wrong, misspelt(e, fields[name], spell)...)
		}
	}
	return wrong
}

// kubeName spells a Go name as the Kubernetes API does: HTTPGet is httpGet.
func kubeName(name string) string {
	capitals := len(name) - len(strings.TrimLeft(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
	if capitals > 1 && capitals < len(name) {
		capitals-- // the next word's
	}
	return strings.ToLower(name[:capitals]) + name[capitals:]
}

// kubeVersions are the versions of the kinds that the manifests have.
var kubeVersions = map[string]string{
	"ServiceAccount": "v1", "Role": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1",
	"Deployment": "apps/v1", "Job": "batch/v1",
}

// The manifests say nothing that Kubernetes or tsnode run does not know: kinds,
// fields, variables and their values, probes, ports, volumes. No container has rights
// that it can do without.
func TestManifests(t *testing.T) {
	for file, objects := range readManifests(t) {
		t.Run(file, func(t *testing.T) {
			for _, o := range objects {
				if v := kubeVersions[o.Kind]; o.APIVersion != v || o.Metadata.Name == "" {
					t.Errorf("%s %s of version %q", o.Kind, o.Metadata.Name, o.APIVersion)
				}
				if o.Spec != nil {
					checkWorkload(t, &o)
				}
			}
		})
	}
}

func checkWorkload(t *testing.T, o *kubeObject) {
	t.Helper()
	spec := &o.Spec.Template.Spec
	if s := o.Spec.Selector; o.Kind == "Deployment" && (s == nil || !maps.Equal(s.MatchLabels, o.Spec.Template.Metadata.Labels)) {
		t.Error("the Deployment selects other pods than it makes")
	}
	if g := spec.TerminationGracePeriodSeconds; g == nil || *g < 20 {
		t.Error("the pod may be killed before the node has drained (10 s) and logged out (5 s)")
	}
	nodes := 0
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		checkSecurity(t, &c)
		if c.Resources.Requests["memory"] == "" || c.Resources.Limits["memory"] == "" {
			t.Errorf("%s: memory is not bounded: %+v", c.Name, c.Resources)
		}
		if strings.HasSuffix(c.Name, "tsnode") {
			checkNode(t, spec, &c)
			nodes++
		}
	}
	for _, c := range spec.InitContainers {
		if c.RestartPolicy != "Always" || c.StartupProbe == nil {
			t.Errorf("%s is no sidecar that others wait for", c.Name)
		}
	}
	if nodes != 1 {
		t.Errorf("%d nodes in a pod", nodes)
	}
}

// checkSecurity checks that a container has no rights, whatever its pod says.
func checkSecurity(t *testing.T, c *kubeContainer) {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.RunAsUser == nil || *s.RunAsUser != 65532 || s.RunAsGroup == nil || *s.RunAsGroup != 65532 ||
		!isTrue(s.RunAsNonRoot) || !isTrue(s.ReadOnlyRootFilesystem) || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
		s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("%s: the security context is not complete: %+v", c.Name, s)
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

// checkNode checks what a manifest says to tsnode run.
func checkNode(t *testing.T, spec *kubePod, c *kubeContainer) {
	t.Helper()
	environ := []string{"KUBERNETES_SERVICE_HOST=10.96.0.1"} // which all pods have
	for _, v := range c.Env {
		value := v.Value
		if v.ValueFrom != nil {
			value = "1" // a fact, whatever it is
		}
		environ = append(environ, v.Name+"="+value)
	}
	s := checkEnviron(t, environ)
	checkProbes(t, c, s)
	checkVolumes(t, spec, c)
	if secret, inSecret := strings.CutPrefix(s.State, settings.StateKube); inSecret {
		checkRole(t, spec, secret)
	} else if !s.InMemory() {
		t.Errorf("state %q in %q does not outlive the pod, and the node is not ephemeral", s.State, s.StateDir)
	}
	if path, isFile := strings.CutPrefix(s.AuthKey, "file:"); isFile && !mounted(c, path) {
		t.Errorf("no volume has the auth key %s", path)
	}
	if !mounted(c, s.Socket) {
		t.Errorf("no volume has the socket %s", s.Socket)
	}
}

// checkProbes checks that the kubelet asks what the node answers, where it does.
func checkProbes(t *testing.T, c *kubeContainer, s *settings.Settings) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Health)
	if err != nil || host != "" {
		t.Errorf("health at %q cannot be asked from outside the pod: %v", s.Health, err)
	}
	if len(c.Ports) != 1 || fmt.Sprint(c.Ports[0].ContainerPort) != port {
		t.Fatalf("health is at %s, ports are %+v", s.Health, c.Ports)
	}
	for path, probes := range map[string][]*kubeProbe{"/readyz": {c.StartupProbe, c.ReadinessProbe}, "/livez": {c.LivenessProbe}} {
		for _, p := range probes {
			if p != nil && (p.HTTPGet.Path != path || p.HTTPGet.Port != c.Ports[0].Name) {
				t.Errorf("%s: a probe asks %+v", path, p.HTTPGet)
			}
		}
	}
	if c.StartupProbe == nil || c.LivenessProbe == nil {
		t.Error("no startup or liveness probe")
	}
}

// checkVolumes checks that what is mounted is there.
func checkVolumes(t *testing.T, spec *kubePod, c *kubeContainer) {
	t.Helper()
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(spec.Volumes, func(v kubeVolume) bool { return v.Name == m.Name }) {
			t.Errorf("there is no volume %s", m.Name)
		}
	}
}

// mounted reports whether a file is on a volume.
func mounted(c *kubeContainer, file string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m kubeMount) bool { return strings.HasPrefix(file, m.MountPath+"/") })
}

// checkRole checks that the account of the pod may do with the Secret what the store
// does, and nothing else (SVC-140, SVC-157).
func checkRole(t *testing.T, spec *kubePod, secret string) {
	t.Helper()
	if !isTrue(spec.AutomountServiceAccountToken) {
		t.Error("the pod has no token")
	}
	may := make(map[string][]string) // verbs by name of a Secret; empty: any
	for _, objects := range readManifests(t) {
		for _, o := range objects {
			bound := o.RoleRef != nil && o.RoleRef.Name == spec.ServiceAccountName && len(o.Subjects) == 1 && o.Subjects[0].Name == spec.ServiceAccountName
			if o.Kind == "RoleBinding" && !bound {
				t.Errorf("the role is bound to %+v", o.Subjects)
			}
			for _, r := range o.Rules {
				name := strings.Join(r.ResourceNames, ",")
				may[name] = append(may[name], r.Verbs...)
				if !slices.Equal(r.Resources, []string{"secrets"}) || !slices.Equal(r.APIGroups, []string{""}) {
					t.Errorf("the role has %+v", r)
				}
			}
		}
	}
	want := map[string][]string{secret: {"get", "update", "patch"}, "": {"create"}}
	if !maps.EqualFunc(may, want, slices.Equal) {
		t.Errorf("the role permits %v, want %v", may, want)
	}
}

// What a Compose file says of a service, as far as that of dist uses it.
type composeFile struct {
	Services map[string]composeService
	Secrets  map[string]struct{ File string }
	Volumes  map[string]struct{}
}

type composeService struct {
	Build                                                 *struct{ Context, Dockerfile string }
	Image, Restart, Stop_Grace_Period, User, Network_Mode string
	Read_Only                                             bool
	Cap_Drop, Security_Opt, Secrets, Volumes, Tmpfs       []string
	Command                                               []string
	Mem_Limit                                             string
	Environment                                           map[string]string
	Depends_On                                            map[string]struct{ Condition string }
	Healthcheck                                           *struct {
		Test                            []string
		Interval, Timeout, Start_Period string
	}
}

// The Compose file runs the image as the manifests do.
func TestComposeFile(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(projectFolder, "dist", "docker-compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var f composeFile
	decodeStrictly(t, b, &f, strings.ToLower)
	node, app := f.Services["tsnode"], f.Services["whoami"]
	if !node.Read_Only || node.User != "65532:65532" || !slices.Equal(node.Cap_Drop, []string{"ALL"}) || !slices.Equal(node.Security_Opt, []string{"no-new-privileges:true"}) {
		t.Errorf("the node has rights: %+v", node)
	}
	img, err := readImage()
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Concat([]string{"CMD"}, img.health, []string{"--ready"}); !slices.Equal(node.Healthcheck.Test, want) {
		t.Errorf("the application waits for %q, not %q", node.Healthcheck.Test, want)
	}
	environ := slices.Clone(img.environ)
	for name, value := range node.Environment {
		environ = append(environ, name+"="+value)
	}
	s := checkEnviron(t, environ)
	if !slices.ContainsFunc(node.Volumes, func(v string) bool { return strings.HasSuffix(v, ":"+s.StateDir) }) {
		t.Errorf("the state in %s is on no volume of %q", s.StateDir, node.Volumes)
	}
	if !strings.HasPrefix(node.Tmpfs[0], filepath.Dir(s.Socket)+":") {
		t.Errorf("the socket %s is not on %q", s.Socket, node.Tmpfs)
	}
	if name := filepath.Base(s.AuthKey); !slices.Contains(node.Secrets, name) || f.Secrets[name].File == "" {
		t.Errorf("the auth key %s is no secret of %q", s.AuthKey, node.Secrets)
	}
	if app.Network_Mode != "service:tsnode" || app.Depends_On["tsnode"].Condition != "service_healthy" {
		t.Errorf("the application does not wait for the node, or is apart: %+v", app)
	}
	dockerfile := filepath.Join(projectFolder, "dist", node.Build.Context, node.Build.Dockerfile)
	if _, err := os.Stat(dockerfile); err != nil {
		t.Error(err)
	}
}
