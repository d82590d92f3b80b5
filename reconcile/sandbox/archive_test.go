package sandbox

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// archive writes entries as a hostile sandbox could; a file's content is its
// Linkname.
func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, header := range entries {
		content := ""
		if header.Typeflag == tar.TypeReg {
			content, header.Linkname = header.Linkname, ""
			header.Size = int64(len(content))
		}
		if header.Mode == 0 {
			header.Mode = 0o755
		}
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(writer, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func folder(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
func file(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: "content of " + name, Mode: 0o640}
}
func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func hardlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

// tree describes all that is below a folder, as mode and content by name.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			found[name] = info.Mode().String()
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			found[name] = "-> " + to
			return err
		default:
			content, err := os.ReadFile(path)
			found[name] = info.Mode().String() + " " + string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestUnpack(t *testing.T) {
	const content = "-rw-r----- content of "
	for name, test := range map[string]struct {
		base    string
		entries []tar.Header
		want    map[string]string // below the folder in which "copy" is the target
		skipped []string
		fails   error
	}{
		"a file":            {"f", []tar.Header{file("f")}, map[string]string{"copy": content + "f"}, nil, nil},
		"a folder":          {"d", []tar.Header{folder("d/"), file("d/a"), folder("d/e/"), file("d/e/b")}, map[string]string{"copy": "drwxr-xr-x", "copy/a": content + "d/a", "copy/e": "drwxr-xr-x", "copy/e/b": content + "d/e/b"}, nil, nil},
		"the folder itself": {".", []tar.Header{folder("./"), file("./a")}, map[string]string{"copy": "drwxr-xr-x", "copy/a": content + "./a"}, nil, nil},
		"a folder that nobody may write to": {"d", []tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o555}, file("d/a")},
			map[string]string{"copy": "dr-xr-xr-x", "copy/a": content + "d/a"}, nil, nil},
		"no writing by others": {"d", []tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o777}, {Typeflag: tar.TypeReg, Name: "d/a", Mode: 0o666}},
			map[string]string{"copy": "drwxr-xr-x", "copy/a": "-rw-r--r-- "}, nil, nil},
		"no set-user-id": {"f", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", Mode: 0o6755}}, map[string]string{"copy": "-rwxr-xr-x "}, nil, nil},
		"links within": {"d", []tar.Header{folder("d/"), symlink("d/l", "e/b"), symlink("d/e/up", "../a"), file("d/a"), file("d/e/b"), hardlink("d/h", "d/a")},
			map[string]string{"copy": "drwxr-xr-x", "copy/a": content + "d/a", "copy/h": content + "d/a", "copy/l": "-> e/b", "copy/e": "drwx------", "copy/e/b": content + "d/e/b", "copy/e/up": "-> ../a"}, nil, nil},

		"a file beside it":           {"d", []tar.Header{folder("d/"), file("e")}, map[string]string{"copy": "drwxr-xr-x"}, nil, errHostile},
		"a second file":              {"f", []tar.Header{file("f"), file("f")}, map[string]string{"copy": content + "f"}, nil, errHostile},
		"a folder after a file":      {"f", []tar.Header{file("f"), file("f/g")}, map[string]string{"copy": content + "f"}, nil, errHostile},
		"a name with ..":             {"d", []tar.Header{folder("d/"), file("d/../x")}, map[string]string{"copy": "drwxr-xr-x"}, nil, errHostile},
		"a name that begins with ..": {"d", []tar.Header{file("../x")}, map[string]string{}, nil, errHostile},
		"a name with .. below .":     {".", []tar.Header{folder("./"), file("./../x")}, map[string]string{"copy": "drwxr-xr-x"}, nil, errHostile},
		"an absolute name":           {"d", []tar.Header{file("/tmp/sandboxctl-hostile")}, map[string]string{}, nil, errHostile},
		"an absolute name below .":   {".", []tar.Header{folder("./"), file("/tmp/sandboxctl-hostile")}, map[string]string{"copy": "drwxr-xr-x"}, nil, errHostile},
		"a hard link to outside":     {"d", []tar.Header{folder("d/"), hardlink("d/h", "../outside")}, map[string]string{"copy": "drwxr-xr-x"}, nil, errHostile},
		"an absolute hard link":      {"d", []tar.Header{folder("d/"), hardlink("d/h", "/etc/passwd")}, map[string]string{"copy": "drwxr-xr-x"}, nil, errHostile},

		"a link to outside":  {"d", []tar.Header{folder("d/"), symlink("d/l", "../outside")}, map[string]string{"copy": "drwxr-xr-x"}, []string{"l"}, nil},
		"an absolute link":   {"d", []tar.Header{folder("d/"), symlink("d/l", "/etc")}, map[string]string{"copy": "drwxr-xr-x"}, []string{"l"}, nil},
		"a link as the root": {"d", []tar.Header{symlink("d", "/etc"), file("d/x")}, map[string]string{}, []string{"d"}, errHostile},
		"writing through a link": {"d", []tar.Header{folder("d/"), symlink("d/l", ".."), file("d/l/x")},
			map[string]string{"copy": "drwxr-xr-x", "copy/l": "drwx------", "copy/l/x": content + "d/l/x"}, []string{"l"}, nil},
		"a file over a link": {"d", []tar.Header{folder("d/"), symlink("d/l", "../outside"), file("d/l")},
			map[string]string{"copy": "drwxr-xr-x", "copy/l": content + "d/l"}, []string{"l"}, nil},
		"a link through a link": {"d", []tar.Header{folder("d/"), folder("d/a/"), symlink("d/a/up", ".."), symlink("d/l", "a/up/../outside")},
			map[string]string{"copy": "drwxr-xr-x", "copy/a": "drwxr-xr-x", "copy/a/up": "-> .."}, []string{"l"}, nil},
		"a link below a link": {"d", []tar.Header{folder("d/"), folder("d/a/"), symlink("d/a/up", ".."), symlink("d/a/up/l", "../../outside")},
			map[string]string{"copy": "drwxr-xr-x", "copy/a": "drwxr-xr-x", "copy/a/up": "-> .."}, []string{"a/up/l"}, nil},
		"a device": {"d", []tar.Header{folder("d/"), {Typeflag: tar.TypeChar, Name: "d/null", Devmajor: 1, Devminor: 3}},
			map[string]string{"copy": "drwxr-xr-x"}, []string{"null"}, nil},
		"nothing": {"d", nil, map[string]string{}, nil, errBrokenOff},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
			test.want["outside"] = "-rw------- untouched"
			copied, err := unpack(bytes.NewReader(archive(t, test.entries...)), filepath.Join(dir, "copy"), test.base)
			if !errors.Is(err, test.fails) || (err == nil) != (test.fails == nil) {
				t.Errorf("got the error %v, want %v", err, test.fails)
			}
			if diff := cmp.Diff(test.want, tree(t, dir)); diff != "" {
				t.Errorf("the folder (-want +got):\n%s", diff)
			}
			var skipped []string
			for _, s := range copied.Skipped {
				skipped = append(skipped, s.Name)
			}
			if diff := cmp.Diff(test.skipped, skipped); diff != "" {
				t.Errorf("left out (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := os.Lstat("/tmp/sandboxctl-hostile"); err == nil {
		t.Error("an absolute name was written to")
	}
}

// TestUnpackOverLinks: links that are there already are not written through.
func TestUnpackOverLinks(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "outside"), []byte("untouched"), 0o600),
		os.Mkdir(filepath.Join(dir, "copy"), 0o755),
		os.Symlink("../outside", filepath.Join(dir, "copy", "f")),
		os.Symlink("..", filepath.Join(dir, "copy", "up")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	content := archive(t, folder("d/"), file("d/f"), file("d/up/outside"))
	if _, err := unpack(bytes.NewReader(content), filepath.Join(dir, "copy"), "d"); err == nil {
		t.Error("a file below a link that leads out was no error")
	}
	want := map[string]string{"outside": "-rw------- untouched", "copy": "drwxr-xr-x", "copy/f": "-rw-r----- content of d/f", "copy/up": "-> .."}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestUnpackIntoAFolder: one that is there keeps its mode, and gets what it is to get.
func TestUnpackIntoAFolder(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "copy"), 0o700), os.Mkdir(filepath.Join(dir, "copy", "sub"), 0o550)); err != nil {
		t.Fatal(err)
	}
	content := archive(t, folder("./"), folder("./sub/"), file("./sub/f"))
	if _, err := unpack(bytes.NewReader(content), filepath.Join(dir, "copy"), "."); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"copy": "drwx------", "copy/sub": "dr-xr-x---", "copy/sub/f": "-rw-r----- content of ./sub/f"}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestUnpackBrokenOff: wherever an archive breaks off, it is an error, also
