//! What Envoy tells the filter about a client is true, whatever the client sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::Value;

use super::ECHO;
use crate::support::gateway::{Gateway, Options};
use crate::support::process::PATIENCE;
use crate::support::response::Response;
use crate::support::{envoy, http1, http2};

/// A client's address that no database knows.
const UNKNOWN: &str = "192.0.2.7";

/// A route on which the filter is disabled.
const WITHOUT_FILTER: &str = "/static/a";

type Headers<'a> = &'a [(&'a str, &'a [u8])];

/// A gateway behind one proxy, which knows where clients are.
fn gateway(envoy: PathBuf) -> Gateway {
    let edit = |configuration: String| {
        let route = "routes:\n              - match: {prefix: /static/}\n                route: {cluster: authorization_server}\n                \
                     typed_per_filter_config:\n                  dcr_edge: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}\n";
        let log = "json_format:\n                  connecting_address: \"%FILTER_STATE(dcr_edge.connecting_address:PLAIN)%\"\n                  \
                   ja3_state: \"%FILTER_STATE(dcr_edge.ja3:PLAIN)%\"\n                  \
                   ja4_state: \"%FILTER_STATE(dcr_edge.ja4:PLAIN)%\"\n";
        configuration.replacen("routes:\n", route, 1).replacen("json_format:\n", log, 1)
    };
    Gateway::start(Options { envoy, geo: true, trusted_hops: 1, edit: Box::new(edit), ..Options::default() })
}

/// `GET path` from `client` by each protocol on each listener, and what the authorization server saw of it.
fn get_each_way(gateway: &Gateway, client: &str, path: &str, headers: Headers<'_>) -> [(&'static str, Response); 4] {
    let mut all = vec![("x-forwarded-for", client.as_bytes())];
    all.extend_from_slice(headers);
    let bytes = http1::request("GET", path, &all, b"");
    let request = http2::Request { path, headers: &all, ..Default::default() };
    let mut tls = http1::Connection::open_tls(gateway.https_address(), &gateway.ca());
    tls.send(&bytes);
    [
        ("HTTP/1", http1::exchange(gateway.http_address(), &bytes)),
        ("HTTP/1 on TLS", tls.receive()),
        ("HTTP/2", http2::exchange(gateway.http_address(), &request).unwrap()),
        ("HTTP/2 on TLS", http2::exchange_tls(gateway.https_address(), &gateway.ca(), &request).unwrap()),
    ]
}

/// The access log, a line for each request. It is complete when Envoy has stopped, which it does here.
fn access_log(gateway: &mut Gateway) -> Vec<Value> {
    gateway.restart_envoy();
    let log = gateway.envoy_log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|line: &Value| line["request_id"].is_string()).collect()
}

/// The headers of ours that the authorization server got.
fn ours(response: &Response) -> Vec<(String, String)> {
    assert_eq!(response.header(ECHO), Some("echo"), "{response:?}");
    let mut headers: Vec<(String, String)> = serde_json::from_value(response.json()["headers"].clone()).unwrap();
    headers.retain(|(name, _)| name.starts_with("x-dcr-"));
    headers.sort();
    headers
}

