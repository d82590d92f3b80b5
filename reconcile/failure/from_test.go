package failure_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// TestFromStatus reads answers in the words of an API server (testdata/answers):
// most were recorded from v1.37.2, and the integration tests hold the patterns
// against the server at hand. "hunter2" and "12345678" in them are secrets.
func TestFromStatus(t *testing.T) {
	pod := failure.Object{Kind: "Pod", Namespace: "team", Name: "x"}
	secret := failure.Object{Kind: "Secret", Namespace: "team", Name: "s"}
	none := failure.Object{}
	tests := map[string]struct {
		object failure.Object
		want   string
	}{
		"pod-security":           {pod, `K8S_POD_SECURITY_VIOLATION: pod x in namespace team violates the Pod Security profile restricted: host namespaces (hostNetwork=true); privileged (container "c" must not set securityContext.privileged=true); allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false); unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]); restricted volume types (volume "v" uses restricted volume type "hostPath"); runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true); seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`},
		"quota":                  {pod, `K8S_INSUFFICIENT_RESOURCES: quota q3 has no room for pod x in namespace team: limits.cpu 2 requested, 500m of 1 used; requests.memory 3Gi requested, 0 of 1Gi used`},
		"quota-unspecified":      {pod, `K8S_ADMISSION_REFUSED: the cluster refuses pod x in namespace team: failed quota: q3: must specify limits.cpu for: c; requests.memory for: c`},
		"limit-range":            {pod, `K8S_ADMISSION_REFUSED: the cluster refuses pod x in namespace team: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but limit is 3Gi]`},
		"terminating":            {pod, `K8S_NAMESPACE_TERMINATING: pod x in namespace team cannot be made: the namespace term is being terminated`},
		"webhook-denies":         {pod, `K8S_ADMISSION_REFUSED: webhook deny.example.com refuses pod x in namespace team: images must come from registry.example.com`},
		"webhook-silent":         {pod, `K8S_ADMISSION_REFUSED: webhook deny.example.com refuses pod x in namespace team: it does not say why`},
		"webhook-own-status":     {pod, `K8S_ADMISSION_REFUSED: webhook deny.example.com refuses pod x in namespace team: not today`},
		"webhook-broken":         {pod, `K8S_ADMISSION_REFUSED: webhook deny.example.com, which must be asked about pod x in namespace team, does not answer: Post "https://127.0.0.1:1/x?timeout=10s": dial tcp 127.0.0.1:1: connect: connection refused`},
		"policy-denies":          {none, `K8S_ADMISSION_REFUSED: policy vap refuses service x: no services here`},
		"forbidden-in-namespace": {none, `K8S_NAMESPACE_ACCESS_DENIED: user eve may not list pods in namespace default`},
		"forbidden-subresource":  {none, `K8S_NAMESPACE_ACCESS_DENIED: user eve may not get pods/log in namespace default`},
		"forbidden-namespaces":   {none, `K8S_NAMESPACE_ACCESS_DENIED: user eve may not list namespaces`},
		"forbidden-namespace":    {none, `K8S_NAMESPACE_ACCESS_DENIED: user eve may not get namespace foo`},
		"forbidden-cluster":      {none, `K8S_PERMISSION_DENIED: user eve may not list clusterroles.rbac.authorization.k8s.io`},
		"forbidden-path":         {none, `K8S_PERMISSION_DENIED: user eve may not get /metrics`},
		"anonymous":              {none, `K8S_NAMESPACE_ACCESS_DENIED: user system:anonymous may not list namespaces`},
		"escalation":             {none, `K8S_PERMISSION_DENIED: role r would grant what user eve does not hold: {APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`},
		"field-conflict":         {pod, `K8S_CONFLICT: fields of pod x in namespace team belong to another manager: .data.k ("a"), .data.l ("b" using apps/v1)`},
		"stale":                  {none, `K8S_CONFLICT: configmap x was changed in the meantime: the object has been modified; please apply your changes to the latest version and try again`},
		"vanished":               {none, `K8S_CONFLICT: configmap xxx was changed in the meantime: uid mismatch: the provided object specified uid aaaa, and no existing object was found`},
		"recreated":              {none, `K8S_CONFLICT: configmap x was deleted and made anew in the meantime`},
		"immutable":              {none, "K8S_IMMUTABLE: deployment d cannot be changed like that: spec.template.metadata.labels: `selector` does not match template `labels`; spec.selector: field is immutable"},
		"immutable-pod":          {none, "K8S_IMMUTABLE: pod im cannot be changed like that: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"},
		"invalid":                {none, `K8S_INVALID: pod X_ is not valid: metadata.name: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'); spec.containers[0].image: Required value; spec.containers[0].env[0].name: a valid environment variable name must consist only of printable ASCII characters other than '='; spec.containers[1].name: duplicate value; spec.restartPolicy: supported values: "Always", "OnFailure", "Never"`},
		"unknown-field":          {pod, `K8S_INVALID: pod x in namespace team is not valid: .foo: field not declared in schema`},
		"unknown-field-strict":   {pod, `K8S_INVALID: pod x in namespace team is not valid: unknown field "foo", duplicate field "data.a"`},
		"wrong-type":             {secret, `K8S_INVALID: secret s in namespace team is not valid: .stringData.token: expected string; .foo: field not declared in schema`},
		"secret-malformed":       {secret, `K8S_API_ERROR: the server refuses secret s in namespace team; what it says is not shown, as it may be secret (400)`},
		"namespace-missing":      {pod, `K8S_NAMESPACE_NOT_FOUND: namespace nono does not exist`},
		"pod-missing":            {pod, `K8S_POD_NOT_FOUND: pod x in namespace team does not exist`},
		"policy-missing":         {none, `K8S_NETWORK_POLICY_NOT_FOUND: networkpolicy x does not exist`},
		"config-map-missing":     {none, `K8S_API_ERROR: configmap x does not exist (404)`},
		"kind-missing":           {none, `K8S_API_ERROR: the server does not know this kind of object: the server could not find the requested resource (404)`},
		"not-kubernetes":         {none, `K8S_API_ERROR: the server does not know where namespace kube-system would be: is it a Kubernetes API server? (404)`},
		"pod-exists":             {none, `K8S_POD_ALREADY_EXISTS: pod im exists already`},
		"config-map-exists":      {none, `K8S_API_ERROR: configmap im exists already (409)`},
		"unauthorized":           {none, `K8S_UNAUTHORIZED: the server does not accept the credentials of the kubeconfig's user`},
		"too-many":               {pod, `K8S_API_ERROR: the server has too many requests to answer this one about pod x in namespace team (429)`},
		"unavailable":            {pod, `K8S_API_ERROR: the server failed at pod x in namespace team: the server is currently unable to handle the request (503)`},
	}
	if files, err := filepath.Glob("testdata/answers/*.json"); err != nil || len(files) != len(tests) {
		t.Errorf("%d answers are recorded, %d tested (%v)", len(files), len(tests), err)
	}
	for answer, test := range tests {
		t.Run(answer, func(t *testing.T) {
			cause := readAnswer(t, answer)
			err := failure.From(fmt.Errorf("patching: %w", cause), test.object)
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			if !errors.Is(err, cause) {
				t.Error("the server's answer cannot be got at")
			}
			all, marshalErr := json.Marshal(err)
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			for _, secret := range []string{"hunter2", "12345678"} {
				if strings.Contains(string(all), secret) {
					t.Errorf("shows the secret %s: %s", secret, all)
				}
			}
		})
	}
}

