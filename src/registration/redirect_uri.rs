//! Which URIs a client may register. What passes is kept byte for byte: normalising it would break the exact
//! comparison at the authorization endpoint (RFC 9700 §4.1.3).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use fluent_uri::Uri;

use crate::tenant::{CustomSchemes, DcrEdge, Domain};

/// Longest URI, in bytes.
pub const MAX_BYTES: usize = 2_048;

/// Schemes that reach something other than the client's own application: code, files, mail, other protocols.
/// Every scheme that begins with `ms-` (handlers of Windows and Office) and every scheme of one letter (a Windows
/// drive) is refused beside these.
const DANGEROUS_SCHEMES: &str = "about blob chrome chrome-extension cid content data feed file filesystem ftp \
    gopher intent jar javascript ldap ldaps mailto mhtml mid moz-extension news nntp res resource search-ms sms \
    smsto ssh tel telnet urn vbscript view-source ws wss";

/// Where a redirect URI leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// A web server, over TLS.
    Https,
    /// A server of the application itself, over `http` on the user's own machine (RFC 8252 §7.3).
    Loopback,
    /// An application that has the scheme to itself (RFC 8252 §7.1).
    PrivateUse,
}

/// Checks a redirect URI; the error is the rule it breaks.
pub(super) fn check(text: &str, rules: &DcrEdge) -> Result<Target, &'static str> {
    let uri = parse(text)?;
    if uri.fragment().is_some() {
        return Err("fragment is not allowed");
    }
    if text.contains('*') {
        return Err("* is not allowed: there are no wildcards");
    }
    // The host counts too: an application may read `cursor://../x` as nothing but a path.
    let host = uri.authority().map_or("", |authority| authority.host());
    if uri.path().as_str().split('/').chain([host]).any(has_dot_segment) {
        return Err("dot segments (. and .., also as %2e) are not allowed");
    }
    if let Some((target, host)) = web_target(&uri)? {
        let allowed = &rules.allowed_redirect_hosts;
        if target == Target::Https && !allowed.is_empty() && !allowed.iter().any(|pattern| pattern.matches(host)) {
            return Err("this host is not one of those the tenant allows");
        }
        return Ok(target);
    }
    let scheme = uri.scheme().as_str().to_ascii_lowercase();
    if scheme.len() == 1 || scheme.starts_with("ms-") || DANGEROUS_SCHEMES.split(' ').any(|other| other == scheme) {
        return Err("this scheme is never allowed");
    }
    match &rules.custom_schemes {
        CustomSchemes::ReverseDns if !scheme.contains('.') => {
            return Err("a private-use scheme must be a reversed domain name, such as com.example.app");
        }
        CustomSchemes::List(schemes) if !schemes.iter().any(|allowed| allowed.as_str() == scheme) => {
            return Err("this private-use scheme is not one of those the tenant allows");
        }
        CustomSchemes::Any | CustomSchemes::ReverseDns | CustomSchemes::List(_) => {}
    }
    if uri.path().is_empty() && uri.authority().is_none_or(|authority| authority.as_str().is_empty()) {
        return Err("something must follow the scheme, such as com.example.app:/callback");
    }
    Ok(Target::PrivateUse)
}

/// Checks the address of a page or picture for people: `https`, or `http` on a loopback host. A fragment may be.
pub(super) fn check_page(text: &str) -> Result<&str, &'static str> {
    match web_target(&parse(text)?)? {
        Some(_) => Ok(text),
        None => Err("must be an https URI"),
    }
}

/// What holds for every URI.
fn parse(text: &str) -> Result<Uri<&str>, &'static str> {
    if text.len() > MAX_BYTES {
        return Err("must be at most 2048 bytes");
    }
    if text.bytes().any(|byte| byte == b'\\' || !byte.is_ascii_graphic()) {
        return Err("backslash, space, control and non-ASCII characters are not allowed");
    }
    let uri = Uri::parse(text).map_err(|_| "must be an absolute URI (RFC 3986)")?;
    match uri.authority() {
        Some(authority) if authority.has_userinfo() => Err("user information (before @) is not allowed"),
        _ => Ok(uri),
    }
}

