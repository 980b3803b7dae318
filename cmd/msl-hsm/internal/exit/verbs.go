package exit

import "strings"

// withVerbs adds how the command does what a library says to do.
func withVerbs(text string) string {
	for said, how := range map[string]string{
		"the token's security officer sets a new one": " with msl-hsm token pin unblock",
		"the security officer sets the first one":     " with msl-hsm token pin set",
		"the token requires a new PIN first":          ": change it with msl-hsm token pin change",
	} {
		if !strings.Contains(text, said+how) { // a running server has said it
			text = strings.Replace(text, said, said+how, 1)
		}
	}
	return text
}