// between two files and also where the rest looks like an end.
func TestUnpackBrokenOff(t *testing.T) {
	whole := archive(t, folder("d/"), file("d/a"), file("d/b"))
	for length := 0; length < len(whole)-1; length += 256 {
		_, err := unpack(bytes.NewReader(whole[:length]), filepath.Join(t.TempDir(), "copy"), "d")
		if !errors.Is(err, errBrokenOff) {
			t.Errorf("%d of %d bytes: got the error %v", length, len(whole), err)
		}
	}
}

// TestUnpackSparse: a few bytes of a sparse file can stand for any size.
func TestUnpackSparse(t *testing.T) {
	header := file("f")
	header.Format, header.PAXRecords = tar.FormatPAX, map[string]string{"VENDOR.sparse.s": "1"}
	content := bytes.ReplaceAll(archive(t, header), []byte("VENDOR.sparse.s"), []byte("GNU.sparse.size"))
	if _, err := unpack(bytes.NewReader(content), filepath.Join(t.TempDir(), "f"), "f"); !errors.Is(err, errHostile) {
		t.Errorf("got the error %v", err)
	}
}

// FuzzUnpack: no archive writes anything outside of its target.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		_, _ = unpack(bytes.NewReader(content), filepath.Join(dir, "copy"), "d")
		for name := range tree(t, dir) {
			if name != "copy" && !strings.HasPrefix(name, "copy"+string(filepath.Separator)) {
				t.Errorf("%s was written", name)
			}
		}
	})
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(source, "sub", "empty"), 0o750),
		os.WriteFile(filepath.Join(source, "sub", "run"), []byte("#!"), 0o755),
		os.Symlink("sub/run", filepath.Join(source, "link")),
		os.Symlink("source", filepath.Join(dir, "alias")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	sent, err := pack(&out, filepath.Join(dir, "alias"), "d")
	if err != nil || sent.Files != 1 || sent.Bytes != 2 || len(sent.sums) != 1 {
		t.Fatalf("%+v, %v", sent, err)
	}
	received, err := unpack(&out, filepath.Join(dir, "copy"), "d")
	if err != nil || received.Files != 1 {
		t.Fatalf("%+v, %v", received, err)
	}
	if diff := cmp.Diff(tree(t, source), tree(t, filepath.Join(dir, "copy"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSplitRemote(t *testing.T) {
	for path, want := range map[string][2]string{
		"/a/b": {"/a", "b"}, "a": {".", "a"}, "a/": {".", "a"}, "/": {"/", "."}, ".": {".", "."}, "..": {"..", "."}, "a/..": {".", "."}, "../x": {"..", "x"}, "-x": {".", "-x"},
	} {
		if folder, base := splitRemote(path); folder != want[0] || base != want[1] {
			t.Errorf("%s: got %q and %q, want %q", path, folder, base, want)
		}
	}
}

func TestSumLine(t *testing.T) {
	for name, want := range map[string]string{"a b": "00  a b\n", "-": "00  ./-\n", "a\nb": "\\00  a\\nb\n", `a\b`: "\\00  a\\\\b\n"} {
		if got := sumLine(name, []byte{0}); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
