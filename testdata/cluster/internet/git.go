package internet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// repositories is the folder of the repositories that git.test serves. It is
// made when the internet starts, with the one repository hello.git.
func repositories(ctx context.Context) (string, error) {
	root, err := os.MkdirTemp("", "sandboxctl-git-")
	if err != nil {
		return "", err
	}
	work := filepath.Join(root, "work")
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main", work},
		{"-C", work, "-c", "user.name=test", "-c", "user.email=test@git.test", "commit", "--quiet", "--allow-empty", "--message=hello"},
		{"clone", "--quiet", "--bare", work, filepath.Join(root, "hello.git")},
		{"-C", filepath.Join(root, "hello.git"), "update-server-info"},
	} {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Env = gitEnvironment(root)
		if out, err := cmd.CombinedOutput(); err != nil {
			return root, fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return root, nil
}

func gitEnvironment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1"}
}

// serveGit serves repositories by HTTPS.
func serveGit(ctx context.Context, certificate tls.Certificate) error {
	root, err := repositories(ctx)
	defer os.RemoveAll(root)
	if err != nil {
		return err
	}
	handler := &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend",
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + root},
	}
	return serveHandler(ctx, Git, 443, &tls.Config{Certificates: []tls.Certificate{certificate}}, handler)
}

// serveSSH serves the same by SSH, to anybody, under a key that is made anew.
func serveSSH(ctx context.Context) error {
	root, err := repositories(ctx)
	defer os.RemoveAll(root)
	if err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", net.JoinHostPort(Git, "22"))
	if err != nil {
		return fmt.Errorf("serving SSH: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go serveSSHConn(ctx, conn, config, root)
	}
}

func serveSSHConn(ctx context.Context, conn net.Conn, config *ssh.ServerConfig, root string) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return // a client that did not want to go on
	}
	go ssh.DiscardRequests(requests)
	for channel := range channels {
		if channel.ChannelType() != "session" {
			_ = channel.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		accepted, requests, err := channel.Accept()
		if err != nil {
			return
		}
		go serveSession(ctx, accepted, requests, root)
	}
}

// serveSession runs git-upload-pack for the one repository there is, and
// nothing else.
func serveSession(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request, root string) {
	defer channel.Close()
	for request := range requests {
		var payload struct{ Command string }
		ok := request.Type == "exec" && ssh.Unmarshal(request.Payload, &payload) == nil
		_ = request.Reply(ok || request.Type == "env", nil)
		if !ok {
			continue
		}
		code := uint32(1)
		if payload.Command == "git-upload-pack '/hello.git'" || payload.Command == "git-upload-pack 'hello.git'" {
			cmd := exec.CommandContext(ctx, "git-upload-pack", filepath.Join(root, "hello.git"))
			cmd.Env = gitEnvironment(root)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = channel, channel, channel.Stderr()
			err := cmd.Run()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = uint32(exit.ExitCode())
			} else if err == nil {
				code = 0
			}
		}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code})) // it may have gone
		return
	}
}
