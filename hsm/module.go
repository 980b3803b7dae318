package hsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A module is one PKCS #11 library of this process. C_Initialize is for the
// whole process, so every store on the library shares the module; the library
// stays loaded after the last of them, because unloading one that has run is
// not safe.
type module struct {
	path  string
	table functions
	miekg *pkcs11.Ctx

	// drain is held for reading through every call into the library, and for
	// writing to initialise and finalise it, and to close sessions that others
	// may use: a call that meets C_Finalize or C_CloseSession on its own
	// session crashes in most libraries.
	drain      sync.RWMutex
	users      int
	own        bool   // this package called C_Initialize
	generation uint64 // grows with every C_Initialize seen
}

// modules are the libraries loaded by this process, by their real path.
var modules struct {
	sync.Mutex
	loaded map[string]*module
}

// useModule loads and initialises a library, or joins those who have.
func useModule(path string) (*module, error) {
	modules.Lock()
	defer modules.Unlock()
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("hsm: PKCS #11 module: %w: %w; install it, or correct module-path", err, keystore.ErrUnavailable)
	}
	m := modules.loaded[real]
	if m == nil {
		if m, err = loadModule(real); err != nil {
			return nil, err
		}
		if modules.loaded == nil {
			modules.loaded = map[string]*module{}
		}
		modules.loaded[real] = m
	}
	m.drain.Lock()
	defer m.drain.Unlock()
	if m.users == 0 {
		if err := m.initialise(); err != nil {
			return nil, err
		}
	}
	m.users++
	return m, nil
}

func loadModule(path string) (*module, error) {
	if err := isLibrary(path); err != nil {
		return nil, fmt.Errorf("hsm: PKCS #11 module %s: %w: %w", path, err, keystore.ErrUnavailable)
	}
	table, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("hsm: PKCS #11 module %s: %w: %w", path, err, keystore.ErrUnavailable)
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("hsm: PKCS #11 module %s does not load: %w; name the library of the token in module-path", path, keystore.ErrUnavailable)
	}
	return &module{path: path, table: table, miekg: ctx}, nil
}

// isLibrary tells apart what the loader reports in one unclear sentence.
func isLibrary(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); err != nil {
		return errors.New("it is not a shared library")
	}
	switch string(magic) {
	case "\x7fELF", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe": // the last two of macOS, of one processor or many
		return nil
	}
	return errors.New("it is not a shared library")
}

// initialise calls C_Initialize. The caller holds drain for writing. One that
// somebody else has initialised is used, and left for him to finalise.
func (m *module) initialise() error {
	err := m.miekg.Initialize()
	m.own = err == nil
	if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return fmt.Errorf("%w; see the configuration of %s", fromMiekg("C_Initialize", err), m.path)
	}
	m.generation++
	return nil
}

// restart finalises and initialises again: the only way back for many modules
// whose device went away. The caller holds drain for writing.
func (m *module) restart() error {
	if m.own {
		m.miekg.Finalize() // it fails if somebody did it before, which is as good
	}
	return m.initialise()
}

// release undoes useModule. It waits for calls under way.
func (m *module) release() error {
	m.drain.Lock()
	defer m.drain.Unlock()
	m.users--
	if m.users > 0 || !m.own {
		return nil
	}
	m.own = false
	err := fromMiekg("C_Finalize", m.miekg.Finalize())
	var e *Error
	if errors.As(err, &e) && e.Code == pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED {
		return nil
	}
	return err
}

// A tokenInfo is one PKCS #11 token that a module sees.
type tokenInfo struct {
	slot uint
	pkcs11.TokenInfo
}

// tokens lists the initialised tokens, or with blank the slots where one can be
// made. The caller holds drain.
func (m *module) tokens(blank bool) ([]tokenInfo, error) {
	slots, err := m.miekg.GetSlotList(true)
	if err != nil {
		return nil, fromMiekg("C_GetSlotList", err)
	}
	var all []tokenInfo
	for _, slot := range slots {
		info, err := m.miekg.GetTokenInfo(slot)
		if err != nil {
			continue // a broken reader must not hide the others
		}
		if initialised := info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0; initialised != blank {
			all = append(all, tokenInfo{slot, info})
		}
	}
	return all, nil
}
