//go:build !unix

package secret

import (
	"fmt"
	"os"

	"golang.org/x/term"
)

func readHidden(tty *os.File, prompt string) ([]byte, error) {
	fmt.Fprint(tty, prompt)
	return term.ReadPassword(int(tty.Fd()))
}
