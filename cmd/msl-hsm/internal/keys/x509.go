package keys

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/internal/strictpem"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// ReadCertificates reads the certificates of a PEM file, which must have at least one.
// what is the setting that names the file.
func ReadCertificates(what, path string) ([]*x509.Certificate, error) {
	text, err := plainfile.Read(path)
	if err != nil {
		return nil, exit.Usagef("%s: %w", what, err)
	}
	blocks, err := strictpem.Decode(text)
	if err != nil {
		return nil, exit.Usagef("%s: %s: %w: put the whole file there again", what, path, err)
	}
	var all []*x509.Certificate
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, exit.Usagef("%s: %s: certificate %d: %w: put the whole file there again", what, path, len(all)+1, err)
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		return nil, exit.Usagef("%s: %s has no PEM block CERTIFICATE: name a file of certificates in PEM", what, path)
	}
	return all, nil
}

// Authorities vouch for entities of the scheme X509.
type Authorities struct {
	Roots, Between *x509.CertPool // nil means none
	All            []*x509.Certificate
}

// ReadAuthorities reads the trusted roots and the intermediate certificates between
// them and those of entities. Without a file there are none.
func ReadAuthorities(section, roots, between string) (a Authorities, err error) {
	if roots == "" && between != "" {
		return a, exit.Usagef("%sintermediates is set and %sroots is not: nobody is trusted", section, section)
	}
	pool := func(what, path string) (*x509.CertPool, error) {
		if path == "" {
			return nil, nil
		}
		certificates, err := ReadCertificates(section+what, path)
		if err != nil {
			return nil, err
		}
		p := x509.NewCertPool()
		for _, c := range certificates {
			p.AddCert(c)
		}
		a.All = append(a.All, certificates...)
		return p, nil
	}
	if a.Roots, err = pool("roots", roots); err != nil {
		return a, err
	}
	a.Between, err = pool("intermediates", between)
	return a, err
}

// A CRLFile is a file of revocation lists that is replaced while the server runs; that
// must happen before they expire.
type CRLFile struct {
	path    string
	issuers []*x509.Certificate
	log     *slog.Logger

	mu      sync.Mutex
	lists   []*entityauth.CRL
	seen    os.FileInfo
	warned  bool   // about an out-of-date list
	failed  string // why the file could not be read again, as logged
	Checked time.Time
}

// crlEvery is how often a file is checked.
const crlEvery = 10 * time.Second

// OpenCRLs reads the lists for the first time; only then is a faulty list an error. They must
// not be older than those of before, which are in use until now; nil means none are.
func OpenCRLs(setting, path string, issuers []*x509.Certificate, before *CRLFile, log *slog.Logger) (*CRLFile, error) {
	f := &CRLFile{path: path, issuers: issuers, log: log}
	if before != nil {
		f.lists = slices.DeleteFunc(slices.Clone(before.held()), func(list *entityauth.CRL) bool { return !slices.ContainsFunc(issuers, list.SpeaksFor) })
	}
	if err := f.read(); err != nil {
		return nil, exit.Usagef("%s: %w", setting, err)
	}
	return f, nil
}

// held returns the lists in use.
func (f *CRLFile) held() []*entityauth.CRL {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lists
}

// Current returns the current lists. If a new file cannot be read, the old lists stay
// in use until they expire.
func (f *CRLFile) Current() []*entityauth.CRL {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.Checked) < crlEvery {
		return f.lists
	}
	f.tell(f.read())
	f.warn()
	return f.lists
}

// Check reads the file as [CRLFile.Current] does, and returns why it cannot be read again, or
// which list is out of date.
func (f *CRLFile) Check() error {
	f.Current()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != "" {
		return fmt.Errorf("the earlier lists stay in use: %s", f.failed)
	}
	if err := f.outOfDate(); err != nil {
		return fmt.Errorf("%s: %w: its certificates are refused until the file has a newer list", f.path, err)
	}
	return nil
}

