package sandbox

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// errHostile is an archive that no honest tar writes.
var errHostile = errors.New("the archive from the sandbox is not an honest one")

// unpacker writes an archive from a sandbox to a place on this machine. The
// archive is a stranger's: nothing of it may come to lie, or lead, outside.
type unpacker struct {
	// target is the file or folder to be made, and base what the archive calls it.
	target, base string
	copied       Copied

	root  *os.Root // the target, once it is a folder
	modes []folderMode
	links []link
}

type folderMode struct {
	name string
	mode fs.FileMode
}

type link struct{ name, to string }

// unpack writes the archive to the target. What it has copied so far is told
// also with an error.
func unpack(archive io.Reader, target, base string) (copied Copied, err error) {
	u := &unpacker{target: target, base: base}
	defer func() {
		if u.root != nil {
			err = errors.Join(err, u.root.Close())
		}
		copied = u.copied
	}()
	source := &endReader{Reader: archive}
	reader := tar.NewReader(source)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil && source.ended {
			return u.copied, errBrokenOff
		}
		if err != nil {
			return u.copied, fmt.Errorf("%w: %w", errHostile, err)
		}
		if err := u.entry(header, reader); err != nil {
			if source.ended {
				err = errBrokenOff
			}
			return u.copied, err
		}
	}
	if source.ended { // before the blocks that mark an archive's end
		return u.copied, errBrokenOff
	}
	if _, err := io.Copy(io.Discard, archive); err != nil { // the padding
		return u.copied, err
	}
	return u.copied, u.finish()
}

var errBrokenOff = errors.New("the archive from the sandbox broke off")

// endReader tells whether its end was come to, and not only what was needed read.
type endReader struct {
	io.Reader
	ended bool
}

func (r *endReader) Read(buffer []byte) (int, error) {
	n, err := r.Reader.Read(buffer)
	if n > 0 {
		return n, nil
	}
	r.ended = err == io.EOF
	return 0, err
}

// entry writes one entry.
func (u *unpacker) entry(header *tar.Header, content io.Reader) error {
	name, err := u.inside(header.Name)
	if err != nil {
		return err
	}
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return fmt.Errorf("%w: a sparse file can claim any size", errHostile)
		}
	}
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeDir:
		return u.folder(name, modeOf(header))
	case tar.TypeReg:
		return u.file(name, modeOf(header), content)
	case tar.TypeSymlink:
		if u.root != nil {
			u.links = append(u.links, link{name, header.Linkname})
			return nil
		}
		u.skip(name, "is a link: name what it leads to")
		return nil
	case tar.TypeLink:
		return u.hardLink(name, header.Linkname)
	}
	u.skip(name, "is neither a file nor a folder")
	return nil
}

// modeOf is an entry's mode, without the bits that lend a file its owner's rights
// and those that let others than its owner write to it: a sandbox does not say who
// may write on this machine.
func modeOf(header *tar.Header) fs.FileMode { return fs.FileMode(header.Mode) & 0o755 }

// inside returns an entry's name relative to the target.
func (u *unpacker) inside(entry string) (string, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(entry, "./"), "/")
	base := strings.TrimPrefix(u.base, "./")
	switch {
	case name == "" || name == base:
		return ".", nil
	case base != ".":
		rest, found := strings.CutPrefix(name, base+"/")
		if !found {
			return "", fmt.Errorf("%w: it has %q where only %q was asked for", errHostile, entry, u.base)
		}
		name = rest
	}
	local, err := filepath.Localize(name)
	if err != nil || path.Clean(name) != name {
		return "", fmt.Errorf("%w: it has the name %q", errHostile, entry)
	}
	return local, nil
}

func (u *unpacker) skip(name, why string) {
	if name == "." {
		name = u.base
	}
	u.copied.Skipped = append(u.copied.Skipped, Skipped{Name: filepath.ToSlash(name), Why: why})
}

// folder makes a folder that can be written to; its own mode follows at the end.
// One that is there already keeps the mode that it has.
func (u *unpacker) folder(name string, mode fs.FileMode) error {
	var made bool
	if u.root == nil {
		if name != "." {
			return fmt.Errorf("%w: it does not begin with what was asked for", errHostile)
		}
		err := os.Mkdir(u.target, 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		made = err == nil
		root, err := os.OpenRoot(u.target)
		if err != nil {
			return err
		}
		u.root = root
	} else {
		_, err := u.root.Lstat(name)
		made = errors.Is(err, fs.ErrNotExist)
		if err := u.root.MkdirAll(name, 0o700); err != nil {
			return err
		}
	}
	if !made {
		info, err := u.root.Stat(name)
		if err != nil {
			return err
		}
		if mode = info.Mode().Perm(); mode&0o700 == 0o700 {
			return nil
		}
	}
	u.modes = append(u.modes, folderMode{name, mode})
	return u.root.Chmod(name, mode|0o700)
}

// file makes a file anew, so that nothing is written through a link.
func (u *unpacker) file(name string, mode fs.FileMode, content io.Reader) error {
	root := u.root
	if root == nil { // a single file
		if name != "." || u.copied.Files > 0 {
			return fmt.Errorf("%w: it has more than the file that was asked for", errHostile)
		}
		folder, err := os.OpenRoot(filepath.Dir(u.target))
		if err != nil {
			return err
		}
		defer folder.Close()
		root, name = folder, filepath.Base(u.target)
	}
	if err := u.makeRoom(root, name); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(file, content)
	if err = errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
		return err
	}
	u.copied.Files, u.copied.Bytes = u.copied.Files+1, u.copied.Bytes+n
	return nil
}

