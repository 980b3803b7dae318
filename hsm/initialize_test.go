package hsm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// wantsText is a module in front of another one that wants a text in C_Initialize, as NSS does.
const wantsText = `
#include <dlfcn.h>
#include <string.h>
struct args { void *mutexes[4]; unsigned long flags; const char *text; };
static struct { void *version, *f[68]; } list;
static unsigned long (*real)(struct args *);
static unsigned long initialize(struct args *a)
{
	struct args plain;
	if (!a || !a->text || strcmp(a->text, "dir='here'"))
		return 7; /* CKR_ARGUMENTS_BAD */
	plain = *a;
	plain.text = 0;
	return real(&plain);
}
unsigned long C_GetFunctionList(void **to)
{
	unsigned long (*get)(void **) = dlsym(dlopen(%q, RTLD_NOW), "C_GetFunctionList");
	void *own;
	if (get(&own))
		return 5;
	memcpy(&list, own, sizeof list);
	real = list.f[0];
	list.f[0] = initialize;
	*to = &list;
	return 0;
}
`

// TestInitializeText gives a module the text that it wants in every way into it.
func TestInitializeText(t *testing.T) {
	token := softhsm.Temp(t)
	module := compiled(t, fmt.Sprintf(wantsText, token.Module))
	pin := readPIN(t, token)
	for _, text := range []string{"dir='here'", ""} {
		uri := &hsm.URI{Token: token.Label, ModulePath: module, Initialize: text}
		_, told := hsm.PINsOf(uri)
		_, listed := hsm.Slots(module, text)
		s, opened := hsm.Open(hsm.Config{URI: uri.String(), PIN: token.PIN, Initialize: text})
		if opened == nil {
			s.Close()
		}
		for way, err := range map[string]error{"list": listed, "open": opened, "pins": told, "change": hsm.ChangePIN(uri, hsm.User, pin, pin)} {
			if text != "" && err != nil {
				t.Errorf("%s with the text: %v", way, err)
			}
			if text == "" && (!errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "set keystore.initialize")) {
				t.Errorf("%s without it: %v", way, err)
			}
		}
	}
}
