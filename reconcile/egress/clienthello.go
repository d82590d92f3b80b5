package egress

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// maxHello bounds what is read of a connection before it has said which host it
// wants. A ClientHello with post-quantum keys is some 2 KiB.
const maxHello = 16 << 10

var (
	errHello     = errors.New("it is no TLS ClientHello")
	errHelloSize = errors.New("the ClientHello is too long")
	errStop      = errors.New("the ClientHello was read")
)

// readClientHello reads the first message of a TLS connection and returns the
// name of the server that it asks for, which may be empty, and all the bytes
// that it has read, which the server must get. crypto/tls parses them, up to
// where it would have to answer.
func readClientHello(from io.Reader) (serverName string, read []byte, err error) {
	var seen bytes.Buffer
	limited := &io.LimitedReader{R: from, N: maxHello}
	found := false
	server := tls.Server(&readOnly{io.TeeReader(limited, &seen)}, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			serverName, found = hello.ServerName, true
			return nil, errStop
		},
	})
	err = server.Handshake()
	switch {
	case found:
		return serverName, seen.Bytes(), nil
	case limited.N <= 0:
		return "", seen.Bytes(), errHelloSize
	case err == nil || errors.Is(err, errStop):
		return "", seen.Bytes(), errHello
	}
	return "", seen.Bytes(), errors.Join(errHello, err)
}

// readOnly is a connection of which only the reading is real: an alert that
// crypto/tls sends goes nowhere.
type readOnly struct{ io.Reader }

func (*readOnly) Write(content []byte) (int, error) { return len(content), nil }
func (*readOnly) Close() error                      { return nil }
func (*readOnly) LocalAddr() net.Addr               { return nil }
func (*readOnly) RemoteAddr() net.Addr              { return nil }
func (*readOnly) SetDeadline(time.Time) error       { return nil }
func (*readOnly) SetReadDeadline(time.Time) error   { return nil }
func (*readOnly) SetWriteDeadline(time.Time) error  { return nil }
