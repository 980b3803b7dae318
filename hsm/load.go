package hsm

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// loadModule loads a library, which must not crash the process by that.
func loadModule(path string) (*module, error) {
	if err := isLibrary(path); err != nil {
		return nil, notLoaded(path, err)
	}
	table, err := load(path)
	if err != nil {
		return nil, notLoaded(path, err)
	}
	return &module{path: path, library: newLibrary(table)}, nil
}

// reason is an error about a file without its path, which the system may have cut short.
func reason(err error) error {
	if about := (*fs.PathError)(nil); errors.As(err, &about) {
		return about.Err
	}
	return err
}

func notLoaded(path string, why error) error {
	return fmt.Errorf("hsm: PKCS #11 module %s: %w: %w; name the library of the token in module-path", path, why, keystore.ErrUnavailable)
}

// isLibrary tells apart what the loader reports in one unclear sentence, and refuses what
// it would crash at.
func isLibrary(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return reason(err)
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return reason(err)
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); err != nil {
		return errors.New("it is not a shared library")
	}
	switch string(magic) {
	case elf.ELFMAG:
		return fits(f, uint64(info.Size()))
	case "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe": // of macOS, of one processor or many
		return nil
	}
	return errors.New("it is not a shared library")
}

// processor names what a file is for, as "aarch64 with 64 bits".
func processor(f *elf.File) string {
	name, bits := strings.TrimPrefix(f.Machine.String(), "EM_"), strings.TrimPrefix(f.Class.String(), "ELFCLASS")
	return strings.ToLower(name) + " with " + bits + " bits"
}

// fits wants a library of the processor of this process, with all of its segments: the
// loader says of another one that there is no file, and ends the process, by SIGBUS, at one
// that was cut off.
func fits(f *os.File, size uint64) error {
	lib, err := elf.NewFile(f)
	if err != nil {
		return errors.New("the library is damaged or incomplete")
	}
	if own, err := elf.Open("/proc/self/exe"); err == nil {
		defer own.Close()
		if lib.Class != own.Class || lib.Machine != own.Machine {
			return fmt.Errorf("the library is for %s, and this program for %s", processor(lib), processor(own))
		}
	}
	for _, segment := range lib.Progs {
		if segment.Off > size || segment.Filesz > size-segment.Off {
			return errors.New("the library is damaged or incomplete")
		}
	}
	return nil
}