func readAnswer(t *testing.T, name string) error {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata/answers", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	answer := new(apierrors.StatusError)
	if err := json.Unmarshal(content, &answer.ErrStatus); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestDetailsAreAgentPanes(t *testing.T) {
	pod := failure.Object{Kind: "Pod", Namespace: "team", Name: "x"}
	for answer, want := range map[string]map[string]any{
		"quota":                  {"quota": "q3", "resource": "limits.cpu", "requested": "2", "available": "500m"},
		"forbidden-in-namespace": {"user": "eve", "verb": "list", "resource": "pods", "namespace": "default"},
		"pod-missing":            {"podName": "x", "namespace": "team"},
		"namespace-missing":      {"namespace": "nono"},
		"webhook-denies":         {"by": "webhook deny.example.com"},
		"unavailable":            {"statusCode": int32(503)},
	} {
		failed, ok := errors.AsType[*failure.Error](failure.From(readAnswer(t, answer), pod))
		if !ok {
			t.Fatalf("%s: no failure", answer)
		}
		if diff := cmp.Diff(want, failed.Details); diff != "" {
			t.Errorf("%s (-want +got):\n%s", answer, diff)
		}
	}
}

func TestFromNetwork(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"refused":        {dial(syscall.ECONNREFUSED), "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 refuses the connection"},
		"no route":       {dial(syscall.EHOSTUNREACH), "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 cannot be reached: dial tcp: no route to host"},
		"timeout":        {context.DeadlineExceeded, "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 did not answer in time"},
		"no such host":   {dial(&net.DNSError{Name: "api.example", IsNotFound: true}), "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 cannot be found: there is no host api.example"},
		"DNS is out":     {dial(&net.DNSError{Name: "api.example", Err: "server misbehaving"}), "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 cannot be found: looking up api.example failed"},
		"authority":      {&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 shows a certificate that is not trusted: x509: certificate signed by unknown authority"},
		"expired":        {x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 shows a certificate that is not valid: x509: certificate has expired or is not yet valid: "},
		"plain HTTP":     {http.ErrSchemeMismatch, "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 does not speak TLS"},
		"reset":          {dial(syscall.ECONNRESET), "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 broke the connection off"},
		"cut short":      {io.ErrUnexpectedEOF, "K8S_CLUSTER_UNREACHABLE: https://api.example:6443 broke the connection off"},
		"no credentials": {errors.New("getting credentials: exec: executable aws not found"), "K8S_UNAUTHORIZED: no credentials for https://api.example:6443: exec: executable aws not found"},
	} {
		request := &url.Error{Op: "Get", URL: "https://me:hunter2@api.example:6443/version?x=y", Err: test.err}
		err := failure.From(request, failure.Object{})
		if !strings.HasPrefix(err.Error(), strings.TrimSpace(test.want)) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %q, want %q", name, err, test.want)
		}
	}
	const broken = "K8S_CLUSTER_UNREACHABLE: the API server broke the connection off"
	if err := failure.From(fmt.Errorf("reading the body: %w", io.ErrUnexpectedEOF), failure.Object{}); err.Error() != broken {
		t.Errorf("without a request: got %q, want %q", err, broken)
	}
}

func TestFromLeavesAloneWhatIsNoFailure(t *testing.T) {
	if err := failure.From(nil, failure.Object{}); err != nil {
		t.Errorf("nothing: got %v", err)
	}
	interrupted := &url.Error{Op: "Get", URL: "https://api.example", Err: context.Canceled}
	if err := failure.From(interrupted, failure.Object{}); err != error(interrupted) {
		t.Errorf("an interrupt: got %v", err)
	}
	known := failure.New(failure.PlanStale, failure.Object{}, "known")
	if err := failure.From(fmt.Errorf("applying: %w", known), failure.Object{}); err != error(known) {
		t.Errorf("a failure: got %v", err)
	}
	if code := failure.CodeOf(failure.From(errors.New("odd"), failure.Object{})); code != failure.InternalError {
		t.Errorf("anything else: got %s", code)
	}
}

// TestValuesAreNotRepeated goes through the forms in which a server quotes what
// it refuses.
func TestValuesAreNotRepeated(t *testing.T) {
	for cause, want := range map[string]string{
		`Invalid value: "hunter2: \"x\"": too short`:      "too short",
		`Invalid value: {"token":"hunter2: x"}: too odd`:  "too odd",
		`Invalid value: 12345678: must be less than 1000`: "must be less than 1000",
		`Invalid value: core.Spec{Token:hunter2}: odd`:    "invalid value",
		`Duplicate value: "hunter2"`:                      "duplicate value",
		`Too many: 12345678: must have at most 3 items`:   "must have at most 3 items",
		"Forbidden: may not change\n-hunter2\n+x":         "Forbidden: may not change",
		`Required value: name it`:                         "Required value: name it",
	} {
		answer := &apierrors.StatusError{ErrStatus: metav1.Status{
			Reason:  metav1.StatusReasonInvalid,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Field: "spec.x", Message: cause}}},
		}}
		want = "K8S_INVALID: the object is not valid: spec.x: " + want
		if got := failure.From(answer, failure.Object{}).Error(); got != want {
			t.Errorf("%s: got %q, want %q", cause, got, want)
		}
	}
}

func TestResourcesAreNamedAsOne(t *testing.T) {
	for resource, want := range map[string]string{
		"configmaps": "configmap x", "networkpolicies": "networkpolicy x", "runtimeclasses": "runtimeclass x", "RuntimeClass": "runtimeclass x",
	} {
		err := failure.From(apierrors.NewAlreadyExists(schema.GroupResource{Resource: resource}, "x"), failure.Object{})
		if got, want := err.Error(), "K8S_API_ERROR: "+want+" exists already (409)"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
