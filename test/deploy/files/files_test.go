// Package files decodes the files of deploy/ into the types of the programs that read them, strictly: a field that is
// misspelt fails. It is a module of its own, so that those programs stay out of the edge's.
package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/goreleaser/goreleaser/v2/pkg/config"
	"github.com/goreleaser/nfpm/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

var top = filepath.Join("..", "..", "..")

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A cluster is what `kubectl apply --kustomize` would apply.
type cluster struct {
	set      appsv1.StatefulSet
	services []corev1.Service
	config   corev1.ConfigMap
	secret   corev1.Secret
	budget   policyv1.PodDisruptionBudget
	policy   networkingv1.NetworkPolicy
}

func kustomized(t *testing.T) (c cluster) {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(top, "deploy", "kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, resource := range made.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		kind := resource.GetKind()
		kinds[kind]++
		var into any
		switch kind {
		case "StatefulSet":
			into = &c.set
		case "Service":
			c.services = append(c.services, corev1.Service{})
			into = &c.services[len(c.services)-1]
		case "ConfigMap":
			into = &c.config
		case "Secret":
			into = &c.secret
		case "PodDisruptionBudget":
			into = &c.budget
		case "NetworkPolicy":
			into = &c.policy
		case "Namespace":
			into = new(corev1.Namespace)
		default:
			t.Fatalf("a %s", kind)
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if kind != "Namespace" && resource.GetNamespace() != "green-api" {
			t.Errorf("%s in the namespace %q", kind, resource.GetNamespace())
		}
	}
	if got, want := fmt.Sprint(kinds), "map[ConfigMap:1 Namespace:1 NetworkPolicy:1 PodDisruptionBudget:1 Secret:1 Service:2 StatefulSet:1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	return c
}

// TestManifests: the manifests are what Kubernetes understands, and fit each other and the Caddyfile.
func TestManifests(t *testing.T) {
	c := kustomized(t)
	// As they are written, too: kustomize passes over what it does not know.
	for _, path := range []string{"statefulset", "budget", "networkpolicy", "secret", "namespace"} {
		into := map[string]any{
			"statefulset": new(appsv1.StatefulSet), "budget": new(policyv1.PodDisruptionBudget),
			"networkpolicy": new(networkingv1.NetworkPolicy), "secret": new(corev1.Secret), "namespace": new(corev1.Namespace),
		}[path]
		if err := yaml.UnmarshalStrict([]byte(read(t, "deploy/kubernetes/"+path+".yaml")), into); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}

	spec, pod := c.set.Spec, c.set.Spec.Template.Spec
	edge := pod.Containers[0]
	if *spec.Replicas != 2 || len(spec.VolumeClaimTemplates) != 1 || spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted != appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
		t.Errorf("want two edges, each with a volume that stays: %+v", spec)
	}
	if c.budget.Spec.MinAvailable.IntValue() != 1 {
		t.Errorf("budget %+v", c.budget.Spec)
	}
	for name, selector := range map[string]*metav1.LabelSelector{
		"StatefulSet": spec.Selector, "PodDisruptionBudget": c.budget.Spec.Selector, "NetworkPolicy": &c.policy.Spec.PodSelector,
		"first Service": {MatchLabels: c.services[0].Spec.Selector}, "second Service": {MatchLabels: c.services[1].Spec.Selector},
		"spread": pod.TopologySpreadConstraints[0].LabelSelector,
	} {
		if !reflect.DeepEqual(selector.MatchLabels, spec.Template.Labels) {
			t.Errorf("%s selects %v, the pods have %v", name, selector.MatchLabels, spec.Template.Labels)
		}
	}

	// Ports: Service → container → Caddyfile.
	ports := make(map[string]int32)
	for _, port := range edge.Ports {
		ports[port.Name] = port.ContainerPort
	}
	caddyfile := c.config.Data["Caddyfile"]
	for name, line := range map[string]string{"http": "\thttp_port %d\n", "https": "\thttps_port %d\n", "metrics": "\nhttp://:%d {\n"} {
		if line = fmt.Sprintf(line, ports[name]); !strings.Contains(caddyfile, line) {
			t.Errorf("the Caddyfile has no %q", line)
		}
	}
	for _, service := range c.services {
		for _, port := range service.Spec.Ports {
			if ports[port.TargetPort.String()] == 0 {
				t.Errorf("%s: no port %s", service.Name, port.TargetPort.String())
			}
		}
		switch service.Name {
		case spec.ServiceName:
			if service.Spec.ClusterIP != corev1.ClusterIPNone {
				t.Errorf("%s has an address of its own", service.Name)
			}
		default:
			if service.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
				t.Errorf("%s: clients lose their address", service.Name)
			}
		}
	}
	for _, rule := range c.policy.Spec.Ingress {
		for _, port := range rule.Ports {
			if ports[port.Port.String()] == 0 {
				t.Errorf("NetworkPolicy: no port %s", port.Port)
			}
		}
	}

	// Volumes, and what the Caddyfile and the image read of them.
	mounts := make(map[string]corev1.VolumeSource)
	for _, mount := range edge.VolumeMounts {
		for _, volume := range pod.Volumes {
			if volume.Name == mount.Name {
				mounts[mount.MountPath] = volume.VolumeSource
			}
		}
		if mount.Name == spec.VolumeClaimTemplates[0].Name {
			mounts[mount.MountPath] = corev1.VolumeSource{}
		}
	}
	dockerfile := read(t, "deploy/docker/Dockerfile")
	for path, in := range map[string]string{
		"/run/secrets": "CREDENTIALS_DIRECTORY=/run/secrets", "/data": "XDG_DATA_HOME=/data",
		"/run/caddy-green-api": "CADDY_ADMIN=unix//run/caddy-green-api/", "/etc/caddy-green-api": `"/etc/caddy-green-api/Caddyfile"`,
	} {
		if _, there := mounts[path]; !there || !strings.Contains(dockerfile, in) {
			t.Errorf("no volume at %s, or no %q in the Dockerfile", path, in)
		}
	}
	if mounts["/run/secrets"].Secret.SecretName != c.secret.Name || c.secret.StringData["token"] != "" || !strings.Contains(read(t, "deploy/kubernetes/secret.yaml"), "  token: ") {
		t.Errorf("the token: %+v", c.secret)
	}
	if mounts["/etc/caddy-green-api"].ConfigMap.Name != c.config.Name || !regexp.MustCompile(`^caddy-green-api-[a-z0-9]+$`).MatchString(c.config.Name) {
		t.Errorf("the Caddyfile: %s", c.config.Name)
	}
	for _, file := range []string{"tls.crt", "tls.key"} {
		if mounts["/run/tls"].Secret == nil || !strings.Contains(caddyfile, " /run/tls/"+file) {
			t.Errorf("no %s", file)
		}
	}

	// The user, and what it may not.
	security := edge.SecurityContext
	if !strings.Contains(dockerfile, fmt.Sprintf("\nUSER %d:%d\n", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup)) ||
		*pod.SecurityContext.FSGroup != *pod.SecurityContext.RunAsGroup || !*pod.SecurityContext.RunAsNonRoot ||
		!*security.ReadOnlyRootFilesystem || *security.AllowPrivilegeEscalation || !slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
		pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || *pod.AutomountServiceAccountToken {
		t.Errorf("%+v %+v", pod.SecurityContext, security)
	}

	// Probes: one for the process, one for what it can do, and the image has the same one.
	live, ready := edge.LivenessProbe.HTTPGet, edge.ReadinessProbe.Exec
	if live.Path != "/healthz" || ports[live.Port.String()] != ports["metrics"] || !strings.Contains(caddyfile, "handle "+live.Path+" {") {
		t.Errorf("%+v", live)
	}
	if !strings.Contains(dockerfile, `CMD ["`+strings.Join(ready.Command, `", "`)+`"]`) {
		t.Errorf("ready by %q, and the image's health check is another", ready.Command)
	}
	if wait := time.Duration(*pod.TerminationGracePeriodSeconds-edge.Lifecycle.PreStop.Sleep.Seconds) * time.Second; wait < 180*time.Second {
		t.Errorf("a stop has %s, want 180s or more", wait)
	}

	// The image is the one that a release makes.
	name, tag, _ := strings.Cut(edge.Image, ":")
	if !strings.Contains(read(t, ".github/workflows/release.yml"), name) || !regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(tag) {
		t.Errorf("image %s", edge.Image)
	}
}

