package audit

import (
	"errors"
	"fmt"
	"path"
	"time"
)

// Recorder makes records of what happens and gives them to a sink. A nil
// Recorder records nothing, so that nobody has to ask whether there is one.
type Recorder struct {
	sink  Sink
	now   func() time.Time
	actor string
}

// NewRecorder returns a recorder for what the actor does.
func NewRecorder(sink Sink, now func() time.Time, actor string) *Recorder {
	return &Recorder{sink: sink, now: now, actor: actor}
}

// Ready tells whether what is about to be done could be recorded. Where it
// returns an error, it must not be done.
func (r *Recorder) Ready() error {
	if r == nil {
		return nil
	}
	return r.sink.Ready()
}

// Outcome is how something went.
type Outcome struct {
	// Took is how long it took; 0 where that says nothing.
	Took time.Duration
	// Err is why it failed; nil where it did not.
	Err      error
	Metadata map[string]any
}

// Record records an event; its severity follows from the event and the outcome.
// The functions below are for events that need more care.
func (r *Recorder) Record(event Event, component Component, about About, outcome Outcome) error {
	if r == nil {
		return nil
	}
	record := Record{
		Timestamp: r.now(), Event: event, Severity: severityOf(event, outcome.Err), Component: component,
		About: about, Actor: r.actor, Metadata: outcome.Metadata,
	}
	if outcome.Err != nil {
		record.Error = outcome.Err.Error()
	}
	if outcome.Took > 0 {
		record.DurationMs = new(outcome.Took.Milliseconds())
	}
	return r.sink.Append(record)
}

// severityOf is AgentPane's, where it has the event.
func severityOf(event Event, err error) Severity {
	switch {
	case event == PodFailed, event == PSSValidationFailed:
		return Error
	case err != nil, event == ExecAsRootAttempted, event == EgressDenied, event == EgressCut, event == Recovered:
		return Warn
	}
	return Info
}

var errExit = errors.New("it exited with another code than 0")

// Exec records that a command was run in a sandbox: the program, how many
// arguments it had and its exit code. The arguments themselves may be secret.
func (r *Recorder) Exec(about About, command []string, exitCode int, took time.Duration, err error) error {
	return r.command(ExecCommand, about, command, exitCode, took, err)
}

// RootAttempt records that a command was to be run as root, which was refused.
func (r *Recorder) RootAttempt(about About, command []string) error {
	return r.Record(ExecAsRootAttempted, Security, about, Outcome{Metadata: commandMetadata(command)})
}

// Session records that a command was started in a pane of a tmux session, or
// that keys were sent to it. What was typed is not recorded.
func (r *Recorder) Session(about About, session string, command []string, err error) error {
	metadata := commandMetadata(command)
	metadata["session"] = session
	return r.Record(SessionCommand, Sandbox, about, Outcome{Err: err, Metadata: metadata})
}

// SessionChanged records what became of a part of a declared session, as that a
// pane was created.
func (r *Recorder) SessionChanged(about About, action, kind, name string, err error) error {
	return r.Record(SessionCommand, Sandbox, about, Outcome{Err: err, Metadata: map[string]any{"action": action, "kind": kind, "session": name}})
}

func (r *Recorder) command(event Event, about About, command []string, exitCode int, took time.Duration, err error) error {
	metadata := commandMetadata(command)
	if err == nil {
		metadata["exitCode"] = exitCode
		if exitCode != 0 {
			err = fmt.Errorf("%w: %d", errExit, exitCode)
		}
	}
	return r.Record(event, Sandbox, about, Outcome{Took: took, Err: err, Metadata: metadata})
}

// commandMetadata is what may be told of a command.
func commandMetadata(command []string) map[string]any {
	metadata := map[string]any{"arguments": max(0, len(command)-1)}
	if len(command) > 0 {
		metadata["command"] = path.Base(command[0])
	}
	return metadata
}

// Made records, as that event, that a pod was made which passes the profile; that
// is empty where it is not known.
func (r *Recorder) Made(event Event, component Component, about About, profile string, outcome Outcome) error {
	return errors.Join(
		r.Record(event, component, about, outcome),
		r.Record(PSSValidationPassed, Security, about, Outcome{Metadata: profileMetadata(profile)}),
	)
}

// NotMade records that a pod could not be made; refused: it did not pass the
// profile.
func (r *Recorder) NotMade(about About, profile string, refused bool, outcome Outcome) error {
	var err error
	if refused {
		err = r.Record(PSSValidationFailed, Security, about, Outcome{Err: outcome.Err, Metadata: profileMetadata(profile)})
	}
	return errors.Join(err, r.Record(PodFailed, Provider, about, outcome))
}

func profileMetadata(profile string) map[string]any {
	if profile == "" {
		return nil
	}
	return map[string]any{"profile": profile}
}

// Copied records that files were copied into a sandbox, or out of it: how many,
// and how many bytes of them. Their names are not recorded.
func (r *Recorder) Copied(about About, into bool, files int, bytes int64, took time.Duration, err error) error {
	direction := "out"
	if into {
		direction = "in"
	}
	return r.Record(FilesCopied, Sandbox, about, Outcome{Took: took, Err: err, Metadata: map[string]any{
		"direction": direction, "files": files, "bytes": bytes,
	}})
}

// Prewarm records that pods were added to a pool, with the number of pods that it
// has then, warm and claimed.
func (r *Recorder) Prewarm(about About, requested, created, currentPoolSize int, err error) error {
	return r.Record(WarmPoolPrewarm, WarmPool, about, Outcome{Err: err, Metadata: map[string]any{
		"requested": requested, "created": created, "currentPoolSize": currentPoolSize,
	}})
}

// Allocation records that a pod was taken out of its pool; about is the sandbox,
// with the pod as its resource.
func (r *Recorder) Allocation(about About, took time.Duration, remainingWarmPods int) error {
	return r.Record(WarmPoolAllocation, WarmPool, about, Outcome{Took: took, Metadata: map[string]any{
		"allocationTimeMs": took.Milliseconds(), "remainingWarmPods": remainingWarmPods,
	}})
}

// Discovery records the pods that a pool was found with.
func (r *Recorder) Discovery(about About, warm, allocated int) error {
	return r.Record(WarmPoolDiscovery, WarmPool, about, Outcome{Metadata: map[string]any{
		"warmPodsDiscovered": warm, "allocatedPodsDiscovered": allocated,
	}})
}

// Denial is something that a sandbox tried to reach and must not.
type Denial struct {
	// Host is the name that was asked for; empty where none was.
	Host string
	Port int
	// Protocol is how: dns, tls, http, connect, tcp.
	Protocol, Reason string
	// Repeated is how often the same happened since it was last recorded.
	Repeated int
}

// Denied records that the gateway refused a connection or a name.
func (r *Recorder) Denied(about About, denial Denial) error {
	return r.egress(EgressDenied, about, denial)
}

// Cut records that the gateway ended a connection that is no longer allowed.
func (r *Recorder) Cut(about About, denial Denial) error {
	return r.egress(EgressCut, about, denial)
}

func (r *Recorder) egress(event Event, about About, denial Denial) error {
	metadata := map[string]any{"host": denial.Host, "protocol": denial.Protocol, "reason": denial.Reason}
	if denial.Port > 0 {
		metadata["port"] = denial.Port
	}
	if denial.Repeated > 0 {
		metadata["repeated"] = denial.Repeated
	}
	return r.Record(event, EgressGateway, about, Outcome{Metadata: metadata})
}
