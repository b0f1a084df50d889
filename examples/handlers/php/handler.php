<?php
// A handler for what the edge delivers: each notification goes into a file, and then gets its 200.

if (PHP_SAPI === 'cli') { // started by hand: PHP's own server asks this file again for each request
    $server = proc_open([PHP_BINARY, '-q', '-S', getenv('ADDRESS') ?: '127.0.0.1:9001', __FILE__], [], $pipes);
    pcntl_async_signals(true); // at SIGTERM that server breaks off, at SIGINT it finishes what is in hand
    pcntl_signal(SIGTERM, fn () => proc_terminate($server, SIGINT));
    do {
        usleep(20_000);
    } while (($status = proc_get_status($server))['running']);
    exit($status['exitcode']);
}

function keep(string $body): bool
{
    $file = fopen(getenv('FILE') ?: 'notifications.jsonl', 'ab');
    if (!$file || fstat($file)['size'] + strlen($body) > (getenv('MAX_BYTES') ?: 64 << 20)) {
        error_log('full: move the file away and work on it');
        return false;
    }
    // A line end on both sides: a line that a full disk cut short spoils no other one.
    $line = "\n" . preg_replace('/[\r\n]+/', ' ', $body) . "\n";
    return fwrite($file, $line) === strlen($line) && fsync($file) && fclose($file);
}

if (!keep(file_get_contents('php://input'))) { // not now: the edge asks another handler, or this one again
    http_response_code(503);
    header('Retry-After: 5');
}
