package load

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

// upstreamVariable tells a copy of the benchmark that it is the upstream.
const upstreamVariable = "BENCH_UPSTREAM"

// StartUpstream starts the upstream in a process of its own, so that its work is not counted. main calls BeUpstream
// first.
func StartUpstream() (address string, stop func(), err error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), upstreamVariable+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	in, err := cmd.StdinPipe() // closing it stops the upstream
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

// BeUpstream does not return if this process is the upstream. It takes every notification with as little work as
// possible, or gives its body to take, which may be nil and returns what to answer: "" for 200 without a body.
func BeUpstream(take func(body []byte) (answer string)) {
	if os.Getenv(upstreamVariable) == "" {
		return
	}
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
		go serve(conn, take)
	}
}

func serve(conn net.Conn, take func([]byte) string) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	lines := textproto.NewReader(r)
	var body []byte
	for {
		length, err := readHeader(lines)
		if err != nil {
			return
		}
		if take == nil {
			_, err = r.Discard(length)
		} else {
			body = append(body[:0], make([]byte, length)...)
			if _, err = io.ReadFull(r, body); err == nil {
				if text := take(body); text != "" {
					_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
					if err == nil {
						continue
					}
				}
			}
		}
		if err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// readHeader returns the length of the body.
func readHeader(lines *textproto.Reader) (length int, err error) {
	for {
		line, err := lines.ReadLine()
		if err != nil {
			return 0, err
		}
		if line == "" {
			return length, nil
		}
		if name, value, _ := strings.Cut(line, ":"); len(name) == len("Content-Length") && strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				log.Fatal(err)
			}
		}
	}
}