// OutOfDate returns an error if the lists of an authority are all out of date.
func (f *CRLFile) OutOfDate() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.outOfDate()
}

func (f *CRLFile) outOfDate() error {
	for _, list := range f.decisive() {
		if err := list.Current(time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// decisive returns of each authority the list that ends last, and one in force rather than others:
// certificates are accepted as long as any list of their authority is in force.
func (f *CRLFile) decisive() (all []*entityauth.CRL) {
	now := time.Now()
	later := func(a, b *entityauth.CRL) int {
		switch inForce := a.Current(now) == nil; {
		case inForce == (b.Current(now) == nil):
			return a.NextUpdate().Compare(b.NextUpdate())
		case inForce:
			return 1
		}
		return -1
	}
	for _, issuer := range f.issuers {
		own := slices.DeleteFunc(slices.Clone(f.lists), func(list *entityauth.CRL) bool { return !list.SpeaksFor(issuer) })
		if len(own) > 0 {
			all = append(all, slices.MaxFunc(own, later))
		}
	}
	return all
}

// Lifetime returns when the list was made that has to be replaced first, when it should be
// replaced by, and when it ends. Authorities replace lists long before they end: one in the last
// tenth of its life, and in its last two weeks, is late.
func (f *CRLFile) Lifetime() (from, due, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, list := range f.decisive() {
		begins, ends := list.ThisUpdate(), list.NextUpdate()
		by := ends.Add(-min(ends.Sub(begins)/10, 14*24*time.Hour))
		if i == 0 || by.Before(due) {
			from, due, until = begins, by, ends
		}
	}
	return from, due, until
}

// tell logs once that the file cannot be read, and that it can be again.
func (f *CRLFile) tell(err error) {
	text := ""
	if err != nil {
		text = exit.OneLine(err)
	}
	switch {
	case text == f.failed || f.log == nil:
	case err != nil:
		f.log.Error("revocation lists cannot be read again: the earlier ones stay in use", "file", f.path, "error", text)
	default:
		f.log.Info("revocation lists can be read again", "file", f.path)
	}
	f.failed = text
}

// warn logs once that lists are out of date: the certificates of their issuer are refused.
func (f *CRLFile) warn() {
	if err := f.outOfDate(); err != nil && f.log != nil && !f.warned {
		f.log.Error("a revocation list cannot be used", "file", f.path, "error", err)
		f.warned = true
	}
}

func (f *CRLFile) read() error {
	f.Checked = time.Now()
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if f.seen != nil && f.seen.ModTime().Equal(info.ModTime()) && f.seen.Size() == info.Size() && os.SameFile(f.seen, info) {
		return nil
	}
	text, err := plainfile.Read(f.path)
	if err != nil {
		return err
	}
	lists, err := parseCRLs(text, f.issuers)
	if err != nil {
		return fmt.Errorf("%s: %w: put the authority's whole list there", f.path, err)
	}
	if err := entityauth.CheckSuccession(f.lists, lists); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.lists, f.seen, f.warned = lists, info, false
	return nil
}

// parseCRLs reads one list in DER, or any number in PEM.
func parseCRLs(text []byte, issuers []*x509.Certificate) ([]*entityauth.CRL, error) {
	if len(text) == 0 {
		return nil, errors.New("the file of revocation lists is empty")
	}
	if !strictpem.Is(text) {
		list, err := entityauth.ParseCRL(text, issuers...)
		return []*entityauth.CRL{list}, err
	}
	blocks, err := strictpem.Decode(text)
	if err != nil {
		return nil, err
	}
	var lists []*entityauth.CRL
	for _, block := range blocks {
		list, err := entityauth.ParseCRL(pem.EncodeToMemory(&block.Block), issuers...)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", block.Line, err)
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, errors.New("it has no PEM block X509 CRL")
	}
	return lists, nil
}
