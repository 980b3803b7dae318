//go:build ignore

// Balance forwards TCP connections to several servers in turn, and skips those that do not
// take them: go run scripts/balance.go READYFILE HOST:PORT... It writes its own address to
// the file.
package main

import (
	"io"
	"log"
	"net"
	"os"
	"sync/atomic"
)

func main() {
	servers := os.Args[2:]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[1]+".part", []byte(l.Addr().String()), 0o600); err != nil {
		log.Fatal(err)
	}
	if err := os.Rename(os.Args[1]+".part", os.Args[1]); err != nil {
		log.Fatal(err)
	}
	var turn atomic.Int64
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go forward(conn, servers, int(turn.Add(1)))
	}
}

// forward connects to the first server that takes the connection, beginning with the one
// whose turn it is.
func forward(from net.Conn, servers []string, turn int) {
	defer from.Close()
	for i := range servers {
		to, err := net.Dial("tcp", servers[(turn+i)%len(servers)])
		if err != nil {
			continue
		}
		defer to.Close()
		go func() {
			io.Copy(to, from)
			to.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(from, to)
		return
	}
}
