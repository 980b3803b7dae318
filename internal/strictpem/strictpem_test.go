package strictpem

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"
)

func block(kind string, headers map[string]string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: bytes.Repeat([]byte{7}, 100)}))
}

// TestDecode returns every block, and leaves none out.
func TestDecode(t *testing.T) {
	a, b := block("A", nil), block("B", map[string]string{"Key": "value"})
	lines := strings.Count(a, "\n")
	for name, tt := range map[string]struct {
		text  string
		types string
		want  string // error
	}{
		"nothing":         {"", "", ""},
		"words":           {"none\n", "", ""},
		"one":             {a, "A", ""},
		"two":             {a + b, "AB", ""},
		"remarks":         {"# A\n" + a + "\n# B\n" + b + "# end\n", "AB", ""},
		"byte order mark": {"\ufeff" + a, "A", ""},
		"mark, and bad":   {"\ufeff" + a[:60], "", "line 1"},
		"lines of DOS":    {strings.ReplaceAll(a+a, "\n", "\r\n"), "AA", ""},
		"no last line":    {strings.TrimSpace(a + b), "AB", ""},
		"joined":          {strings.TrimSpace(a) + a, "", "line 1:"},
		"joined, later":   {b + strings.TrimSpace(a) + a + b, "", "line 8:"},
		"cut off":         {a + b[:60], "", "line 6:"},
		"no beginning":    {a[30:] + b, "", "line 4:"},
		"no beginning, 2": {a + b[30:], "", "line 9:"},
		"no end":          {a[:lines*10] + "\n" + b, "", "line 1:"},
		"damaged":         {a + strings.Replace(a, "BwcH", "B*cH", 1) + b, "", "line 6:"},
		"another end":     {strings.Replace(a, "END A", "END C", 1), "", "line 1:"},
	} {
		all, err := Decode([]byte(tt.text))
		types := ""
		for _, b := range all {
			types += b.Type
			if at := strings.Split(strings.TrimPrefix(tt.text, "\ufeff"), "\n")[b.Line-1]; !strings.HasPrefix(at, "-----BEGIN "+b.Type) {
				t.Errorf("%s: line %d is %q", name, b.Line, at)
			}
		}
		if types != tt.types || (err != nil) != (tt.want != "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %q, %v, want %q, %q", name, types, err, tt.types, tt.want)
		}
	}
}

// FuzzDecode finds what encoding/pem finds, or says that something is damaged.
func FuzzDecode(f *testing.F) {
	f.Add(block("A", nil) + block("B", nil))
	f.Add(block("A", nil)[3:])
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Decode([]byte(text))
		n := 0
		for b, rest := pem.Decode([]byte(strings.TrimPrefix(text, "\ufeff"))); b != nil; b, rest = pem.Decode(rest) {
			n++
		}
		if err == nil && n != len(all) || err != nil && all != nil {
			t.Errorf("%d blocks of %d, %v", len(all), n, err)
		}
	})
}
