package schema

// Session is a tmux session.
type Session struct {
	Name           string `json:"name"`
	StartDirectory string `json:"start_directory"`
	// Environment is that of all panes, those that people open included.
	Environment map[string]string `json:"environment,omitzero"`
	// Windows are in order, at least one, each with a name of its own.
	Windows []Window `json:"windows"`
}

// Window is a window of a session.
type Window struct {
	Name string `json:"window_name"`
	// Layout is the name of one of tmux's layouts, or a layout as tmux prints it.
	Layout         string            `json:"layout"`
	StartDirectory string            `json:"start_directory"`
	Environment    map[string]string `json:"environment,omitzero"`
	Focus          bool              `json:"focus,omitzero"`
	// Panes are in order, at least one.
	Panes []Pane `json:"panes"`
}

// Pane is a pane of a window. It runs Shell, or Argv, or with neither a shell to type in.
type Pane struct {
	// Shell is a command line for the sandbox's shell.
	Shell string `json:"shell,omitzero" schema:"shell_command"`
	// Argv is a program and its arguments, which no shell sees.
	Argv           []string `json:"argv,omitzero" schema:"shell_command"`
	StartDirectory string   `json:"start_directory"`
	// Environment is the window's with the pane's own laid over it. The session's is not part of it.
	Environment map[string]string `json:"environment,omitzero"`
	Focus       bool              `json:"focus,omitzero"`
	Restart     Restart           `json:"restart"`
}

// Restart is when an ended command is started again.
type Restart string

// The policies.
const (
	Never     Restart = "never"
	OnFailure Restart = "on-failure"
	Always    Restart = "always"
)

// Shorthand returns the key that a pane stands for when it is written as a string.
func (Pane) Shorthand() string { return "shell_command" }
