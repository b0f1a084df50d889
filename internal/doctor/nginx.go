package doctor

// ofNginx are words of an nginx config, each with what to do in a Caddyfile in its place.
var ofNginx = map[string]string{
	"access_log":             "want 'log' in the site; each notification has a record without it",
	"allow":                  "want 'allow 203.0.113.7' in 'ip_filter', which refuses all that is not listed",
	"auth_basic":             "want 'token \"Basic …\"' in 'auth', as webhookUrlToken in the console says it",
	"client_body_timeout":    "want 'read_body 30s' in 'timeouts' of the global option 'servers'",
	"client_header_timeout":  "want 'read_header 10s' in 'timeouts' of the global option 'servers'",
	"client_max_body_size":   "want 'max_body_size 1MiB' in 'validate', which answers 200 to a longer body and keeps it",
	"deny":                   "leave it out: 'ip_filter' refuses all that 'allow' does not list",
	"error_page":             "leave it out: a 200 in place of an error would lose the notification",
	"geo":                    "want 'source green_api_file /etc/green-api/addresses' in 'ip_filter'",
	"if":                     "want 'token {env.GREEN_API_TOKEN}' in 'auth' to test the token, or a matcher on 'green_api'",
	"include":                "want 'import'",
	"ip_hash":                "want 'lb_policy green_api chat' in 'reverse_proxy'",
	"least_conn":             "leave it out: the handler with the fewest requests in flight is asked",
	"limit_req":              "leave it out: GREEN-API has one notification of an instance in flight, and a refusal costs it 60 s",
	"listen":                 "want the port in the site's address, as in 'https://hooks.example.com:8443'",
	"location":               "want a matcher on 'green_api', as in 'green_api /green-api/webhook*'",
	"map":                    "want 'instance 1101000001 {env.TOKEN}' in 'auth' for the token of an instance",
	"proxy_connect_timeout":  "want 'dial_timeout 2s' in 'transport http' of 'reverse_proxy'",
	"proxy_http_version":     "leave it out: connections to handlers are kept",
	"proxy_next_upstream":    "leave it out: other handlers are asked where that is safe, see 'deliver'",
	"proxy_pass":             "want 'reverse_proxy 127.0.0.1:9001 127.0.0.1:9002' with the addresses of your handlers",
	"proxy_read_timeout":     "want 'attempt_timeout 60s' in 'deliver'",
	"proxy_send_timeout":     "want 'attempt_timeout 60s' in 'deliver'",
	"proxy_set_header":       "want 'header_up' in 'reverse_proxy'; Host and X-Forwarded-For are set already",
	"real_ip_header":         "want 'client_ip_headers' beside 'trusted_proxies' in the global option 'servers'",
	"real_ip_recursive":      "want 'trusted_proxies_strict' in the global option 'servers'",
	"resolver":               "want 'dynamic a' in 'reverse_proxy'",
	"return":                 "want 'respond 404' behind the block 'green_api'",
	"server":                 "want a site's address before its braces, or a handler's address in 'reverse_proxy'",
	"server_name":            "want the name in the site's address, as in 'https://hooks.example.com'",
	"set_real_ip_from":       "want 'trusted_proxies static 10.0.0.0/8' and 'trusted_proxies_strict' in the global option 'servers'",
	"ssl_certificate":        "leave it out: a site gets its certificate by itself; for one of your own, 'tls cert.pem key.pem' in the site",
	"ssl_certificate_key":    "leave it out: a site gets its certificate by itself; for one of your own, 'tls cert.pem key.pem' in the site",
	"underscores_in_headers": "leave it out: GREEN-API sends no such header",
	"upstream":               "want its servers in 'reverse_proxy 127.0.0.1:9001 127.0.0.1:9002'",
}

// InsteadOf returns what to do in a Caddyfile in place of a word of nginx's, "" if it is none.
func InsteadOf(word string) string { return ofNginx[word] }
