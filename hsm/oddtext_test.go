package hsm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// oddTexts is a module in front of another one whose texts of a token are not padded and not
// UTF-8, with a serial number that may change with each answer.
const oddTexts = `
#include <dlfcn.h>
#include <string.h>
static struct { void *version, *f[68]; } list;
static unsigned long (*real)(unsigned long, unsigned char *);
static unsigned long told;
static unsigned long token_info(unsigned long slot, unsigned char *info)
{
	unsigned long rv = real(slot, info);
	memset(info, 0xff, 32);
	memcpy(info, "odd\n\x1b[31m", 9);
	memset(info + 32, 0, 48);
	memcpy(info + 80, "7\n\x1b[31m\xff", 9);
	info[89] = 'a' + told++ * %d;
	return rv;
}
unsigned long C_GetFunctionList(void **to)
{
	unsigned long (*get)(void **) = dlsym(dlopen(%q, RTLD_NOW), "C_GetFunctionList");
	void *own;
	if (get(&own))
		return 5;
	memcpy(&list, own, sizeof list);
	real = list.f[6];
	list.f[6] = token_info;
	*to = &list;
	return 0;
}
`

// TestOddTexts has a token tell texts that control a terminal: a URI finds the token by them, and
// errors quote them in one line.
func TestOddTexts(t *testing.T) {
	token := softhsm.Temp(t)
	for _, changes := range []int{0, 1} {
		module := compiled(t, fmt.Sprintf(oddTexts, changes, token.Module))
		all, err := hsm.Tokens(module)
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		u := all[0]
		u.Token, u.Serial = "", u.Serial+"x"
		checkLine(t, "no such token", openError(t, hsm.Config{URI: u.String(), PIN: token.PIN}), keystore.ErrNotFound)
		u = all[0]
		u.Serial = ""
		s := open(t, hsm.Config{URI: u.String(), PIN: token.PIN})
		if changes > 0 {
			if err := pkcs11.New(module).Finalize(); err != nil {
				t.Fatal(err)
			}
			_, err := s.List()
			checkLine(t, "another serial number", err, keystore.ErrUnavailable)
			if !strings.Contains(err.Error(), "it was replaced by another token") {
				t.Error(err)
			}
		}
	}
}

func openError(t *testing.T, c hsm.Config) error {
	t.Helper()
	s, err := hsm.Open(c)
	if err == nil {
		s.Close()
	}
	return err
}

func checkLine(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		t.Errorf("%s: %q", what, err)
	}
}