// TestComposeNATS: the servers of the queue are three, and each has a disk of its own.
func TestComposeNATS(t *testing.T) {
	t.Setenv("NATS_TOKEN", "invented-secret")
	options, err := cli.NewProjectOptions([]string{filepath.Join(top, "deploy", "nats", "compose.yaml")}, cli.WithOsEnv)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Services) != 3 {
		t.Errorf("%d services", len(project.Services))
	}
	for name, service := range project.Services {
		if !service.ReadOnly || service.Volumes[0].Source != name || *service.Environment["SERVER_NAME"] != name || *service.Environment["NATS_TOKEN"] != "invented-secret" {
			t.Errorf("%s: %+v", name, service)
		}
	}
}

// TestCompose: compose.yaml is what Compose understands.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{filepath.Join(top, "deploy", "docker", "compose.yaml")}, cli.WithoutEnvironmentResolution)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	edge := project.Services["edge"]
	if grace := time.Duration(*edge.StopGracePeriod); grace != 180*time.Second {
		t.Errorf("a stop has %s", grace)
	}
	for name, service := range project.Services {
		if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || len(service.SecurityOpt) != 1 || service.StopGracePeriod == nil {
			t.Errorf("%s: %+v", name, service)
		}
		if name != "edge" {
			// A dependent stops before what it depends on.
			if _, before := edge.DependsOn[name]; !before {
				t.Errorf("%s may stop before the edge does", name)
			}
			if !service.HealthCheck.Disable || len(service.Ports) > 0 {
				t.Errorf("%s: %+v", name, service)
			}
			if caddyfile := read(t, "deploy/docker/Caddyfile"); !strings.Contains(caddyfile, name+service.Command[len(service.Command)-1]) {
				t.Errorf("the Caddyfile does not know %s", name)
			}
		}
	}
	dockerfile := read(t, "deploy/docker/Dockerfile")
	for _, port := range edge.Ports {
		if expose := regexp.MustCompile(`(?m)^EXPOSE .*\b` + fmt.Sprint(port.Target) + `\b`); !expose.MatchString(dockerfile) || port.Target == 9180 {
			t.Errorf("publishes %d", port.Target)
		}
	}
	data := false
	for _, volume := range edge.Volumes {
		data = data || volume.Type == types.VolumeTypeVolume && volume.Target == "/data"
		if volume.Type == types.VolumeTypeBind {
			if _, err := os.Stat(volume.Source); err != nil {
				t.Error(err)
			}
		}
	}
	if !data || len(edge.Secrets) != 1 || edge.Secrets[0].Source != "token" || !*project.Networks["default"].EnableIPv6 {
		t.Errorf("volumes %v, secrets %v, networks %v", edge.Volumes, edge.Secrets, project.Networks)
	}
	if _, err := os.Stat(filepath.Join(edge.Build.Context, edge.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
}

// TestRelease: .goreleaser.yaml is what GoReleaser understands, nfpm.yaml what nfpm does, and both make the same
// package of the same build.
func TestRelease(t *testing.T) {
	release, err := config.Load(filepath.Join(top, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.LoadReader(strings.NewReader(read(t, ".goreleaser.yaml") + "\nproject_nam: slip\n")); err == nil {
		t.Error("a slip was not seen")
	}
	path := filepath.Join(top, "deploy", "deb", "nfpm.yaml")
	single, err := nfpm.ParseFileWithEnvMapping(path, func(name string) string {
		return map[string]string{"GOARCH": "amd64", "VERSION": "0.1.0", "BINARY": "caddy-green-api"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	deb, pkg := release.NFPMs[0], single.Info
	type what struct {
		name, section, maintainer, homepage, license, description string
		depends                                                   []string
		install, remove, purge                                    string
	}
	got := what{
		deb.PackageName, deb.Section, deb.Maintainer, deb.Homepage, deb.License, deb.Description,
		deb.Dependencies, deb.Scripts.PostInstall, deb.Scripts.PreRemove, deb.Scripts.PostRemove,
	}
	want := what{
		pkg.Name, pkg.Section, pkg.Maintainer, pkg.Homepage, pkg.License, pkg.Description,
		pkg.Depends, pkg.Scripts.PostInstall, pkg.Scripts.PreRemove, pkg.Scripts.PostRemove,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("GoReleaser's package is\n%+v\nand nfpm's\n%+v", got, want)
	}
	var a, b []string
	for _, content := range deb.Contents {
		a = append(a, content.Source+" → "+content.Destination+" "+content.Type)
	}
	for _, content := range pkg.Contents {
		if content.Destination != "/usr/bin/caddy-green-api" { // GoReleaser's by itself
			b = append(b, content.Source+" → "+content.Destination+" "+content.Type)
		}
	}
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		t.Errorf("GoReleaser's package has\n%s\nand nfpm's\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}

	build := release.Builds[0]
	script := read(t, "deploy/build")
	if build.Main != "./cmd/caddy" || !strings.Contains(script, " "+build.Main) || !slices.Equal(build.Env, []string{"CGO_ENABLED=0"}) ||
		!strings.Contains(script, "CGO_ENABLED=0 exec go build "+strings.Join(build.Flags, " ")+" ") {
		t.Errorf("%+v", build)
	}
	for _, part := range []string{"-s -w", "CustomVersion=caddy-green-api-", "CustomBinaryName=caddy-green-api"} {
		if !strings.Contains(strings.Join(build.Ldflags, " "), part) || !strings.Contains(script, part) {
			t.Errorf("%s is not in both", part)
		}
	}
	// The same build with the queue in NATS, in archives of its own.
	nats := release.Builds[1]
	if nats.Dir != "nats" {
		t.Errorf("%+v", nats)
	}
	if nats.ID, nats.Dir = build.ID, build.Dir; !reflect.DeepEqual(nats, build) {
		t.Errorf("the builds differ:\n%+v\n%+v", nats, build)
	}
	for i, id := range []string{"caddy-green-api", "caddy-green-api-nats"} {
		if !slices.Equal(release.Archives[i].IDs, []string{id}) || !slices.Equal(release.SBOMs[i].IDs, []string{id}) {
			t.Errorf("%+v, %+v", release.Archives[i], release.SBOMs[i])
		}
		for _, file := range release.Archives[i].Files {
			if found, err := filepath.Glob(filepath.Join(top, file.Source)); err != nil || len(found) == 0 {
				t.Errorf("archive %s: there is no %s", id, file.Source)
			}
		}
	}
	if !slices.Equal(deb.IDs, []string{"caddy-green-api"}) {
		t.Errorf("the package has %q", deb.IDs)
	}
	if !release.Release.Draft || release.Checksum.Algorithm != "sha256" || len(release.SBOMs) != 2 || len(release.Archives) != 2 {
		t.Errorf("%+v", release.Release)
	}
}

// TestSlips: strict decoding is strict.
func TestSlips(t *testing.T) {
	text := strings.Replace(read(t, "deploy/kubernetes/statefulset.yaml"), "terminationGracePeriodSeconds", "terminationGracePeriod", 1)
	if err := yaml.UnmarshalStrict([]byte(text), new(appsv1.StatefulSet)); err == nil {
		t.Error("a slip in a manifest was not seen")
	}
	dir := t.TempDir()
	slip := strings.Replace(read(t, "deploy/docker/compose.yaml"), "stop_grace_period", "stop_grace_time", 1)
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(slip), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "compose.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := options.LoadProject(context.Background()); err == nil {
		t.Error("a slip in compose.yaml was not seen")
	}
}

// TestTemplates: whoever reports something is asked for what is needed, and told what to leave out.
func TestTemplates(t *testing.T) {
	templates, err := filepath.Glob(filepath.Join(top, ".github", "ISSUE_TEMPLATE", "*.yml"))
	if err != nil {
		t.Fatal(err)
	}
	forms := 0
	for _, path := range templates {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var form struct {
			Name, Description string
			Body              []struct {
				Type, ID   string
				Attributes struct {
					Label, Description, Value, Render string
					Options                           []any
				}
				Validations struct{ Required bool }
			}
		}
		if filepath.Base(path) == "config.yml" {
			continue
		}
		if err := yaml.UnmarshalStrict(text, &form); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		forms++
		asked := make(map[string]bool)
		for _, field := range form.Body {
			asked[field.ID] = true
		}
		if !asked["version"] || !asked["caddyfile"] || !asked["record"] || !strings.Contains(form.Body[0].Attributes.Value, "Leave messages, names, phone numbers and tokens out") {
			t.Errorf("%s asks for %v", path, asked)
		}
	}
	if forms != 2 {
		t.Errorf("%d forms", forms)
	}
	// No action but GitHub's own, each at a version that is whole.
	workflows, err := filepath.Glob(filepath.Join(top, ".github", "workflows", "*.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range workflows {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, uses := range regexp.MustCompile(`uses: (.*)`).FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(`^actions/[a-z-]+@v\d+\.\d+\.\d+$`).MatchString(uses[1]) {
				t.Errorf("%s uses %s", path, uses[1])
			}
		}
	}
	// What builds is one version of Go.
	version := regexp.MustCompile(`golang:(\S+)`)
	if a, b := version.FindString(read(t, ".github/workflows/ci.yml")), version.FindString(read(t, "deploy/docker/Dockerfile")); a != b || a == "" {
		t.Errorf("the gate has %s, the image is built with %s", a, b)
	}
}
