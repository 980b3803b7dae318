package usermsg

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// newCatalog has the texts of lines like "de 5007 Falsches Kennwort".
func newCatalog(t testing.TB, lines ...string) *Catalog {
	c := &Catalog{}
	for _, line := range lines {
		part := strings.SplitN(line, " ", 3)
		if err := c.Add(part[0], part[1], part[2]); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestLanguages(t *testing.T) {
	c := newCatalog(t, "en 5007 en", "de 5007 de", "pt-PT 5007 pt-PT", "zh-Hant 5007 zh-Hant", "fr 5037 fr")
	long := strings.Repeat("a-", 200) + "de"
	for wanted, want := range map[string]string{
		"": "en", "de": "de", "DE": "de", "de-AT": "de", "de_CH": "de", "de-CH-1996": "de", "pt-BR": "pt-PT", "zh-TW": "zh-Hant",
		"fr": "en", "fr de": "de", "de en": "de", "en de": "en", "fr-CA pt": "pt-PT",
		"* de": "de", "und de": "de", "!! de": "de", "\x00 de": "de", long + " de": "de", "xx-yy de": "de", "tlh": "en",
		strings.Repeat("tlh ", maxLanguages) + "de": "en",
	} {
		if got := c.UserMessage(msl.ErrEmailPasswordIncorrect, strings.Fields(wanted)); got != want {
			t.Errorf("%.40q: %q, want %q", wanted, got, want)
		}
	}
	if got := fmt.Sprint(c.Languages()); got != "[en de pt-PT zh-Hant fr]" {
		t.Error(got)
	}
}

// TestNearLanguages takes another language than those that a user names only where none
// of them is there, and not one that is merely the next best.
func TestNearLanguages(t *testing.T) {
	for _, test := range []struct{ wanted, have, want string }{
		{"uk", "en ru", "en"}, {"uk en", "ru en", "en"}, {"da", "en nb", "nb"}, {"da en", "nb en", "en"}, {"en-GB de", "de en-US", "en-US"},
		{"de-CH", "en de-AT", "de-AT"}, {"zh-TW", "en zh", "zh"}, {"zh-TW en", "zh-Hans en", "en"}, {"hr en", "sr en", "en"}, {"fr-CA en-US", "en-US fr", "fr"},
		{"de-u-co-phonebk", "en de", "de"},
	} {
		c := &Catalog{}
		for _, tag := range strings.Fields(test.have) {
			if err := c.Add(tag, "FAIL", tag); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.UserMessage(&msl.AppError{}, strings.Fields(test.wanted)); got != test.want {
			t.Errorf("%s of %s: %s, want %s", test.wanted, test.have, got, test.want)
		}
	}
}

func TestSubjects(t *testing.T) {
	c := newCatalog(t, "en 5007 by number", "en ENTITY_REVOKED by name", "en 105005 by internalcode", "en 250017 own", "en USERDATA_REAUTH by response", "en FAIL failed", "de FAIL fehlgeschlagen")
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"number":            {msl.ErrEmailPasswordIncorrect, "by number"},
		"wrapped":           {fmt.Errorf("x: %w", msl.Failure(msl.ErrEntityRevoked, "x", nil)), "by name"},
		"the outer code":    {msl.Failure(msl.ErrEntityRevoked, "x", msl.ErrEmailPasswordIncorrect), "by name"},
		"internalcode":      {msl.ErrEmailPasswordBlank, "by internalcode"},
		"response":          {msl.ErrUserRejectedByApp, "by response"},
		"own":               {&msl.AppError{InternalCode: 250017}, "own"},
		"own by response":   {&msl.AppError{InternalCode: 250018, Response: msl.UserDataReauth}, "by response"},
		"own as fail":       {fmt.Errorf("x: %w", &msl.AppError{}), "failed"},
		"own, no such":      {&msl.AppError{Response: 17}, "failed"},
		"own over a code":   {&msl.AppError{Err: msl.ErrEmailPasswordIncorrect}, "failed"},
		"own as MSL's":      {&msl.AppError{InternalCode: 105007}, "by number"},
		"transient":         {msl.Failure(msl.ErrInternalException, "x", keystore.ErrBusy), ""},
		"of no code at all": {errors.New("x"), ""},
	} {
		if got := c.UserMessage(test.err, []string{"en"}); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	// A language that the user reads comes before a text that says more.
	if got := c.UserMessage(&msl.AppError{InternalCode: 250017}, []string{"de"}); got != "fehlgeschlagen" {
		t.Error(got)
	}
}

func TestWrongTexts(t *testing.T) {
	c := newCatalog(t, "en 5007 x")
	for line, want := range map[string]string{
		"e-n 5007 x": "e-n", " 5007 x": "not a language", "und 5007 x": "und", "* 5007 x": "*",
		"de 5006 x": "5006", "de -1 x": "-1", "de 99999 x": "99999", "de 105006 x": "105006", "de 109998 x": "109998", "de 2147483648 x": "2147483648",
		"de NOPE x": "NOPE", "de fail x": "fail", "de 5007 ": "empty",
		"en 5007 y": "two texts", "EN 105007 y": "two texts", "en EMAILPASSWORD_INCORRECT y": "two texts",
	} {
		part := strings.SplitN(line, " ", 3)
		if err := c.Add(part[0], part[1], part[2]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
	}
	if got := c.Languages(); len(got) != 1 {
		t.Errorf("languages without a text: %v", got)
	}
	if (&Catalog{}).UserMessage(msl.ErrEntityRevoked, []string{"en"}) != "" {
		t.Error("a text of an empty catalog")
	}
}

func BenchmarkUserMessage(b *testing.B) {
	c := newCatalog(b)
	for _, tag := range strings.Fields("en de fr es it pt-PT pt-BR nl sv da nb fi pl cs hu ro bg el tr ru uk ja ko zh-Hans zh-Hant ar he th vi id") {
		if err := c.Add(tag, "5007", tag); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		c.UserMessage(msl.ErrEmailPasswordIncorrect, []string{"tlh", "zh-TW", "de"})
	}
}

// FuzzLanguages gives a peer's languages to a catalog: one of the texts comes, whatever
// they are.
func FuzzLanguages(f *testing.F) {
	for _, seed := range []string{"", "de", "zh-Hant-TW", "x-private", "i-klingon", "de-u-co-phonebk", "en-a-bbb-x-a-ccc", "art-lojban", "\xff", "-", "de-"} {
		f.Add(seed, "en")
	}
	c := newCatalog(f, "en 5007 en", "de 5007 de", "zh-Hant 5007 zh")
	f.Fuzz(func(t *testing.T, one, two string) {
		if c.UserMessage(msl.ErrEmailPasswordIncorrect, []string{one, two}) == "" {
			t.Error("no text")
		}
	})
}
