package render

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/schema"
)

// IdleLabel is "stopped" on the record of a sandbox that was stopped as it was idle.
const IdleLabel, idleStopped = "agentpane.io/idle", "stopped"

// IdleRecord is why a sandbox has no pod although the file wants it to run. It stands in the cluster for as long as the
// sandbox is stopped.
type IdleRecord struct {
	// Pod is the one that was stopped: one of another uid was started since.
	Pod types.UID
	// Entry is the EntryHash of what the file said then: when it says something else, the sandbox starts again.
	Entry string
	// Since is when something last happened in the sandbox.
	Since time.Time
}

// IdleRecordName returns the name of the ConfigMap that holds a sandbox's record.
func IdleRecordName(fleet *schema.Fleet, sandbox string) string {
	return "agentpane-idle-" + slug(sandbox, 40) + "-" + digest(fleet.Name, sandbox)
}

// Object returns the ConfigMap that holds the record. It is a member of the fleet's ApplySet, and carries the sandbox's
// name as its pod does.
func (record IdleRecord) Object(fleet *schema.Fleet, s *schema.Sandbox) Object {
	r := &renderer{fleet: fleet, setID: ApplySetID(fleet)}
	labels := identity(s)
	delete(labels, SandboxLabel) // that is for what a sandbox works with
	labels[IdleLabel] = idleStopped
	object := newObject("ConfigMap", IdleRecordName(fleet, s.Name), labels)
	object.Object["data"] = map[string]any{
		"pod": string(record.Pod), "entry": record.Entry, "since": record.Since.UTC().Format(time.RFC3339),
	}
	return *r.add(object, sandboxPath(s))
}

// ReadIdleRecord reads a record; false for any other object, and for one that somebody has written into.
func ReadIdleRecord(object *unstructured.Unstructured) (record IdleRecord, ok bool) {
	if object.GetKind() != "ConfigMap" || object.GetLabels()[IdleLabel] != idleStopped {
		return IdleRecord{}, false
	}
	data, _, _ := unstructured.NestedStringMap(object.Object, "data")
	return IdleRecordOf(data)
}

// IdleRecordOf reads a record out of its ConfigMap's data.
func IdleRecordOf(data map[string]string) (record IdleRecord, ok bool) {
	since, err := time.Parse(time.RFC3339, data["since"])
	return IdleRecord{Pod: types.UID(data["pod"]), Entry: data["entry"], Since: since}, err == nil && data["pod"] != ""
}

// EntryHash is a hash of all that the file says of a sandbox, what it has of its template included.
func EntryHash(s *schema.Sandbox) string {
	encoded, err := json.Marshal(s) // sorts the keys of maps
	if err != nil {
		panic(err) // it was read out of a file: it can be written
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:8])
}