// makeRoom removes the file or link of that name, and makes the folder for it.
func (u *unpacker) makeRoom(root *os.Root, name string) error {
	if folder := filepath.Dir(name); folder != "." {
		if err := root.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder here, and a file in the sandbox", filepath.Join(root.Name(), name))
	}
	if err == nil {
		err = root.Remove(name)
	}
	return err
}

// hardLink makes one more name for a file that the archive has brought.
func (u *unpacker) hardLink(name, to string) error {
	first, err := u.inside(to)
	if err != nil {
		return err
	}
	if u.root == nil || !u.isRealPath(first) || !u.isRealPath(name) {
		u.skip(name, "is a link")
		return nil
	}
	if err := u.makeRoom(u.root, name); err != nil {
		return err
	}
	if err := u.root.Link(first, name); err != nil {
		return err
	}
	u.copied.Files++
	return nil
}

// finish makes the symbolic links, after everything that could have been
// written through one, and gives folders their modes, the innermost first.
func (u *unpacker) finish() error {
	for _, l := range u.links {
		if !staysInside(l) || !u.isRealPath(filepath.Dir(l.name)) {
			u.skip(l.name, "is a link that leads out of the folder")
			continue
		}
		if err := u.makeRoom(u.root, l.name); err != nil {
			return err
		}
		if err := u.root.Symlink(filepath.FromSlash(l.to), l.name); err != nil {
			return err
		}
	}
	for _, folder := range slices.Backward(u.modes) {
		if err := u.root.Chmod(folder.name, folder.mode); err != nil {
			return err
		}
	}
	if u.root == nil && u.copied.Files == 0 && len(u.copied.Skipped) == 0 {
		return errBrokenOff
	}
	return nil
}

// staysInside tells whether a link leads to a place below the target. After a
// name, ".." could lead anywhere, as the name could be a link.
func staysInside(l link) bool {
	if path.IsAbs(l.to) || path.Clean(l.to) != strings.TrimSuffix(l.to, "/") || strings.ContainsRune(l.to, 0) {
		return false
	}
	return filepath.IsLocal(filepath.Join(filepath.Dir(l.name), filepath.FromSlash(l.to)))
}

// isRealPath tells whether no part of a path is a link.
func (u *unpacker) isRealPath(name string) bool {
	for ; name != "."; name = filepath.Dir(name) {
		info, err := u.root.Lstat(name)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return false
		}
	}
	return true
}

// packed is what pack has put into an archive.
type packed struct {
	Copied
	// sums are the SHA-256 sums of the files, by their names in the archive.
	sums map[string][sha256.Size]byte
}

// pack writes a file or folder of this machine to an archive in which it is
// called name. Links stay links.
func pack(out io.Writer, source, name string) (packed, error) {
	done := packed{sums: map[string][sha256.Size]byte{}}
	info, err := os.Stat(source) // the source itself may be named by a link
	if err != nil {
		return done, err
	}
	archive := tar.NewWriter(out)
	if !info.IsDir() {
		err = done.add(archive, source, name, info)
		return done, errors.Join(err, archive.Close())
	}
	source, err = filepath.EvalSymlinks(source)
	if err != nil {
		return done, err
	}
	err = filepath.WalkDir(source, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return done.add(archive, file, path.Join(name, filepath.ToSlash(relative)), info)
	})
	if err != nil {
		return done, err // without the archive's end: nobody takes it for whole
	}
	return done, archive.Close()
}

// add adds one file, folder or link to the archive.
func (p *packed) add(archive *tar.Writer, file, name string, info fs.FileInfo) error {
	to := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		var err error
		if to, err = os.Readlink(file); err != nil {
			return err
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		p.Skipped = append(p.Skipped, Skipped{Name: name, Why: "is neither a file nor a folder"})
		return nil
	}
	header, err := tar.FileInfoHeader(info, filepath.ToSlash(to))
	if err != nil {
		return err
	}
	header.Name = name
	header.Mode &= int64(fs.ModePerm)
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", "" // they mean nothing there
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	content, err := os.Open(file)
	if err != nil {
		return err
	}
	defer content.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(archive, sum), content)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	p.sums[name] = [sha256.Size]byte(sum.Sum(nil))
	p.Files, p.Bytes = p.Files+1, p.Bytes+n
	return nil
}
