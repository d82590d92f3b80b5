package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// reserveSize is set aside beside a log, so that what was under way when the
// disk became full can still be recorded; what is not yet begun is then refused.
const reserveSize = 256 << 10

// Log is a log in a file, to which several processes may append.
type Log struct {
	now  func() time.Time
	file file
	// reserve is the path of what is set aside.
	reserve string

	queueMutex sync.Mutex // protects queue
	queue      []*entry

	writeMutex sync.Mutex // protects what follows, and the file from this process
	// size is how long the file was after the last write, and end the chain's
	// end there.
	size int64
	end  head
	full bool // the reserve was used up
}

// file is what a log needs of a file.
type file interface {
	io.ReaderAt
	io.Writer
	io.Closer
	Stat() (os.FileInfo, error)
	Sync() error
	Truncate(size int64) error
	Fd() uintptr
}

// entry is some records that wait to be written. Its fields are protected by
// writeMutex.
type entry struct {
	records []Record
	written bool
	err     error
}

// Open opens the log at path, or makes it, for appending. Nobody but the user
// may read it.
func Open(path string, now func() time.Time) (*Log, error) {
	opened, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	if info, err := opened.Stat(); err != nil || !info.Mode().IsRegular() {
		opened.Close()
		return nil, errors.Join(fmt.Errorf("the audit log %s is no regular file", path), err)
	}
	log := &Log{now: now, file: opened, reserve: filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".reserve"), size: -1}
	if err := log.Ready(); err != nil {
		opened.Close()
		return nil, err
	}
	return log, nil
}

// Close closes the log's file, and gives back what was set aside for it.
func (l *Log) Close() error {
	err := os.Remove(l.reserve)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.file.Close())
}

// Ready implements Sink: it sees to it that there is something set aside.
func (l *Log) Ready() error {
	l.writeMutex.Lock()
	defer l.writeMutex.Unlock()
	if info, err := os.Stat(l.reserve); err == nil && info.Size() == reserveSize && !l.full {
		return nil
	}
	if err := setAside(l.reserve); err != nil {
		return fmt.Errorf("the audit log cannot be written, so nothing is changed: %w", err)
	}
	l.full = false
	return nil
}

// setAside writes the reserve: a hole would set nothing aside.
func setAside(path string) error {
	reserve, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = reserve.WriteAt(bytes.Repeat([]byte{'-'}, reserveSize), 0)
	if err = errors.Join(err, reserve.Sync(), reserve.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Append implements Sink. Whoever comes while others write has their records
// written, and synced, together with those of all who waited.
func (l *Log) Append(records ...Record) error {
	mine := &entry{records: records}
	l.queueMutex.Lock()
	l.queue = append(l.queue, mine)
	l.queueMutex.Unlock()

	l.writeMutex.Lock()
	defer l.writeMutex.Unlock()
	if mine.written {
		return mine.err
	}
	l.queueMutex.Lock()
	batch := l.queue
	l.queue = nil
	l.queueMutex.Unlock()
	err := l.write(batch)
	for _, e := range batch {
		e.written, e.err = true, err
	}
	return err
}

// write appends the records of the batch, all or none.
func (l *Log) write(batch []*entry) (err error) {
	if err := lockFile(l.file.Fd()); err != nil {
		return fmt.Errorf("locking the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, unlockFile(l.file.Fd())) }()
	size, end, preface, err := l.find()
	if err != nil {
		return fmt.Errorf("reading the end of the audit log: %w", err)
	}
	content := preface
	for _, e := range batch {
		for _, record := range e.records {
			var line []byte
			if line, end, err = end.line(record); err != nil {
				return err
			}
			content = append(content, line...)
		}
	}
	err = l.commit(content, size)
	if err != nil && os.Remove(l.reserve) == nil { // make room for what has happened already
		l.full = true
		err = l.commit(content, size)
	}
	if err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	l.size, l.end = size+int64(len(content)), end
	return nil
}

// commit writes content at the end of the file, which has that size. What
// cannot be written whole is taken back.
func (l *Log) commit(content []byte, size int64) error {
	_, err := l.file.Write(content)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return errors.Join(err, l.file.Truncate(size))
	}
	return nil
}

// find returns the size of the file and the end of the chain in it. Where a
// crash has torn the last record, preface is what must be written first: a line
// end, and the record that says so.
func (l *Log) find() (size int64, end head, preface []byte, err error) {
	info, err := l.file.Stat()
	if err != nil {
		return 0, head{}, nil, err
	}
	size = info.Size()
	if size == l.size { // nobody else has written
		return size, l.end, nil, nil
	}
	const window = 2 * maxLine
	start := max(0, size-window)
	tail := make([]byte, size-start)
	if _, err := l.file.ReadAt(tail, start); err != nil {
		return 0, head{}, nil, err
	}
	whole := tail[:bytes.LastIndexByte(tail, '\n')+1]
	torn := tail[len(whole):]
	for unreadable := false; len(whole) > 0; unreadable = true {
		line := whole[bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1:]
		if _, end, err = parse(bytes.TrimSuffix(line, []byte("\n"))); err == nil {
			break
		}
		if unreadable { // a crash tears one record, not two
			return 0, head{}, nil, fmt.Errorf("its last records cannot be read: %w; sandboxctl audit verify tells more", err)
		}
		whole = whole[:len(whole)-len(line)]
	}
	if len(torn) == 0 {
		return size, end, nil, nil
	}
	if _, last, err := parse(torn); err == nil { // but for its line end it is whole
		return size, last, []byte("\n"), nil
	}
	line, end, err := end.line(Record{
		Timestamp: l.now(), Event: Recovered, Severity: Warn, Component: AuditLog,
		Metadata: map[string]any{"tornBytes": len(torn), "tornHash": hashOf(torn)},
	})
	return size, end, append([]byte("\n"), line...), err
}

// Stream writes a log to a stream, as standard output, with a chain that
// begins anew. What becomes of the records there is not this package's to say.
type Stream struct {
	mutex sync.Mutex // protects end, and the order of lines
	out   io.Writer
	end   head
}

// NewStream returns a log that is written to out.
func NewStream(out io.Writer) *Stream { return &Stream{out: out} }

// Ready implements Sink.
func (s *Stream) Ready() error { return nil }

// Append implements Sink.
func (s *Stream) Append(records ...Record) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, record := range records {
		line, next, err := s.end.line(record)
		if err != nil {
			return err
		}
		if _, err := s.out.Write(line); err != nil {
			return fmt.Errorf("writing the audit log: %w", err)
		}
		s.end = next
	}
	return nil
}
