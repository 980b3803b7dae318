package stretch

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		cost Cost
		want string
	}{
		"the recommended one":    {Recommended(), ""},
		"of OWASP, most memory":  {Cost{Time: 1, Memory: 46 << 10, Threads: 1}, ""},
		"of OWASP, two passes":   {Cost{Time: 2, Memory: 19 << 10, Threads: 1}, ""},
		"of OWASP, three passes": {Cost{Time: 3, Memory: 12 << 10, Threads: 1}, ""},
		"of OWASP, four passes":  {Cost{Time: 4, Memory: 9 << 10, Threads: 1}, ""},
		"of OWASP, least memory": {Cost{Time: 5, Memory: 7 << 10, Threads: 1}, ""},
		"less, one pass":         {Cost{Time: 1, Memory: 46<<10 - 1, Threads: 1}, "too little: want at least 47104 KiB"},
		"less, two passes":       {Cost{Time: 2, Memory: 19<<10 - 1, Threads: 1}, "too little: want at least 19456 KiB"},
		"less, three passes":     {Cost{Time: 3, Memory: 12<<10 - 1, Threads: 1}, "too little: want at least 12288 KiB"},
		"less, four passes":      {Cost{Time: 4, Memory: 9<<10 - 1, Threads: 1}, "too little: want at least 9216 KiB"},
		"of RFC 9106, first":     {Cost{Time: 1, Memory: 1 << 20, Threads: 4}, ""},
		"the cheapest":           {Cost{Time: 1, Memory: 8, Threads: 1}, "too little"},
		"too few passes":         {Cost{Time: 4, Memory: 7 << 10, Threads: 1}, "too little"},
		"too little memory":      {Cost{Time: 100, Memory: 6 << 10, Threads: 1}, "too little"},
		"none":                   {Cost{}, "not possible"},
		"no time":                {Cost{Memory: 64 << 10, Threads: 4}, "not possible"},
		"no threads":             {Cost{Time: 3, Memory: 64 << 10}, "not possible"},
		"no memory for threads":  {Cost{Time: 3, Memory: 31, Threads: 4}, "not possible"},
		"too much memory":        {Cost{Time: 1, Memory: 1<<20 + 1, Threads: 1}, "not possible"},
		"too many passes":        {Cost{Time: 17, Memory: 1 << 20, Threads: 1}, "not possible"},
		"a product over 2^32":    {Cost{Time: 1 << 22, Memory: 1 << 10, Threads: 1}, "not possible"},
		"too many threads":       {Cost{Time: 1, Memory: 64 << 10, Threads: 65}, "not possible"},
		"PBKDF2":                 {Cost{Iterations: 600_000}, ""},
		"PBKDF2, a little less":  {Cost{Iterations: 599_999}, "too little"},
		"PBKDF2, too much":       {Cost{Iterations: 100_000_001}, "not possible"},
		"both":                   {Cost{Time: 3, Memory: 64 << 10, Threads: 4, Iterations: 600_000}, "not possible"},
	} {
		err := c.cost.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if c.cost.Possible() == (c.want == "not possible") {
			t.Errorf("%s: possible %v", name, c.cost.Possible())
		}
	}
}

// TestKey has the hash of the command argon2 of libargon2 20190702,
// echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -r,
// and a vector of RFC 7914 section 11.
func TestKey(t *testing.T) {
	for _, c := range []struct {
		cost               Cost
		secret, salt, want string
	}{
		{Cost{Time: 2, Memory: 1 << 16, Threads: 1}, "password", "somesalt", "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"},
		{Cost{Iterations: 1}, "passwd", "salt", "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"},
	} {
		if got := c.cost.Key([]byte(c.secret), []byte(c.salt)); hex.EncodeToString(got) != c.want {
			t.Errorf("%v: %x, want %s", c.cost, got, c.want)
		}
	}
}
