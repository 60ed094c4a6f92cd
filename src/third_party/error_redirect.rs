//! The server's own errors on their way to a client (RFC 6749 §4.1.2.1).

use super::authorize::is_same_redirect_uri;
use crate::edge_api::ClientRecord;

/// Longest error code that is shown, in bytes.
const MAX_CODE: usize = 64;

/// The error code of a redirect that sends the user back to the client with an error; `None` if it goes elsewhere, or has
/// no error. A code that is none by its form is `server_error`.
pub fn error_of_redirect(client: &ClientRecord, location: &str) -> Option<String> {
    let base = without_query(location);
    let is_callback = |registered: &str| is_same_redirect_uri(without_query(registered), base);
    if !client.redirect_uris.iter().any(|registered| is_callback(registered)) {
        return None;
    }
    let parameters = location.get(base.len()..)?.split(['?', '#', '&']);
    let code = parameters.into_iter().find_map(|parameter| parameter.strip_prefix("error="))?;
    let is_code = (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    Some(if is_code { code } else { "server_error" }.to_owned())
}

fn without_query(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::client;
    use super::*;

    #[test]
    fn an_error_is_seen_at_the_clients_callback_only() {
        let mut client = client();
        client.redirect_uris =
            ["https://app.example/cb", "https://app.example/q?a=1", "http://127.0.0.1/cb"].map(Box::from).into();
        for (location, error) in [
            ("https://app.example/cb?error=access_denied&state=1", Some("access_denied")),
            ("https://app.example/cb#state=1&error=login_required", Some("login_required")),
            ("https://app.example/q?a=1&error=invalid_scope", Some("invalid_scope")),
            ("http://127.0.0.1:4711/cb?error=x", Some("x")),
            ("https://app.example/cb?error=%3Cscript%3E", Some("server_error")),
            ("https://app.example/cb?error=", Some("server_error")),
            ("https://app.example/cb?code=c&state=error", None),
            ("https://app.example/cb?error_description=x&code=c", None),
            ("https://app.example/cb", None),
            ("https://app.example/cb/x?error=x", None),
            ("https://other.example/cb?error=x", None),
            ("/login?error=x", None),
            ("", None),
        ] {
            assert_eq!(error_of_redirect(&client, location).as_deref(), error, "{location}");
        }
    }
}
