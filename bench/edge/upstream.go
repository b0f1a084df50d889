package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// upstreamVariable says to a copy of this program that it is the upstream.
const upstreamVariable = "BENCH_EDGE_UPSTREAM"

// startUpstream starts the upstream in a process of its own, so that its work is not counted.
func startUpstream() (address string, stop func(), err error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), upstreamVariable+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	in, err := cmd.StdinPipe() // its end is the upstream's
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	if _, err := fmt.Fscanln(out, &address); err != nil {
		return "", nil, fmt.Errorf("upstream: %w", err)
	}
	return address, func() {
		_ = in.Close()
		_ = cmd.Wait()
	}, nil
}

// serveUpstream takes every notification with the least of work.
func serveUpstream() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go take(conn)
	}
}

func take(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	lines := textproto.NewReader(r)
	for {
		length, err := readHeader(lines)
		if err != nil {
			return
		}
		if _, err := r.Discard(length); err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// readHeader returns the length of the body.
func readHeader(lines *textproto.Reader) (length int, err error) {
	length = -1
	for {
		line, err := lines.ReadLine()
		if err != nil {
			return 0, err
		}
		if line == "" {
			break
		}
		if name, value, _ := strings.Cut(line, ":"); len(name) == len("Content-Length") && strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				log.Fatal(err)
			}
		}
	}
	if length < 0 {
		log.Fatal("upstream: a request without Content-Length")
	}
	return length, nil
}
