package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A line is the record's JSON with one more field at its end: the SHA-256 hash
// of that JSON. As a record holds the hash of the one before it, no record can
// be changed, removed or put in between without every later hash being another.
// Whoever can write the file can forge all of it: keep the head that Verify
// reports somewhere else to notice.
const (
	hashOpen  = `,"hash":"`
	hashClose = `"}`
	hashSize  = 2 * sha256.Size
)

// maxLine bounds a line; no record comes close.
const maxLine = 1 << 20

// head is the end of a chain: the last record's number and hash.
type head struct {
	seq  uint64
	hash string
}

// line returns the next record of the chain as its line, and the chain's new
// end.
func (h head) line(record Record) ([]byte, head, error) {
	record.Seq, record.Prev = h.seq+1, h.hash
	record.Timestamp = record.Timestamp.UTC()
	content, err := json.Marshal(record)
	if err != nil {
		return nil, h, fmt.Errorf("encoding an audit record: %w", err)
	}
	next := head{seq: record.Seq, hash: hashOf(content)}
	line := append(content[:len(content)-1:len(content)-1], hashOpen+next.hash+hashClose+"\n"...)
	return line, next, nil
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

var errTorn = errors.New("it is torn: a crash or a full disk cut it off")

// parse takes a line, without its end, apart. The record is what it says; its
// hash has been checked, its place in the chain has not.
func parse(line []byte) (Record, head, error) {
	var record Record
	tail := len(hashOpen) + hashSize + len(hashClose)
	at := len(line) - tail
	if at < 1 || !bytes.HasPrefix(line[at:], []byte(hashOpen)) || !bytes.HasSuffix(line, []byte(hashClose)) {
		if json.Valid(line) {
			return record, head{}, errors.New("it has no hash at its end")
		}
		return record, head{}, errTorn
	}
	content := append(line[:at:at], '}')
	hash := string(line[at+len(hashOpen) : len(line)-len(hashClose)])
	if hashOf(content) != hash {
		return record, head{}, errors.New("it was changed: its hash is another")
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&record); err != nil {
		return record, head{}, fmt.Errorf("it is no audit record: %w", err)
	}
	return record, head{seq: record.Seq, hash: hash}, nil
}

// Finding is something that is wrong with a log.
type Finding struct {
	// Line counts from 1.
	Line    int    `json:"line"`
	Problem string `json:"problem"`
	// Known: the log itself says so later, by a record that it was recovered.
	Known bool `json:"known"`
}

// Report is what Verify found.
type Report struct {
	// Records is how many whole records there are, and Head the hash of the
	// last one.
	Records int       `json:"records"`
	Head    string    `json:"head"`
	Found   []Finding `json:"findings"`
	// HasHead tells whether the head that was asked for is in the chain.
	HasHead bool `json:"-"`
}

// OK tells whether the log is whole.
func (r Report) OK() bool {
	for _, finding := range r.Found {
		if !finding.Known {
			return false
		}
	}
	return true
}

// Verify reads a log and checks its chain. Where wantHead is not empty, that
// hash is looked for: a log that was cut off at its end is whole by itself, and
// only somebody who kept an earlier head can tell. The error is for a log that
// cannot be read.
func Verify(log io.Reader, wantHead string) (Report, error) {
	report := Report{Found: []Finding{}, HasHead: wantHead == ""}
	reader := bufio.NewReader(log)
	var end head
	torn := -1 // the finding of the torn record just before, if there is one
	for number := 1; ; number++ {
		line, err := readLine(reader)
		if err == io.EOF && len(line) == 0 {
			return report, nil
		}
		if err != nil && err != io.EOF {
			return report, err
		}
		record, next, problem := parse(line)
		if err == io.EOF && problem == nil {
			problem = errTorn // by a byte, but another would be appended to it
		}
		if problem != nil {
			report.add(number, problem.Error())
			torn = len(report.Found) - 1
			continue
		}
		if problem := follows(end, record); problem != "" {
			report.add(number, problem)
		} else if record.Event == Recovered && torn >= 0 {
			report.Found[torn].Known = true
		}
		torn, end = -1, next
		report.Records, report.Head = report.Records+1, next.hash
		report.HasHead = report.HasHead || next.hash == wantHead
	}
}

func (r *Report) add(line int, problem string) {
	r.Found = append(r.Found, Finding{Line: line, Problem: problem})
}

// follows says why a record is not the one after end; empty when it is.
func follows(end head, record Record) string {
	switch {
	case record.Seq == end.seq+1 && record.Prev == end.hash:
		return ""
	case record.Seq > end.seq+1:
		return fmt.Sprintf("records %d to %d are missing before it", end.seq+1, record.Seq-1)
	case record.Seq <= end.seq:
		return fmt.Sprintf("it is record %d, after record %d: it stands in the wrong place or is there twice", record.Seq, end.seq)
	}
	return "it does not follow the record before it, which was changed or put there"
}

// readLine reads up to a line's end, which it drops; io.EOF comes with what
// stands behind the last one.
func readLine(reader *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := reader.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("a line is longer than %d bytes: this is no audit log", maxLine)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		return bytes.TrimSuffix(line, []byte("\n")), err
	}
}