fn location(country: &str, region: &str, asn: &str) -> Vec<(String, String)> {
    let headers = [("x-dcr-geo-asn", asn), ("x-dcr-geo-country", country), ("x-dcr-geo-region", region)];
    headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[test]
fn no_header_of_ours_comes_from_a_client_and_none_that_speaks_of_another_request() {
    let forged: Headers<'_> = &[
        ("x-dcr-geo-country", b"XX"),
        ("X-DCR-GEO-REGION", b"XX"),
        ("X-Dcr-Geo-Asn", b"1"),
        ("x-dcr-geo-asn", b"2"),
        ("x-dcr-tenant", b"other"),
        ("X-DCR-Anything", b""),
        ("x-dcr-", b"x"),
        ("x_dcr_geo_country", b"XX"),
    ];
    let of_another_request: Headers<'_> = &[
        ("Forwarded", b"for=192.0.2.1;host=other.test"),
        ("X-Forwarded-Host", b"other.test"),
        ("X-Forwarded-Port", b"1"),
        ("X-Forwarded-Prefix", b"/other"),
        ("X-Forwarded-Server", b"other.test"),
        ("X-Forwarded-Path", b"/other"),
        ("X-Forwarded-Uri", b"/other"),
        ("X-Host", b"other.test"),
        ("X-Original-Uri", b"/other"),
        ("X-Original-Host", b"other.test"),
        ("X-Original-URL", b"/other"),
        ("X-Rewrite-URL", b"/other"),
        ("X-HTTP-Method", b"DELETE"),
        ("X-HTTP-Method-Override", b"DELETE"),
        ("X-Method-Override", b"DELETE"),
    ];
    let sent = [forged, of_another_request].concat();
    for envoy in envoy::matrix() {
        let gateway = gateway(envoy);
        for (client, expected) in [(UNKNOWN, vec![]), ("198.51.100.7", location("CH", "ZH", "64500"))] {
            for path in ["/", "/authorize?x", "/oidc/registers", WITHOUT_FILTER] {
                for (way, response) in get_each_way(&gateway, client, path, &sent) {
                    assert_eq!(ours(&response), expected, "{client} {path} {way}");
                    let echoed = response.json()["headers"].to_string();
                    for (name, _) in of_another_request.iter().chain([&("x_dcr_geo_country", &b""[..])]) {
                        let name = format!("\"{}\"", name.to_ascii_lowercase());
                        assert!(!echoed.contains(&name), "{path} {way}: {name} in {echoed}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_client_cannot_take_a_header_of_ours_away() {
    let gateway = gateway(envoy::binary());
    let headers: Headers<'_> = &[("connection", b"x-dcr-geo-country, X-DCR-Geo-Region, x-dcr-geo-asn")];
    let mut all = vec![("x-forwarded-for", &b"198.51.100.7"[..])];
    all.extend_from_slice(headers);
    let response = http1::exchange(gateway.http_address(), &http1::request("GET", "/", &all, b""));
    assert_eq!(ours(&response), location("CH", "ZH", "64500"));
}

/// A frame of HTTP/2 on the stream of that id (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream];
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads frames up to the first that is an answer to a request; gives its kind, or nothing if the connection ends.
fn kind_of_answer(stream: &mut impl Read) -> Option<u8> {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).ok()?;
        stream.read_exact(&mut vec![0; usize::from(header[1]) << 8 | usize::from(header[2])]).ok()?;
        if matches!(header[3], HEADERS | RST_STREAM | GOAWAY) {
            return Some(header[3]);
        }
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

#[test]
fn a_name_in_capitals_is_no_request_in_http2() {
    const END_OF_STREAM_AND_HEADERS: u8 = 5;
    for envoy in envoy::matrix() {
        let version = envoy.display().to_string();
        let gateway = gateway(envoy);
        for (name, is_request) in [("X-DCR-Geo-Country", false), ("x-dcr-geo-country", true)] {
            // GET http://localhost/ and one more header, in the plainest form of RFC 7541.
            let head = [b"\x82\x86\x84\x01\x09localhost\x00\x11", name.as_bytes(), b"\x02XX"].concat();
            let mut stream = TcpStream::connect(gateway.http_address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            stream.write_all(&frame(SETTINGS, 0, 0, b"")).unwrap();
            stream.write_all(&frame(HEADERS, END_OF_STREAM_AND_HEADERS, 1, &head)).unwrap();
            let answer = kind_of_answer(&mut stream);
            assert_eq!(answer == Some(HEADERS), is_request, "{version} {name}: {answer:?}");
            let requests = gateway.stats("cluster.authorization_server.upstream_rq_total");
            assert_eq!(requests[0].1, u64::from(is_request), "{version} {name}");
        }
    }
}

#[test]
fn a_location_is_that_of_the_address_that_the_trusted_proxy_names() {
    for envoy in envoy::matrix() {
        let gateway = gateway(envoy);
        for (client, expected) in [
            ("198.51.100.7", location("CH", "ZH", "64500")),
            ("203.0.113.255", location("US", "NY", "64501")),
            ("2001:db8:1::5", location("DE", "BE", "64502")),
            ("::ffff:198.51.100.7", location("CH", "ZH", "64500")),
            ("2001:db8:2::5", vec![]),
            (UNKNOWN, vec![]),
            // What stands before it is the client's own word.
            ("198.51.100.7, 203.0.113.1", location("US", "NY", "64501")),
            ("198.51.100.7, 192.0.2.7", vec![]),
        ] {
            for (way, response) in get_each_way(&gateway, client, "/", &[]) {
                assert_eq!(ours(&response), expected, "{client} {way}");
            }
        }
    }
}

#[test]
fn without_a_trusted_proxy_a_client_cannot_choose_its_address() {
    let mut gateway = Gateway::start(Options { geo: true, ..Options::default() });
    for (way, response) in get_each_way(&gateway, "198.51.100.7", "/", &[("x-real-ip", b"198.51.100.7")]) {
        assert_eq!(ours(&response), [], "{way}");
    }
    let lines = access_log(&mut gateway);
    assert_eq!(lines.len(), 4);
    for line in lines {
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
}

#[test]
fn a_connection_has_its_own_address_and_the_fingerprints_of_its_tls() {
    for envoy in envoy::matrix() {
        let version = envoy.display().to_string();
        let mut gateway = gateway(envoy);
        get_each_way(&gateway, "198.51.100.7", "/", &[]);
        let lines = access_log(&mut gateway);
        let (mut in_clear_text, mut ja4) = (0, Vec::new());
        for line in &lines {
            assert_eq!(line["connecting_address"], "127.0.0.1", "{version}");
            assert_eq!(line["ja4_state"], line["ja4"], "{version}");
            match (line["ja3_state"].as_str(), line["ja4"].as_str()) {
                (None, None) => in_clear_text += 1,
                (Some(ja3), Some(of_this)) => {
                    assert!(ja3.len() == 32 && ja3.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}: {line}");
                    ja4.push((line["protocol"].as_str().unwrap(), of_this));
                }
                _ => panic!("{version}: {line}"),
            }
        }
        ja4.sort_unstable();
        let [(protocol_1, ja4_1), (protocol_2, ja4_2)] = ja4[..] else { panic!("{version}: {lines:?}") };
        assert_eq!((in_clear_text, protocol_1, protocol_2), (2, "HTTP/1.1", "HTTP/2"), "{version}");
        // TLS 1.3 over TCP to a named host, and what the client offers by ALPN.
        assert!(ja4_1.starts_with("t13d") && ja4_1[8..].starts_with("h1_"), "{version}: {ja4_1}");
        assert!(ja4_2.starts_with("t13d") && ja4_2[8..].starts_with("h2_"), "{version}: {ja4_2}");
    }
}