/// Where an `https` or `http` URI leads, and its host as sent; `None` for other schemes.
fn web_target<'a>(uri: &Uri<&'a str>) -> Result<Option<(Target, &'a str)>, &'static str> {
    let scheme = uri.scheme().as_str();
    let is_https = scheme.eq_ignore_ascii_case("https");
    if !is_https && !scheme.eq_ignore_ascii_case("http") {
        return Ok(None);
    }
    let authority = uri.authority();
    let host = authority.map_or("", |authority| authority.host());
    // An empty port (`https://a:/`) says no more than none, in a second spelling.
    if authority.and_then(|a| a.port()).is_some_and(|port| port.as_str().parse::<NonZeroU16>().is_err()) {
        return Err("a port must be from 1 to 65535");
    }
    match (is_https, is_host(host), is_loopback(host)) {
        (true, true, _) => Ok(Some((Target::Https, host))),
        (false, _, true) => Ok(Some((Target::Loopback, host))),
        (true, false, _) => {
            Err("https needs a host: a DNS name (international ones as xn--), an IPv4 address or an IPv6 address in []")
        }
        (false, _, false) => Err("http is allowed only for localhost, 127.0.0.0/8 and [::1]"),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().is_ok();
    }
    // Browsers read a name whose last label is `0x…` as an IPv4 address.
    let last = host.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_number = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    !is_number && host.parse::<Domain>().is_ok()
}

/// Whether a host is the user's own machine. One spelling for each loopback address. `localhost.`, `127.1`, `0x7f.1` or `[::ffff:127.0.0.1]` may lead elsewhere
/// on some machine, and are one more spelling to compare on every other.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a segment is a dot segment, or becomes one for a reader that decodes it first or drops `;` parameters.
fn has_dot_segment(segment: &str) -> bool {
    let decoded = segment.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    decoded.split('/').any(|name| matches!(name.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn with(rules: serde_json::Value) -> DcrEdge {
        serde_json::from_value(rules).unwrap()
    }

    fn default_check(text: &str) -> Result<Target, &'static str> {
        check(text, &DcrEdge::default())
    }

    #[test]
    fn what_real_clients_send_is_accepted() {
        for (uri, target) in [
            ("https://vscode.dev/redirect", Target::Https),
            ("https://claude.ai/api/mcp/auth_callback", Target::Https),
            ("https://app.example.com:8443/cb?tenant=a&x=%20", Target::Https),
            ("HTTPS://App.Example.com/cb", Target::Https),
            ("https://example.com", Target::Https),
            ("https://192.0.2.1/cb", Target::Https),
            ("https://[2001:db8:0::1]/cb", Target::Https),
            ("https://xn--bcher-kva.example/cb", Target::Https),
            ("https://a.example/a.b/..c/...", Target::Https),
            ("https://a.example:00443/", Target::Https),
            ("http://127.0.0.1:33418/", Target::Loopback),
            ("http://127.0.0.1", Target::Loopback),
            ("http://127.255.255.254:1/cb", Target::Loopback),
            ("http://localhost:3334/oauth/callback", Target::Loopback),
            ("http://LocalHost/cb", Target::Loopback),
            ("HTTP://localhost/cb", Target::Loopback),
            ("http://[::1]:65535/cb", Target::Loopback),
            ("cursor://anysphere.cursor-retrieval/oauth/user-abc/callback", Target::PrivateUse),
            ("vscode://vscode.github-authentication/did-authenticate", Target::PrivateUse),
            ("com.example.app:/cb", Target::PrivateUse),
            ("com.example.app:cb", Target::PrivateUse),
            ("com.example.app:/", Target::PrivateUse),
            ("cursor://cb", Target::PrivateUse),
            ("httpx://cb", Target::PrivateUse),
        ] {
            assert_eq!(default_check(uri), Ok(target), "{uri}");
        }
    }

    #[test]
    fn what_is_no_absolute_uri_is_refused() {
        for uri in [
            "",
            "/cb",
            "//a.example/cb",
            "cb",
            ":",
            "1a://b",
            "https",
            "https://a.example/%zz",
            "https://a/[",
            "a^b:/c",
        ] {
            assert_eq!(default_check(uri), Err("must be an absolute URI (RFC 3986)"), "{uri}");
        }
    }

    #[test]
    fn characters_that_readers_disagree_about_are_refused() {
        for uri in [
            "https://a.example\\@b.example/",
            "https://a.example/\\..",
            "https://a.example/a b",
            " https://a.example/",
            "https://a.example/\n",
            "https://a.example/\t",
            "https://a.example/\0",
            "https://a.example/\u{7f}",
            "https://bücher.example/",
            "https://a.example/é",
            "cursor://a\\b",
        ] {
            let rule = "backslash, space, control and non-ASCII characters are not allowed";
            assert_eq!(default_check(uri), Err(rule), "{uri}");
        }
    }

    #[test]
    fn fragments_user_information_wildcards_and_dot_segments_are_refused_in_every_scheme() {
        for base in ["https://a.example", "http://localhost", "cursor://a", "com.example.app:"] {
            for (end, rule) in [
                ("/cb#x", "fragment is not allowed"),
                ("/cb#", "fragment is not allowed"),
                ("/*", "* is not allowed: there are no wildcards"),
                ("/cb?x=*", "* is not allowed: there are no wildcards"),
                ("/.", "dot segments (. and .., also as %2e) are not allowed"),
                ("/a/../b", "dot segments (. and .., also as %2e) are not allowed"),
                ("/a/..", "dot segments (. and .., also as %2e) are not allowed"),
                ("/%2e%2E/b", "dot segments (. and .., also as %2e) are not allowed"),
                ("/.%2e/b", "dot segments (. and .., also as %2e) are not allowed"),
                ("/%2e", "dot segments (. and .., also as %2e) are not allowed"),
                ("/a/..%2fb", "dot segments (. and .., also as %2e) are not allowed"),
                ("/a%5C%2e%2e%5Cb", "dot segments (. and .., also as %2e) are not allowed"),
                ("/a/..;x/b", "dot segments (. and .., also as %2e) are not allowed"),
            ] {
                assert_eq!(default_check(&format!("{base}{end}")), Err(rule), "{base}{end}");
            }
        }
        for uri in ["https://u@a.example/", "https://u:p@a.example/", "https://@a.example/", "cursor://u@a/"] {
            assert_eq!(default_check(uri), Err("user information (before @) is not allowed"), "{uri}");
        }
        for uri in ["cursor://../x", "cursor://%2e%2E", "https://../x"] {
            assert_eq!(default_check(uri), Err("dot segments (. and .., also as %2e) are not allowed"), "{uri}");
        }
        assert_eq!(default_check("https://*.example.com/"), Err("* is not allowed: there are no wildcards"));
    }

    #[test]
    fn https_needs_a_host_that_every_reader_takes_for_the_same() {
        for host in [
            "",
            ":443",
            "a..b",
            "a.example.",
            "-a.example",
            "a%2eexample",
            "%61.example",
            "127.1",
            "2130706433",
            "0x7f000001",
            "a.0X7F",
            "256.0.0.1",
            "01.2.3.4",
            "[v1.fe]",
            "[fe80::1%25en0]",
            "a,b",
            "a!b.example",
        ] {
            let uri = format!("https://{host}/cb");
            let rule = default_check(&uri).unwrap_err();
            assert!(
                rule.starts_with("https needs a host") || rule.starts_with("must be an absolute URI"),
                "{uri}: {rule}"
            );
        }
        for uri in ["https:/cb", "https:cb", "https:", "https://", "https:///cb"] {
            assert!(default_check(uri).unwrap_err().starts_with("https needs a host"), "{uri}");
        }
    }

    #[test]
    fn http_is_for_loopback_hosts_in_one_spelling_each() {
        for host in [
            "",
            "a.example",
            "localhost.",
            "localhost.example",
            "a.localhost",
            "127.1",
            "127.0.0.01",
            "127.0.0.256",
            "0x7f.0.0.1",
            "0x7f.1",
            "2130706433",
            "128.0.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "[::ffff:127.0.0.1]",
            "[0:0:0:0:0:0:0:1]",
            "[::]",
            "[::2]",
            "%6cocalhost",
        ] {
            for scheme in ["http", "HTTP"] {
                let uri = format!("{scheme}://{host}/cb");
                let rule = default_check(&uri).unwrap_err();
                assert_eq!(rule, "http is allowed only for localhost, 127.0.0.0/8 and [::1]", "{uri}");
            }
        }
    }

    #[test]
    fn a_port_is_from_1_to_65535_or_not_there() {
        for port in ["", "0", "65536", "99999999999"] {
            for base in ["https://a.example", "http://localhost"] {
                assert_eq!(default_check(&format!("{base}:{port}/")), Err("a port must be from 1 to 65535"), "{port}");
            }
        }
    }

    #[test]
    fn dangerous_schemes_are_refused_in_any_case() {
        let listed = "about blob chrome chrome-extension cid content data feed file filesystem ftp gopher intent jar \
            javascript ldap ldaps mailto mhtml mid moz-extension news nntp res resource search-ms sms smsto ssh tel \
            telnet urn vbscript view-source ws wss ms-settings ms-word ms-x c x";
        let cased = listed.to_ascii_uppercase();
        for scheme in listed.split(' ').chain(cased.split(' ')) {
            for end in ["://a/cb", ":/cb", ":cb"] {
                assert_eq!(default_check(&format!("{scheme}{end}")), Err("this scheme is never allowed"), "{scheme}");
            }
            let listed = CustomSchemes::List(vec![scheme.to_owned().try_into().unwrap()]);
            let rules = DcrEdge { custom_schemes: listed, ..DcrEdge::default() };
            assert!(check(&format!("{scheme}:/cb"), &rules).is_err(), "{scheme} although the tenant lists it");
        }
    }

    #[test]
    fn a_scheme_alone_is_refused() {
        for uri in ["cursor:", "cursor://", "cursor:?a=b", "cursor://?a"] {
            assert!(default_check(uri).unwrap_err().starts_with("something must follow the scheme"), "{uri}");
        }
    }

    #[test]
    fn a_uri_has_at_most_2048_bytes() {
        let uri = |length: usize| format!("https://a.example/{}", "a".repeat(length - 18));
        assert_eq!(default_check(&uri(2_048)), Ok(Target::Https));
        assert_eq!(default_check(&uri(2_049)), Err("must be at most 2048 bytes"));
    }

    #[test]
    fn allowed_redirect_hosts_bind_https_and_nothing_else() {
        let rules = with(json!({"allowed_redirect_hosts": [".example.com", "one.test", "192.0.2.1"]}));
        for good in
            ["https://a.EXAMPLE.com:1/", "https://One.test/", "https://192.0.2.1/", "http://localhost/", "cursor://x"]
        {
            assert!(check(good, &rules).is_ok(), "{good}");
        }
        for bad in ["https://example.com/", "https://badexample.com/", "https://a.one.test/", "https://[2001:db8::1]/"]
        {
            assert_eq!(check(bad, &rules), Err("this host is not one of those the tenant allows"), "{bad}");
        }
    }

    #[test]
    fn custom_schemes_bind_private_use_schemes_and_nothing_else() {
        let reverse_dns = with(json!({"custom_schemes": "reverse_dns"}));
        let list = with(json!({"custom_schemes": ["Cursor"]}));
        let none = with(json!({"custom_schemes": []}));
        for (uri, expected) in [
            ("com.example.app:/cb", [true, false, false]),
            ("cursor://cb", [false, true, false]),
            ("CURSOR://cb", [false, true, false]),
            ("vscode://cb", [false, false, false]),
            ("https://a.example/", [true, true, true]),
            ("http://localhost/", [true, true, true]),
        ] {
            assert_eq!([&reverse_dns, &list, &none].map(|rules| check(uri, rules).is_ok()), expected, "{uri}");
        }
    }

    #[test]
    fn a_page_is_https_or_loopback_http_with_the_same_hosts() {
        for good in ["https://a.example/#about", "https://a.example/*", "http://localhost:8080/logo.png"] {
            assert_eq!(check_page(good), Ok(good));
        }
        for bad in [
            "http://a.example/",
            "javascript:alert(1)",
            "data:image/png;base64,AA==",
            "cursor://a",
            "https://u@a.example/",
            "https://0x7f000001/",
            "https://",
            "a.example",
            "https://a.example/ü",
        ] {
            assert!(check_page(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = default_check(&text);
            let _ = check_page(&text);
        }

        #[test]
        fn what_is_accepted_has_none_of_the_forbidden_parts(
            text in "(https?|HTTPS|cursor|ms-x|file)://[a-z0-9@:.%\\[\\]*\\\\]{0,12}[a-z0-9/.%#?@* ]{0,12}",
        ) {
            if default_check(&text).is_ok() {
                prop_assert!(!text.contains(['#', '*', '\\', ' ']), "{text}");
                let hierarchy = text.split('?').next().unwrap();
                prop_assert!(!hierarchy.contains("/../") && !hierarchy.ends_with("/.."), "{text}");
                prop_assert!(!text.starts_with("ms-") && !text.starts_with("file"), "{text}");
            }
        }
    }
}
